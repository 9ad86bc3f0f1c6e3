package layout

import (
	"slices"
	"strconv"
	"strings"
)

// Sizes and options where a layout says nothing.
const (
	defaultBoot   Size = "1GiB"
	defaultESP    Size = "512MiB"
	defaultExtent Size = "4MiB"

	espMount   = "/boot/efi"
	espOptions = "umask=0077,shortname=winnt"
	espLabel   = "ESP"
)

// Expand replaces the preset by what it stands for and fills in every default, for a machine with this firmware. A firmware of the
// layout's own counts for more; with neither, both loaders are prepared for. The rest of a disk that becomes a physical volume or a
// member is a partition like any other then. Expanded again, the layout is the same.
func (l Layout) Expand(fw Firmware) Layout {
	l = l.clone()
	if l.Firmware == "" || l.Firmware == Auto {
		if l.Firmware = fw; fw == UEFI {
			l.BIOSLoader = AutoLoader
		}
	}
	if l.Firmware == "" || l.Firmware == Auto {
		l.Firmware = Both
	}
	if l.Table == "" {
		l.Table = GPT
	}
	if l.BIOSLoader == "" {
		l.BIOSLoader = AutoLoader
	}
	if l.Discard == "" {
		l.Discard = DiscardNone
	}
	if !l.explicit() {
		l.preset()
	}
	l.Match = Hints{}
	l.Preset, l.Filesystem, l.BootSize, l.ESPSize, l.SwapSize, l.RootMin, l.MountOptions = "", "", "", "", "", "", ""
	for i := range l.Disks {
		l.Disks[i].fill(i, l.Table)
	}
	for i := range l.Arrays {
		l.fillArray(&l.Arrays[i])
	}
	for i := range l.Groups {
		g := &l.Groups[i]
		if g.ExtentSize == "" {
			g.ExtentSize = defaultExtent
		}
		for j := range g.Volumes {
			if v := &g.Volumes[j]; v.Size == "" && v.Thin == "" {
				v.Size = Rest
			}
		}
	}
	l.implyKeep()
	l.Data.fill()
	return l
}

// explicit says whether disks are declared one by one.
func (l Layout) explicit() bool { return len(l.Disks)+len(l.Arrays)+len(l.Groups) > 0 }

// clone copies what Expand changes.
func (l Layout) clone() Layout {
	l.Disks = slices.Clone(l.Disks)
	for i := range l.Disks {
		l.Disks[i].Partitions = slices.Clone(l.Disks[i].Partitions)
	}
	l.Arrays = slices.Clone(l.Arrays)
	l.Groups = slices.Clone(l.Groups)
	for i := range l.Groups {
		l.Groups[i].Volumes = slices.Clone(l.Groups[i].Volumes)
	}
	if l.Data != nil {
		d := *l.Data
		l.Data = &d
	}
	return l
}

func (d *Disk) fill(i int, table Table) {
	if d.Name == "" {
		d.Name = "disk" + strconv.Itoa(i+1)
	}
	if len(d.Partitions) == 0 {
		return
	}
	if d.Table == "" {
		d.Table = table
	}
	if d.Group != "" || d.Array != "" {
		d.Partitions = append(d.Partitions, Partition{Extent: Extent{Size: Rest}, Content: Content{Group: d.Group, Array: d.Array}})
		d.Group, d.Array = "", ""
	}
	taken := map[string]bool{}
	for _, p := range d.Partitions {
		taken[p.Name] = true
	}
	for i := range d.Partitions {
		p := &d.Partitions[i]
		switch {
		case p.Size != "":
		case p.Role == RoleBIOSBoot:
			p.Size = "1MiB"
		case p.Role == RoleESP:
			p.Size = defaultESP
		default:
			p.Size = Rest
		}
		if p.Role == RoleESP && p.Array == "" {
			p.Content.fillESP()
		}
		if p.Name != "" {
			continue
		}
		base := p.defaultName()
		p.Name = base
		for n := 2; taken[p.Name]; n++ {
			p.Name = base + "-" + strconv.Itoa(n)
		}
		taken[p.Name] = true
	}
}

func (c *Content) fillESP() {
	if c.FS == "" {
		c.FS = "vfat"
	}
	if c.Label == "" {
		c.Label = espLabel
	}
	if c.Mount == "" {
		c.Mount = espMount
	}
	if c.Options == "" {
		c.Options = espOptions
	}
}

func (p Partition) defaultName() string {
	switch {
	case p.Array != "":
		return p.Array
	case p.Role != RoleNone:
		return string(p.Role)
	case p.Group != "":
		return p.Group
	case p.Mount == "/":
		return "root"
	case p.Mount != "":
		return firstRunes(strings.ReplaceAll(strings.Trim(p.Mount, "/"), "/", "-"), 32)
	case p.Label != "":
		return p.Label
	case p.FS != "":
		return p.FS
	}
	return "part"
}

func firstRunes(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}

// fillArray: what firmware reads as a plain file system has its RAID metadata at the end of its members.
func (l *Layout) fillArray(a *Array) {
	esp := l.espArray(a.Name)
	if esp {
		a.Content.fillESP()
	}
	if a.Metadata == "" {
		a.Metadata = "1.2"
		if boot, _ := l.bootMount(); a.Level == 1 && (esp || a.Mount != "" && a.Mount == boot) {
			a.Metadata = "1.0"
		}
	}
}

// espArray says whether an array's members are EFI system partitions.
func (l Layout) espArray(name string) bool {
	for _, d := range l.Disks {
		for _, p := range d.Partitions {
			if p.Role == RoleESP && p.Array == name {
				return true
			}
		}
	}
	return false
}

// implyKeep marks what lies below something that is kept: the pool of a volume, the physical volumes of its group, the members of
// an array.
func (l *Layout) implyKeep() {
	groups, arrays := map[string]bool{}, map[string]bool{}
	for i := range l.Groups {
		g := &l.Groups[i]
		pools := map[string]bool{}
		for _, v := range g.Volumes {
			if v.Keep {
				groups[g.Name] = true
				pools[v.Thin] = true
			}
		}
		for j := range g.Volumes {
			v := &g.Volumes[j]
			v.Keep = v.Keep || v.Pool && pools[v.Name]
		}
	}
	for i := range l.Arrays {
		a := &l.Arrays[i]
		a.Keep = a.Keep || a.Group != "" && groups[a.Group]
		arrays[a.Name] = arrays[a.Name] || a.Keep
	}
	for i := range l.Disks {
		for j := range l.Disks[i].Partitions {
			p := &l.Disks[i].Partitions[j]
			p.Keep = p.Keep || p.Group != "" && groups[p.Group] || p.Array != "" && arrays[p.Array]
		}
	}
}

func (d *Data) fill() {
	if d == nil {
		return
	}
	for _, f := range []struct {
		to   *string
		with string
	}{{&d.Mount, "/data"}, {&d.FS, "xfs"}, {&d.Label, "data"}, {&d.Options, "defaults,nofail"}, {&d.When, "install"}} {
		if *f.to == "" {
			*f.to = f.with
		}
	}
}
