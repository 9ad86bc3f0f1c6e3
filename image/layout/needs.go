package layout

import "slices"

// Tools are the programs that the initramfs needs to make the layout on a machine with this firmware, by the names that EL gives them. With bios_loader: auto, both
// BIOS loaders' are among them; the image has one of them at least.
func (l Layout) Tools(fw Firmware) []string {
	n := l.needs(fw)
	var out []string
	for _, f := range []struct{ fs, tool string }{{"xfs", "mkfs.xfs"}, {"ext4", "mkfs.ext4"}, {"vfat", "mkfs.vfat"}, {"swap", "mkswap"}} {
		if n.fs[f.fs] {
			out = append(out, f.tool)
		}
	}
	if n.lvm {
		out = append(out, "lvm")
	}
	if len(n.levels) > 0 {
		out = append(out, "mdadm")
	}
	if n.extlinux {
		out = append(out, "extlinux")
	}
	if n.grub {
		out = append(out, "grub2-mkimage")
	}
	return out
}

// Modules are the kernel modules, without those that they depend on, that the initramfs needs to make and mount the layout.
func (l Layout) Modules(fw Firmware) []string {
	n := l.needs(fw)
	var out []string
	for _, fs := range []string{"xfs", "ext4", "vfat"} {
		if n.fs[fs] {
			out = append(out, fs)
		}
	}
	if n.fs["vfat"] {
		out = append(out, "nls_cp437", "nls_iso8859-1", "nls_ascii", "nls_utf8")
	}
	if n.lvm {
		out = append(out, "dm-mod")
	}
	if n.thin {
		out = append(out, "dm-thin-pool")
	}
	for _, level := range []struct {
		level int
		name  string
	}{{0, "raid0"}, {1, "raid1"}, {5, "raid456"}, {6, "raid456"}, {10, "raid10"}} {
		if slices.Contains(n.levels, level.level) && !slices.Contains(out, level.name) {
			out = append(out, level.name)
		}
	}
	return out
}

// Packages are those of the image that the installed system needs to live with the layout: to find its root, to mount, check and grow
// its file systems. Boot loaders are not among them, as their packages differ between distributions.
func (l Layout) Packages(fw Firmware) []string {
	n := l.needs(fw)
	var out []string
	for _, p := range []struct {
		name string
		need bool
	}{
		{"xfsprogs", n.fs["xfs"]}, {"e2fsprogs", n.fs["ext4"]}, {"dosfstools", n.fs["vfat"]}, {"util-linux", n.fs["swap"]},
		{"lvm2", n.lvm}, {"device-mapper-persistent-data", n.thin}, {"mdadm", len(n.levels) > 0},
	} {
		if p.need {
			out = append(out, p.name)
		}
	}
	return out
}

type needs struct {
	fs             map[string]bool
	lvm, thin      bool
	levels         []int
	extlinux, grub bool
}

// needs gathers what a layout has. A firmware of auto counts as both.
func (l Layout) needs(fw Firmware) needs {
	e := l.Expand(fw)
	n := needs{fs: map[string]bool{}}
	for _, d := range e.Disks {
		for _, p := range d.Partitions {
			n.fs[p.FS] = true
		}
	}
	for _, a := range e.Arrays {
		n.fs[a.FS] = true
		n.levels = append(n.levels, a.Level)
	}
	for _, g := range e.Groups {
		n.lvm = true
		for _, v := range g.Volumes {
			n.fs[v.FS] = true
			n.thin = n.thin || v.Pool
		}
	}
	if e.Data != nil {
		n.fs[e.Data.FS] = true
	}
	if e.Firmware.HasBIOS() {
		n.extlinux = !e.needsGRUB()
		n.grub = e.BIOSLoader != Extlinux
	}
	return n
}
