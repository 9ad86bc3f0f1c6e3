package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// memDisk is a sparse disk: only what was written is kept.
type memDisk struct {
	size   int64
	blocks map[int64][512]byte
}

func newMemDisk(size int64) *memDisk { return &memDisk{size, map[int64][512]byte{}} }

func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		b := d.blocks[(off+int64(n))/512]
		n += copy(p[n:], b[(off+int64(n))%512:])
	}
	return len(p), nil
}

func (d *memDisk) write(w Write) {
	for i := 0; i < len(w.Data); i += 512 {
		d.blocks[(w.Offset+int64(i))/512] = [512]byte(w.Data[i : i+512])
	}
}

func sample(sectorSize int, size int64) *Table {
	t := &Table{GUID: uuid.New(), SectorSize: sectorSize, Sectors: uint64(size) / uint64(sectorSize)}
	s := uint64(sectorSize)
	t.Partitions = []Partition{
		{Number: 1, Type: uuid.MustParse(TypeBIOSBoot), GUID: uuid.New(), First: 1 << 20 / s, Last: 2<<20/s - 1, Name: "biosboot"},
		{Number: 2, Type: uuid.MustParse(TypeESP), GUID: uuid.New(), First: 2 << 20 / s, Last: 64<<20/s - 1, Name: "esp"},
		{Number: 3, Type: uuid.MustParse(TypeLinux), GUID: uuid.New(), First: 64 << 20 / s, Last: 128<<20/s - 1, Attributes: AttrLegacyBoot, Name: "boot"},
		{Number: 4, Type: uuid.MustParse(TypeRootX8664), GUID: uuid.New(), First: 128 << 20 / s, Last: uint64(size)/s - 1<<20/s - 1, Name: "wurzel-ä"},
	}
	return t
}

func TestATableComesBackAsItWasWritten(t *testing.T) {
	for _, ss := range []int{512, 4096} {
		for _, size := range []int64{1 << 30, 3 << 40, 20 << 40} {
			want := sample(ss, size)
			groups, err := want.Encode([]byte("code"))
			if err != nil {
				t.Fatal(err)
			}
			d := newMemDisk(size)
			for _, w := range slices.Concat(groups...) {
				d.write(w)
			}
			got, err := Read(d, size)
			if err != nil || !got.Primary || !got.Backup {
				t.Fatalf("%d bytes, sectors of %d: %+v, %v", size, ss, got, err)
			}
			if got.GUID != want.GUID || got.SectorSize != ss || !slices.Equal(got.Partitions, want.Partitions) {
				t.Errorf("the table changed on its way:\n%+v\n%+v", got.Table, want)
			}
			d.blocks[int64(ss)/512] = [512]byte{}
			if got, err = Read(d, size); err != nil || got.Primary || !got.Backup || !slices.Equal(got.Partitions, want.Partitions) {
				t.Errorf("without its primary header the table reads as %+v, %v", got, err)
			}
		}
	}
}

func TestTheProtectiveMBRCoversTheDiskUpTo32Bits(t *testing.T) {
	for size, want := range map[int64]uint32{1 << 30: 1<<30/512 - 1, 2 << 40: 1<<32 - 1, 3 << 40: 1<<32 - 1} {
		groups, err := sample(512, size).Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		mbr := groups[2][0].Data
		if got := binary.LittleEndian.Uint32(mbr[458:]); got != want || mbr[450] != 0xee || mbr[510] != 0x55 || mbr[511] != 0xaa {
			t.Errorf("a disk of %d bytes has a protective MBR of %d sectors, want %d", size, got, want)
		}
	}
}

// bootable says whether any firmware would try to boot the disk: a BIOS needs 55AA in sector 0 and UEFI firmware a
// protective MBR there, before it looks at either copy of the table.
func bootable(d *memDisk) bool {
	s := d.blocks[0]
	return s[510] == 0x55 && s[511] == 0xaa
}

func TestNoSubsetOfTheWritesBeforeTheLastSectorMakesTheDiskBootable(t *testing.T) {
	for _, ss := range []int{512, 4096} {
		const size = 1 << 30
		code := bytes.Repeat([]byte{0xfa}, 440)
		tab := sample(ss, size)
		groups, err := tab.Encode(code)
		if err != nil {
			t.Fatal(err)
		}
		type sector struct {
			group int
			w     Write
		}
		var sectors []sector
		for g, group := range groups {
			for _, w := range group {
				for i := 0; i < len(w.Data); i += ss {
					sectors = append(sectors, sector{g, Write{w.What, w.Offset + int64(i), w.Data[i : i+ss]}})
				}
			}
		}
		// Sectors of one group may reach the disk in any order; those of the next only after all of the group.
		rng := rand.New(rand.NewPCG(1, 2))
		for range 300 {
			d := newMemDisk(size)
			stop := rng.IntN(len(groups))
			for _, s := range sectors {
				if s.group < stop || s.group == stop && s.group < 2 && rng.IntN(2) == 0 {
					d.write(s.w)
				}
			}
			if bootable(d) {
				t.Fatalf("power failed in group %d and the disk is bootable", stop)
			}
		}
		d := newMemDisk(size)
		for i, s := range sectors {
			if bootable(d) {
				t.Fatalf("the disk is bootable after %d of %d sectors", i, len(sectors))
			}
			d.write(s.w)
		}
		if got, err := Read(d, size); !bootable(d) || err != nil || !got.Primary || !got.Backup {
			t.Errorf("after all writes the disk is not bootable: %+v, %v", got, err)
		}
		if s := d.blocks[0]; !bytes.HasPrefix(s[:], code) {
			t.Error("the boot code is not in sector 0")
		}
		if last := groups[len(groups)-1]; len(last) != 1 || last[0].Offset != 0 || len(last[0].Data) != ss {
			t.Error("the last group is not sector 0 alone")
		}
	}
}

func TestTablesThatMustNotBeWrittenAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Table)
		says   string
	}{
		"sectors of 520 bytes":           {func(t *Table) { t.SectorSize = 520 }, "520 bytes"},
		"a tiny disk":                    {func(t *Table) { t.Sectors = 40 }, "only 40 sectors"},
		"no GUID":                        {func(t *Table) { t.GUID = uuid.Nil }, "no GUID"},
		"a partition below the entries":  {func(t *Table) { t.Partitions[0].First = 33 }, "outside"},
		"a partition over the backup":    {func(t *Table) { t.Partitions[3].Last = t.Sectors - 33 }, "outside"},
		"a partition that ends too soon": {func(t *Table) { t.Partitions[3].Last = t.Partitions[3].First - 1 }, "outside"},
		"an overlap":                     {func(t *Table) { t.Partitions[2].First-- }, "overlap"},
		"the same number twice":          {func(t *Table) { t.Partitions[2].Number = 2 }, "there twice"},
		"number 129":                     {func(t *Table) { t.Partitions[2].Number = 129 }, "out of range"},
		"the same GUID twice":            {func(t *Table) { t.Partitions[2].GUID = t.Partitions[1].GUID }, "GUID of its own"},
		"a long name":                    {func(t *Table) { t.Partitions[2].Name = strings.Repeat("x", 37) }, "longer than 36"},
	} {
		t.Run(name, func(t *testing.T) {
			tab := sample(512, 1<<30)
			c.change(tab)
			if _, err := tab.Encode(nil); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something that says %q", err, c.says)
			}
		})
	}
	if _, err := sample(512, 1<<30).Encode(make([]byte, 441)); err == nil {
		t.Error("boot code over the disk signature was accepted")
	}
}

func TestADiskWithoutATableHasNone(t *testing.T) {
	for _, size := range []int64{0, 1, 512, 4096, 1 << 20} {
		if _, err := Read(newMemDisk(size), size); !errors.Is(err, ErrNone) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	groups, err := sample(512, 160<<20).Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	head := make([]byte, 34*512)
	for _, w := range slices.Concat(groups[1:]...) {
		copy(head[w.Offset:], w.Data)
	}
	f.Add(head)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Read(bytes.NewReader(data), int64(len(data)))
		if err == nil && !got.Primary && !got.Backup {
			t.Error("a table was read that is nowhere")
		}
	})
}
