package layout

import (
	"fmt"
	"strings"
	"testing"
)

// homes has /home on a partition of its own, kept, in front of root.
func homes() Layout {
	return Layout{Firmware: UEFI, Disks: []Disk{{Partitions: []Partition{
		{Role: RoleESP},
		{Name: "boot", Extent: Extent{Size: "1GiB"}, Content: Content{FS: "ext4", Mount: "/boot"}},
		{Name: "home", Extent: Extent{Size: "100GiB"}, Content: Content{FS: "xfs", Mount: "/home", Keep: true}},
		{Name: "root", Content: Content{FS: "xfs", Mount: "/"}},
	}}}}
}

func home(start, size int64) []Existing {
	return []Existing{{Device: "part/disk1/7", Disk: "sda", Number: 7, Name: "home", Start: start, Size: size, GUID: "g", Type: "0fc63daf-8483-4772-8e79-3d69d8477de4", FS: "xfs", UUID: "u"}}
}

func TestNewPartitionsGoAroundKeptOnes(t *testing.T) {
	for name, c := range map[string]struct {
		start, size int64
		edit        func(*Layout)
		want        string
	}{
		"at the end":              {300 * gib, 100 * gib, nil, "seal:1@1+1 esp:2@2+512 boot:3@514+1024 root:4@1538+305662 home:7@307200+102400"},
		"in the middle":           {40 * gib, 100 * gib, nil, "seal:1@1+1 esp:2@2+512 boot:3@514+1024 home:7@40960+102400 root:4@143360+314501"},
		"at the beginning":        {mib, 100 * gib, nil, "home:7@1+102400 seal:1@102401+1 esp:2@102402+512 boot:3@102914+1024 root:4@103938+353923"},
		"with little room before": {4 * mib, 100 * gib, nil, "seal:1@1+1 home:7@4+102400 esp:2@102404+512 boot:3@102916+1024 root:4@103940+353921"},
		"off our alignment":       {40*gib + 512, 100*gib - 1536, nil, "seal:1@1+1 esp:2@2+512 boot:3@514+1024 home:7@40960+102399 root:4@143360+314501"},
		"as large as it was, whatever the layout says now": {300 * gib, 50 * gib, nil, "seal:1@1+1 esp:2@2+512 boot:3@514+1024 root:4@1538+305662 home:7@307200+51200"},
		"percentages give way": {30 * gib, 380 * gib, func(l *Layout) {
			p := &l.Disks[0].Partitions[3]
			p.Size, p.Min = "40%", "10GiB"
		}, "seal:1@1+1 esp:2@2+512 boot:3@514+1024 root:4@1538+10240 home:7@30720+389120"},
	} {
		t.Run(name, func(t *testing.T) {
			l := homes()
			if c.edit != nil {
				c.edit(&l)
			}
			in := machine(l, UEFI, disk480GB)
			in.Existing = home(c.start, c.size)
			s, err := l.Resolve(in)
			if err != nil {
				t.Fatal(err)
			}
			check(t, s)
			parts := s.Disks[0].Parts
			var got []string
			for len(got) < len(parts) {
				next := -1
				for i, p := range parts {
					if !strings.Contains(strings.Join(got, " ")+" ", fmt.Sprintf(":%d@", p.Number)) && (next < 0 || p.Start < parts[next].Start) {
						next = i
					}
				}
				p := parts[next]
				got = append(got, fmt.Sprintf("%s:%d@%d+%d", p.Name, p.Number, p.Start/mib, p.Size/mib))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("it is\n%s\nand should be\n%s", s, c.want)
			}
			if h := s.On("/home"); h.Kept == nil || h.Kept.UUID != "u" || h.Device != "part/disk1/7" {
				t.Errorf("/home is %+v", h)
			}
		})
	}
}

func TestWhatCannotBeKeptIsRefused(t *testing.T) {
	lvm := func() Layout {
		l := edited(goodLVM, func(l *Layout) { volume(l, 2).Keep = true })
		l.Firmware = UEFI
		return l
	}
	for name, c := range map[string]struct {
		l    Layout
		edit func(in *Input)
		want string
	}{
		"another file system":           {homes(), func(in *Input) { in.Existing = home(gib, gib); in.Existing[0].FS = "ext4" }, `partition "home" of disk1 is to be kept as xfs and holds ext4`},
		"no file system":                {homes(), func(in *Input) { in.Existing = home(gib, gib); in.Existing[0].FS = "" }, "holds nothing that is known"},
		"a place behind the disk's end": {homes(), func(in *Input) { in.Existing = home(gib, 1<<40) }, "where no table of this disk can have it"},
		"a place in the table":          {homes(), func(in *Input) { in.Existing = home(512, gib) }, "where no table of this disk can have it"},
		"a place off the sectors":       {homes(), func(in *Input) { in.Existing = home(gib+1, gib) }, "where no table of this disk can have it"},
		"no room beside it":             {homes(), func(in *Input) { in.Existing = home(2*mib, disk480GB-5*mib) }, "is too small for disk1: it has 447.1 GiB, and its partitions need"},
		"two in one place": {edited(homes, func(l *Layout) {
			l.Disks[0].Partitions = append(l.Disks[0].Partitions, Partition{Name: "srv", Extent: Extent{Size: "1GiB"}, Content: Content{FS: "xfs", Mount: "/srv", Keep: true}})
		}), func(in *Input) {
			in.Existing = append(home(gib, gib), home(gib, gib)...)
			in.Existing[1].Name, in.Existing[1].Number = "srv", 8
		}, "partitions 7 and 8, which are to be kept, overlap"},
		"a name that two have": {homes(), func(in *Input) {
			in.Existing = append(home(gib, gib), home(200*gib, gib)...)
			in.Existing[1].Number = 8
		}, `partition "home" of disk1 is to be kept, and /dev/sda has several partitions of that name`},
		"a volume without its pool":  {lvm(), func(in *Input) { in.Existing = without(in.Existing, "lv/system/pool") }, "volumes in the thin pool pool of system are to be kept, and there is no such pool"},
		"a volume without its array": {lvm(), func(in *Input) { in.Existing = without(in.Existing, "md/system") }, "what is on array system is to be kept, and there is no such array"},
		"an array without a member":  {lvm(), func(in *Input) { in.Existing = without(in.Existing, "part/disk2/5") }, `something that lies on partition "system" of disk2 is to be kept, and that is not on the disk`},
		"a member that is something else": {lvm(), func(in *Input) {
			for i := range in.Existing {
				if in.Existing[i].Device == "part/disk2/5" {
					in.Existing[i].FS = "ext4"
				}
			}
		}, "is to be kept as linux_raid_member and holds ext4"},
	} {
		t.Run(name, func(t *testing.T) {
			in := machine(c.l, UEFI, disk480GB)
			first, err := c.l.Resolve(in)
			if err != nil {
				t.Fatal(err)
			}
			in.Existing = left(first)
			c.edit(&in)
			if s, err := c.l.Resolve(in); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is\n%v\nand should have\n%s\n%+v", err, c.want, s)
			}
		})
	}
}

func without(list []Existing, d Device) []Existing {
	var out []Existing
	for _, e := range list {
		if e.Device != d {
			out = append(out, e)
		}
	}
	return out
}

func TestOnAnEmptyDiskWhatIsKeptIsMade(t *testing.T) {
	l := homes()
	s, err := l.Resolve(machine(l, UEFI, disk480GB))
	if err != nil {
		t.Fatal(err)
	}
	check(t, s)
	if h := s.On("/home"); h.Kept != nil || h.Size != 100*gib {
		t.Errorf("/home is %+v", h)
	}
}

func TestKeptDataDisksHaveTheirNumbers(t *testing.T) {
	l := Layout{Firmware: UEFI, Data: &Data{Keep: true, When: "firstboot"}}
	in := machine(l, UEFI, disk480GB)
	in.Data = []Candidate{ssd("sdb", disk480GB), ssd("sdc", disk480GB), ssd("sdd", disk480GB)}
	in.Existing = []Existing{
		{Disk: "sdc", Number: 1, Name: "data1", Start: mib, Size: 400 * gib, FS: "xfs"},
		{Disk: "sdd", Number: 2, Name: "data5", Start: gib, Size: 300 * gib, FS: "xfs"},
	}
	s, err := l.Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s)
	for mount, device := range map[string]Device{"/data1": "part/data1/1", "/data5": "part/data5/2"} {
		if f := s.On(mount); f == nil || f.Kept == nil || f.Device != device {
			t.Errorf("%s is %+v", mount, f)
		}
	}
	if f := s.FirstBoot(); len(f) != 1 || f[0].Mount != "/data2" || f[0].Kept != nil || s.Holder(f[0].Device)[0] != "sdb" {
		t.Errorf("at first boot are made %+v", f)
	}
	in.Existing[0].FS = "ext4"
	if _, err := l.Resolve(in); err == nil || !strings.Contains(err.Error(), `partition "data1" of /dev/sdc is to be kept as xfs and holds ext4`) {
		t.Errorf("the error is %v", err)
	}
}

// TestWhatMDAndLVMKeep has data offsets as mdadm 4.2 computes them for members of these sizes.
func TestWhatMDAndLVMKeep(t *testing.T) {
	for _, c := range []struct {
		members  int64 // bytes of each
		metadata string
		chunk    int64
		want     int64 // sectors of 512 bytes that mdadm keeps of each member
	}{
		{4 << 40, "1.2", defaultChunk, 264192},
		{200 * gib, "1.2", defaultChunk, 264192},
		{100 * gib, "1.2", defaultChunk, 133120},
		{10 * gib, "1.2", defaultChunk, 18432},
		{gib, "1.2", defaultChunk, 4096},
		{100 * mib, "1.2", defaultChunk, 4096},
		{gib, "1.0", defaultChunk, 32},
		{4 << 40, "1.0", defaultChunk, 280},
	} {
		if got := (c.members - mdUsable(c.members, c.metadata, c.chunk)) / 512; got != c.want {
			t.Errorf("of %s with metadata %s mdadm keeps %d sectors, and is said to keep %d", FormatBytes(c.members), c.metadata, c.want, got)
		}
	}
	for _, c := range []struct {
		level, members, spares int
		want                   int64 // members' worth
	}{{0, 3, 0, 3}, {1, 3, 1, 1}, {5, 4, 1, 2}, {6, 5, 0, 3}, {10, 4, 0, 2}, {10, 5, 0, 2}} {
		var sizes []int64
		for range c.members {
			sizes = append(sizes, 100*gib)
		}
		one := arraySize(0, "1.2", 0, sizes[:1], 0)
		got := arraySize(c.level, "1.2", 0, sizes, c.spares)
		if got < one*c.want || got >= one*(c.want+1) {
			t.Errorf("RAID %d of %d with %d spares has %s", c.level, c.members, c.spares, FormatBytes(got))
		}
	}
	if got := physicalExtents(10*gib, 4*mib, 0); got != 2559 {
		t.Errorf("10 GiB have %d extents", got)
	}
	if got := physicalExtents(10*gib, 4*mib, 1536*kib); got != 2559 {
		t.Errorf("10 GiB on stripes of 1.5 MiB have %d extents", got)
	}
	if got := physicalExtents(mib, 4*mib, 0); got != 0 {
		t.Errorf("1 MiB has %d extents", got)
	}
}
