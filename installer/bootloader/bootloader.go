// Package bootloader puts boot loaders where firmware finds them: extlinux or GRUB for BIOS, shim and GRUB for UEFI, on
// every disk that the layout boots from.
//
// A layout's scheme and the unpacked tree with /boot and the ESP mounted come in. Files on those two file systems go out,
// GRUB's core in BIOS boot partitions, and, as bytes for whoever writes partition tables, the code of the disks' first
// sectors. Package nvram takes the entries of the firmware's boot menu. It never writes to a disk outside of the
// partitions that it is given: nothing here makes a disk bootable before its partition table is there.
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
	"imgbuild/image/layout"
	"imgbuild/installer/tool"
)

// Target is what boot loaders are installed into. Probe needs neither Root, Dir and ESP nor Node.
type Target struct {
	// Dir is where the tree's root is mounted; Root is the same directory.
	Dir  string
	Root *os.Root
	// ESP is the mounted EFI system partition; nil if the scheme has none.
	ESP      *os.Root
	Manifest *image.Manifest
	Scheme   *layout.Scheme
	// Node is the device node of a partition, array or volume.
	Node func(layout.Device) string
	// FSUUID is the UUID of the file system with this mount point, as blkid(8) writes it.
	FSUUID func(mount string) string
	// BootPrefix is the directory of the kernel as boot loaders see it: empty where /boot is a file system of its own, else /boot.
	BootPrefix string
	// Args are the complete arguments of the installed kernel, see Arguments.
	Args []string
	// Run runs extlinux and grub2-mkimage.
	Run tool.Runner
	// Syslinux is the directory with gptmbr.bin and mbr.bin.
	Syslinux string
	// Scratch is a directory for files of the moment, outside of the tree; empty for the system's.
	Scratch string
}

// BootCode is what one disk starts with.
type BootCode struct {
	MBR []byte // for sector 0, at most 440 bytes
	Gap []byte // for the sectors after it, on disks with an MBR partition table
}

// Loader is a boot loader.
type Loader interface {
	// Name is for people.
	Name() string
	// Probe says, without the tree and before anything is written, why this loader cannot be installed: ErrNotInImage
	// where the image does not carry it, any other error where it does and something is missing or cannot be read by it.
	Probe(Target) error
	// Install writes the loader's files. It may be repeated.
	Install(context.Context, Target) error
	// Code is what the disks that the scheme boots from start with, by their names in the scheme, once Install has
	// succeeded and while the tree is still mounted. It is nil for UEFI.
	Code(Target) (map[string]BootCode, error)
	// Revert removes what makes the firmware start what Install wrote. It may be called when Install failed half-way.
	Revert(Target) error
}

// ErrNotInImage is returned by Probe and For when an image does not carry a loader.
var ErrNotInImage = errors.New("the image does not carry this boot loader")

// For returns the loaders that a scheme needs, in the order in which they are installed.
func For(m *image.Manifest, s *layout.Scheme) ([]Loader, error) {
	var out []Loader
	if s.Firmware.HasBIOS() {
		switch {
		case m.Arch != "x86_64":
			return nil, fmt.Errorf("choose boot loaders: machines of architecture %s have no BIOS; give the layout the firmware uefi", m.Arch)
		case s.BIOSLoader == layout.Extlinux && m.BootLoader.Extlinux == nil:
			return nil, fmt.Errorf("choose boot loaders: extlinux: %w; add syslinux-extlinux to the profile, or choose grub", ErrNotInImage)
		case s.BIOSLoader == layout.Extlinux:
			out = append(out, Extlinux{})
		case s.BIOSLoader == layout.GRUB && m.BootLoader.GRUBPC == nil:
			return nil, fmt.Errorf("choose boot loaders: GRUB for BIOS: %w; add grub2-pc to the profile, or choose extlinux", ErrNotInImage)
		case s.BIOSLoader == layout.GRUB:
			out = append(out, GRUBPC{})
		default:
			return nil, fmt.Errorf("choose boot loaders: the disk is to boot with BIOS and the boot loader for that is %q, which is neither extlinux nor grub", s.BIOSLoader)
		}
	}
	if s.Firmware.HasUEFI() {
		if m.BootLoader.GRUB == nil {
			return nil, fmt.Errorf("choose boot loaders: GRUB for UEFI: %w; add grub2-efi-x64 and shim-x64 to the profile", ErrNotInImage)
		}
		out = append(out, GRUB{})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("choose boot loaders: the firmware is %q, which is none of bios, uefi and both", s.Firmware)
	}
	return out, nil
}

// kernel and initramfs are names in /boot.
func kernel(m *image.Manifest) string    { return "vmlinuz-" + m.KernelRelease }
func initramfs(m *image.Manifest) string { return "initramfs-" + m.KernelRelease + ".img" }

// release is the major release of the distribution, 0 if it has none.
func release(m *image.Manifest) int {
	s, _, _ := strings.Cut(m.Distro.Release, ".")
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
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
