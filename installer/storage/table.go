package storage

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"imgbuild/image/layout"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/mbr"
)

// table is a partition table that is to be written.
type table interface {
	// groups are the writes: everything in a group must be on stable storage before the next is written. The last one is sector 0.
	groups(bootCode []byte) ([][]gpt.Write, error)
	// readBack returns an error unless the disk returns the table, without sector 0 where whole is false.
	readBack(r io.ReaderAt, whole bool) error
}

// stub is boot code that tells the BIOS to try the next disk (int 18h), and stops where that returns. Zeros would be executed.
func stub() []byte { return []byte{0xcd, 0x18, 0xf4, 0xeb, 0xfd} }

// newTable is the table of a disk in a scheme, nil if it has none. Only what is kept is in it if keptOnly: without any
// mark by which something could boot, and with the numbers that the partitions had.
func newTable(d layout.SchemeDisk, ids *IDs, keptOnly bool) (table, error) {
	switch d.Table {
	case layout.GPT:
		t, err := newGPT(d, ids, keptOnly)
		if err != nil {
			return nil, fmt.Errorf("partition %s: %w", d.Path, err)
		}
		return gptTable{t}, nil
	case layout.MBR:
		t, err := newMBR(d, ids, keptOnly)
		if err != nil {
			return nil, fmt.Errorf("partition %s: %w", d.Path, err)
		}
		return mbrTable{t}, nil
	case "":
		return nil, nil
	}
	return nil, fmt.Errorf("partition %s: there is no partition table of the kind %q", d.Path, d.Table)
}

func newGPT(d layout.SchemeDisk, ids *IDs, keptOnly bool) (*gpt.Table, error) {
	t := &gpt.Table{GUID: ids.Table(d.Name), SectorSize: d.Sector, Sectors: uint64(d.Size) / uint64(d.Sector)}
	for _, p := range d.Parts {
		if keptOnly && p.Kept == nil {
			continue
		}
		typ, err := uuid.Parse(p.Type)
		if err != nil {
			return nil, fmt.Errorf("partition %d: its type is %q and not a GUID", p.Number, p.Type)
		}
		e := gpt.Partition{Number: p.Number, Type: typ, GUID: ids.Partition(d.Name, p.Number), Name: p.Name}
		e.First, e.Last = sectors(p, d.Sector)
		if p.LegacyBoot {
			e.Attributes = gpt.AttrLegacyBoot
		}
		if keptOnly {
			e.Number, e.Attributes = p.Kept.Number, 0
		}
		t.Partitions = append(t.Partitions, e)
	}
	slices.SortFunc(t.Partitions, func(a, b gpt.Partition) int { return cmp.Compare(a.Number, b.Number) })
	return t, t.Validate()
}

func newMBR(d layout.SchemeDisk, ids *IDs, keptOnly bool) (*mbr.Table, error) {
	t := &mbr.Table{Signature: ids.Signature(d.Name), SectorSize: d.Sector, Sectors: uint64(d.Size) / uint64(d.Sector)}
	for _, p := range d.Parts {
		if keptOnly && p.Kept == nil {
			continue
		}
		e := mbr.Partition{Number: p.Number, Type: mbrType(p), Active: p.LegacyBoot}
		e.First, e.Last = sectors(p, d.Sector)
		if keptOnly {
			e.Number, e.Active = p.Kept.Number, false
		}
		t.Partitions = append(t.Partitions, e)
	}
	slices.SortFunc(t.Partitions, func(a, b mbr.Partition) int { return cmp.Compare(a.Number, b.Number) })
	return t, t.Validate()
}

// mbrType is 0 for what is none.
func mbrType(p layout.Part) byte {
	typ, _ := strconv.ParseUint(p.Type, 16, 8)
	return byte(typ)
}

func sectors(p layout.Part, size int) (first, last uint64) {
	return uint64(p.Start) / uint64(size), uint64(p.Start+p.Size)/uint64(size) - 1
}

type gptTable struct{ *gpt.Table }

func (t gptTable) groups(bootCode []byte) ([][]gpt.Write, error) { return t.Encode(bootCode) }

func (t gptTable) readBack(r io.ReaderAt, whole bool) error {
	got, err := gpt.Read(r, int64(t.Sectors)*int64(t.SectorSize))
	if err != nil {
		return fmt.Errorf("read the partition table back: %w", err)
	}
	if !got.Primary || !got.Backup || got.GUID != t.GUID || got.SectorSize != t.SectorSize || !slices.Equal(got.Partitions, t.Partitions) {
		return errOther
	}
	if !whole {
		return nil
	}
	if _, err := mbr.Read(r, int64(t.Sectors)*int64(t.SectorSize), t.SectorSize); !errors.Is(err, mbr.ErrProtective) {
		return errOther
	}
	return nil
}

type mbrTable struct{ *mbr.Table }

func (t mbrTable) groups(bootCode []byte) ([][]gpt.Write, error) { return t.Encode(bootCode) }

func (t mbrTable) readBack(r io.ReaderAt, whole bool) error {
	if !whole {
		return nil // nothing leads to the extended boot records yet
	}
	got, err := mbr.Read(r, int64(t.Sectors)*int64(t.SectorSize), t.SectorSize)
	if err != nil {
		return fmt.Errorf("read the partition table back: %w", err)
	}
	same := got.Signature == t.Signature && len(got.Partitions) == len(t.Partitions)
	for i := 0; same && i < len(t.Partitions); i++ {
		a, b := got.Partitions[i], t.Partitions[i]
		a.Record, b.Record = 0, 0
		same = a == b
	}
	if !same {
		return errOther
	}
	return nil
}

var errOther = errors.New("read the partition table back: the disk returns something else than was written; it is broken")
