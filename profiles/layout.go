package profiles

import (
	"reflect"
	"slices"
	"strconv"

	"imgbuild/image/layout"
	"imgbuild/profiles/strict"
)

// layoutFormats are the values of the check tags in imgbuild/image/layout. What a layout means as a whole is said by its
// Problems.
func layoutFormats() map[string]strict.Format {
	const name = `[A-Za-z0-9][A-Za-z0-9._-]*`
	return map[string]strict.Format{
		"layout-preset":         {Enum: []string{string(layout.Simple), string(layout.LVM), string(layout.Server), string(layout.Mirror)}},
		"layout-table":          {Enum: []string{string(layout.GPT), string(layout.MBR)}},
		"layout-firmware":       {Enum: []string{string(layout.Auto), string(layout.BIOS), string(layout.UEFI), string(layout.Both)}},
		"layout-loader":         {Enum: []string{string(layout.AutoLoader), string(layout.Extlinux), string(layout.GRUB)}},
		"layout-discard":        {Enum: []string{string(layout.DiscardNone), string(layout.DiscardBlocks), string(layout.DiscardSecure)}},
		"layout-role":           {Enum: []string{string(layout.RoleBIOSBoot), string(layout.RoleESP)}},
		"layout-fs":             {Enum: []string{"xfs", "ext4", "vfat", "swap"}},
		"layout-metadata":       {Enum: []string{"1.2", "1.0"}},
		"layout-prefer":         {Enum: []string{"smallest", "largest", "first"}},
		"layout-when":           {Enum: []string{"install", "firstboot"}},
		"layout-tool":           {Enum: []string{"mkfs.xfs", "mkfs.ext4", "mkfs.vfat", "mkswap", "lvm", "mdadm", "extlinux", "grub2-mkimage"}},
		"layout-level":          {From: 0, To: 10, Check: checkLevel},
		"layout-spares":         {From: 0, To: 64},
		"layout-fixed-size":     {What: "a size such as 20GiB", Pattern: `[1-9][0-9]*(MiB|GiB|TiB)`, Max: 32, Examples: []string{"20GiB"}},
		"layout-size":           {What: "a size such as 20GiB, a percentage such as 30%, or rest", Pattern: `[1-9][0-9]*(MiB|GiB|TiB)|[1-9][0-9]?%|100%|rest`, Max: 32, Examples: []string{"20GiB", "30%", "rest"}},
		"layout-small-size":     {What: "a size such as 512KiB or 4MiB", Pattern: `[1-9][0-9]*(KiB|MiB|GiB)`, Max: 32, Examples: []string{"512KiB", "4MiB"}},
		"layout-name":           {What: "letters, digits and . _ -, with a letter or digit first", Pattern: name, Max: 24, Examples: []string{"boot"}},
		"layout-lvm-name":       {What: "letters, digits and + . _ -, but no - first", Pattern: `[A-Za-z0-9+._][A-Za-z0-9+._-]*`, Max: 127, Examples: []string{"system"}},
		"layout-partition-name": {What: "one line of text", Pattern: `[^\x00-\x1f]+`, Max: 36, Examples: []string{"root"}},
		"layout-label":          {What: "one line of text", Pattern: `[^\x00-\x1f]+`, Max: 16, Examples: []string{"root"}},
		"layout-argument":       {What: "one argument", Pattern: `[^\x00-\x1f]+`, Max: 256, Examples: []string{"-i", "size=512"}},
		"layout-hint":           {What: "text, or a glob, with a ! before it to turn it round", Pattern: `[^\x00-\x1f]+`, Max: 256, Examples: []string{"SAMSUNG*", "!usb"}},
		"layout-hint-size":      {What: "a size, or comparisons with sizes", Pattern: `[^\x00-\x1f]+`, Max: 128, Examples: []string{">=400GiB <1TiB", "480GB"}},
	}
}

func checkLevel(s string) string {
	levels := []string{"0", "1", "5", "6", "10"}
	if !slices.Contains(levels, s) {
		return "is " + s + "; it can be " + strict.List(levels, "or")
	}
	return ""
}

// fillLayout gives the keys of a preset, and those of every layout, their values.
func fillLayout(l *layout.Layout) {
	if len(l.Disks)+len(l.Arrays)+len(l.Groups) == 0 || l.Preset != "" {
		fill(&l.Preset, layout.Simple)
		fill(&l.Filesystem, "xfs")
		fill(&l.BootSize, "1GiB")
		fill(&l.ESPSize, "512MiB")
	}
	fill(&l.Table, layout.GPT)
	fill(&l.Firmware, layout.Auto)
	fill(&l.BIOSLoader, layout.AutoLoader)
	fill(&l.Discard, layout.DiscardNone)
}

// ReadLayout reads a layout that stands by itself, as for one host: the keys are those of a profile's key layout. Name is
// the file's for messages. The error is an Errors with every mistake.
func ReadLayout(name string, data []byte) (layout.Layout, error) {
	c := &strict.Collector{}
	doc := strict.Document{Noun: "layout", Least: "a layout has at least preset or disks", Like: "keys such as preset: and disks:"}
	root := doc.Parse(c, &strict.Source{Name: name}, data)
	var l layout.Layout
	if root != nil {
		t := reflect.TypeFor[layout.Layout]()
		(&strict.Checker{Collector: c, Forms: strict.NewForms(formats()), Document: doc, Root: t}).Structure(root, t, "")
		strict.Decode(root, reflect.ValueOf(&l).Elem())
		layoutProblems(c, root, nil, l)
	}
	if es := c.Errors(); es != nil {
		return layout.Layout{}, es
	}
	return l, nil
}

// layoutProblems reports what is wrong with a layout as a whole, at its places below root; at is the path to the layout
// there. What may only follow from a mistake that is reported already is left out.
func layoutProblems(c *strict.Collector, root *strict.Node, at []string, l layout.Layout) {
	n := root
	for _, key := range at {
		n = n.Get(key)
	}
	if n != nil && n.Kind == strict.KindBad {
		return
	}
	flaws := n.Flaws()
	for _, p := range withSizes(l, flaws).Problems() {
		if slices.ContainsFunc(flaws, func(f strict.Flaw) bool { return follows(p.Path, f) }) {
			continue
		}
		path := append(slices.Clone(at), p.Path...)
		where, _ := root.Find(path...)
		text := p.Text
		if k := keyPath(path); k != "" {
			text = k + ": " + text
		}
		c.Add(where, keyPath(path), "%s", text)
	}
}

// follows says whether a problem at path may come from a flaw: it is about the map or list with the flaw, about what is in it, or
// about what holds it. What holds it does not change with a size, a hint or words for mount and people.
func follows(path []string, f strict.Flaw) bool {
	if len(f.At) == 0 {
		return len(path) == 0
	}
	if slices.Contains([]string{"size", "min", "max", "label", "options"}, f.Key) || f.At[len(f.At)-1] == "match" {
		return len(path) >= len(f.At) && slices.Equal(path[:len(f.At)], f.At)
	}
	n := min(len(path), len(f.At))
	return slices.Equal(path[:n], f.At[:n])
}

// withSizes is the layout with a size where none could be read, which would otherwise be the rest and contradict another.
func withSizes(l layout.Layout, flaws []strict.Flaw) layout.Layout {
	l.Disks, l.Groups = slices.Clone(l.Disks), slices.Clone(l.Groups)
	for i := range l.Disks {
		l.Disks[i].Partitions = slices.Clone(l.Disks[i].Partitions)
	}
	for i := range l.Groups {
		l.Groups[i].Volumes = slices.Clone(l.Groups[i].Volumes)
	}
	for _, f := range flaws {
		if f.Key != "size" && f.Key != "" || len(f.At) != 4 {
			continue
		}
		i, err := strconv.Atoi(f.At[1])
		j, err2 := strconv.Atoi(f.At[3])
		if err != nil || err2 != nil {
			continue
		}
		var e *layout.Extent
		switch {
		case f.At[0] == "disks" && f.At[2] == "partitions":
			e = &l.Disks[i].Partitions[j].Extent
		case f.At[0] == "volume_groups" && f.At[2] == "volumes":
			e = &l.Groups[i].Volumes[j].Extent
		default:
			continue
		}
		if e.Size == "" {
			e.Size = "1MiB"
		}
	}
	return l
}

// layout finds what is wrong with the layout, and what the architecture does not have.
func (x *crossChecker) layout() {
	at := []string{"layout"}
	l := x.p.LayoutFor()
	layoutProblems(x.Collector, x.tree, at, l)
	if x.p.Arch != "aarch64" {
		return
	}
	if l.Firmware.HasBIOS() {
		x.contradict([]string{"layout", "firmware"}, []string{"arch"}, "layout.firmware is %s, and aarch64 has no BIOS; take auto or uefi", l.Firmware)
	}
	for i, t := range x.p.Initramfs.Tools {
		if t == "extlinux" || t == "grub2-mkimage" {
			x.contradict([]string{"initramfs", "tools", strconv.Itoa(i)}, []string{"arch"}, "initramfs.tools has %s, which is for BIOS, and aarch64 has none; take it out", t)
		}
	}
	if l.BIOSLoader != layout.AutoLoader && !x.isBad("layout", "bios_loader") {
		x.contradict([]string{"layout", "bios_loader"}, []string{"arch"}, "layout.bios_loader is %s, and aarch64 has no BIOS; take it out", l.BIOSLoader)
	}
}

// LayoutFor is the profile's layout with the firmware of the profile's architecture, where there is only one.
func (p *Profile) LayoutFor() layout.Layout {
	l := p.Layout
	if p.Arch == "aarch64" && (l.Firmware == "" || l.Firmware == layout.Auto) {
		l.Firmware = layout.UEFI
	}
	return l
}
