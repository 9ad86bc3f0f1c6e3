package mbr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrNone is returned, wrapped, when a disk has no MBR partition table.
var ErrNone = errors.New("there is no MBR partition table")

// ErrProtective is returned, wrapped, when the MBR only protects a GUID partition table, whether that is there or not.
var ErrProtective = errors.New("the MBR is the protective one of a GUID partition table")

// Read finds the table on a disk of size bytes with logical sectors of sector bytes. The boot sector of a file system ends in
// 55AA as well; it is told apart by entries that no partition table has. A table without partitions is one. What lies outside of
// the disk is left out, as the kernel does. Logical partitions are numbered as the kernel numbers them.
func Read(r io.ReaderAt, size int64, sector int) (*Table, error) {
	if sector != 512 && sector != 4096 {
		return nil, fmt.Errorf("read partition table: the disk has sectors of %d bytes; 512 and 4096 are supported", sector)
	}
	if size < int64(sector) {
		return nil, fmt.Errorf("read partition table: %w", ErrNone)
	}
	t := &Table{SectorSize: sector, Sectors: uint64(size) / uint64(sector)}
	b := make([]byte, 512)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read partition table: %w", unexpected(err))
	}
	first := entries(b)
	if first == nil {
		return nil, fmt.Errorf("read partition table: %w", ErrNone)
	}
	t.Signature = binary.LittleEndian.Uint32(b[atSignature:])
	var chain []uint64
	for i, e := range first {
		if e.typ == TypeProtective {
			return nil, fmt.Errorf("read partition table: %w", ErrProtective)
		}
		p := Partition{Number: i + 1, Type: e.typ, First: e.start, Last: e.start + e.sectors - 1, Active: e.active}
		switch {
		case e.typ == 0 || e.sectors == 0 || e.start == 0 || p.First >= t.Sectors:
			continue
		case Extended(e.typ):
			// The kernel reads every chain, and an extended partition that is longer than the disk is one all the same.
			p.Last = min(p.Last, t.Sectors-1)
			chain = append(chain, e.start)
		case p.Last >= t.Sectors:
			continue
		}
		t.Partitions = append(t.Partitions, p)
	}
	for _, base := range chain {
		if err := t.follow(r, base); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func unexpected(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

type entry struct {
	typ            byte
	active         bool
	start, sectors uint64
}

// entries are the four of a sector, or nil where it has no table.
func entries(b []byte) []entry {
	if b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	var out []entry
	for e := b[atEntries:510]; len(e) > 0; e = e[entrySize:] {
		if e[0]&0x7f != 0 {
			return nil
		}
		le := binary.LittleEndian
		out = append(out, entry{e[4], e[0] == 0x80, uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))})
	}
	return out
}

// follow reads the chain of extended boot records that starts at sector base. A damaged chain ends where the damage is.
func (t *Table) follow(r io.ReaderAt, base uint64) error {
	b := make([]byte, 512)
	at, number := base, primaries+1
	for _, p := range t.Partitions {
		number = max(number, p.Number+1)
	}
	for n := 0; n < MaxLogical && number <= primaries+MaxLogical && at < t.Sectors; n++ {
		if k, err := r.ReadAt(b, int64(at)*int64(t.SectorSize)); k < len(b) {
			return fmt.Errorf("read the extended boot record at sector %d: %w", at, unexpected(err))
		}
		es := entries(b)
		if es == nil {
			return nil
		}
		next := uint64(0)
		for _, e := range es {
			switch {
			case e.sectors == 0 || e.typ == 0:
			case Extended(e.typ):
				if next == 0 && e.start > 0 {
					next = base + e.start
				}
			case e.start > 0 && at+e.start+e.sectors <= t.Sectors && number <= primaries+MaxLogical:
				t.Partitions = append(t.Partitions, Partition{Number: number, Type: e.typ, First: at + e.start, Last: at + e.start + e.sectors - 1, Record: at})
				number++
			}
		}
		if next == 0 {
			return nil
		}
		at = next
	}
	return nil
}
