package firstboot

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgbuild/image/layout"
)

type someIDs struct{}

func (someIDs) FS(d layout.Device) string { return "id-of-" + string(d) }
func (someIDs) Partition(string, int) uuid.UUID {
	return uuid.MustParse("6d1f4a1e-9c0b-4f6b-8d5e-7a3c21b0e5a2")
}

func TestASchemesDataDisksAreLeftToTheFirstBoot(t *testing.T) {
	s := &layout.Scheme{DataFirstBoot: []layout.SchemeDisk{{Name: "data1", Data: true, Table: layout.GPT,
		Candidate: layout.Candidate{ID: "sdb", Serial: "S", WWN: "naa.5", Size: 1 << 40},
		Parts: []layout.Part{{Number: 1, Start: 1 << 20, Size: 1<<40 - 2<<20,
			Content: layout.Content{FS: "xfs", Label: "data1", Mkfs: []string{"-K"}, Mount: "/data1", Options: "defaults,nofail"}}}}}}
	got := Data(s, someIDs{}, func(f layout.Filesystem) string { return "line of " + f.Mount + "\n" })
	want := DataConfig{Disks: []Disk{{WWN: "naa.5", Serial: "S", Size: 1 << 40, Number: 1, Partition: someIDs{}.Partition("", 0), UUID: "id-of-part/data1/1", FS: "xfs",
		Label: "data1", Mkfs: []string{"-K"}, Mount: "/data1", Fstab: "line of /data1\n"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestOnlyWhatThisProgramBeganIsFormattedByForce(t *testing.T) {
	xfs := Disk{UUID: "U", FS: "xfs", Label: "data1", Mkfs: []string{"-d", "agcount=8"}}
	ext4 := Disk{UUID: "U", FS: "ext4"}
	for _, c := range []struct {
		disk  Disk
		again bool
		want  string
	}{
		{xfs, false, "mkfs.xfs -q -m uuid=U -L data1 -d agcount=8 /dev/sdb1"},
		{xfs, true, "mkfs.xfs -q -m uuid=U -f -L data1 -d agcount=8 /dev/sdb1"},
		{ext4, false, "mkfs.ext4 -q -U U /dev/sdb1"},
		{ext4, true, "mkfs.ext4 -q -U U -F /dev/sdb1"},
	} {
		if got, err := mkfs(c.disk, "/dev/sdb1", c.again); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("got  %q, %v\nwant %q", got, err, c.want)
		}
	}
	if _, err := mkfs(Disk{FS: "zfs"}, "/dev/sdb1", false); err == nil {
		t.Error("there is a way to make zfs")
	}
}

func TestTheProgramStaysForWhomeverStillNeedsIt(t *testing.T) {
	s, _ := system(t, Config{}, nil)
	if err := os.WriteFile(filepath.Join(s.Root, DataFile), []byte(`{"disks": [{"size": 1, "number": 1, "partition": "6d1f4a1e-9c0b-4f6b-8d5e-7a3c21b0e5a2", "uuid": "", "fs": "xfs", "mount": "/data1", "fstab": ""}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, there := range map[string]bool{ConfigFile: false, UnitFile: false, DataFile: true, Program: true} {
		if _, err := os.Stat(filepath.Join(s.Root, name)); (err == nil) != there {
			t.Errorf("/%s: %v", name, err)
		}
	}
	// A disk that never comes is said, and tried again.
	s.Sys, s.Patience = t.TempDir(), 1
	if err := os.Mkdir(filepath.Join(s.Sys, "block"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Data(t.Context()); err == nil || !strings.Contains(err.Error(), "data disk for /data1: the disk is not there") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.Root, DataFile)); err != nil {
		t.Error(err)
	}
}

func TestDataDisksThatNobodyUnderstandsAreNotTouched(t *testing.T) {
	s, _ := system(t, Config{}, nil)
	s.Log = slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil))
	for _, text := range []string{"", `{"disk": []}`, `{"disks": []} x`} {
		if err := os.WriteFile(filepath.Join(s.Root, DataFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Data(t.Context()); err == nil || !strings.Contains(err.Error(), DataFile) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if names := slices.Concat(leftovers(), dataLeftovers(), shared()); len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		t.Errorf("something is removed twice: %q", names)
	}
}
