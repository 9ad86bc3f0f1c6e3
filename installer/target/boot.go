package target

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"imgbuild/image/layout"
	"imgbuild/image/within"
)

// newMachineID is a random machine-id as systemd makes it: machine-id(5).
func newMachineID() string { return strings.ReplaceAll(uuid.NewString(), "-", "") }

const (
	entriesDir = "boot/loader/entries"
	// cmdlineFile is where kernel-install, and so every later kernel, has its arguments from.
	cmdlineFile = "etc/kernel/cmdline"
)

// bootConfig writes what the system's own tools make a later kernel's boot loader entry from, and the entry of the first.
func (c Config) bootConfig(w *writer) error {
	m := c.Manifest
	el := major(m.Distro.Release)
	if err := c.grubDefaults(w, el); err != nil {
		return err
	}
	if el >= 8 {
		if err := c.entries(w); err != nil {
			return err
		}
	}
	if !w.exists("etc/sysconfig/kernel") {
		pkg := "kernel-core"
		if el < 8 {
			pkg = "kernel"
		}
		text := "# Whether a new kernel becomes the default.\nUPDATEDEFAULT=yes\n\n# The package whose kernels may become the default.\nDEFAULTKERNEL=" + pkg + "\n"
		if err := w.write("etc/sysconfig/kernel", []byte(text), meta{mode: 0o644}); err != nil {
			return err
		}
	}
	// Last: where /etc/default/grub is newer, the next kernel's installation makes GRUB's configuration anew.
	return w.replace(cmdlineFile, []byte(strings.Join(c.Args, " ")+"\n"), meta{mode: 0o644})
}

// usesGRUB reports whether GRUB starts this machine, by either firmware.
func (c Config) usesGRUB() bool {
	return c.Manifest.BootLoader.GRUB != nil && c.Scheme.Firmware.HasUEFI() || c.Scheme.BIOSLoader == layout.GRUB
}

// entry is a Boot Loader Specification entry as EL's kernel-install makes it.
func (c Config) entry() string {
	m := c.Manifest
	name := m.Distro.Name
	if name == "" {
		name = m.Name
	}
	text := fmt.Sprintf("title %s (%s)\nversion %s\nlinux %s/vmlinuz-%s\ninitrd %s/initramfs-%s.img\noptions %s\n",
		strings.Join(strings.Fields(name), " "), m.KernelRelease, m.KernelRelease, c.BootPrefix, m.KernelRelease, c.BootPrefix, m.KernelRelease,
		strings.Join(c.Args, " "))
	if m.Distro.ID != "" {
		text += "grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class " + m.Distro.ID + "\n"
	}
	return text
}

var entryName = regexp.MustCompile(`^([0-9a-f]{32})-(.+)\.conf$`)

// entries writes our kernel's entry. What the build made of other kernels gets this machine's name and arguments: it was made
// under a machine-id that no machine has, for a root that is not there.
func (c Config) entries(w *writer) error {
	dir, err := within.Resolve(w.root, entriesDir, true)
	if err != nil {
		return err
	}
	list, err := fs.ReadDir(w.root.FS(), dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ours := c.MachineID + "-" + c.Manifest.KernelRelease + ".conf"
	if err := w.write(path.Join(entriesDir, ours), []byte(c.entry()), meta{mode: 0o644}); err != nil {
		return err
	}
	for _, e := range list {
		parts := entryName.FindStringSubmatch(e.Name())
		if parts == nil || e.Name() == ours {
			continue
		}
		old := path.Join(entriesDir, e.Name())
		if parts[2] != c.Manifest.KernelRelease {
			text, err := w.read(old)
			if err != nil {
				return err
			}
			if err := w.write(path.Join(entriesDir, c.MachineID+"-"+parts[2]+".conf"), c.withArgs(text), meta{mode: 0o644}); err != nil {
				return err
			}
		}
		if parts[1] != c.MachineID {
			if err := w.root.Remove(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// withArgs replaces the kernel arguments of an entry.
func (c Config) withArgs(entry []byte) []byte {
	var b bytes.Buffer
	for line := range strings.Lines(string(entry)) {
		if key, _, _ := strings.Cut(strings.TrimRight(line, "\n"), " "); key != "options" {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	fmt.Fprintf(&b, "options %s\n", strings.Join(c.Args, " "))
	return b.Bytes()
}

// grubDefaults writes /etc/default/grub, from which grub2-mkconfig makes GRUB's configuration when an administrator asks for
// that, and by which the system's tools know that kernels are entries.
func (c Config) grubDefaults(w *writer, el int) error {
	const name = "etc/default/grub"
	if !c.usesGRUB() && !w.exists(name) {
		return nil
	}
	old, err := w.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		old = []byte("GRUB_TIMEOUT=3\nGRUB_DISTRIBUTOR=\"$(sed 's, release .*$,,g' /etc/system-release)\"\nGRUB_DEFAULT=saved\nGRUB_DISABLE_SUBMENU=true\nGRUB_DISABLE_RECOVERY=\"true\"\n")
	} else if err != nil {
		return err
	}
	text := setShell(string(old), "GRUB_CMDLINE_LINUX", strings.Join(withoutRoot(c.Args), " "))
	if el >= 8 {
		text = setShell(text, "GRUB_ENABLE_BLSCFG", "true")
	}
	return w.replace(name, []byte(text), meta{mode: 0o644})
}

// withoutRoot leaves out what grub2-mkconfig adds by itself.
func withoutRoot(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "root=") || a == "ro" || a == "rw" })
}

// setShell sets a variable in a file of shell assignments; all else stays as it is.
func setShell(old, key, value string) string {
	line := key + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value) + "\"\n"
	var b strings.Builder
	done := false
	for l := range strings.Lines(old) {
		if strings.HasPrefix(l, key+"=") {
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
