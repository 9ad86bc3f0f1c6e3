// Package gpt reads and writes GUID partition tables (UEFI specification 2.10, chapter 5).
//
// A Table goes in, and comes out as the few writes that put it on a disk, in an order in which no firmware boots from
// the disk before the last of them; or a disk goes in and its Table comes out. It never opens a device, and never
// looks at what is inside a partition.
package gpt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/google/uuid"
)

// Partition types, from the UEFI specification, table 5.7, and the Discoverable Partitions Specification.
const (
	TypeBIOSBoot  = "21686148-6449-6e6f-744e-656564454649"
	TypeESP       = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	TypeLinux     = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	TypeRootX8664 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
)

// AttrLegacyBoot marks the partition that BIOS boot code in the MBR starts (UEFI specification, table 5.8, bit 2).
const AttrLegacyBoot = 1 << 2

const (
	signature   = "EFI PART"
	revision    = 0x00010000
	headerSize  = 92
	entrySize   = 128
	entryCount  = 128
	entryBytes  = entrySize * entryCount
	mbrTypeGPT  = 0xee
	bootCodeMax = 440 // bytes of sector 0 before the MBR's disk signature
)

// Table is a partition table. Sectors are logical sectors of SectorSize bytes.
type Table struct {
	GUID       uuid.UUID
	SectorSize int    // bytes: 512 or 4096
	Sectors    uint64 // of the whole disk
	Partitions []Partition
}

// Partition is one entry. Its Number is its place in the table, from 1.
type Partition struct {
	Number      int
	Type        uuid.UUID
	GUID        uuid.UUID
	First, Last uint64 // sectors, both included
	Attributes  uint64
	Name        string // at most 36 UTF-16 code units
}

// Write is a piece of a disk to be written at Offset bytes.
type Write struct {
	What   string
	Offset int64
	Data   []byte
}

// entrySectors is the number of sectors that the array of entries takes.
func (t *Table) entrySectors() uint64 {
	return uint64((entryBytes + t.SectorSize - 1) / t.SectorSize)
}

// FirstUsable and LastUsable are the sectors between which partitions may lie.
func (t *Table) FirstUsable() uint64 { return 2 + t.entrySectors() }

// LastUsable is the last sector that may belong to a partition.
func (t *Table) LastUsable() uint64 { return t.Sectors - 2 - t.entrySectors() }

// Validate returns an error when the table is not one that may be written: out of bounds, overlapping, or ambiguous.
func (t *Table) Validate() error {
	if t.SectorSize != 512 && t.SectorSize != 4096 {
		return fmt.Errorf("make partition table: the disk has sectors of %d bytes; 512 and 4096 are supported", t.SectorSize)
	}
	if t.Sectors < 4*(2+t.entrySectors()) {
		return fmt.Errorf("make partition table: the disk has only %d sectors", t.Sectors)
	}
	if t.GUID == uuid.Nil {
		return fmt.Errorf("make partition table: it has no GUID")
	}
	sorted := slices.SortedFunc(slices.Values(t.Partitions), func(a, b Partition) int {
		switch {
		case a.First < b.First:
			return -1
		case a.First > b.First:
			return 1
		}
		return 0
	})
	numbers, guids := map[int]bool{}, map[uuid.UUID]bool{t.GUID: true}
	for i, p := range sorted {
		switch {
		case p.Number < 1 || p.Number > entryCount || numbers[p.Number]:
			return fmt.Errorf("make partition table: partition number %d is out of range or there twice", p.Number)
		case p.Type == uuid.Nil:
			return fmt.Errorf("make partition table: partition %d has no type", p.Number)
		case p.GUID == uuid.Nil || guids[p.GUID]:
			return fmt.Errorf("make partition table: partition %d has no GUID of its own", p.Number)
		case p.First > p.Last || p.First < t.FirstUsable() || p.Last > t.LastUsable():
			return fmt.Errorf("make partition table: partition %d lies at sectors %d to %d, outside of %d to %d",
				p.Number, p.First, p.Last, t.FirstUsable(), t.LastUsable())
		case i > 0 && p.First <= sorted[i-1].Last:
			return fmt.Errorf("make partition table: partitions %d and %d overlap", sorted[i-1].Number, p.Number)
		case len(utf16.Encode([]rune(p.Name))) > 36 || strings.ContainsRune(p.Name, 0):
			return fmt.Errorf("make partition table: partition %d has the name %q, which is longer than 36 characters", p.Number, p.Name)
		}
		numbers[p.Number], guids[p.GUID] = true, true
	}
	return nil
}

// Encode returns the writes that put the table on a disk, in groups: everything in a group must be on stable storage
// before the next group is written. The last group is sector 0 alone, with bootCode (at most 440 bytes) and the
// protective MBR. Without that one sector neither a BIOS (no 55AA) nor UEFI firmware (no protective MBR) takes the
// disk for bootable, so that writing it, which disks do atomically, is the moment at which the disk becomes bootable.
func (t *Table) Encode(bootCode []byte) ([][]Write, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if len(bootCode) > bootCodeMax {
		return nil, fmt.Errorf("make partition table: the boot code has %d bytes and there is room for %d", len(bootCode), bootCodeMax)
	}
	ss := int64(t.SectorSize)
	entries := make([]byte, t.entrySectors()*uint64(ss))
	for _, p := range t.Partitions {
		p.encode(entries[(p.Number-1)*entrySize:])
	}
	crc := crc32.ChecksumIEEE(entries[:entryBytes])
	last := t.Sectors - 1
	backupEntries := last - t.entrySectors()
	return [][]Write{
		{
			{"backup partition entries", int64(backupEntries) * ss, entries},
			{"backup partition table header", int64(last) * ss, t.header(last, 1, backupEntries, crc)},
		},
		{
			{"partition entries", 2 * ss, entries},
			{"partition table header", ss, t.header(1, last, 2, crc)},
		},
		{
			{"protective MBR and boot code", 0, t.protectiveMBR(bootCode)},
		},
	}, nil
}

func (t *Table) header(at, other, entries uint64, entriesCRC uint32) []byte {
	b := make([]byte, t.SectorSize)
	le := binary.LittleEndian
	copy(b, signature)
	le.PutUint32(b[8:], revision)
	le.PutUint32(b[12:], headerSize)
	le.PutUint64(b[24:], at)
	le.PutUint64(b[32:], other)
	le.PutUint64(b[40:], t.FirstUsable())
	le.PutUint64(b[48:], t.LastUsable())
	g := mixed(t.GUID)
	copy(b[56:], g[:])
	le.PutUint64(b[72:], entries)
	le.PutUint32(b[80:], entryCount)
	le.PutUint32(b[84:], entrySize)
	le.PutUint32(b[88:], entriesCRC)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

// protectiveMBR covers the whole disk with one entry, whose size stops at 32 bits on disks beyond 2 TiB (UEFI
// specification, table 5.4).
func (t *Table) protectiveMBR(bootCode []byte) []byte {
	b := make([]byte, t.SectorSize)
	copy(b, bootCode)
	e := b[446:462]
	e[2] = 0x02 // CHS 0/0/2
	e[4] = mbrTypeGPT
	e[5], e[6], e[7] = 0xff, 0xff, 0xff
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(t.Sectors-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func (p *Partition) encode(b []byte) {
	typ, guid := mixed(p.Type), mixed(p.GUID)
	copy(b, typ[:])
	copy(b[16:], guid[:])
	binary.LittleEndian.PutUint64(b[32:], p.First)
	binary.LittleEndian.PutUint64(b[40:], p.Last)
	binary.LittleEndian.PutUint64(b[48:], p.Attributes)
	for i, u := range utf16.Encode([]rune(p.Name)) {
		binary.LittleEndian.PutUint16(b[56+2*i:], u)
	}
}

// mixed turns a GUID into the byte order of the UEFI specification, appendix A: the first three fields are little
// endian. Doing it twice gives back the first.
func mixed(u uuid.UUID) uuid.UUID {
	slices.Reverse(u[0:4])
	slices.Reverse(u[4:6])
	slices.Reverse(u[6:8])
	return u
}

// MixedEndian returns the 16 bytes in which UEFI stores u.
func MixedEndian(u uuid.UUID) [16]byte { return mixed(u) }

// FromMixedEndian reads the 16 bytes in which UEFI stores a GUID.
func FromMixedEndian(b [16]byte) uuid.UUID { return mixed(b) }
