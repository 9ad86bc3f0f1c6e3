// Package target makes an unpacked tree the system of one disk: fstab, kernel arguments, an empty machine-id, and the
// EFI system partition's files where they belong.
//
// A tree comes in as an os.Root with /boot mounted, and what the installer knows about the disk. Small files go out. It
// never leaves the tree, never follows a link out of it, and never writes what identifies one machine: keys, seeds and
// the machine-id are made at first boot.
package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/installer/bootloader"
)

// FileSystem is one line of fstab.
type FileSystem struct {
	UUID, Mount, FS, Options string
}

// Config is what the tree is told.
type Config struct {
	Manifest *image.Manifest
	// Raw and Signature are the manifest as it was fetched; they are kept in /var/lib/imgbuild.
	Raw, Signature []byte
	FileSystems    []FileSystem
	RootUUID       string
	// BootPrefix is the directory of kernels in the file system that holds /boot.
	BootPrefix string
}

type file struct {
	name string
	data string
	mode fs.FileMode
}

// Configure writes everything.
func Configure(root *os.Root, c Config) error {
	m := c.Manifest
	files := []file{
		{"etc/fstab", Fstab(m, c.FileSystems), 0o644},
		{"etc/machine-id", "", 0o444},
		{"var/lib/imgbuild/" + image.ManifestFile, string(c.Raw), 0o644},
		{"var/lib/imgbuild/" + image.SignatureFile, string(c.Signature), 0o644},
	}
	args := strings.Join(bootloader.Arguments(m, c.RootUUID), " ")
	if major(m.Distro.Release) >= 8 {
		// What kernel-install and grubby take a later kernel's arguments from.
		if err := removeEntries(root, m); err != nil {
			return err
		}
		files = append(files,
			file{"etc/kernel/cmdline", args + "\n", 0o644},
			file{entriesDir + "/" + anyMachine + "-" + m.KernelRelease + ".conf", bls(m, c.BootPrefix, args), 0o644})
	}
	if m.BootLoader.GRUB != nil {
		old, err := root.ReadFile("etc/default/grub")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("configure installed system: %w", err)
		}
		files = append(files, file{"etc/default/grub", defaultGrub(string(old), strings.Join(m.KernelArgs, " ")), 0o644})
	}
	for _, f := range files {
		if err := write(root, f.name, []byte(f.data), f.mode); err != nil {
			return fmt.Errorf("configure installed system: %w", err)
		}
	}
	return nil
}

// major is the number that a release starts with, 0 if it starts with none.
func major(release string) int {
	s, _, _ := strings.Cut(release, ".")
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// Fstab is /etc/fstab, the root first and every mount point before those below it.
func Fstab(m *image.Manifest, list []FileSystem) string {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b FileSystem) int { return strings.Compare(a.Mount, b.Mount) })
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by imgbuild when %s %s was installed. See fstab(5).\n", m.Name, m.Version)
	for _, f := range list {
		opts := f.Options
		if opts == "" {
			opts = "defaults"
		}
		dump, pass := 0, 2
		switch {
		case f.FS == "xfs":
			pass = 0
		case f.Mount == "/":
			dump, pass = 1, 1
		case f.FS == "ext4":
			dump = 1
		}
		fmt.Fprintf(&b, "UUID=%s %s %s %s %d %d\n", f.UUID, f.Mount, f.FS, opts, dump, pass)
	}
	return b.String()
}

const (
	entriesDir = "boot/loader/entries"
	// anyMachine stands for the machine-id in images that are not any machine's yet.
	anyMachine = "ffffffffffffffffffffffffffffffff"
)

// bls is a Boot Loader Specification entry.
func bls(m *image.Manifest, prefix, args string) string {
	name := m.Distro.Name
	if name == "" {
		name = m.Name
	}
	return fmt.Sprintf("title %s (%s)\nversion %s\nlinux %s/vmlinuz-%s\ninitrd %s/initramfs-%s.img\noptions %s\n",
		strings.Join(strings.Fields(name), " "), m.KernelRelease, m.KernelRelease, prefix, m.KernelRelease, prefix, m.KernelRelease, args)
}

// removeEntries drops entries for our kernel that the build made under a machine-id that no machine has.
func removeEntries(root *os.Root, m *image.Manifest) error {
	list, err := fs.ReadDir(root.FS(), entriesDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("configure installed system: %w", err)
	}
	for _, e := range list {
		id, rest, ok := strings.Cut(e.Name(), "-")
		if ok && id != anyMachine && rest == m.KernelRelease+".conf" {
			if err := root.Remove(path.Join(entriesDir, e.Name())); err != nil {
				return fmt.Errorf("configure installed system: %w", err)
			}
		}
	}
	return nil
}

// defaultGrub sets GRUB_CMDLINE_LINUX in /etc/default/grub, without root=, which grub2-mkconfig adds itself.
func defaultGrub(old, args string) string {
	const key = "GRUB_CMDLINE_LINUX="
	line := key + `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(args) + "\"\n"
	var b strings.Builder
	done := false
	for l := range strings.Lines(old) {
		if strings.HasPrefix(l, key) {
			if !done {
				b.WriteString(line)
			}
			done = true
			continue
		}
		b.WriteString(l)
	}
	if !done {
		if s := b.String(); s != "" && !strings.HasSuffix(s, "\n") {
			b.WriteString("\n")
		}
		b.WriteString(line)
	}
	return b.String()
}

// write replaces a file. One that is there keeps its owner, mode and SELinux label; a new one inherits the label of its
// directory, which is what the kernel would give it if a policy were loaded.
func write(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	if err := mkdirs(root, path.Dir(name)); err != nil {
		return err
	}
	st, err := root.Lstat(name)
	fresh := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !fresh:
		return err
	case err == nil && !st.Mode().IsRegular():
		if err := root.Remove(name); err != nil {
			return err
		}
		fresh = true
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && fresh {
		err = errors.Join(f.Chmod(mode), inherit(root, path.Dir(name), f))
	}
	return errors.Join(err, f.Close())
}

func mkdirs(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if _, err := root.Stat(dir); err == nil {
		return nil
	}
	if err := mkdirs(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Chmod(0o755), inherit(root, path.Dir(dir), d), d.Close())
}

const selinux = "security.selinux"

// inherit gives f the SELinux label of the directory dir, if that has one.
func inherit(root *os.Root, dir string, f *os.File) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	label, err := getLabel(d)
	if err != nil || label == nil {
		return err
	}
	if err := unix.Fsetxattr(int(f.Fd()), selinux, label, 0); err != nil {
		return fmt.Errorf("label %s: %w", f.Name(), err)
	}
	return nil
}

// getLabel returns nil where there is no label.
func getLabel(f *os.File) ([]byte, error) {
	b := make([]byte, 1024)
	n, err := unix.Fgetxattr(int(f.Fd()), selinux, b)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read label of %s: %w", f.Name(), err)
	}
	return b[:n], nil
}

// Attributes are what a mount point shows before something is mounted on it.
type Attributes struct {
	mode     fs.FileMode
	uid, gid uint32
	label    []byte
}

// TakeAttributes reads the attributes of a mounted file system's root, the directory name of root.
func TakeAttributes(root *os.Root, name string) (Attributes, error) {
	d, err := root.Open(name)
	if err != nil {
		return Attributes{}, fmt.Errorf("read attributes of /%s: %w", name, err)
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return Attributes{}, fmt.Errorf("read attributes of /%s: %w", name, err)
	}
	label, err := getLabel(d)
	return Attributes{fs.FileMode(st.Mode & 0o777), st.Uid, st.Gid, label}, err
}

// GiveAttributes puts them on the mount point when that file system is no longer mounted: SELinux asks the directory
// below for its label when the system mounts again.
func GiveAttributes(root *os.Root, name string, a Attributes) error {
	d, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("set attributes of /%s: %w", name, err)
	}
	defer d.Close()
	err = errors.Join(d.Chmod(a.mode), d.Chown(int(a.uid), int(a.gid)))
	if err == nil && a.label != nil {
		err = unix.Fsetxattr(int(d.Fd()), selinux, a.label, 0)
	}
	if err != nil {
		return fmt.Errorf("set attributes of /%s: %w", name, err)
	}
	return nil
}
