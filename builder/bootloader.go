package builder

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"imgbuild/builder/tree"
	"imgbuild/image"
	"imgbuild/profiles"
)

// bootLoaders finds what boot loaders the image carries: GRUB in the vendor's directory of the ESP's files, the modules that
// extlinux needs beside it, and GRUB's for BIOS. It is an error if none of them starts what the layout says.
func bootLoaders(t *tree.Tree, p *profiles.Profile, name string) (image.BootLoader, error) {
	var l image.BootLoader
	var err error
	if l.GRUB, err = grub(t, p, name); err != nil {
		return l, err
	}
	n := needsOf(p)
	if slices.Contains(n.tools, toolExtlinux) {
		if l.Extlinux, err = extlinux(t); err != nil {
			return l, err
		}
	}
	if slices.Contains(n.tools, toolGRUB) {
		l.GRUBPC = grubPC(t)
	}
	return l, missingLoaders(l, p, n)
}

// missingLoaders says which loaders the layout needs and the image does not have. A layout for either firmware does with one.
func missingLoaders(l image.BootLoader, p *profiles.Profile, n layoutNeeds) error {
	const uefi, grubPC, extlinux = "grub2-efi-x64 and shim-x64", "grub2-pc, grub2-pc-modules and grub2-tools", "syslinux-extlinux"
	fw := p.Layout.Firmware
	var errs []error
	lacks := func(what, add string) {
		errs = append(errs, fmt.Errorf("find the image's boot loaders: there is no %s; add %s", what, add))
	}
	switch {
	case l.GRUB == nil && l.Extlinux == nil && l.GRUBPC == nil:
		lacks("GRUB below "+espFiles+", no GRUB for BIOS and no extlinux", uefi+", or "+extlinux)
		return errors.Join(errs...)
	case l.GRUB == nil && fw.HasUEFI():
		lacks("GRUB below "+espFiles, uefi)
	}
	switch {
	case n.extlinux && l.Extlinux == nil:
		lacks("extlinux, in the image or on this host", extlinux)
	case n.grub && l.GRUBPC == nil:
		lacks("GRUB for BIOS with its grub2-mkimage", grubPC)
	case fw.HasBIOS() && l.Extlinux == nil && l.GRUBPC == nil:
		lacks("boot loader for BIOS", extlinux+", or "+grubPC)
	}
	return errors.Join(errs...)
}

// grubPC finds GRUB for BIOS; nil if anything is missing that its core is made of.
func grubPC(t *tree.Tree) *image.GRUBPC {
	const dir = "/usr/lib/grub/i386-pc"
	for _, f := range []string{"boot.img", "diskboot.img", "kernel.img", "lzma_decompress.img", "moddep.lst", "biosdisk.mod"} {
		if !t.Exists(path.Join(dir, f)) {
			return nil
		}
	}
	if t.First(sbin(toolGRUB)...) == "" {
		return nil
	}
	return &image.GRUBPC{ModuleDir: dir, BootImage: path.Join(dir, "boot.img"), BLS: t.Exists(path.Join(dir, "blscfg.mod"))}
}

const espFiles = "/boot/efi/EFI"

// grub looks for the directory that has a GRUB binary. BOOT is the removable path, which only shim's files use.
func grub(t *tree.Tree, p *profiles.Profile, name string) (*image.GRUB, error) {
	arch := map[string]string{"x86_64": "x64", "aarch64": "aa64"}[p.Arch]
	entries, err := t.ReadDir(espFiles)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the image's GRUB: %w", err)
	}
	var vendors []string
	for _, e := range entries {
		if e.IsDir() && !strings.EqualFold(e.Name(), "BOOT") && t.Exists(path.Join(espFiles, e.Name(), "grub"+arch+".efi")) {
			vendors = append(vendors, e.Name())
		}
	}
	switch len(vendors) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, fmt.Errorf("find the image's GRUB: %s has more than one: %s; install one distribution's", espFiles, strings.Join(vendors, ", "))
	}
	dir := path.Join(espFiles, vendors[0])
	loader, err := t.ReadFile(path.Join(dir, "grub"+arch+".efi"))
	if err != nil {
		return nil, fmt.Errorf("find the image's GRUB: %w", err)
	}
	return &image.GRUB{
		Shim:       t.First(path.Join(dir, "shim"+arch+".efi")),
		Loader:     path.Join(dir, "grub"+arch+".efi"),
		MokManager: t.First(path.Join(dir, "mm"+arch+".efi"), path.Join(dir, "MokManager.efi")),
		Fallback:   t.First(path.Join(espFiles, "BOOT", "fb"+arch+".efi")),
		ConfigDir:  path.Join("EFI", vendors[0]),
		Label:      name,
		LinuxEFI:   p.Distro.Major == 7 && arch == "x64",
		BLS:        bytes.Contains(loader, []byte("blscfg")), // the name of a module that is built in
	}, nil
}

// hostSyslinux are the directories in which build hosts keep syslinux's BIOS modules.
func hostSyslinux() []string {
	return []string{"/usr/lib/syslinux/modules/bios", "/usr/share/syslinux"}
}

// extlinux lists the modules that go beside ldlinux.sys. An image without syslinux (EL10, where a layout asks for extlinux)
// gets those of the build host, which are the ones that belong to the build host's extlinux in the initramfs.
func extlinux(t *tree.Tree) (*image.Extlinux, error) {
	const dir = "/usr/share/syslinux"
	needed := []string{"ldlinux.c32", "libutil.c32", "menu.c32"}
	if t.First(sbin("extlinux")...) == "" {
		host := slices.IndexFunc(hostSyslinux(), func(d string) bool {
			_, err := os.Stat(path.Join(d, needed[0]))
			return err == nil
		})
		if host < 0 {
			return nil, nil
		}
		for _, m := range needed {
			if err := t.CopyIn(path.Join(hostSyslinux()[host], m), path.Join(dir, m), tree.RootFile()); err != nil {
				return nil, fmt.Errorf("put the build host's extlinux modules into the image: %w", err)
			}
		}
	}
	e := &image.Extlinux{}
	for _, m := range needed {
		if found := t.First(path.Join(dir, m), path.Join("/boot/extlinux", m), path.Join("/usr/lib/syslinux/modules/bios", m), path.Join("/usr/lib/syslinux", m)); found != "" {
			e.Modules = append(e.Modules, found)
		}
	}
	return e, nil
}

// distro reads what the image says of itself.
func distro(t *tree.Tree, p *profiles.Profile) (image.Distro, error) {
	d := image.Distro{ID: p.Distro.ID, Name: p.Distro.ID, Release: p.Distro.Release}
	f := t.First("/etc/os-release", "/usr/lib/os-release")
	if f == "" {
		return d, errors.New("read the image's os-release: there is none; the distribution's release package is not installed")
	}
	data, err := t.ReadFile(f)
	if err != nil {
		return d, fmt.Errorf("read the image's os-release: %w", err)
	}
	for key, value := range osRelease(string(data)) {
		switch key {
		case "ID":
			d.ID = value
		case "PRETTY_NAME":
			d.Name = value
		case "VERSION_ID":
			d.Release = value
		}
	}
	return d, nil
}

// osRelease reads the assignments of an os-release(5) file.
func osRelease(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		out[key] = value
	}
	return out
}
