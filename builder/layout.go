package builder

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/profiles"
)

// Tools by the names of layout.Tools.
const (
	toolExtlinux = "extlinux"
	toolGRUB     = "grub2-mkimage"
	toolLVM      = "lvm"
	toolMD       = "mdadm"
)

// layoutNeeds is what the profile's layout, and the tools that the profile adds for the layouts of single hosts, need of the
// image and of the initramfs. Where the machine's firmware decides, it is enough for either.
type layoutNeeds struct {
	tools    []string // programs of the initramfs, by the names of layout.Tools
	modules  []string // kernel modules of the initramfs
	packages []string // of the image; the boot loaders' too
	// extlinux and grub say that this very loader for BIOS is needed; else one that is there will do, or none on UEFI.
	extlinux, grub bool
}

// toolNeeds are the packages and modules that go with a tool that a profile names.
func toolNeeds(tool string) (packages, modules []string) {
	switch tool {
	case "mkfs.xfs":
		return []string{"xfsprogs"}, []string{"xfs"}
	case "mkfs.ext4":
		return []string{"e2fsprogs"}, []string{"ext4"}
	case "mkfs.vfat":
		return []string{"dosfstools"}, []string{"vfat"}
	case "mkswap":
		return []string{"util-linux"}, nil
	case toolLVM:
		return []string{"lvm2", "device-mapper-persistent-data"}, []string{"dm-mod", "dm-thin-pool"}
	case toolMD:
		return []string{"mdadm"}, []string{"raid0", "raid1", "raid10", "raid456"}
	}
	return nil, nil
}

// needsOf gathers what a profile's layouts need.
func needsOf(p *profiles.Profile) layoutNeeds {
	l := p.LayoutFor()
	n := layoutNeeds{tools: l.Tools(layout.Auto), modules: l.Modules(layout.Auto), packages: l.Packages(layout.Auto)}
	asked := func(tool string) bool { return slices.Contains(p.Initramfs.Tools, tool) }
	n.extlinux = l.BIOSLoader == layout.Extlinux || asked(toolExtlinux)
	if p.Distro.Major >= 10 && !n.extlinux {
		// EL10 has no extlinux; GRUB does all that it does.
		n.tools = slices.DeleteFunc(n.tools, func(t string) bool { return t == toolExtlinux })
	}
	only := slices.Contains(n.tools, toolGRUB) && !slices.Contains(n.tools, toolExtlinux)
	n.grub = l.BIOSLoader == layout.GRUB || only && l.Firmware.HasBIOS() || asked(toolGRUB)
	for _, t := range p.Initramfs.Tools {
		packages, modules := toolNeeds(t)
		n.tools, n.packages, n.modules = append(n.tools, t), append(n.packages, packages...), append(n.modules, modules...)
	}
	if slices.Contains(n.tools, toolExtlinux) && p.Distro.Major <= 9 {
		n.packages = append(n.packages, "syslinux-extlinux")
	}
	if slices.Contains(n.tools, toolGRUB) {
		n.packages = append(n.packages, "grub2-pc", "grub2-pc-modules", "grub2-tools")
	}
	if l.Expand(layout.Auto).Firmware.HasUEFI() {
		arch := map[string]string{"x86_64": "x64", "aarch64": "aa64"}[p.Arch]
		n.packages = append(n.packages, "grub2-efi-"+arch, "shim-"+arch)
	}
	// Code pages of vfat are in every initramfs, as far as the kernel has them.
	n.modules = slices.DeleteFunc(n.modules, func(m string) bool { return strings.HasPrefix(m, "nls_") })
	n.tools, n.modules, n.packages = unique(n.tools), unique(n.modules), unique(n.packages)
	return n
}

// unique takes out what is there already, and keeps the order.
func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// dracutModules are the modules without which the installed system's initramfs would not find its root.
func (n layoutNeeds) dracutModules() []string {
	var out []string
	for _, m := range []struct{ tool, module string }{{toolLVM, "lvm"}, {toolMD, "mdraid"}} {
		if slices.Contains(n.tools, m.tool) {
			out = append(out, m.module)
		}
	}
	return out
}

// vital are the packages without which a machine with the layout would not start. File systems' tools may come with another
// package than EL's.
func (n layoutNeeds) vital() []string {
	var out []string
	for _, p := range n.packages {
		switch p {
		case "lvm2", "mdadm", "device-mapper-persistent-data":
			out = append(out, p)
		case "grub2-pc", "grub2-pc-modules", "grub2-tools":
			if n.grub {
				out = append(out, p)
			}
		}
	}
	return out
}

// checkExcluded reports the packages that the layout needs and the profile excludes, all at once.
func checkExcluded(p *profiles.Profile) error {
	var errs []error
	for _, name := range needsOf(p).vital() {
		i := excludedBy(p, name)
		if i < 0 {
			continue
		}
		text := fmt.Sprintf("packages.exclude has %s, which takes out %s, and the layout needs it; take one of the two out", p.Packages.Exclude[i], name)
		if at := p.Where("packages", "exclude", fmt.Sprint(i)); at != "" {
			text = at + ": " + text
		}
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// excludedBy is the index of the first item of packages.exclude that takes a package out, or -1.
func excludedBy(p *profiles.Profile, name string) int {
	return slices.IndexFunc(p.Packages.Exclude, func(glob string) bool {
		ok, err := path.Match(glob, name)
		return err == nil && ok
	})
}

// layoutLine is a layout in one line.
func layoutLine(l layout.Layout) string {
	var parts []string
	if l.Preset != "" {
		parts = append(parts, "preset "+string(l.Preset))
	}
	for _, c := range []struct {
		n    int
		what string
	}{{len(l.Disks), "disks"}, {len(l.Arrays), "RAID arrays"}, {len(l.Groups), "volume groups"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "preset "+string(layout.Simple))
	}
	if l.Data != nil {
		parts = append(parts, "data disks")
	}
	return strings.Join(append(parts, fmt.Sprintf("table %s, firmware %s, BIOS loader %s", l.Table, l.Firmware, l.BIOSLoader)), ", ")
}
