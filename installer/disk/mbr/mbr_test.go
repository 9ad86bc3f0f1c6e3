package mbr

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"imgbuild/installer/disk/gpt"
)

// memDisk is a sparse disk: only what was written is kept.
type memDisk struct {
	size   int64
	blocks map[int64][512]byte
}

func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		b := d.blocks[(off+int64(n))/512]
		n += copy(p[n:], b[(off+int64(n))%512:])
	}
	return len(p), nil
}

func (d *memDisk) write(w gpt.Write) {
	for i := 0; i < len(w.Data); i += 512 {
		d.blocks[(w.Offset+int64(i))/512] = [512]byte(w.Data[i : i+512])
	}
}

func written(t testing.TB, tab *Table) *memDisk {
	t.Helper()
	groups, err := tab.Encode([]byte("code"))
	if err != nil {
		t.Fatal(err)
	}
	d := &memDisk{int64(tab.Sectors) * int64(tab.SectorSize), map[int64][512]byte{}}
	for _, w := range slices.Concat(groups...) {
		d.write(w)
	}
	return d
}

func sample(sector int) *Table {
	m := uint64(1 << 20 / sector) // sectors of 1 MiB
	return &Table{Signature: 0x1a2b3c4d, SectorSize: sector, Sectors: 1024 * m, Partitions: []Partition{
		{Number: 1, Type: 0x83, First: m, Last: 65*m - 1, Active: true},
		{Number: 2, Type: TypeExtendedLBA, First: 100 * m, Last: 800*m - 1},
		{Number: 4, Type: 0x8e, First: 800 * m, Last: 1024*m - 1},
		{Number: 5, Type: 0x82, First: 101 * m, Last: 200*m - 1, Record: 100 * m},
		{Number: 6, Type: 0x83, First: 301 * m, Last: 400*m - 1, Record: 300 * m},
	}}
}

func TestATableComesBackAsItWasWritten(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for name, change := range map[string]func(*Table){
			"logical partitions":   func(*Table) {},
			"primary ones only":    func(t *Table) { t.Partitions = []Partition{t.Partitions[0], t.Partitions[2]} },
			"none":                 func(t *Table) { t.Partitions = nil },
			"an empty container":   func(t *Table) { t.Partitions = t.Partitions[:3] },
			"its first one erased": func(t *Table) { t.Partitions[4].Number = 5; t.Partitions = slices.Delete(t.Partitions, 3, 4) },
		} {
			want := sample(sector)
			change(want)
			d := written(t, want)
			got, err := Read(d, d.size, sector)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(want.Partitions) == 0 {
				want.Partitions = nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s, sectors of %d bytes: got %+v\nwant %+v", name, sector, got, want)
			}
		}
	}
}

func TestRecordsThatNobodyPlacedLieOneMiBBefore(t *testing.T) {
	tab := sample(512)
	want := tab.logical()
	tab.Partitions[3].Record, tab.Partitions[4].Record = 0, 0
	if got := tab.logical(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSectorZeroIsWrittenLastAndAlone(t *testing.T) {
	groups, err := sample(512).Encode(bytes.Repeat([]byte{7}, BootCodeMax))
	if err != nil || len(groups) != 2 || len(groups[1]) != 1 || groups[1][0].Offset != 0 || len(groups[1][0].Data) != 512 {
		t.Fatalf("got %v, %v", groups, err)
	}
	if len(groups[0]) != 2 || groups[0][0].Offset < groups[0][1].Offset {
		t.Errorf("the chain's end is not written first: %d, %d", groups[0][0].Offset, groups[0][1].Offset)
	}
	b := groups[1][0].Data
	if b[0] != 7 || b[439] != 7 || !bytes.Equal(b[440:446], []byte{0x4d, 0x3c, 0x2b, 0x1a, 0, 0}) || b[446] != 0x80 || b[462] != 0 || b[510] != 0x55 || b[511] != 0xaa {
		t.Errorf("sector 0 is % x", b)
	}
	if _, err := sample(512).Encode(make([]byte, BootCodeMax+1)); err == nil || !strings.Contains(err.Error(), "441 bytes and there is room for 440") {
		t.Errorf("got %v", err)
	}
}

func TestTablesThatMayNotBeWritten(t *testing.T) {
	for says, change := range map[string]func(*Table){
		"sectors of 520 bytes":                   func(t *Table) { t.SectorSize = 520 },
		"only 1 sectors":                         func(t *Table) { t.Sectors = 1 },
		"no disk signature":                      func(t *Table) { t.Signature = 0 },
		"number 0 is out of range":               func(t *Table) { t.Partitions[0].Number = 0 },
		"number 133 is out of range":             func(t *Table) { t.Partitions[4].Number = 133 },
		"number 4 is out of range or there twic": func(t *Table) { t.Partitions[0].Number = 4 },
		"the type 00":                            func(t *Table) { t.Partitions[0].Type = 0 },
		"the type ee":                            func(t *Table) { t.Partitions[0].Type = TypeProtective },
		"outside of 1 to":                        func(t *Table) { t.Partitions[0].First = 0 },
		"partition 4 lies at sectors":            func(t *Table) { t.Sectors-- },
		"ends beyond 4294967295 sectors":         func(t *Table) { t.Sectors = 1 << 33; t.Partitions[2].Last = 1 << 32 },
		"neither active nor extended":            func(t *Table) { t.Partitions[3].Active = true },
		"2 partitions are active":                func(t *Table) { t.Partitions[2].Active = true },
		"2 extended partitions":                  func(t *Table) { t.Partitions[0].Type = TypeExtended },
		"there is no extended partition":         func(t *Table) { t.Partitions[1].Type = 0x83 },
		"there is 7 without 6":                   func(t *Table) { t.Partitions[4].Number = 7 },
		"partition 6, or its record at sector":   func(t *Table) { t.Partitions[4].Last = t.Partitions[1].Last + 1 },
		"partitions overlap":                     func(t *Table) { t.Partitions[2].First-- },
		"records overlap":                        func(t *Table) { t.Partitions[4].Record = t.Partitions[3].Last },
		"first overlap":                          func(t *Table) { t.Partitions[3].Record++; t.Partitions[3].First = t.Partitions[1].First },
	} {
		tab := sample(512)
		change(tab)
		_, err := tab.Encode(nil)
		want := says
		if strings.HasSuffix(says, " overlap") {
			want = " overlap"
		}
		if says == "first overlap" {
			want = "partition 5, or its record"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", says, err)
		}
	}
}

func TestWhatIsNoTable(t *testing.T) {
	put := func(b []byte, at int, s string) []byte { copy(b[at:], s); return b }
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"zeros":              {make([]byte, 1024), ErrNone},
		"nothing":            {nil, ErrNone},
		"a boot sector":      {put(put(make([]byte, 1024), 440, "Error reading disk\r\n"), 510, "\x55\xaa"), ErrNone},
		"the protective one": {put(put(make([]byte, 1024), 446, "\x00\x00\x02\x00\xee\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\xff"), 510, "\x55\xaa"), ErrProtective},
	} {
		if _, err := Read(bytes.NewReader(c.data), int64(len(c.data)), 512); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	small := &Table{Signature: 1, SectorSize: 512, Sectors: 64, Partitions: []Partition{
		{Number: 1, Type: 0x83, First: 1, Last: 7}, {Number: 2, Type: TypeExtended, First: 8, Last: 63},
		{Number: 5, Type: 0x83, First: 9, Last: 15, Record: 8}, {Number: 6, Type: 0x83, First: 17, Last: 20, Record: 16}}}
	d := written(f, small)
	seed := make([]byte, 64*512)
	if _, err := d.ReadAt(seed, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	loop := bytes.Clone(seed)
	loop[16*512+462+4], loop[16*512+462+8], loop[16*512+462+12] = TypeExtended, 8, 1
	f.Add(loop)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, sector := range []int{512, 4096} {
			tab, err := Read(bytes.NewReader(data), int64(len(data)), sector)
			if err != nil {
				continue
			}
			for _, p := range tab.Partitions {
				if p.First > p.Last || p.Last >= tab.Sectors || p.First == 0 || p.Number < 1 || p.Number > 4+MaxLogical {
					t.Errorf("partition outside of the disk: %+v", p)
				}
			}
			if tab.Validate() != nil {
				continue
			}
			again := written(t, tab)
			got, err := Read(again, again.size, sector)
			if err != nil || !reflect.DeepEqual(got, tab) {
				t.Errorf("%+v comes back as %+v, %v", tab, got, err)
			}
		}
	})
}
