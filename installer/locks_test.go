package installer

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/image/seal"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/hw"
)

// disks are those of a machine, all of them looked at.
func disks() []*look {
	d := func(id, model, serial, transport string, size int64, byPath ...string) *look {
		return &look{
			disk:      disk.Disk{Name: id, Path: "/dev/" + id, Model: model, Serial: serial, Transport: transport, Size: size, ByPath: byPath},
			candidate: layout.Candidate{ID: id, Path: "/dev/" + id, Model: model, Serial: serial, Transport: transport, Size: size, ByPath: byPath},
		}
	}
	return []*look{
		d("sda", "Samsung SSD", "S3Z1", "sata", 480103981056, "pci-0000:00:17.0-ata-1"),
		d("nvme0n1", "INTEL", "PHL 1", "nvme", 2<<40, "pci-0000:65:00.0-nvme-1"),
		d("sdb", "WDC", "WD1", "sata", 1<<40),
	}
}

// machineOf is a run that has looked at the disks.
func machineOf(list []*look) *run {
	r := &run{looks: map[string]*look{}}
	for _, l := range list {
		r.candidates = append(r.candidates, l.candidate)
		r.looks[l.candidate.ID] = l
	}
	return r
}

func TestOnlyNamedDisksMayBeErased(t *testing.T) {
	table := []probe.Finding{{Kind: "GUID partition table with 1 partition"}, {Partition: 1, Kind: "XFS file system", Label: "data", Size: 1 << 30}}
	lvm := []probe.Finding{{Kind: "LVM physical volume"}}
	const sda, nvme = "/dev/sda (serial S3Z1, 447.1 GiB)", "/dev/nvme0n1 (serial PHL 1, 2 TiB)"
	for name, c := range map[string]struct {
		sda, nvme []probe.Finding
		wipe      []string
		is        error
		says      string
		server    string
	}{
		"empty disks":                         {nil, nil, nil, nil, "", ""},
		"full disks, all named":               {table, lvm, []string{"S3Z1", "PHL 1"}, nil, "", ""},
		"a full disk, named twice":            {table, nil, []string{"S3Z1", "/dev/sda"}, nil, "", ""},
		"empty disks, one named all the same": {nil, nil, []string{"S3Z1"}, nil, "", ""},
		"a full disk": {table, nil, nil, ErrNotEmpty, "check disk: " + sda + " is not empty: GUID partition table with 1 partition; " +
			`partition 1: XFS file system "data" (1 GiB); to destroy that, boot with imgbuild.wipe=S3Z1`, ""},
		"two full disks": {table, lvm, nil, ErrNotEmpty, "check disks: " + sda + " is not empty: GUID partition table with 1 partition; " +
			`partition 1: XFS file system "data" (1 GiB); ` + nvme + " is not empty: LVM physical volume; " +
			"to destroy all of that, boot with imgbuild.wipe=S3Z1 imgbuild.wipe=/dev/disk/by-path/pci-0000:65:00.0-nvme-1", ""},
		"two full disks, one named": {table, lvm, []string{"/dev/sda"}, ErrNotEmpty, "check disk: " + nvme + " is not empty: LVM physical volume; " +
			"to destroy that, boot with imgbuild.wipe=/dev/disk/by-path/pci-0000:65:00.0-nvme-1", ""},
		"a disk is named that is not written to": {nil, nil, []string{"S3Z1", "WD1"}, layout.ErrChoice, "check disks: imgbuild.wipe=WD1 names /dev/sdb (WDC, serial WD1, 1 TiB, sata), " +
			"but the installation would go to " + sda + " and " + nvme + "; name the same disks to install to and to wipe", ""},
		"nobody's disk is named": {nil, nil, []string{"X"}, layout.ErrChoice, "check disks: imgbuild.wipe=X names no disk of this machine, " +
			"and the installation would go to " + sda + " and " + nvme + "; correct the argument or leave it out", ""},
		"two full disks, and a server has the order": {table, lvm, nil, ErrNotEmpty, "check disks: " + sda + " is not empty: GUID partition table with 1 partition; " +
			`partition 1: XFS file system "data" (1 GiB); ` + nvme + " is not empty: LVM physical volume; " +
			"to destroy all of that, order it with --wipe S3Z1 --wipe /dev/disk/by-path/pci-0000:65:00.0-nvme-1", "http://10.0.0.1"},
		"nobody's disk is named in an order": {nil, nil, []string{"PHL X"}, layout.ErrChoice, `check disks: --wipe "PHL X" names no disk of this machine, ` +
			"and the installation would go to " + sda + " and " + nvme + "; correct the argument or leave it out", "http://10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			list := disks()
			err := mayErase(machineOf(list).candidates, list[:2], [][]probe.Finding{c.sda, c.nvme}, cmdline.Args{Server: c.server, Wipe: c.wipe})
			if !errors.Is(err, c.is) || err != nil && err.Error() != c.says {
				t.Errorf("got  %v\nwant %s", err, c.says)
			}
		})
	}
	list := disks()
	list[2].candidate.Serial = "S3Z1"
	err := mayErase(machineOf(list).candidates, list[:1], [][]probe.Finding{nil}, cmdline.Args{Wipe: []string{"S3Z1"}})
	if err == nil || !strings.Contains(err.Error(), "names 2 disks; write imgbuild.wipe=/dev/disk/by-path/pci-0000:00:17.0-ata-1") {
		t.Errorf("a serial number that two disks share: %v", err)
	}
	list[2].candidate.Unusable = "it is in use"
	if err := mayErase(machineOf(list).candidates, list[:1], [][]probe.Finding{table}, cmdline.Args{Wipe: []string{"S3Z1"}}); !errors.Is(err, layout.ErrChoice) {
		t.Errorf("a serial number that two disks share, of which one is in use: %v", err)
	}
	list[2].candidate.PathOf = "sda"
	if err := mayErase(machineOf(list).candidates, list[:1], [][]probe.Finding{table}, cmdline.Args{Wipe: []string{"S3Z1"}}); err != nil {
		t.Errorf("a disk with two paths: %v", err)
	}
}

func sealOf(t *testing.T, r seal.Record) *seal.Seal {
	t.Helper()
	r.Image, r.Order, r.Time = "web/1", "o-1", time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	b, err := seal.Unsigned(r)
	if err != nil {
		t.Fatal(err)
	}
	s, err := seal.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASealStopsTheInstallationUnlessItsMachineIsNamed(t *testing.T) {
	mine, other := seal.Record{Serial: "SN-ME"}, seal.Record{Serial: "SN-OTHER"}
	protect := func(r seal.Record) seal.Record { r.Protect = true; return r }
	for name, c := range map[string]struct {
		written, beside seal.Record
		unseal          []string
		stops           []string // texts in the refusal
		server          string
	}{
		"its own disk":                                       {mine, seal.Record{}, nil, nil, ""},
		"its own disk, protected":                            {protect(mine), seal.Record{}, nil, []string{"/dev/sda", "protects it"}, ""},
		"its own disk, protected and named":                  {protect(mine), seal.Record{}, []string{"SN-ME"}, nil, ""},
		"another machine's disk":                             {other, seal.Record{}, nil, []string{"/dev/sda", "SN-OTHER", "boot with imgbuild.unseal=SN-OTHER"}, ""},
		"another machine's disk, its own named":              {other, seal.Record{}, []string{"SN-ME"}, []string{"SN-OTHER"}, ""},
		"another machine's disk, named":                      {other, seal.Record{}, []string{"SN-OTHER"}, nil, ""},
		"another machine's disk beside it":                   {mine, other, nil, nil, ""},
		"another machine's protected disk beside it":         {mine, protect(other), nil, []string{"/dev/sdb", "SN-OTHER"}, ""},
		"its own protected disk beside it":                   {seal.Record{}, protect(mine), nil, []string{"/dev/sdb", "protects it"}, ""},
		"both protected, one named":                          {protect(mine), protect(other), []string{"SN-ME"}, []string{"/dev/sdb"}, ""},
		"both protected":                                     {protect(mine), protect(other), nil, []string{"/dev/sda", "/dev/sdb"}, ""},
		"a seal of a machine that had no serial number":      {seal.Record{Serial: ""}, seal.Record{}, nil, nil, ""},
		"another machine's disk, and a server has the order": {other, seal.Record{}, nil, []string{"/dev/sda", "order it with --unseal SN-OTHER"}, "http://10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			list := disks()
			list[0].seal = sealOf(t, c.written)
			if c.beside.Serial != "" {
				list[2].seal = sealOf(t, c.beside)
			}
			r := machineOf(list)
			r.Machine, r.Args = hw.Machine{Serial: "SN-ME"}, cmdline.Args{Unseal: c.unseal, Server: c.server}
			err := r.sealed(list[:2])
			if (err == nil) != (c.stops == nil) || err != nil && !errors.Is(err, ErrSealed) {
				t.Fatalf("got %v", err)
			}
			for _, text := range c.stops {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q is not in %v", text, err)
				}
			}
		})
	}
}

// keeping is a scheme on sda, whose partition 2 and volume vg/home stay, and on sdb, which stays whole.
func keeping() *layout.Scheme {
	kept := func(number int) *layout.Existing { return &layout.Existing{Number: number} }
	return &layout.Scheme{
		Disks: []layout.SchemeDisk{
			{Name: "disk1", Candidate: layout.Candidate{ID: "sda"}, Table: layout.GPT, Boot: true, Parts: []layout.Part{
				{Number: 1, Name: "boot", Content: layout.Content{FS: "ext4", Mount: "/boot"}},
				{Number: 2, Name: "srv", Kept: kept(3), Content: layout.Content{FS: "xfs", Mount: "/srv"}},
				{Number: 3, Name: "pv", Kept: kept(4), Content: layout.Content{Group: "vg"}},
			}},
			{Name: "data1", Candidate: layout.Candidate{ID: "sdb"}, Content: layout.Content{FS: "xfs", Mount: "/data1"}, Kept: kept(0)},
		},
		Groups: []layout.SchemeGroup{{Group: layout.Group{Name: "vg"}, Kept: true, Physical: []layout.Device{"part/disk1/3"}, Volumes: []layout.SchemeVolume{
			{Volume: layout.Volume{Name: "home", Content: layout.Content{FS: "xfs", Mount: "/home"}}, Kept: kept(0)},
			{Volume: layout.Volume{Name: "root", Content: layout.Content{FS: "xfs", Mount: "/"}}},
		}}},
	}
}

func TestAnOutlookSaysWhatBecomesOfEveryDisk(t *testing.T) {
	list := disks()
	list[0].found = []probe.Finding{{Kind: "GUID partition table with 4 partitions"}, {Partition: 1, Kind: "ext4 file system", Label: "boot", Size: 1 << 30},
		{Partition: 3, Kind: "XFS file system", Label: "srv", Size: 2 << 30}, {Partition: 4, Kind: "LVM physical volume", Size: 4 << 30}}
	list[1].found = []probe.Finding{{Kind: "NTFS file system", Label: "c", Size: 1 << 30}}
	list[2].found = []probe.Finding{{Kind: "XFS file system", Label: "data1", Size: 1 << 40}}
	r := machineOf(list)
	r.scheme = keeping()
	o := r.outlook(errors.New("check disk: not empty"))
	if o.Refused != "check disk: not empty" || o.Scheme != r.scheme || len(o.Disks) != 3 {
		t.Errorf("got %+v", o)
	}
	want := []plan.OutlookDisk{
		{Use: useKept, Keeps: []string{`partition 3 "srv" at /srv`, `partition 4 "pv"`, "volume vg/home at /home"}},
		{Use: useUntouched}, {Use: useUntouched, Keeps: []string{"all of it at /data1"}},
	}
	for i, d := range o.Disks {
		if d.Use != want[i].Use || !slices.Equal(d.Keeps, want[i].Keeps) || len(d.Holds) != len(list[i].found) || d.SizeBytes != list[i].disk.Size {
			t.Errorf("disk %d is %+v", i, d)
		}
	}
	text, written, ok := strings.Cut(o.Text, "written:\n")
	wantText := `erased:
  /dev/sda (Samsung SSD, serial S3Z1, 447.1 GiB, sata):
    GUID partition table with 4 partitions
    partition 1: ext4 file system "boot" (1 GiB)
    partition 4: LVM physical volume (4 GiB)
kept:
  of /dev/sda (serial S3Z1, 447.1 GiB): partition 3 "srv" at /srv, partition 4 "pv", volume vg/home at /home
  of /dev/sdb (serial WD1, 1 TiB): all of it at /data1
not touched:
  /dev/nvme0n1 (INTEL, serial PHL 1, 2 TiB, nvme):
    NTFS file system "c"
`
	if text != wantText || !ok || !strings.Contains(written, "/srv") {
		t.Errorf("it says\n%s", o.Text)
	}
}

func TestWhatIsKeptIsNotLost(t *testing.T) {
	table := probe.Finding{Kind: "GUID partition table with 2 partitions"}
	boot, srv, pv := probe.Finding{Partition: 1, Kind: "ext4"}, probe.Finding{Partition: 3, Kind: "XFS"}, probe.Finding{Partition: 4, Kind: "LVM"}
	for name, c := range map[string]struct {
		found  []probe.Finding
		change func(*run)
		lost   []probe.Finding
	}{
		"a disk of which something goes":                  {[]probe.Finding{table, boot, srv}, nil, []probe.Finding{table, boot}},
		"a disk of which nothing goes":                    {[]probe.Finding{table, srv}, nil, nil},
		"a disk of which only what has no partition goes": {[]probe.Finding{table, {Kind: "ZFS", Type: "zfs_member"}, srv}, nil, []probe.Finding{{Kind: "ZFS", Type: "zfs_member"}}},
		"a volume group of which a volume goes":           {[]probe.Finding{table, srv, pv}, nil, []probe.Finding{table, pv}},
		"a volume group of which all volumes stay":        {[]probe.Finding{table, srv, pv}, func(r *run) { r.scheme.Groups[0].Volumes[1].Kept = &layout.Existing{} }, nil},
		"a volume group with another volume": {[]probe.Finding{table, srv, pv}, func(r *run) {
			r.scheme.Groups[0].Volumes[1].Kept = &layout.Existing{}
			r.found = []layout.Existing{{Device: "lv/vg/home"}, {Device: "lv/vg/old"}}
		}, []probe.Finding{table, pv}},
		"a volume group that is made anew":               {[]probe.Finding{table, srv, pv}, func(r *run) { r.scheme.Groups[0].Kept = false }, []probe.Finding{table, pv}},
		"a disk without a table, of which nothing stays": {[]probe.Finding{srv}, func(r *run) { r.scheme.Disks[0].Parts = nil }, []probe.Finding{srv}},
		"nothing": {nil, nil, nil},
	} {
		r := machineOf(disks())
		r.scheme = keeping()
		if c.change != nil {
			c.change(r)
		}
		l := r.looks["sda"]
		l.found = c.found
		if lost, _ := r.losses(l, r.scheme.Disks[0]); !slices.Equal(lost, c.lost) {
			t.Errorf("%s: %v is lost, want %v", name, lost, c.lost)
		}
	}
}

func TestAVolumeGroupsNameIsNotThatOfOneOnAnotherDisk(t *testing.T) {
	for name, c := range map[string]struct {
		found probe.Finding
		says  string
	}{
		"the same name":         {probe.Finding{Partition: 2, Kind: "LVM physical volume", Type: "LVM2_member", Label: "vg"}, "/dev/nvme0n1 (serial PHL 1, 2 TiB), which is not written to, has a volume group vg as well (partition 2)"},
		"another name":          {probe.Finding{Kind: "LVM physical volume", Type: "LVM2_member", Label: "vg2"}, ""},
		"a file system's label": {probe.Finding{Kind: "XFS file system", Type: "xfs", Label: "vg"}, ""},
	} {
		list := disks()
		list[1].found = []probe.Finding{c.found}
		r := machineOf(list)
		r.scheme = keeping()
		err := r.sameGroups([]*look{list[0], list[2]})
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || !errors.Is(err, layout.ErrChoice)) {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.sameGroups(list); err != nil {
			t.Errorf("%s, on a disk that is written to: %v", name, err)
		}
	}
}

func TestADiskThatIsAnotherOneNowIsSeen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 4*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	was := &look{disk: disk.Disk{Name: "sda", Path: file, Serial: "S1", Size: 4 * mib, Sector: 512}}
	if err := was.inspect(); err != nil {
		t.Fatal(err)
	}
	now := func(edit func(*look)) *look {
		l := &look{disk: was.disk, candidate: was.candidate}
		edit(l)
		return l
	}
	if why := was.changed(now(func(*look) {})); why != "" {
		t.Errorf("the same disk: %s", why)
	}
	if why := was.changed(now(func(l *look) { l.disk.Serial = "S2" })); !strings.Contains(why, "another disk has its name") {
		t.Errorf("another serial number: %q", why)
	}
	if why := was.changed(now(func(l *look) { l.candidate.Unusable = "it is in use: it is mounted at /srv" })); why != "it is in use: it is mounted at /srv" {
		t.Errorf("it was mounted: %q", why)
	}
	b := make([]byte, 4*mib)
	copy(b, "XFSB")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if why := was.changed(now(func(*look) {})); !strings.Contains(why, "it held nothing, and now it holds ") {
		t.Errorf("something was written to it: %q", why)
	}
}

func TestASealIsFoundWhereTheTableIsGone(t *testing.T) {
	record, err := seal.Unsigned(seal.Record{Serial: "SN-ME", Image: "web/1", Protect: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		at   int64
		mbr  bool
		want bool
	}{
		"before the first MiB's end":          {mib - seal.Size, false, true},
		"in its partition's place":            {mib, false, true},
		"there, in another table's partition": {mib, true, false},
		"before it, beside another table's":   {mib - seal.Size, true, true},
		"elsewhere":                           {2 * mib, false, false},
	} {
		b := make([]byte, 8*mib)
		copy(b[c.at:], record)
		if c.mbr {
			b[446+4], b[446+9], b[446+13], b[510], b[511] = 0x83, 8, 8, 0x55, 0xaa // 2048 sectors from the 2048th on
		}
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l := &look{disk: disk.Disk{Path: file, Size: 8 * mib, Sector: 512}}
		if err := l.inspect(); err != nil || (l.seal != nil) != c.want {
			t.Errorf("%s: %v (%v), %v", name, l.seal, l.found, err)
		}
	}
}

func TestASealThatIsNoneIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	good, err := seal.Unsigned(seal.Record{Serial: "SN-ME", Image: "web/1"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		seal []byte
		ok   bool
	}{"none": {nil, true}, "one": {good, true}, "half of one": {good[:seal.Size/2], false}, "more than one": {append(good, 0), false}, "zeros": {make([]byte, seal.Size), false}} {
		r := machineOf(disks())
		r.scheme, r.Seal = keeping(), c.seal
		if err := r.mayWrite(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
