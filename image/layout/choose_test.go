package layout

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// rack is a server with two small NVMe disks, two SATA SSDs of one kind, a large disk that turns, a USB stick and a virtual medium.
func rack() []Candidate {
	return []Candidate{
		{ID: "nvme0n1", Path: "/dev/nvme0n1", Model: "INTEL SSDPE2KX010T8", Serial: "PHLJ1", WWN: "eui.01000000010000005cd2e4a1", Size: 1000204886016, Sector: 512, Transport: "nvme", ByPath: []string{"pci-0000:5e:00.0-nvme-1"}},
		{ID: "nvme1n1", Path: "/dev/nvme1n1", Model: "INTEL SSDPE2KX010T8", Serial: "PHLJ2", Size: 1000204886016, Sector: 512, Transport: "nvme", ByPath: []string{"pci-0000:5f:00.0-nvme-1"}},
		{ID: "sda", Path: "/dev/sda", Model: "SAMSUNG MZ7L3480", Serial: "S661", WWN: "naa.5002538f00000001", Size: disk480GB, Sector: 512, Transport: "sata", HCTL: "0:0:0:0", ByPath: []string{"pci-0000:00:17.0-ata-1"}},
		{ID: "sdb", Path: "/dev/sdb", Model: "SAMSUNG MZ7L3480", Serial: "S662", WWN: "naa.5002538f00000002", Size: disk480GB, Sector: 512, Transport: "sata", HCTL: "1:0:0:0", ByPath: []string{"pci-0000:00:17.0-ata-2"}},
		{ID: "sdc", Path: "/dev/sdc", Model: "ST8000NM", Serial: "ZA1", Size: 8001563222016, Sector: 512, Transport: "sas", Rotational: true, HCTL: "2:0:0:0"},
		{ID: "sdd", Path: "/dev/sdd", Model: "Ultra Fit", Serial: "4C53", Size: 64e9, Sector: 512, Transport: "usb", Unfit: "it is on USB", ByPath: []string{"pci-0000:00:14.0-usb-0:1:1.0-scsi-0:0:0:0"}},
		{ID: "sde", Path: "/dev/sde", Model: "Virtual HDisk0", Size: 1e9, Sector: 512, Transport: "usb", Unfit: "it is on USB", Unusable: "it is read-only"},
	}
}

func one(h Hints) Layout { return Layout{Match: h} }

func TestDisksAreChosenByHints(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		l     Layout
		named []string
		want  string // disks | data
	}{
		"by serial number":                   {one(Hints{Serial: "S662"}), nil, "sdb |"},
		"by serial number and a glob":        {one(Hints{Serial: "ZA*"}), nil, "sdc |"},
		"by WWN with another prefix":         {one(Hints{WWN: "0x5002538f00000001"}), nil, "sda |"},
		"by model, size and bus":             {one(Hints{Model: "SAMSUNG*", Size: "480GB", Path: "pci-0000:00:17.0-ata-2"}), nil, "sdb |"},
		"by size with an operator":           {one(Hints{Size: ">=4TB"}), nil, "sdc |"},
		"by a range of sizes":                {one(Hints{Size: ">2TB <10TB"}), nil, "sdc |"},
		"by turning":                         {one(Hints{Rotational: &yes}), nil, "sdc |"},
		"by what it is not":                  {one(Hints{Transport: "!nvme", Model: "!SAMSUNG*"}), nil, "sdc |"},
		"by SCSI address":                    {one(Hints{HCTL: "1:*"}), nil, "sdb |"},
		"by a link's whole path":             {one(Hints{Path: "/dev/disk/by-path/pci-0000:5f:00.0-nvme-1"}), nil, "nvme1n1 |"},
		"the largest":                        {one(Hints{Prefer: "largest"}), nil, "sdc |"},
		"the first":                          {one(Hints{Prefer: "first"}), nil, "sda |"},
		"the first on NVMe":                  {one(Hints{Transport: "nvme", Prefer: "first"}), nil, "nvme0n1 |"},
		"a USB stick that is named":          {one(Hints{Serial: "4C53"}), nil, "sdd |"},
		"a USB stick that a person named":    {one(Hints{}), []string{"/dev/sdd"}, "sdd |"},
		"by name, whatever hints say":        {one(Hints{Rotational: &yes}), []string{"S661"}, "sda |"},
		"a mirror of a kind":                 {Layout{Preset: Mirror, Match: Hints{Transport: "nvme"}}, nil, "nvme0n1 nvme1n1 |"},
		"a mirror of the smallest":           {Layout{Preset: Mirror, Match: Hints{Prefer: "smallest"}}, nil, "sda sdb |"},
		"a mirror that a person named":       {Layout{Preset: Mirror}, []string{"PHLJ2", "PHLJ1"}, "nvme1n1 nvme0n1 |"},
		"one named, the other by hints":      {Layout{Preset: Mirror, Match: Hints{Transport: "nvme"}}, []string{"PHLJ2"}, "nvme1n1 nvme0n1 |"},
		"data disks are the rest":            {Layout{Preset: Mirror, Match: Hints{Transport: "nvme"}, Data: &Data{}}, nil, "nvme0n1 nvme1n1 | sda sdb sdc"},
		"data disks of a kind":               {Layout{Match: Hints{Transport: "nvme", Prefer: "first"}, Data: &Data{Match: Hints{Rotational: &no, Transport: "sata"}}}, nil, "nvme0n1 | sda sdb"},
		"a data disk that is named":          {Layout{Match: Hints{Serial: "S661"}, Data: &Data{Match: Hints{Serial: "4C53"}}}, nil, "sda | sdd"},
		"what one leaves to the other":       {Layout{Disks: []Disk{{Match: Hints{Transport: "sata"}, Group: "a"}, {Match: Hints{Size: "480GB", Serial: "S661"}, Group: "b"}}}, nil, "sdb sda |"},
		"a preference after what is certain": {Layout{Disks: []Disk{{Match: Hints{Prefer: "smallest"}, Group: "a"}, {Match: Hints{Serial: "S661"}, Group: "b"}}}, nil, "sdb sda |"},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				all := rack()
				rand.New(rand.NewPCG(1, seed)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				disks, data, err := c.l.Choose(all, c.named)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, d := range disks {
					got = append(got, d.ID)
				}
				got = append(got, "|")
				for _, d := range data {
					got = append(got, d.ID)
				}
				if s := strings.Join(got, " "); s != c.want {
					t.Errorf("chosen are %s, and should be %s", s, c.want)
				}
			}
		})
	}
}

func TestWhatIsNotClearIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		l     Layout
		named []string
		all   []Candidate
		want  []string
	}{
		"a tie": {Layout{}, nil, rack(), []string{
			"choose disks: disk1 is one disk, and 5 fit; choose with imgbuild.disk= or an order's --disk, or with match: in the layout as below",
			"\n  S661: /dev/sda (SAMSUNG MZ7L3480, serial S661, 447.1 GiB, sata); match: {serial: \"S661\"}",
			"\n  ZA1: /dev/sdc (ST8000NM, serial ZA1, 7.3 TiB, sas); match: {rotational: true}",
		}},
		"a tie of two that differ in size": {Layout{}, nil, []Candidate{ssd("sda", disk480GB), ssd("sdb", 960197124096)}, []string{`match: {size: "480.1GB"}`, `match: {size: "960.2GB"}`}},
		"a tie of two that differ in nothing but their place": {Layout{}, nil, []Candidate{
			{ID: "vda", Path: "/dev/vda", Size: gib, ByPath: []string{"pci-0000:00:04.0"}}, {ID: "vdb", Path: "/dev/vdb", Size: gib, ByPath: []string{"pci-0000:00:05.0"}},
		}, []string{`/dev/disk/by-path/pci-0000:00:04.0: /dev/vda (no serial, 1 GiB); match: {path: "pci-0000:00:04.0"}`}},
		"a tie for a mirror": {Layout{Preset: Mirror}, nil, rack(), []string{
			"disk1 and disk2 are 2 disks, and 5 fit", "\n  match: {transport: \"sata\"} on each of disk1 and disk2 takes 2 of them",
		}},
		"a preference that does not decide":   {one(Hints{Prefer: "smallest"}), nil, rack(), []string{"disk1 is one disk, and 5 fit"}},
		"disks with different purposes":       {Layout{Disks: []Disk{{Group: "a"}, {Group: "b"}}}, nil, rack()[:2], []string{"disk1 is one disk, and 2 fit"}},
		"no disk":                             {Layout{}, nil, nil, []string{"this machine has no disk that the kernel knows"}},
		"only disks that have to be named":    {Layout{}, nil, rack()[5:], []string{"no disk may be taken for disk1 without being named", "4C53: /dev/sdd (Ultra Fit, serial 4C53, 59.6 GiB, usb); it is on USB", "it is read-only; it is on USB"}},
		"only virtual disks":                  {Layout{}, nil, []Candidate{{ID: "loop0", Path: "/dev/loop0", Transport: "virtual", Unfit: "it is a virtual device"}}, []string{"no disk but virtual ones"}},
		"a disk less than the layout has":     {Layout{Disks: []Disk{{Match: Hints{Serial: "S661"}, Group: "a"}, {Group: "b"}}}, nil, rack()[2:3], []string{"no disk is left for disk2"}},
		"a mirror on one disk":                {Layout{Preset: Mirror}, nil, rack()[4:], []string{"disk1 and disk2 need 2 disks and 1 may be taken without being named"}},
		"hints that fit nothing":              {one(Hints{Size: "2TB"}), nil, rack(), []string{`match: {size: "2TB"} of disk1 fits 0 disks of the machine and 1 are needed`, "\n  S661: "}},
		"hints of a kind do not name":         {one(Hints{Transport: "usb"}), nil, rack(), []string{"fits 0 disks"}},
		"a name that is nobody's":             {Layout{}, []string{"S999"}, rack(), []string{"\"S999\" names no disk of this machine; it has\n  4C53: "}},
		"a name that is two disks'":           {Layout{}, []string{"X"}, []Candidate{{ID: "sda", Path: "/dev/sda", Serial: "X"}, {ID: "sdb", Path: "/dev/sdb", Serial: "X"}}, []string{"\"X\" names 2 disks; name one of them as\n  /dev/sda: "}},
		"a name twice":                        {Layout{Preset: Mirror}, []string{"S661", "/dev/sda"}, rack(), []string{"which is named already"}},
		"more names than disks":               {Layout{}, []string{"S661", "S662"}, rack(), []string{"2 disks are named and the layout has 1"}},
		"a disk that cannot be used":          {Layout{}, []string{"/dev/sde"}, rack(), []string{"cannot be taken: it is read-only"}},
		"a data disk that cannot be used":     {Layout{Match: Hints{Serial: "S661"}, Data: &Data{Match: Hints{Path: "/dev/sde"}}}, nil, rack(), []string{"the data disk /dev/sde (Virtual HDisk0, no serial, 953.7 MiB, usb) cannot be taken: it is read-only"}},
		"what lies on the candidates is said": {Layout{}, nil, []Candidate{{ID: "a", Path: "/dev/a", Size: gib, Found: "GPT with 3 partitions"}, {ID: "b", Path: "/dev/b", Size: gib, Found: "empty"}}, []string{"; GPT with 3 partitions; match: "}},
	} {
		t.Run(name, func(t *testing.T) {
			disks, _, err := c.l.Choose(c.all, c.named)
			if err == nil {
				t.Fatalf("chosen are %v", disks)
			}
			if !errors.Is(err, ErrChoice) {
				t.Errorf("%v is not an ErrChoice", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error is\n%v\nand should have\n%s", err, w)
				}
			}
		})
	}
}

func TestADiskWithTwoPathsIsOne(t *testing.T) {
	all := []Candidate{
		{ID: "sdb", Path: "/dev/sdb", Serial: "6001", Size: gib, Unusable: "it is a second path to /dev/sda", PathOf: "sda"}, {ID: "sda", Path: "/dev/sda", Serial: "6001", Size: gib}, {ID: "sdc", Path: "/dev/sdc", Serial: "6002", Size: gib},
	}
	for _, l := range []Layout{{}, {Match: Hints{Serial: "6001"}}} {
		var named []string
		if l.Match.Serial == "" {
			named = []string{"6001"}
		}
		disks, _, err := l.Choose(all, named)
		if err != nil || disks[0].ID != "sda" {
			t.Errorf("%v (%v)", disks, err)
		}
	}
	if got := all[1].Argument(all); got != "6001" {
		t.Errorf("the disk is named by %s", got)
	}
}

// TestTheHintsOfARefusalDecide: whatever a tie says would decide, does.
func TestTheHintsOfARefusalDecide(t *testing.T) {
	all := rack()
	c := &chooser{all: all, layout: make([]Disk, 1), chosen: make([]*Candidate, 1), taken: map[string]bool{}}
	fits := c.fits(0)
	for _, d := range fits {
		if deciding(fits, []*Candidate{d}) == "" {
			t.Errorf("nothing would decide for %s", d.ID)
		}
	}
	if len(fits) != 5 {
		t.Errorf("%d disks fit", len(fits))
	}
}

func TestDisksInTheOrderOfBuses(t *testing.T) {
	var want []Candidate
	for _, p := range []string{
		"pci-0000:00:1f.2-ata-2", "pci-0000:00:1f.2-ata-10", "pci-0000:09:00.0-nvme-1", "pci-0000:0a:00.0-nvme-1", "pci-0000:0a:00.0-scsi-0:0:2:0", "pci-0000:0a:00.0-scsi-0:0:10:0",
		"pci-0000:10:00.0-nvme-1", "pci-10000:01:00.0-nvme-1",
	} {
		want = append(want, Candidate{Path: "/dev/z", ByPath: []string{p}})
	}
	for _, p := range []string{"/dev/nvme2n1", "/dev/nvme10n1", "/dev/sda", "/dev/sdz", "/dev/sdaa", "/dev/vda"} {
		want = append(want, Candidate{Path: p})
	}
	got := slices.Clone(want)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
	slices.SortStableFunc(got, compareCandidates)
	for i := range want {
		if !equal(got[i], want[i]) {
			t.Errorf("%d is %s%v, and should be %s%v", i, got[i].Path, got[i].ByPath, want[i].Path, want[i].ByPath)
		}
	}
}

func TestASerialNumberThatADiskInUseSharesNamesNeither(t *testing.T) {
	all := []Candidate{{ID: "sda", Path: "/dev/sda", Serial: "0123", Size: gib}, {ID: "sdb", Path: "/dev/sdb", Serial: "0123", Size: gib, Unusable: "it is in use: /dev/sdb1 is mounted at /"}}
	l := Layout{Preset: "simple", Firmware: UEFI}
	if _, _, err := l.Choose(all, []string{"0123"}); !errors.Is(err, ErrChoice) || !strings.Contains(err.Error(), `"0123" names 2 disks`) {
		t.Errorf("the error is %v", err)
	}
	if got := all[0].Argument(all); got != "/dev/sda" {
		t.Errorf("the disk is named by %s", got)
	}
}
