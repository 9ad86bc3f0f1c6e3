package storage

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
)

// identity is what a device holds, by the names that blkid has for it.
type identity struct{ fs, uuid, label string }

// identify reads the superblocks of what a layout can keep: file systems, swap, and members of LVM and md. What it does not know
// is a zero identity.
func identify(r io.ReaderAt, size int64) (identity, error) {
	b := make([]byte, min(size, 68<<10))
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return identity{}, fmt.Errorf("look for what is kept: %w", err)
	}
	if raidMember(b) {
		return identity{fs: "linux_raid_member"}, nil
	}
	if member, err := raidMemberAtEnd(r, size); err != nil || member {
		return identity{fs: "linux_raid_member"}, err
	}
	for _, f := range []func([]byte) identity{lvmMember, xfs, ext, vfat, swap} {
		if id := f(b); id.fs != "" {
			return id, nil
		}
	}
	return identity{}, nil
}

// at is n bytes at off, or zeros where there are not so many.
func at(b []byte, off, n int) []byte {
	if off+n > len(b) {
		return make([]byte, n)
	}
	return b[off : off+n]
}

func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return strings.TrimSpace(s)
}

func uuidAt(b []byte, off int) string { return uuid.UUID(at(b, off, 16)).String() }

const (
	mdMagic = 0xa92b4efc
	mdSize  = 256
)

// raidMember knows metadata 1.1 and 1.2 (linux/raid/md_p.h, mdp_superblock_1).
func raidMember(b []byte) bool {
	for _, off := range []int{0, 4096} {
		if h := at(b, off, mdSize); binary.LittleEndian.Uint32(h) == mdMagic && binary.LittleEndian.Uint32(h[4:]) == 1 {
			return true
		}
	}
	return false
}

// raidMemberAtEnd knows metadata 1.0, 8 KiB before the end and aligned to 4 KiB.
func raidMemberAtEnd(r io.ReaderAt, size int64) (bool, error) {
	off := (size/512 - 16) &^ 7 * 512
	if off < 0 {
		return false, nil
	}
	b := make([]byte, 8)
	if n, err := r.ReadAt(b, off); n < len(b) {
		return false, fmt.Errorf("look for what is kept: %w", err)
	}
	return binary.LittleEndian.Uint32(b) == mdMagic && binary.LittleEndian.Uint32(b[4:]) == 1, nil
}

// lvmMember has its label in one of the first four sectors.
func lvmMember(b []byte) identity {
	for off := 0; off < 4*512; off += 512 {
		if h := at(b, off, 32); string(h[:8]) == "LABELONE" && string(h[24:32]) == "LVM2 001" {
			return identity{fs: "LVM2_member"}
		}
	}
	return identity{}
}

func xfs(b []byte) identity {
	if string(at(b, 0, 4)) != "XFSB" {
		return identity{}
	}
	return identity{"xfs", uuidAt(b, 32), text(at(b, 108, 12))}
}

// ext is ext4, or one of its ancestors, which nothing here makes.
func ext(b []byte) identity {
	const sb = 1024
	if binary.LittleEndian.Uint16(at(b, sb+0x38, 2)) != 0xef53 {
		return identity{}
	}
	id := identity{"ext2", uuidAt(b, sb+0x68), text(at(b, sb+0x78, 16))}
	compatible, incompatible := binary.LittleEndian.Uint32(at(b, sb+0x5c, 4)), binary.LittleEndian.Uint32(at(b, sb+0x60, 4))
	const journal, extents = 0x4, 0x40
	switch {
	case incompatible&extents != 0:
		id.fs = "ext4"
	case compatible&journal != 0:
		id.fs = "ext3"
	}
	return id
}

// vfat is FAT32 or FAT16 with an extended boot signature.
func vfat(b []byte) identity {
	if len(b) < 512 || b[510] != 0x55 || b[511] != 0xaa {
		return identity{}
	}
	for _, f := range []struct{ serial, label, kind int }{{0x43, 0x47, 0x52}, {0x27, 0x2b, 0x36}} {
		if strings.HasPrefix(string(b[f.kind:f.kind+8]), "FAT") {
			n := binary.LittleEndian.Uint32(b[f.serial:])
			id := identity{"vfat", fmt.Sprintf("%04X-%04X", n>>16, n&0xffff), text(b[f.label : f.label+11])}
			if id.label == "NO NAME" {
				id.label = ""
			}
			return id
		}
	}
	return identity{}
}

// swap's signature is at the end of its first page, whose size is the machine's.
func swap(b []byte) identity {
	for _, page := range []int{4 << 10, 16 << 10, 64 << 10} {
		if string(at(b, page-10, 10)) == "SWAPSPACE2" {
			return identity{"swap", uuidAt(b, 1024+12), text(at(b, 1024+28, 16))}
		}
	}
	return identity{}
}
