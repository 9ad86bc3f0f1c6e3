package testvm

import (
	"strings"
	"testing"

	"imgbuild/image/layout"
)

// What the programs print is of a machine that was installed with RAID, LVM and a thin pool.
const (
	lsblkOut = `{"blockdevices": [
 {"name":"vda","path":"/dev/vda","type":"disk","size":8589934592,"fstype":null,"label":null,"uuid":null},
 {"name":"vda2","path":"/dev/vda2","type":"part","size":1073741824,"fstype":"ext4","label":"boot","uuid":"0fc6"},
 {"name":"system-root","path":"/dev/mapper/system-root","type":"lvm","size":4294967296,"fstype":"xfs","label":"root","uuid":"77aa"}]}`
	lvsOut = `{"report":[{"seg":[
 {"vg_name":"system","lv_name":"root","lv_size":"4294967296","vg_extent_size":"4194304","seg_start_pe":"0","devices":"/dev/md126(12)","lv_attr":"-wi-ao----"},
 {"vg_name":"system","lv_name":"home","lv_size":"8388608","vg_extent_size":"4194304","seg_start_pe":"0","devices":"/dev/md126(1036)","lv_attr":"-wi-ao----"},
 {"vg_name":"system","lv_name":"home","lv_size":"8388608","vg_extent_size":"4194304","seg_start_pe":"1","devices":"/dev/md126(4)","lv_attr":"-wi-ao----"},
 {"vg_name":"system","lv_name":"thin","lv_size":"1073741824","vg_extent_size":"4194304","seg_start_pe":"0","devices":"","lv_attr":"Vwi-aotz--"},
 {"vg_name":"system","lv_name":"[pool_tmeta]","lv_size":"4194304","vg_extent_size":"4194304","seg_start_pe":"0","devices":"/dev/md126(2000)","lv_attr":"ewi-ao----"}]}]}`
	pvsOut = `{"report":[{"pv":[{"pv_name":"/dev/md126","pe_start":"1048576"}]}]}`
	mdOut  = "md126 system raid1 1.2 2 0 clean 16750592 vda4,vdb4,\nmd127 boot raid1 1.0 2 1 active 2097152 vda3,\n"
)

func gathered(t *testing.T) Storage {
	t.Helper()
	var s Storage
	var err error
	if s.Blocks, err = parseBlocks(lsblkOut); err != nil {
		t.Fatal(err)
	}
	if s.Volumes, err = parseSegments(lvsOut); err != nil {
		t.Fatal(err)
	}
	if err := addPEStarts(s.Volumes, pvsOut); err != nil {
		t.Fatal(err)
	}
	if s.Arrays, err = parseArrays(mdOut); err != nil {
		t.Fatal(err)
	}
	s.Mounts = []Mount{{"/", "/dev/mapper/system-root", "xfs", "rw,relatime"}, {"/boot", "/dev/vda2", "ext4", "rw,nodev"}}
	return s
}

func TestWhatAMachineSaysOfItsDisksIsRead(t *testing.T) {
	s := gathered(t)
	if len(s.Blocks) != 3 || s.Blocks[1].FS != "ext4" || s.Blocks[0].Label != "" {
		t.Errorf("%+v", s.Blocks)
	}
	if len(s.Volumes) != 4 || s.Volumes[0] != (Segment{Group: "system", Volume: "root", Size: 4 << 30, Extent: 4 << 20, Device: "/dev/md126", First: 12, PEStart: 1 << 20, Segments: 1, Attr: "-wi-ao----"}) ||
		s.Volumes[1].Segments != 2 || s.Volumes[2].Device != "" || s.Volumes[3].Volume != "pool_tmeta" {
		t.Errorf("%+v", s.Volumes)
	}
	if len(s.Arrays) != 2 || s.Arrays[1].Degraded != 1 || s.Arrays[1].Metadata != "1.0" || len(s.Arrays[0].Members) != 2 {
		t.Errorf("%+v", s.Arrays)
	}
	if v, err := parseSegments("\n"); v != nil || err != nil {
		t.Errorf("without LVM: %v, %v", v, err)
	}
	if _, err := parseArrays("md126 system raid1\n"); err == nil {
		t.Error("half a line is taken")
	}
}

func TestWhatIsNotAsDeclaredIsSaid(t *testing.T) {
	want := &layout.Scheme{
		Disks: []layout.SchemeDisk{{Name: "disk1", Table: layout.GPT, Parts: []layout.Part{
			{Number: 2, Size: 1 << 30, Content: layout.Content{FS: "ext4", Label: "boot", Mount: "/boot", Options: "nodev"}},
		}}},
		Groups: []layout.SchemeGroup{{Group: layout.Group{Name: "system"}, Volumes: []layout.SchemeVolume{
			{Volume: layout.Volume{Name: "root", Content: layout.Content{FS: "xfs", Label: "root", Mount: "/"}}, Size: 4 << 30},
		}}},
	}
	if p := gathered(t).Problems(want, 0); len(p) > 0 {
		t.Errorf("a good machine: %q", p)
	}
	for name, c := range map[string]struct {
		change func(*Storage)
		want   string
	}{
		"not mounted":      {func(s *Storage) { s.Mounts = s.Mounts[:1] }, "/boot is not mounted"},
		"without options":  {func(s *Storage) { s.Mounts[1].Options = "rw" }, "not with nodev"},
		"another size":     {func(s *Storage) { s.Blocks[1].Size *= 2 }, "has 2147483648 bytes and not 1073741824"},
		"another label":    {func(s *Storage) { s.Blocks[2].Label = "" }, `not "root"`},
		"swap of its own":  {func(s *Storage) { s.Swaps = []string{"/dev/vda3"} }, "1 swap spaces are in use and not 0"},
		"another volume":   {func(s *Storage) { s.Volumes[0].Volume = "toor" }, "there is no volume system/root"},
		"a smaller volume": {func(s *Storage) { s.Volumes[0].Size = 1 << 30 }, "the volume system/root has"},
	} {
		t.Run(name, func(t *testing.T) {
			s := gathered(t)
			c.change(&s)
			if p := strings.Join(s.Problems(want, 0), "; "); !strings.Contains(p, c.want) {
				t.Errorf("got %q, want %q", p, c.want)
			}
		})
	}
}
