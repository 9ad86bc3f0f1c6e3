package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
)

// gamble makes layouts that are good often, and wrong now and then.
type gamble struct{ *rand.Rand }

func (g gamble) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g gamble, from ...T) T { return from[g.IntN(len(from))] }

func (g gamble) extent() Extent {
	switch g.IntN(6) {
	case 0:
		return Extent{Size: Size(strconv.Itoa(1+g.IntN(40)) + "%")}
	case 1:
		return Extent{Size: Size(strconv.Itoa(1+g.IntN(60)) + "%"), Min: Size(strconv.Itoa(300+g.IntN(4000)) + "MiB"), Max: pick[Size](g, "", "8GiB", "900GiB")}
	case 2:
		return Extent{Size: Rest, Min: pick(g, "", Size(strconv.Itoa(1+g.IntN(20))+"GiB")), Max: pick[Size](g, "", "21GiB", "1TiB")}
	case 3:
		return Extent{Size: Size(strconv.Itoa(300000+g.IntN(3000000)) + "KiB")}
	}
	return Extent{Size: Size(strconv.Itoa(1+g.IntN(30)) + "GiB")}
}

func (g gamble) content(n *int) Content {
	*n++
	c := Content{FS: pick(g, "xfs", "ext4", "xfs", "ext4", "swap", "vfat", "")}
	if c.FS != "" && c.FS != "swap" && g.chance(90) {
		c.Mount = "/srv/" + strconv.Itoa(*n)
		c.Label = pick(g, "", "l"+strconv.Itoa(*n))
		c.Keep = g.chance(30)
	}
	return c
}

func (g gamble) layout() Layout {
	l := Layout{Firmware: pick(g, "", BIOS, UEFI, Both), BIOSLoader: pick(g, "", "", AutoLoader, GRUB), Table: pick(g, "", GPT, GPT, MBR)}
	if g.chance(15) {
		l.Preset = pick(g, Simple, LVM, Server, Mirror)
		l.SwapSize = pick[Size](g, "", "3GiB")
	} else {
		g.detail(&l)
	}
	if g.chance(30) {
		l.Data = &Data{When: pick(g, "", "firstboot"), Keep: g.chance(50), FS: pick(g, "", "ext4")}
	}
	return l
}

func (g gamble) detail(l *Layout) {
	n := 0
	disks := 1 + g.IntN(4)
	mirror := disks > 1 && g.chance(50)
	lvm := g.chance(60)
	level := 1
	if mirror && g.chance(40) {
		level = pick(g, 0, 5, 6, 10)
	}
	for i := range disks {
		var d Disk
		if l.Table != MBR {
			d.Partitions = append(d.Partitions, Partition{Role: RoleBIOSBoot})
		}
		if l.Firmware != BIOS && (mirror || i == 0) {
			p := Partition{Role: RoleESP}
			if mirror {
				p.Array = "esp"
			}
			d.Partitions = append(d.Partitions, p)
		}
		switch {
		case mirror:
			d.Partitions = append(d.Partitions, Partition{Extent: Extent{Size: "1GiB"}, Content: Content{Array: "boot"}})
		case i == 0:
			d.Partitions = append(d.Partitions, Partition{Extent: Extent{Size: "1GiB"}, Content: Content{FS: "ext4", Mount: "/boot"}})
		}
		for range g.IntN(3) {
			d.Partitions = append(d.Partitions, Partition{Extent: g.extent(), Content: g.content(&n)})
		}
		switch {
		case mirror:
			d.Partitions = append(d.Partitions, Partition{Content: Content{Array: "system"}, Extent: pick(g, Extent{}, g.extent())})
		case lvm:
			d.Group = "system"
		case i == 0:
			d.Partitions = append(d.Partitions, Partition{Content: Content{FS: "xfs", Mount: "/"}, Extent: pick(g, Extent{}, g.extent())})
		default:
			d.Partitions = append(d.Partitions, Partition{Content: g.content(&n), Extent: g.extent()})
		}
		l.Disks = append(l.Disks, d)
	}
	if mirror {
		if l.Firmware != BIOS {
			l.Arrays = append(l.Arrays, Array{Name: "esp", Level: 1})
		}
		l.Arrays = append(l.Arrays, Array{Name: "boot", Level: 1, Content: Content{FS: "ext4", Mount: "/boot"}}, Array{Name: "system", Level: level, Content: Content{FS: "xfs", Mount: "/"}})
	}
	if !lvm {
		return
	}
	if mirror {
		l.Arrays[len(l.Arrays)-1].Content = Content{Group: "system"}
	}
	vg := Group{Name: "system", ExtentSize: pick[Size](g, "", "1MiB", "32MiB"), Volumes: []Volume{{Name: "root", Extent: pick(g, Extent{Size: "8GiB"}, g.extent()), Content: Content{FS: "xfs", Mount: "/"}}}}
	for i := range g.IntN(5) {
		v := Volume{Name: fmt.Sprintf("v%d", i), Extent: g.extent()}
		switch {
		case g.chance(20):
			v.Pool = true
		case i > 0 && g.chance(30):
			v.Thin, v.Content, v.Extent = "v"+strconv.Itoa(g.IntN(i)), g.content(&n), Extent{Size: "50GiB"}
		default:
			v.Content = g.content(&n)
		}
		vg.Volumes = append(vg.Volumes, v)
	}
	l.Groups = []Group{vg}
}

func (g gamble) input(l Layout) Input {
	in := Input{Firmware: pick(g, BIOS, UEFI), Arch: "x86_64", RootMin: g.Int64N(6 * gib), Extlinux: g.chance(80), GRUB: g.chance(90)}
	for i := range len(l.Expand(in.Firmware).Disks) {
		c := ssd(fmt.Sprintf("vd%c", 'a'+i), pick(g, 8*gib, 20*gib, disk480GB, 1000204886016, 3<<40)+512*g.Int64N(4096))
		c.Sector = pick(g, 512, 512, 512, 4096)
		c.Size -= c.Size % int64(c.Sector)
		in.Disks = append(in.Disks, c)
	}
	if l.Data != nil {
		for i := range g.IntN(4) {
			in.Data = append(in.Data, ssd(fmt.Sprintf("sd%c", 'a'+i), pick(g, gib, disk480GB, 8<<40)))
		}
	}
	return in
}

// left is what an installation leaves behind: what the next one may keep.
func left(s *Scheme) []Existing {
	var out []Existing
	fs := func(c Content) string {
		switch {
		case c.Group != "":
			return "LVM2_member"
		case c.Array != "":
			return "linux_raid_member"
		}
		return c.FS
	}
	for _, d := range s.Disks {
		if d.Table == "" {
			out = append(out, Existing{Device: diskDevice(d.Name), Disk: d.ID, Size: d.Candidate.Size, FS: fs(d.Content)})
		}
		for _, p := range d.Parts {
			out = append(out, Existing{Device: d.part(p.Number), Disk: d.ID, Number: p.Number, Name: p.Name, Start: p.Start, Size: p.Size, Type: p.Type, FS: fs(p.Content)})
		}
	}
	for _, a := range s.Arrays {
		out = append(out, Existing{Device: arrayDevice(a.Name), Size: a.Size, FS: fs(a.Content)})
	}
	for _, g := range s.Groups {
		for _, v := range g.Volumes {
			out = append(out, Existing{Device: g.volume(v.Name), Size: v.Size, FS: v.FS})
		}
	}
	return out
}

// TestRandomLayouts: what Problems passes becomes a scheme in which everything has its place, or is too large for its disks; and
// installed again on what it left, what is kept stays where it is.
func TestRandomLayouts(t *testing.T) {
	counts := map[string]int{}
	for seed := range uint64(6000) {
		g := gamble{rand.New(rand.NewPCG(4, seed))}
		l := g.layout()
		in := g.input(l)
		if problems := l.Problems(); len(problems) > 0 {
			counts["refused"]++
			if _, err := l.Resolve(in); err == nil {
				t.Fatalf("seed %d: %v, and yet there is a scheme", seed, problems)
			}
			continue
		}
		s, err := l.Resolve(in)
		switch {
		case errors.Is(err, ErrTooSmall):
			counts["too small"]++
			continue
		case err != nil:
			counts["does not fit the machine"]++
			continue
		}
		counts["made"]++
		check(t, s)
		in.Existing = left(s)
		again, err := l.Resolve(in)
		if err != nil {
			t.Fatalf("seed %d: installed again: %v", seed, err)
		}
		check(t, again)
		keptAgain(t, s, again, counts)
		if t.Failed() {
			data, _ := json.MarshalIndent(l, "", " ")
			t.Fatalf("seed %d: %s", seed, data)
		}
	}
	t.Log(counts)
	for _, k := range []string{"refused", "too small", "made", "kept partitions", "kept volumes"} {
		if counts[k] < 100 {
			t.Errorf("only %d layouts were %s: %v", counts[k], k, counts)
		}
	}
}

func keptAgain(t *testing.T, s, again *Scheme, counts map[string]int) {
	t.Helper()
	for i, d := range again.Disks {
		for _, p := range d.Parts {
			if p.Kept == nil {
				if p.Content.Keep && p.Content.FS != "" {
					t.Errorf("%s: partition %s is not kept", d.Name, p.Name)
				}
				continue
			}
			counts["kept partitions"]++
			found := false
			for _, o := range s.Disks[i].Parts {
				found = found || o.Number == p.Number && o.Start == p.Start && o.Size == p.Size && o.Name == p.Name
			}
			if !found {
				t.Errorf("%s: partition %s has moved", d.Name, p.Name)
			}
		}
	}
	for _, f := range again.Filesystems() {
		if f.Keep != (f.Kept != nil) {
			t.Errorf("%s with %s: keep is %t and it is kept: %t", f.Device, f.Mount, f.Keep, f.Kept != nil)
		}
	}
	for _, g := range again.Groups {
		for _, v := range g.Volumes {
			if v.Kept != nil {
				counts["kept volumes"]++
			}
			if v.Kept != nil && v.Kept.Size != v.Size {
				t.Errorf("volume %s had %d bytes and has %d", v.Name, v.Kept.Size, v.Size)
			}
		}
	}
}

// FuzzLayout reads layouts as JSON, as they come from a registry.
func FuzzLayout(f *testing.F) {
	for seed := range uint64(40) {
		data, err := json.Marshal(gamble{rand.New(rand.NewPCG(4, seed))}.layout())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"disks":[{"match":{"size":">=1GB"},"volume_group":"x"}],"volume_groups":[{"name":"x","volumes":[{"name":"r","fs":"xfs","mount":"/"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var l Layout
		if json.Unmarshal(data, &l) != nil || len(l.Disks) > 20 {
			return
		}
		problems := l.Problems()
		for _, p := range problems {
			if p.Text == "" || p.String() == "" {
				t.Errorf("an empty problem: %+v", p)
			}
		}
		l.Tools(Auto)
		all := []Candidate{ssd("sda", disk480GB), ssd("sdb", 3<<40)}
		_, _, _ = l.Choose(all, nil)
		s, err := l.Resolve(machine(l, UEFI, disk480GB))
		if err == nil && len(problems) > 0 {
			t.Errorf("there is a scheme although %v", problems)
		}
		if err == nil {
			check(t, s)
		}
	})
}
