// Package target makes an unpacked tree the system of one machine: fstab, arrays, kernel arguments, boot loader entries, the
// machine-id, and what keeps boot loaders right when the system updates its kernel.
//
// A tree comes in as an os.Root with all its file systems mounted, and what the installer knows about the disks. Small files go
// out. It never leaves the tree, never follows a link out of it, and never runs anything of it. Keys and seeds are left to the
// system's first boot.
package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/layout"
)

// IDs are the identifiers of what a scheme's devices hold, chosen before anything was made.
type IDs interface {
	// FS is a file system's or swap space's UUID, as blkid and fstab write it.
	FS(layout.Device) string
	// Array is an array's UUID, as mdadm.conf writes it.
	Array(name string) string
}

// Config is what the tree is told.
type Config struct {
	Manifest *image.Manifest
	// Raw and Signature are the manifest as it was fetched; they are kept in /var/lib/imgbuild.
	Raw, Signature []byte
	Scheme         *layout.Scheme
	IDs            IDs
	// Args are all of the kernel's arguments, with root= and what finds it.
	Args []string
	// BootPrefix is the directory of kernels in the file system that holds /boot: empty where /boot is one of its own.
	BootPrefix string
	// MachineID is 32 hex digits; empty for a new random one. It is set here and not at the first boot because boot loader
	// entries are named by it: the system finds and removes our entry when it removes our kernel.
	MachineID string
}

// Configure writes everything.
func Configure(root *os.Root, c Config) error {
	w, err := newWriter(root)
	if err == nil {
		if c.MachineID == "" {
			c.MachineID = newMachineID()
		}
		err = c.configure(w)
	}
	if err != nil {
		return fmt.Errorf("configure installed system: %w", err)
	}
	return nil
}

func (c Config) configure(w *writer) error {
	m := c.Manifest
	files := []file{
		{"etc/fstab", Fstab(m, c.Scheme.Filesystems(), c.IDs), 0o644},
		{"etc/machine-id", c.MachineID + "\n", 0o444},
		{"var/lib/imgbuild/" + image.ManifestFile, string(c.Raw), 0o644},
		{"var/lib/imgbuild/" + image.SignatureFile, string(c.Signature), 0o644},
	}
	if len(c.Scheme.Arrays) > 0 {
		files = append(files, file{"etc/mdadm.conf", mdadmConf(m, c.Scheme.Arrays, c.IDs), 0o644})
	}
	for _, f := range files {
		if err := w.replace(f.name, []byte(f.data), meta{mode: f.mode}); err != nil {
			return err
		}
	}
	// With this file LVM sees the devices that it names and no others (lvmdevices(8)); those were another machine's. Without it, as
	// in an image, LVM sees all.
	if err := w.remove("etc/lvm/devices/system.devices"); err != nil {
		return err
	}
	return errors.Join(c.bootConfig(w), c.updates(w))
}

// file is a file of the tree; mode is for one that is not there yet.
type file struct {
	name string
	data string
	mode fs.FileMode
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

const selinux = "security.selinux"

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
