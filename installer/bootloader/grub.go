package bootloader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"imgbuild/image"
)

// GRUB is the UEFI boot loader, behind shim where the image has shim.
type GRUB struct{}

// Name implements Loader.
func (GRUB) Name() string { return "GRUB (UEFI)" }

// Probe implements Loader.
func (GRUB) Probe(t Target) error {
	g := t.Manifest.BootLoader.GRUB
	if g == nil {
		return ErrNotInImage
	}
	esp := false
	for _, p := range t.Manifest.FixedLayout.Partitions {
		esp = esp || p.Role == image.RoleESP && p.FS == "vfat"
	}
	if !esp {
		return errors.New("prepare GRUB: the layout has no EFI system partition with vfat")
	}
	if _, err := archSuffix(t.Manifest.Arch); err != nil {
		return err
	}
	if d := path.Clean(g.ConfigDir); d == "." || strings.HasPrefix(d, "/") || strings.HasPrefix(d, "..") {
		return fmt.Errorf("prepare GRUB: %q is not a directory on the ESP", g.ConfigDir)
	}
	return nil
}

// archSuffix is how the UEFI specification (3.5.1.1) and shim name an architecture in file names.
func archSuffix(arch string) (string, error) {
	switch arch {
	case "x86_64":
		return "x64", nil
	case "aarch64":
		return "aa64", nil
	}
	return "", fmt.Errorf("prepare GRUB: there is no UEFI name for architecture %s", arch)
}

const removableDir = "EFI/BOOT"

// FirstStage is the path on the ESP of what the firmware's boot entry starts: shim, or GRUB without one.
func FirstStage(m *image.Manifest) (string, error) {
	a, err := archSuffix(m.Arch)
	if err != nil {
		return "", err
	}
	if m.BootLoader.GRUB.Shim != "" {
		return path.Join(path.Clean(m.BootLoader.GRUB.ConfigDir), "shim"+a+".efi"), nil
	}
	return path.Join(path.Clean(m.BootLoader.GRUB.ConfigDir), "grub"+a+".efi"), nil
}

// Install implements Loader. Everything is written twice: into the vendor's directory, which the NVRAM entry names, and
// into the removable path, which boots when NVRAM is empty, as after a change of mainboard. There shim has GRUB right
// beside it, and its fallback loader is left out: that one would write an NVRAM entry and reset, for ever on firmware
// that forgets the entry.
func (GRUB) Install(_ context.Context, t Target) error {
	g := t.Manifest.BootLoader.GRUB
	if t.ESP == nil {
		return errors.New("write GRUB: the EFI system partition is not mounted")
	}
	a, err := archSuffix(t.Manifest.Arch)
	if err != nil {
		return err
	}
	vendor := path.Clean(g.ConfigDir)
	removable := "BOOT" + strings.ToUpper(a) + ".EFI"
	type copied struct{ from, to string }
	files := []copied{{g.Loader, vendor + "/grub" + a + ".efi"}}
	if g.Shim == "" {
		files = append(files, copied{g.Loader, removableDir + "/" + removable})
	} else {
		files = append(files, copied{g.Loader, removableDir + "/grub" + a + ".efi"},
			copied{g.Shim, vendor + "/shim" + a + ".efi"}, copied{g.Shim, removableDir + "/" + removable})
		if g.MokManager != "" {
			files = append(files, copied{g.MokManager, vendor + "/mm" + a + ".efi"}, copied{g.MokManager, removableDir + "/mm" + a + ".efi"})
		}
		if g.Fallback != "" {
			files = append(files, copied{g.Fallback, vendor + "/fb" + a + ".efi"})
		}
	}
	for _, f := range files {
		if err := t.ESP.MkdirAll(path.Dir(f.to), 0o700); err != nil {
			return fmt.Errorf("write GRUB: %w", err)
		}
		if err := copyFile(t.Root, rel(f.from), t.ESP, f.to); err != nil {
			return fmt.Errorf("write GRUB: %w", err)
		}
	}
	if err := t.ESP.Remove(removableDir + "/fb" + a + ".efi"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write GRUB: %w", err)
	}
	// Some GRUBs look beside themselves first, others only in the directory that was compiled in.
	for _, dir := range []string{vendor, removableDir} {
		if err := t.ESP.WriteFile(dir+"/grub.cfg", []byte(grubConf(t)), 0o600); err != nil {
			return fmt.Errorf("write GRUB: %w", err)
		}
	}
	return nil
}

// Revert implements Loader: it removes what firmware starts without an NVRAM entry, and GRUB's configuration.
func (GRUB) Revert(t Target) error {
	a, err := archSuffix(t.Manifest.Arch)
	if err != nil || t.ESP == nil {
		return err
	}
	dir := path.Clean(t.Manifest.BootLoader.GRUB.ConfigDir)
	for _, f := range []string{removableDir + "/BOOT" + strings.ToUpper(a) + ".EFI", removableDir + "/grub.cfg", dir + "/grub.cfg"} {
		if err := t.ESP.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove GRUB: %w", err)
		}
	}
	return nil
}

// grubConf uses only what signed GRUBs have built in: under Secure Boot nothing else can be loaded. Not all have the
// serial driver, so the terminal is switched only where it answers.
func grubConf(t Target) string {
	m := t.Manifest
	linux, initrd := "linux", "initrd"
	if m.BootLoader.GRUB.LinuxEFI {
		linux, initrd = "linuxefi", "initrdefi"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by imgbuild when %s %s was installed.\nset default=0\nset timeout=3\n", m.Name, m.Version)
	if unit, speed, ok := serialConsole(m.KernelArgs); ok {
		fmt.Fprintf(&b, "if serial --unit=%d --speed=%d --word=8 --parity=no --stop=1; then\n", unit, speed)
		b.WriteString("  terminal_input console serial\n  terminal_output console serial\nfi\n")
	}
	fmt.Fprintf(&b, "search --no-floppy --fs-uuid --set=root %s\n", t.BootUUID)
	fmt.Fprintf(&b, "menuentry \"%s\" {\n  %s %s/%s", title(m), linux, t.BootPrefix, kernel(m))
	for _, a := range Arguments(m, t.RootUUID) {
		b.WriteString(" " + grubWord(a))
	}
	fmt.Fprintf(&b, "\n  %s %s/%s\n}\n", initrd, t.BootPrefix, initramfs(m))
	return b.String()
}

// grubWord quotes an argument for GRUB's shell. GRUB itself puts an argument with blanks between double quotes for the
// kernel, so those that are there already, as in dyndbg="file a.c +p", are dropped.
func grubWord(s string) string {
	s = strings.ReplaceAll(s, `"`, "")
	if !strings.ContainsAny(s, " \t$'\\;&|<>{}()*?[]~#") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
