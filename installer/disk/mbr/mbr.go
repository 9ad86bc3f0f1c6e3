// Package mbr reads and writes MBR partition tables (the IBM PC's, as Linux's block/partitions/msdos.c reads them), with
// logical partitions.
//
// A Table goes in, and comes out as the few writes that put it on a disk, sector 0 as the last of them; or a disk goes in and
// its Table comes out. It never opens a device, and never looks at what is inside a partition. A protective MBR is package
// gpt's.
package mbr

import (
	"encoding/binary"
	"fmt"
	"slices"

	"imgbuild/installer/disk/gpt"
)

// Partition types that decide something here. All others are the caller's.
const (
	TypeExtended    = 0x05
	TypeExtendedLBA = 0x0f
	TypeExtendedOld = 0x85 // Linux's own
	TypeProtective  = 0xee
)

const (
	// BootCodeMax is how many bytes of sector 0 are boot code.
	BootCodeMax = 440
	atSignature = 440 // four bytes, then two of zero
	atEntries   = 446
	entrySize   = 16
	primaries   = 4
	// MaxLogical bounds the chain of logical partitions, which a damaged or malicious disk can close to a loop. Linux stops at 60
	// or so (partitions up to number 63 in most of its drivers' times, 255 today).
	MaxLogical = 128
	// maxLBA is what the 32 bits of a start or a length hold.
	maxLBA = 1<<32 - 1
)

// Table is a partition table. Sectors are logical sectors of SectorSize bytes.
type Table struct {
	// Signature is the disk's: with the partition's number it is the PARTUUID (1a2b3c4d-01) by which Linux finds partitions. It is
	// never 0.
	Signature  uint32
	SectorSize int    // bytes: 512 or 4096
	Sectors    uint64 // of the whole disk
	// Partitions in any order. Numbers from 5 on are logical ones, without a gap, and lie in the one extended partition, which has
	// an entry of its own.
	Partitions []Partition
}

// Partition is one entry.
type Partition struct {
	Number      int // 1 to 4, logical ones from 5 on
	Type        byte
	First, Last uint64 // sectors, both included
	Active      bool   // that boot code starts it; one at most, a primary one
	// Record is the sector of a logical partition's extended boot record. 0 lays it 1 MiB before First, or where the extended
	// partition begins when that is nearer.
	Record uint64
}

// Extended reports whether a type is that of an extended partition, the container of logical ones.
func Extended(typ byte) bool {
	return typ == TypeExtended || typ == TypeExtendedLBA || typ == TypeExtendedOld
}

// align is 1 MiB in sectors.
func (t *Table) align() uint64 { return 1 << 20 / uint64(t.SectorSize) }

// extended is the entry of the extended partition, or nil.
func (t *Table) extended() *Partition {
	for i := range t.Partitions {
		if Extended(t.Partitions[i].Type) {
			return &t.Partitions[i]
		}
	}
	return nil
}

// logical are the logical partitions by their number, with their records' places.
func (t *Table) logical() []Partition {
	var out []Partition
	ext := t.extended()
	for _, p := range t.Partitions {
		if p.Number <= primaries {
			continue
		}
		if p.Record == 0 && ext != nil {
			p.Record = ext.First
			if p.First > t.align() {
				p.Record = max(p.Record, p.First-t.align())
			}
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Partition) int { return a.Number - b.Number })
	return out
}

// span is a piece of the disk that belongs to one thing only.
type span struct {
	first, last uint64
	what        string
}

// Validate returns an error when the table is not one that may be written: out of bounds, overlapping, or ambiguous.
func (t *Table) Validate() error {
	switch {
	case t.SectorSize != 512 && t.SectorSize != 4096:
		return fmt.Errorf("make partition table: the disk has sectors of %d bytes; 512 and 4096 are supported", t.SectorSize)
	case t.Sectors < 2:
		return fmt.Errorf("make partition table: the disk has only %d sectors", t.Sectors)
	case t.Signature == 0:
		return fmt.Errorf("make partition table: it has no disk signature")
	}
	numbers, active, containers := map[int]bool{}, 0, 0
	var whole, inner []span
	for _, p := range t.Partitions {
		switch {
		case p.Number < 1 || p.Number > primaries+MaxLogical || numbers[p.Number]:
			return fmt.Errorf("make partition table: partition number %d is out of range or there twice", p.Number)
		case p.Type == 0 || p.Type == TypeProtective:
			return fmt.Errorf("make partition table: partition %d has the type %02x, which is none of a partition", p.Number, p.Type)
		case p.First < 1 || p.First > p.Last || p.Last >= t.Sectors:
			return fmt.Errorf("make partition table: partition %d lies at sectors %d to %d, outside of 1 to %d", p.Number, p.First, p.Last, t.Sectors-1)
		case p.First > maxLBA || p.Last-p.First+1 > maxLBA || p.Last > maxLBA:
			return fmt.Errorf("make partition table: partition %d ends beyond %d sectors, the most that an MBR can tell; use a GPT", p.Number, uint64(maxLBA))
		case p.Number > primaries && (p.Active || Extended(p.Type)):
			return fmt.Errorf("make partition table: partition %d is a logical one, and neither active nor extended ones can be that", p.Number)
		}
		numbers[p.Number] = true
		if p.Active {
			active++
		}
		if Extended(p.Type) {
			containers++
		}
		if p.Number <= primaries {
			whole = append(whole, span{p.First, p.Last, fmt.Sprintf("partition %d", p.Number)})
		}
	}
	if active > 1 {
		return fmt.Errorf("make partition table: %d partitions are active and one may be", active)
	}
	if containers > 1 {
		return fmt.Errorf("make partition table: there are %d extended partitions and one may be", containers)
	}
	ext, logical := t.extended(), t.logical()
	if len(logical) > 0 && ext == nil {
		return fmt.Errorf("make partition table: partition %d is a logical one and there is no extended partition", logical[0].Number)
	}
	for i, p := range logical {
		switch {
		case p.Number != primaries+1+i:
			return fmt.Errorf("make partition table: logical partitions are numbered without a gap, and there is %d without %d", p.Number, primaries+1+i)
		case p.Record < ext.First || p.Record >= p.First || p.Last > ext.Last:
			return fmt.Errorf("make partition table: partition %d, or its record at sector %d, lies outside of the extended partition at sectors %d to %d",
				p.Number, p.Record, ext.First, ext.Last)
		}
		inner = append(inner, span{p.First, p.Last, fmt.Sprintf("partition %d", p.Number)},
			span{p.Record, p.Record, fmt.Sprintf("the record of partition %d", p.Number)})
	}
	if len(logical) > 0 && logical[0].Record != ext.First {
		inner = append(inner, span{ext.First, ext.First, "the first extended boot record"})
	}
	for _, spans := range [][]span{whole, inner} {
		slices.SortFunc(spans, func(a, b span) int {
			if a.first < b.first {
				return -1
			}
			return 1
		})
		for i := 1; i < len(spans); i++ {
			if spans[i].first <= spans[i-1].last {
				return fmt.Errorf("make partition table: %s and %s overlap", spans[i-1].what, spans[i].what)
			}
		}
	}
	return nil
}

// Encode returns the writes that put the table on a disk, in groups: everything in a group must be on stable storage before the
// next group is written. The last group is sector 0 alone, with bootCode (at most 440 bytes): without it there are neither
// partitions nor anything to boot, so that writing it, which disks do atomically, is the moment at which the disk becomes
// bootable.
func (t *Table) Encode(bootCode []byte) ([][]gpt.Write, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if len(bootCode) > BootCodeMax {
		return nil, fmt.Errorf("make partition table: the boot code has %d bytes and there is room for %d", len(bootCode), BootCodeMax)
	}
	var groups [][]gpt.Write
	if records := t.records(); len(records) > 0 {
		groups = append(groups, records)
	}
	b := make([]byte, t.SectorSize)
	copy(b, bootCode)
	binary.LittleEndian.PutUint32(b[atSignature:], t.Signature)
	for _, p := range t.Partitions {
		if p.Number <= primaries {
			t.entry(b[atEntries+(p.Number-1)*entrySize:], p, p.First)
		}
	}
	b[510], b[511] = 0x55, 0xaa
	return append(groups, []gpt.Write{{What: "partition table and boot code", Data: b}}), nil
}

// records is the chain of extended boot records, the last first: whatever power leaves of it is a chain that ends.
func (t *Table) records() []gpt.Write {
	ext, logical := t.extended(), t.logical()
	if ext == nil {
		return nil
	}
	type record struct {
		at   uint64
		part *Partition
	}
	var chain []record
	if len(logical) == 0 || logical[0].Record != ext.First {
		chain = append(chain, record{at: ext.First})
	}
	for i := range logical {
		chain = append(chain, record{logical[i].Record, &logical[i]})
	}
	var out []gpt.Write
	for i, r := range chain {
		b := make([]byte, t.SectorSize)
		if r.part != nil {
			t.entry(b[atEntries:], *r.part, r.part.First-r.at)
		}
		if i+1 < len(chain) {
			next := chain[i+1]
			link := Partition{Type: TypeExtended, First: next.at, Last: next.at}
			if next.part != nil {
				link.Last = next.part.Last
			}
			t.entry(b[atEntries+entrySize:], link, next.at-ext.First)
		}
		b[510], b[511] = 0x55, 0xaa
		out = append(out, gpt.Write{What: "extended boot record", Offset: int64(r.at) * int64(t.SectorSize), Data: b})
	}
	slices.Reverse(out)
	return out
}

// entry writes one entry of a table. start is the partition's first sector as this table counts.
func (t *Table) entry(b []byte, p Partition, start uint64) {
	if p.Active {
		b[0] = 0x80
	}
	chs(b[1:4], p.First)
	b[4] = p.Type
	chs(b[5:8], p.Last)
	binary.LittleEndian.PutUint32(b[8:], uint32(start))
	binary.LittleEndian.PutUint32(b[12:], uint32(p.Last-p.First+1))
}

// chs writes a sector as cylinder, head and sector of a disk with 255 heads and 63 sectors a track, which is what BIOSes make of
// all disks; what lies beyond is the last cylinder that there is.
func chs(b []byte, lba uint64) {
	const heads, sectors = 255, 63
	c, h, s := lba/(heads*sectors), lba/sectors%heads, lba%sectors+1
	if c > 1023 {
		c, h, s = 1023, heads-1, sectors
	}
	b[0], b[1], b[2] = byte(h), byte(s)|byte(c>>8<<6), byte(c)
}
