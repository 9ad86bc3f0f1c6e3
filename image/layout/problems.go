package layout

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// problems gathers what is wrong, each thing once.
type problems struct{ list []Problem }

func (p *problems) add(path []string, format string, a ...any) {
	q := Problem{Path: path, Text: fmt.Sprintf(format, a...)}
	if !slices.ContainsFunc(p.list, func(o Problem) bool { return o.Text == q.Text && slices.Equal(o.Path, q.Path) }) {
		p.list = append(p.list, q)
	}
}

// keys makes a path of keys and indexes.
func keys(elements ...any) []string {
	var out []string
	for _, e := range elements {
		switch e := e.(type) {
		case int:
			out = append(out, strconv.Itoa(e))
		case string:
			if e != "" {
				out = append(out, e)
			}
		case []string:
			out = append(out, e...)
		}
	}
	return out
}

// String is the problem with its place, as `disks[0].partitions[2].size: …`.
func (p Problem) String() string {
	if at := pathText(p.Path); at != "" {
		return at + ": " + p.Text
	}
	return p.Text
}

// pathText writes a path as people do: disks[0].partitions[2].
func pathText(path []string) string {
	var b strings.Builder
	for i, e := range path {
		if _, err := strconv.Atoi(e); err == nil {
			b.WriteString("[" + e + "]")
			continue
		}
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(e)
	}
	return b.String()
}

// Validate returns all Problems as one error, or nil.
func (l Layout) Validate() error {
	var errs []error
	for _, p := range l.Problems() {
		errs = append(errs, fmt.Errorf("layout: %s", p))
	}
	return errors.Join(errs...)
}

// Problems returns everything that is wrong with a declared layout and can be known without a disk, in the order of the layout. Where
// the firmware is auto, it has to do for BIOS and for UEFI.
func (l Layout) Problems() []Problem {
	p := &problems{}
	l.wordProblems(p)
	l.presetProblems(p)
	l.Data.problems(p)
	if !l.explicit() {
		if len(p.list) == 0 {
			l.presetFits(p)
		}
		return p.list
	}
	e := l.Expand(Auto)
	e.structure(p, l)
	if len(p.list) > 0 && !e.sound() {
		return p.list
	}
	for _, fw := range l.firmwares() {
		l.Expand(fw).bootProblems(p)
	}
	return p.list
}

// firmwares are those that the layout has to do for.
func (l Layout) firmwares() []Firmware {
	if l.Firmware == "" || l.Firmware == Auto {
		return []Firmware{BIOS, UEFI}
	}
	return []Firmware{l.Firmware}
}

// sound says whether the words are known that decide how the machine starts.
func (l Layout) sound() bool {
	return slices.Contains([]Firmware{BIOS, UEFI, Both}, l.Firmware) && slices.Contains([]Loader{AutoLoader, Extlinux, GRUB}, l.BIOSLoader)
}

// wordProblems checks the keys that have a few values.
func (l Layout) wordProblems(p *problems) {
	oneOf(p, keys("preset"), l.Preset, "", Simple, LVM, Server, Mirror)
	oneOf(p, keys("filesystem"), l.Filesystem, "", "xfs", "ext4")
	oneOf(p, keys("table"), l.Table, "", GPT, MBR)
	oneOf(p, keys("firmware"), l.Firmware, "", Auto, BIOS, UEFI, Both)
	oneOf(p, keys("bios_loader"), l.BIOSLoader, "", AutoLoader, Extlinux, GRUB)
	oneOf(p, keys("discard"), l.Discard, "", DiscardNone, DiscardBlocks, DiscardSecure)
	if l.Firmware == UEFI && l.BIOSLoader != "" && l.BIOSLoader != AutoLoader {
		p.add(keys("bios_loader"), "is %s, but with firmware: uefi nothing starts by BIOS; take one of the two out", l.BIOSLoader)
	}
}

// oneOf checks a value with few choices; the first of them may be empty and is not listed then.
func oneOf[T ~string](p *problems, path []string, v T, choices ...T) {
	if slices.Contains(choices, v) {
		return
	}
	var names []string
	for _, c := range choices {
		if c != "" {
			names = append(names, string(c))
		}
	}
	p.add(path, "is %s, which is none of %s", clip(string(v)), strings.Join(names, ", "))
}

// presetProblems checks the keys that belong to presets.
func (l Layout) presetProblems(p *problems) {
	sizes := []struct {
		key         string
		v           Size
		least, most int64
	}{
		{"boot_size", l.BootSize, 256 * mib, 16 << 30},
		{"esp_size", l.ESPSize, 64 * mib, 16 << 30},
		{"swap_size", l.SwapSize, mib, maxSize},
		{"root_min", l.RootMin, mib, maxSize},
	}
	for _, s := range sizes {
		n, err := s.v.Bytes()
		switch {
		case s.v == "":
		case err != nil:
			p.add(keys(s.key), "%s", err)
		case n < s.least:
			p.add(keys(s.key), "is %s and has to be at least %s", s.v, FormatBytes(s.least))
		case n > s.most:
			p.add(keys(s.key), "is %s and may be at most %s", s.v, FormatBytes(s.most))
		}
	}
	checkOptions(p, keys("mount_options"), l.MountOptions)
	l.Match.problems(func(key, format string, a ...any) { p.add(keys("match", key), format, a...) })
	if !l.explicit() {
		return
	}
	if !l.Match.equal(Hints{}) {
		p.add(keys("match"), "is for presets, and here disks are declared one by one; say it there")
	}
	if l.Preset != "" {
		p.add(keys("preset"), "%s stands for disks, raid and volume_groups of its own; take it out, or them", l.Preset)
		return
	}
	for _, s := range []struct{ key, v string }{
		{"filesystem", l.Filesystem}, {"boot_size", string(l.BootSize)}, {"esp_size", string(l.ESPSize)},
		{"swap_size", string(l.SwapSize)}, {"root_min", string(l.RootMin)}, {"mount_options", l.MountOptions},
	} {
		if s.v != "" {
			p.add(keys(s.key), "belongs to presets, and here disks are declared one by one; say it there")
		}
	}
}

// presetFits looks for contradictions between a preset and what stands beside it, as a data disk that is mounted where the preset
// mounts something.
func (l Layout) presetFits(p *problems) {
	for _, fw := range l.firmwares() {
		e := l.Expand(fw)
		var q problems
		e.structure(&q, e)
		if len(q.list) == 0 {
			e.bootProblems(&q)
		}
		for _, o := range q.list {
			if len(o.Path) > 0 && o.Path[0] == "data" {
				p.add(o.Path, "%s", o.Text)
				continue
			}
			p.add(keys("preset"), "stands for something that does not go with the rest: %s", o)
		}
	}
}

func (d *Data) problems(p *problems) {
	if d == nil {
		return
	}
	at := keys("data")
	d.Match.problems(func(key, format string, a ...any) { p.add(keys(at, "match", key), format, a...) })
	oneOf(p, keys(at, "fs"), d.FS, "", "xfs", "ext4")
	oneOf(p, keys(at, "when"), d.When, "", "install", "firstboot")
	if d.Mount != "" {
		checkMount(p, keys(at, "mount"), d.Mount)
	}
	checkOptions(p, keys(at, "options"), d.Options)
	fs := d.FS
	if fs == "" {
		fs = "xfs"
	}
	if d.Label != "" && len(d.Label)+3 > labelLimit(fs) {
		p.add(keys(at, "label"), "%s is longer than %d bytes: a number of up to three digits follows it, and %s has labels of %d", clip(d.Label), labelLimit(fs)-3, fs, labelLimit(fs))
	}
	if d.Label != "" {
		checkPrintable(p, keys(at, "label"), d.Label)
	}
	checkMkfs(p, keys(at, "mkfs"), fs, d.Mkfs)
}
