package bootloader

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"imgbuild/image"
)

// GRUB is the UEFI boot loader, behind shim where the image has shim. An EFI system partition on RAID 1 has everything on
// every member.
type GRUB struct{}

// Name implements Loader.
func (GRUB) Name() string { return "GRUB (UEFI)" }

// Probe implements Loader.
func (GRUB) Probe(t Target) error {
	g := t.Manifest.BootLoader.GRUB
	if g == nil {
		return ErrNotInImage
	}
	if _, err := espParts(t.Scheme); err != nil {
		return fmt.Errorf("prepare GRUB: %w", err)
	}
	if _, err := archSuffix(t.Manifest.Arch); err != nil {
		return err
	}
	if d := path.Clean(g.ConfigDir); d == "." || strings.HasPrefix(d, "/") || strings.HasPrefix(d, "..") {
		return fmt.Errorf("prepare GRUB: %q is not a directory on the ESP", g.ConfigDir)
	}
	if _, err := coreModules(t); err != nil { // signed GRUBs read no more than those for BIOS
		return fmt.Errorf("prepare GRUB: %w", err)
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

// firstStage is the path on the ESP of what the firmware's boot entry starts: shim, or GRUB without one.
func firstStage(m *image.Manifest) (string, error) {
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
		err := mkdirs(t.ESP, path.Dir(f.to), 0o700)
		if err == nil {
			err = copyFile(t.Root, rel(f.from), t.ESP, f.to)
		}
		if err != nil {
			return fmt.Errorf("write GRUB: %w", err)
		}
	}
	if err := removeFile(t.ESP, removableDir+"/fb"+a+".efi"); err != nil {
		return fmt.Errorf("write GRUB: %w", err)
	}
	if err := writeESP(t, vendor); err != nil {
		return fmt.Errorf("write GRUB: %w", err)
	}
	return nil
}

// writeESP writes configurations. From EL8 on, both directories of the ESP have a stub that reads /boot's; some GRUBs look
// beside themselves first, others only in the directory that was compiled in. EL7's grubby edits the whole grub.cfg in the
// vendor's directory, so there the removable path's reads that.
func writeESP(t Target, vendor string) error {
	if t.Manifest.BootLoader.GRUB.LinuxEFI {
		conf, err := grubConf(t, true)
		if err != nil {
			return err
		}
		esp := espOf(t.Scheme)
		if esp == nil {
			return errors.New("the layout has no EFI system partition with vfat at /boot/efi")
		}
		stub := fmt.Sprintf("search --no-floppy --fs-uuid --set=dev %s\nset prefix=($dev)/%s\nexport prefix\nconfigfile $prefix/grub.cfg\n", t.FSUUID(esp.Mount), vendor)
		return errors.Join(
			writeFile(t.ESP, vendor+"/grubenv", grubEnv(t), 0o600),
			writeFile(t.ESP, vendor+"/grub.cfg", []byte(conf), 0o600),
			writeFile(t.ESP, removableDir+"/grub.cfg", []byte(stub), 0o600))
	}
	stub, err := grubStub(t)
	if err != nil {
		return err
	}
	for _, dir := range []string{vendor, removableDir} {
		if err := writeFile(t.ESP, dir+"/grub.cfg", []byte(stub), 0o600); err != nil {
			return err
		}
	}
	return writeGRUB(t)
}

// Code implements Loader: UEFI needs none.
func (GRUB) Code(Target) (map[string]BootCode, error) { return nil, nil }

// Revert implements Loader: it removes what firmware starts without an NVRAM entry, and GRUB's configuration.
func (GRUB) Revert(t Target) error {
	a, err := archSuffix(t.Manifest.Arch)
	if err != nil || t.ESP == nil {
		return err
	}
	dir := path.Clean(t.Manifest.BootLoader.GRUB.ConfigDir)
	for _, f := range []string{removableDir + "/BOOT" + strings.ToUpper(a) + ".EFI", removableDir + "/grub.cfg", dir + "/grub.cfg"} {
		if err := removeFile(t.ESP, f); err != nil {
			return fmt.Errorf("remove GRUB: %w", err)
		}
	}
	return nil
}
