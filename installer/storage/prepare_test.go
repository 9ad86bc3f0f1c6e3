package storage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/image/layout"
	"imgbuild/installer/disk/mbr"
)

func TestAnArrayThatLacksMembersIsNotKept(t *testing.T) {
	sys := t.TempDir()
	if err := wholeArray(sys, "/dev/md127"); err != nil {
		t.Errorf("an array without redundancy: %v", err)
	}
	dir := filepath.Join(sys, "block/md127/md")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for text, bad := range map[string]bool{"0\n": false, "1\n": true} {
		if err := os.WriteFile(filepath.Join(dir, "degraded"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := wholeArray(sys, "/dev/md127"); (err != nil) != bad {
			t.Errorf("with %q: %v", text, err)
		}
	}
	f := &finder{members: map[string][]string{"boot": {"/dev/sda1"}}, sizes: map[string]int{"boot": 2}}
	if err := f.array(t.Context(), "boot"); err == nil || !strings.Contains(err.Error(), "it has 2 members and 1 of them") {
		t.Errorf("the error is %v", err)
	}
}

// old is a machine with one disk on which a scheme was installed.
func old(t *testing.T, s *layout.Scheme) (*rig, *IDs) {
	t.Helper()
	r := &rig{disks: map[string]memory{}}
	for _, d := range s.Disks {
		r.disks[d.Name] = memory{}
	}
	ids, err := r.install(t, s, "old")
	if err != nil {
		t.Fatal(err)
	}
	return r, ids
}

func prepared(t *testing.T, r *rig, s *layout.Scheme) (*work, error) {
	t.Helper()
	d := s.Disks[0]
	w := &work{SchemeDisk: d, open: func() (device, error) { return rigDisk{r, d.Name, d.Size}, nil }}
	return w, w.prepare(s, Identify(s), rigDisk{r, d.Name, d.Size})
}

// sector0 puts an MBR in the place of what is in sector 0.
func (r *rig) sector0(t *testing.T, parts ...mbr.Partition) {
	t.Helper()
	m := &mbr.Table{Signature: 1, SectorSize: 512, Sectors: testSize / 512, Partitions: parts}
	groups, err := m.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.disks["sda"].write(groups[len(groups)-1][0].Data, 0)
}

func TestNothingIsKeptByAGPTThatAnMBRHides(t *testing.T) {
	r, ids := old(t, scheme(oneDisk("sda", 512)))
	fresh := scheme(keeping(oneDisk("sda", 512), 6, ids))
	if _, err := prepared(t, r, fresh); err != nil {
		t.Fatal(err)
	}
	r.sector0(t, mbr.Partition{Number: 1, Type: 0x83, First: 2048, Last: 400000})
	if _, err := prepared(t, r, fresh); err == nil || !strings.Contains(err.Error(), "also has an MBR with 1 partition") {
		t.Errorf("the error is %v", err)
	}
}

func TestADiskThatKeepsWhereTheSealHasItsPlaceIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	d := mbrDisk("sda")
	d.Boot = false
	d.Parts = []layout.Part{{Number: 1, Type: "83", Start: 63 * 512, Size: 60 * mib, Content: layout.Content{FS: "ext4", Mount: "/srv"}}}
	r, ids := old(t, scheme(d))
	d = keeping(d, 1, ids)
	if _, err := prepared(t, r, scheme(d)); err != nil {
		t.Fatal(err)
	}
	d.Boot = true
	if _, err := prepared(t, r, scheme(d)); err == nil || !strings.Contains(err.Error(), "where the seal has its place") {
		t.Errorf("the error is %v", err)
	}
}

func TestADiskFromWhichUEFIBootsByAnMBRIsOneThatBoots(t *testing.T) {
	for name, c := range map[string]struct {
		part mbr.Partition
		want bool
	}{
		"an EFI system partition": {mbr.Partition{Number: 1, Type: 0xef, First: 2048, Last: 4095}, true},
		"an active one":           {mbr.Partition{Number: 1, Type: 0x0c, First: 2048, Last: 4095, Active: true}, true},
		"data":                    {mbr.Partition{Number: 1, Type: 0x83, First: 2048, Last: 4095}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{disks: map[string]memory{"sda": {}}}
			r.sector0(t, c.part)
			if w, err := prepared(t, r, scheme(oneDisk("sda", 512))); err != nil || w.boots != c.want {
				t.Errorf("boots is %t and the error %v", w.boots, err)
			}
		})
	}
}
