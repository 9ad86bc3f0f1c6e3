package bootloader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"imgbuild/image"
)

// Extlinux is the BIOS boot loader (Syslinux 4 to 6).
type Extlinux struct{}

const extlinuxDir = "boot/extlinux"

// maxAppend is the longest command line, in bytes, that x86 kernels take (COMMAND_LINE_SIZE less its end).
const maxAppend = 2047

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
	if n := len(t.BootCode); n == 0 || n > 440 {
		return fmt.Errorf("prepare extlinux: the MBR code gptmbr.bin has %d bytes and not 1 to 440", n)
	}
	if fs := bootFS(m.FixedLayout); fs != "ext4" {
		return fmt.Errorf("prepare extlinux: /boot is on %s and extlinux reads ext4; give the layout an ext4 /boot", fs)
	}
	if n := len(strings.Join(Arguments(m, strings.Repeat("x", 36)), " ")); n > maxAppend {
		return fmt.Errorf("prepare extlinux: the kernel arguments have %d bytes and x86 kernels take %d", n, maxAppend)
	}
	return nil
}

// bootFS is the file system that holds /boot.
func bootFS(l image.Layout) string {
	fs := ""
	for _, p := range l.Partitions {
		switch p.Mount {
		case "/boot":
			return p.FS
		case "/":
			fs = p.FS
		}
	}
	return fs
}

// Install implements Loader.
func (Extlinux) Install(ctx context.Context, t Target) error {
	if err := t.Root.MkdirAll(extlinuxDir, 0o755); err != nil {
		return fmt.Errorf("write extlinux: %w", err)
	}
	for _, m := range t.Manifest.BootLoader.Extlinux.Modules {
		if err := copyFile(t.Root, rel(m), t.Root, path.Join(extlinuxDir, path.Base(m))); err != nil {
			return fmt.Errorf("write extlinux: %w", err)
		}
	}
	if err := t.Root.WriteFile(extlinuxDir+"/extlinux.conf", []byte(extlinuxConf(t)), 0o644); err != nil {
		return fmt.Errorf("write extlinux: %w", err)
	}
	// ldlinux.sys is written by extlinux, which also tells the partition's boot sector where it lies.
	if err := t.Run.Run(ctx, nil, "extlinux", "--install", filepath.Join(t.Dir, extlinuxDir)); err != nil {
		return fmt.Errorf("write extlinux: %w", err)
	}
	if _, err := t.Root.Stat(extlinuxDir + "/ldlinux.sys"); err != nil {
		return fmt.Errorf("write extlinux: the extlinux program reported success and ldlinux.sys is not there: %w", err)
	}
	return nil
}

// Revert implements Loader: without its configuration extlinux boots nothing.
func (Extlinux) Revert(t Target) error {
	if err := t.Root.Remove(extlinuxDir + "/extlinux.conf"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove extlinux: %w", err)
	}
	return nil
}

// extlinuxConf waits three seconds at a prompt, as a serial console has no shift key to ask for one. SERIAL has to be
// the first directive.
func extlinuxConf(t Target) string {
	m := t.Manifest
	var b strings.Builder
	if unit, speed, ok := serialConsole(m.KernelArgs); ok {
		fmt.Fprintf(&b, "SERIAL %d %d\n", unit, speed)
	}
	fmt.Fprintf(&b, "# Written by imgbuild when %s %s was installed.\n", m.Name, m.Version)
	fmt.Fprintf(&b, "DEFAULT linux\nPROMPT 1\nTIMEOUT 30\n\nLABEL linux\n  MENU LABEL %s\n", title(m))
	fmt.Fprintf(&b, "  LINUX %s/%s\n", t.BootPrefix, kernel(m))
	fmt.Fprintf(&b, "  INITRD %s/%s\n", t.BootPrefix, initramfs(m))
	fmt.Fprintf(&b, "  APPEND %s\n", strings.Join(Arguments(m, t.RootUUID), " "))
	return b.String()
}
