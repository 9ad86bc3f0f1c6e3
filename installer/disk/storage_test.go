package disk

import (
	"errors"
	"slices"
	"testing"

	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/probe"
)

// recorder is a disk in memory that notes every write and sync, and can break.
type recorder struct {
	data   []byte
	log    []op
	broken int // the write with this number, from 1, and all after it fail; 0 for never
	fail   error
	stuck  bool // writes succeed and change nothing
}

type op struct {
	off  int64
	data []byte // nil for a sync
}

func (r *recorder) ReadAt(p []byte, off int64) (int, error) { return copy(p, r.data[off:]), nil }

func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	r.log = append(r.log, op{off, slices.Clone(p)})
	if r.fail != nil && r.broken > 0 && len(r.log) >= r.broken {
		return 0, r.fail
	}
	if !r.stuck {
		copy(r.data[off:], p)
	}
	return len(p), nil
}

func (r *recorder) Sync() error {
	r.log = append(r.log, op{})
	return nil
}

const testSize = 64 * mib

func testTable(t *testing.T) (*gpt.Table, []probe.Part) {
	t.Helper()
	l := standard()
	l.Partitions = l.Partitions[:1]
	l.Partitions[0].SizeMiB = 8
	d := Disk{Size: testSize, Sector: 512}
	placed := []Placed{{Partition: l.Partitions[0], Number: 1, Start: mib, Size: 8 * mib}, {Partition: standard().Partitions[2], Number: 2, Start: 9 * mib, Size: 54 * mib}}
	tab, err := Table(d, placed, "x86_64")
	if err != nil {
		t.Fatal(err)
	}
	return tab, []probe.Part{{Number: 1, Start: mib, Size: 8 * mib}, {Number: 2, Start: 9 * mib, Size: 54 * mib}}
}

func full(t *testing.T) (*recorder, []probe.Part) {
	t.Helper()
	tab, parts := testTable(t)
	r := &recorder{data: make([]byte, testSize)}
	if err := Commit(r, tab, []byte("boot code")); err != nil {
		t.Fatal(err)
	}
	copy(r.data[mib:], "XFSB")
	copy(r.data[9*mib+512:], "LABELONE")
	copy(r.data[9*mib+536:], "LVM2 001")
	r.log = nil
	return r, parts
}

func TestWhileAnythingIsLeftAnInterruptedWipeStillFindsIt(t *testing.T) {
	r, parts := full(t)
	start := slices.Clone(r.data)
	if err := Wipe(t.Context(), r, testSize, parts); err != nil {
		t.Fatal(err)
	}
	replay := &recorder{data: start}
	for i, o := range r.log {
		found, _, err := probe.Disk(replay, testSize)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			for _, p := range parts {
				in, err := probe.Volume(sectionOf(replay, p), p.Size)
				if err != nil || len(in) > 0 {
					t.Fatalf("after %d writes the disk looks empty and partition %d holds %v, %v", i, p.Number, in, err)
				}
			}
		}
		copy(replay.data[o.off:], o.data)
	}
	if found, _, err := probe.Disk(r, testSize); err != nil || len(found) != 0 {
		t.Errorf("after the wipe there is %v, %v", found, err)
	}
}

type section struct {
	r   *recorder
	off int64
}

func (s section) ReadAt(p []byte, off int64) (int, error) { return s.r.ReadAt(p, s.off+off) }

func sectionOf(r *recorder, p probe.Part) section { return section{r, p.Start} }

func TestADiskThatIgnoresWritesIsNoticed(t *testing.T) {
	r, parts := full(t)
	r.stuck = true
	if err := Wipe(t.Context(), r, testSize, parts); err == nil {
		t.Error("the wipe was believed")
	}
	r = &recorder{data: make([]byte, testSize), stuck: true}
	tab, _ := testTable(t)
	if err := Commit(r, tab, nil); err == nil {
		t.Error("the table was believed")
	}
	for _, o := range r.log {
		if len(o.data) > 511 && o.off == 0 && o.data[510] == 0x55 {
			t.Error("sector 0 was written although the table could not be read back")
		}
	}
}

func bootable(b []byte) bool { return b[510] == 0x55 && b[511] == 0xaa }

func TestTheDiskBootsOnlyAfterTheLastWrite(t *testing.T) {
	tab, _ := testTable(t)
	r := &recorder{data: make([]byte, testSize)}
	if err := Commit(r, tab, []byte("boot code")); err != nil {
		t.Fatal(err)
	}
	writes := 0
	replay := make([]byte, testSize)
	synced := true
	for _, o := range r.log {
		if o.data == nil {
			synced = true
			continue
		}
		writes++
		if bootable(replay) {
			t.Errorf("the disk is bootable before write %d", writes)
		}
		if o.off == 0 && !synced {
			t.Error("sector 0 was written before the rest was synced")
		}
		copy(replay[o.off:], o.data)
		synced = false
	}
	if !bootable(replay) || !synced {
		t.Error("the disk is not bootable, or the last write is not synced")
	}
	broken := errors.New("I/O error")
	for n := range len(r.log) {
		b := &recorder{data: make([]byte, testSize), broken: n + 1, fail: broken}
		err := Commit(b, tab, []byte("boot code"))
		if n+1 <= 7 && (!errors.Is(err, broken) || !errors.Is(err, ErrNotUndone)) {
			t.Errorf("a disk that breaks at write %d gives %v", n+1, err)
		}
		if err != nil && bootable(b.data) {
			t.Errorf("a disk that broke at write %d is bootable", n+1)
		}
	}
}
