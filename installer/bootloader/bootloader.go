// Package bootloader puts boot loaders' files where the firmware finds them: extlinux for BIOS in /boot, GRUB for UEFI
// on the EFI system partition, and an entry in the firmware's boot menu.
//
// An unpacked tree with /boot and the ESP mounted comes in, and what to boot. Files on those two file systems go out.
// It never writes to the disk itself: nothing here makes a disk bootable before its partition table is there.
package bootloader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"imgbuild/image"
	"imgbuild/installer/tool"
)

// Target is an installed tree that a boot loader is put into.
type Target struct {
	// Dir is where the tree's root is mounted; Root is the same directory.
	Dir  string
	Root *os.Root
	// ESP is the mounted EFI system partition; nil if the layout has none.
	ESP      *os.Root
	Manifest *image.Manifest
	// RootUUID and BootUUID are the UUIDs of the file systems of / and of /boot.
	RootUUID, BootUUID string
	// BootPrefix is the directory of the kernel as the boot loader sees it: empty where /boot is a partition of its own.
	BootPrefix string
	// Run runs extlinux.
	Run tool.Runner
	// BootCode is the 440 bytes of MBR code that start the partition with the legacy-boot attribute; nil without extlinux.
	BootCode []byte
}

// Loader is a boot loader.
type Loader interface {
	// Name is for people.
	Name() string
	// Probe says, without the tree and before anything is written, why this loader cannot be installed: ErrNotInImage
	// where the image does not carry it, any other error where it does and something is missing.
	Probe(Target) error
	// Install writes the loader's files. It may be repeated.
	Install(context.Context, Target) error
	// Revert removes what makes the firmware start what Install wrote. It may be called when Install failed half-way.
	Revert(Target) error
}

// ErrNotInImage is returned by Probe when an image does not carry a loader.
var ErrNotInImage = errors.New("the image does not carry this boot loader")

// All are the loaders for the manifest's architecture, whether or not the image carries them.
func All() []Loader { return []Loader{Extlinux{}, GRUB{}} }

// kernel and initramfs are names in /boot.
func kernel(m *image.Manifest) string    { return "vmlinuz-" + m.KernelRelease }
func initramfs(m *image.Manifest) string { return "initramfs-" + m.KernelRelease + ".img" }

// Arguments are the kernel arguments of the installed system, in order.
func Arguments(m *image.Manifest, rootUUID string) []string {
	return append([]string{"root=UUID=" + rootUUID, "ro"}, m.KernelArgs...)
}

// CheckKernel returns an error unless the tree has the kernel and initramfs that its boot loaders will name.
func CheckKernel(root *os.Root, m *image.Manifest) error {
	for _, name := range []string{kernel(m), initramfs(m)} {
		st, err := root.Stat("boot/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write boot loader: the image has no /boot/%s; it was not built completely", name)
		}
		if err != nil {
			return fmt.Errorf("write boot loader: %w", err)
		}
		if !st.Mode().IsRegular() || st.Size() == 0 {
			return fmt.Errorf("write boot loader: /boot/%s of the image is empty or not a file; it was not built completely", name)
		}
	}
	return nil
}

// serialConsole is the last serial console among kernel arguments: its unit and speed in baud (kernel documentation,
// admin-guide/serial-console.rst).
func serialConsole(args []string) (unit, speed int, ok bool) {
	for _, a := range args {
		v, found := strings.CutPrefix(a, "console=ttyS")
		if !found {
			continue
		}
		u, opts, _ := strings.Cut(v, ",")
		n, err := strconv.Atoi(u)
		if err != nil || n < 0 || n > 3 {
			continue // boot loaders know the four classic ports
		}
		unit, speed, ok = n, 9600, true
		digits := strings.IndexFunc(opts, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 0 {
			digits = len(opts)
		}
		if s, err := strconv.Atoi(opts[:digits]); err == nil && s > 0 {
			speed = s
		}
	}
	return unit, speed, ok
}

// title is the name in a boot menu.
func title(m *image.Manifest) string {
	name := m.Distro.Name
	if name == "" {
		name = m.Name
	}
	return fmt.Sprintf("%s (%s)", oneLine(name), m.KernelRelease)
}

// oneLine keeps a name from becoming a command in a configuration file.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune(`"'\${}`, r) || r == 0x7f {
			return -1
		}
		return r
	}, s)
}
