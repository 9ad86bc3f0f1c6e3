package bootloader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/image/layout"
)

// Extlinux is a BIOS boot loader (Syslinux 4 to 6). The code in sector 0 starts the boot sector of the partition with the
// legacy-boot attribute or active flag, which loads ldlinux.sys from the file system in it.
type Extlinux struct{}

const extlinuxDir = "boot/extlinux"

// maxAppend is the longest command line, in bytes, that x86 kernels take (COMMAND_LINE_SIZE less its end).
const maxAppend = 2047

// maxMBR is the code area of sector 0: what follows belongs to partition tables.
const maxMBR = 440

// Name implements Loader.
func (Extlinux) Name() string { return "extlinux (BIOS)" }

// Probe implements Loader.
func (Extlinux) Probe(t Target) error {
	m := t.Manifest
	if m.BootLoader.Extlinux == nil || m.Arch != "x86_64" {
		return ErrNotInImage
	}
	if _, err := t.Run.Find("extlinux"); err != nil {
		return fmt.Errorf("prepare extlinux: %w", err)
	}
	if err := checkBIOSDisks(t.Scheme); err != nil {
		return fmt.Errorf("prepare extlinux: %w", err)
	}
	if _, err := (Extlinux{}).Code(t); err != nil {
		return err
	}
	if err := extlinuxReads(t.Scheme); err != nil {
		return fmt.Errorf("prepare extlinux: %w", err)
	}
	if n := len(strings.Join(t.Args, " ")); n > maxAppend {
		return fmt.Errorf("prepare extlinux: the kernel arguments have %d bytes and x86 kernels take %d", n, maxAppend)
	}
	return nil
}

// extlinuxReads returns an error if extlinux cannot read /boot where the scheme puts it: it knows partitions with a file
// system that begins where they begin, and neither LVM nor striped arrays. XFS has its superblock where boot sectors are;
// extlinux's is 2 KiB further on there, which mbr.bin knows and gptmbr.bin does not.
func extlinuxReads(s *layout.Scheme) error {
	f := s.Boot()
	if f == nil {
		return errors.New("the layout mounts nothing at /")
	}
	if f.FS != "ext4" && f.FS != "xfs" {
		return fmt.Errorf("/boot is on %s and extlinux reads ext4 and XFS; give the layout an ext4 /boot, or choose grub", f.FS)
	}
	holders := []layout.Device{f.Device}
	if _, _, ok := volumeOf(f.Device); ok {
		return fmt.Errorf("/boot is on the logical volume %s and extlinux does not read LVM; give the layout a partition for /boot, or choose grub", f.Device)
	}
	if name, ok := arrayOf(f.Device); ok {
		a := array(s, name)
		if a == nil {
			return fmt.Errorf("/boot is on the array %s, which the scheme does not have", name)
		}
		if a.Level != 1 {
			return fmt.Errorf("/boot is on the array %s of level %d and extlinux reads level 1; change the level, or choose grub", name, a.Level)
		}
		if a.Metadata != "1.0" {
			return fmt.Errorf("/boot is on the array %s with metadata %s at the members' beginning, where extlinux's boot sector has to be; use metadata 1.0, or choose grub", name, a.Metadata)
		}
		holders = a.Members
	}
	for _, d := range bootDisks(s) {
		if f.FS == "xfs" && d.Table == layout.GPT {
			return fmt.Errorf("/boot is on XFS on a GPT disk, %s, and Syslinux starts XFS from MBR disks only; give the layout an ext4 /boot, or choose grub", d.Path)
		}
		if !slices.ContainsFunc(d.Parts, func(p layout.Part) bool { return p.LegacyBoot && slices.Contains(holders, part(d, p)) }) {
			return fmt.Errorf("%s is to boot and has no partition for /boot with the legacy-boot attribute or active flag", d.Path)
		}
	}
	return nil
}

// Install implements Loader.
func (Extlinux) Install(ctx context.Context, t Target) error {
	boot, err := t.bootFS()
	if err == nil {
		err = extlinuxCanRead(t.Node(boot.Device), boot.FS)
	}
	if err == nil {
		err = mkdirs(t.Root, extlinuxDir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("write extlinux: %w", err)
	}
	for _, m := range t.Manifest.BootLoader.Extlinux.Modules {
		if err := copyFile(t.Root, rel(m), t.Root, path.Join(extlinuxDir, path.Base(m))); err != nil {
			return fmt.Errorf("write extlinux: %w", err)
		}
	}
	if err := writeFile(t.Root, rel(extlinuxFile), []byte(extlinuxConf(t)), 0o644); err != nil {
		return fmt.Errorf("write extlinux: %w", err)
	}
	// ldlinux.sys is written by extlinux, which also tells the partition's boot sector where it lies. On an array both are on
	// every member, at the same place.
	argv := []string{"extlinux", "--install"}
	if _, ok := arrayOf(boot.Device); ok {
		argv = append(argv, "--raid") // a disk that cannot be read falls back to the next
	}
	if err := t.Run.Run(ctx, nil, append(argv, filepath.Join(t.Dir, extlinuxDir))...); err != nil {
		return fmt.Errorf("write extlinux: %w", err)
	}
	if _, err := t.Root.Stat(extlinuxDir + "/ldlinux.sys"); err != nil {
		return fmt.Errorf("write extlinux: the extlinux program reported success and ldlinux.sys is not there: %w", err)
	}
	return nil
}

// Code implements Loader.
func (Extlinux) Code(t Target) (map[string]BootCode, error) {
	out := map[string]BootCode{}
	for _, d := range bootDisks(t.Scheme) {
		name := "gptmbr.bin"
		if d.Table == layout.MBR {
			name = "mbr.bin"
		}
		b, err := os.ReadFile(filepath.Join(t.Syslinux, name))
		if err != nil {
			return nil, fmt.Errorf("prepare extlinux: %w; rebuild the release", err)
		}
		if len(b) == 0 || len(b) > maxMBR {
			return nil, fmt.Errorf("prepare extlinux: the MBR code %s has %d bytes and not 1 to %d", name, len(b), maxMBR)
		}
		out[d.Name] = BootCode{MBR: b}
	}
	return out, nil
}

// Revert implements Loader: without its configuration extlinux boots nothing.
func (Extlinux) Revert(t Target) error {
	if err := removeFile(t.Root, rel(extlinuxFile)); err != nil {
		return fmt.Errorf("remove extlinux: %w", err)
	}
	return nil
}

// extlinuxConf waits three seconds at a prompt, as a serial console has no shift key to ask for one. SERIAL has to be
// the first directive.
func extlinuxConf(t Target) string {
	m := t.Manifest
	var b strings.Builder
	if unit, speed, ok := serialConsole(t.Args); ok {
		fmt.Fprintf(&b, "SERIAL %d %d\n", unit, speed)
	}
	fmt.Fprintf(&b, "# Written by imgbuild when %s %s was installed.\n", m.Name, m.Version)
	fmt.Fprintf(&b, "DEFAULT linux\nPROMPT 1\nTIMEOUT 30\n\nLABEL linux\n  MENU LABEL %s\n", title(m))
	fmt.Fprintf(&b, "  LINUX %s/%s\n", t.BootPrefix, kernel(m))
	fmt.Fprintf(&b, "  INITRD %s/%s\n", t.BootPrefix, initramfs(m))
	fmt.Fprintf(&b, "  APPEND %s\n", strings.Join(t.Args, " "))
	return b.String()
}
