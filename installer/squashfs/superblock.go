package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"
)

const (
	superblockSize = 96
	magic          = 0x73717368
)

// Bits of the superblock's flags that a reader has to know; the others only say how the image was made.
const (
	flagNoFragments = 1 << 4
	flagCompOptions = 1 << 10
)

// Block sizes that the format allows, in bytes.
const (
	minBlockSize = 4 << 10
	maxBlockSize = 1 << 20
)

// Superblock is what the first 96 bytes of an image say that is of use outside this package.
type Superblock struct {
	Inodes     uint32
	Made       time.Time
	BlockSize  uint32 // bytes of file data in a block, before compression: 4 KiB to 1 MiB
	Fragments  uint32
	Compressor Compressor
	BytesUsed  int64 // the image's length without padding
	DataEnd    int64 // file data lies before this offset, metadata at and after it

	flags      uint16
	idCount    uint16
	root       uint64
	idTable    uint64
	xattrTable uint64
	inodeTable uint64
	dirTable   uint64
	fragTable  uint64
	exports    uint64
}

func readSuperblock(src io.ReaderAt, size int64) (Superblock, error) {
	var s Superblock
	buf := make([]byte, min(max(size, 0), superblockSize+2+metadataSize))
	if len(buf) < superblockSize {
		return s, fmt.Errorf("%w: it has only %d bytes", ErrDamaged, size)
	}
	if err := readFull(src, buf, 0); err != nil {
		return s, err
	}
	le := binary.LittleEndian
	if m := le.Uint32(buf); m != magic {
		return s, fmt.Errorf("%w: it begins with %#08x and not with squashfs's %#08x", ErrDamaged, m, uint32(magic))
	}
	if major, minor := le.Uint16(buf[28:]), le.Uint16(buf[30:]); major != 4 || minor != 0 {
		return s, fmt.Errorf("the image has squashfs version %d.%d; only 4.0 can be read: %w", major, minor, errors.ErrUnsupported)
	}
	s = Superblock{
		Inodes:     le.Uint32(buf[4:]),
		Made:       time.Unix(int64(le.Uint32(buf[8:])), 0),
		BlockSize:  le.Uint32(buf[12:]),
		Fragments:  le.Uint32(buf[16:]),
		Compressor: Compressor(le.Uint16(buf[20:])),
		flags:      le.Uint16(buf[24:]),
		idCount:    le.Uint16(buf[26:]),
		root:       le.Uint64(buf[32:]),
		idTable:    le.Uint64(buf[48:]),
		xattrTable: le.Uint64(buf[56:]),
		inodeTable: le.Uint64(buf[64:]),
		dirTable:   le.Uint64(buf[72:]),
		fragTable:  le.Uint64(buf[80:]),
		exports:    le.Uint64(buf[88:]),
	}
	used, log := le.Uint64(buf[40:]), le.Uint16(buf[22:])
	switch {
	case s.BlockSize < minBlockSize || s.BlockSize > maxBlockSize || bits.OnesCount32(s.BlockSize) != 1:
		return s, fmt.Errorf("%w: its block size is %d", ErrDamaged, s.BlockSize)
	case 1<<min(log, 31) != s.BlockSize:
		return s, fmt.Errorf("%w: its block size is both %d and 2^%d", ErrDamaged, s.BlockSize, log)
	case used > uint64(size):
		return s, fmt.Errorf("%w: it should have %d bytes and has %d; fetch it again", ErrDamaged, used, size)
	case s.inodeTable < superblockSize || s.inodeTable >= s.dirTable || s.dirTable > used:
		return s, fmt.Errorf("%w: inode table at %d, directory table at %d, end at %d", ErrDamaged, s.inodeTable, s.dirTable, used)
	case used-s.inodeTable > maxMetadata:
		return s, fmt.Errorf("the image has %d bytes of metadata; at most %d can be read: %w", used-s.inodeTable, maxMetadata, errors.ErrUnsupported)
	case s.Inodes == 0 || s.idCount == 0:
		return s, fmt.Errorf("%w: it says that it has %d inodes and %d owners", ErrDamaged, s.Inodes, s.idCount)
	}
	s.BytesUsed, s.DataEnd = int64(used), int64(s.inodeTable)
	if err := s.Compressor.supported(); err != nil {
		return s, err
	}
	return s, s.checkOptions(buf[superblockSize:min(len(buf), int(min(s.inodeTable, uint64(len(buf)))))])
}

// checkOptions reads the compressor's options, a metadata block that is never compressed, right after the superblock.
func (s *Superblock) checkOptions(b []byte) error {
	if s.flags&flagCompOptions == 0 {
		return nil
	}
	if len(b) < 2 {
		return fmt.Errorf("%w: the compressor's options are missing", ErrDamaged)
	}
	head := binary.LittleEndian.Uint16(b)
	n := int(head &^ metadataRaw)
	if head&metadataRaw == 0 || n > len(b)-2 {
		return fmt.Errorf("%w: the compressor's options have the unknown length word %#x", ErrDamaged, head)
	}
	return s.Compressor.checkOptions(b[2 : 2+n])
}

// readFull fills b from offset off of src. An end of file is an error: the caller knows how long the image is.
func readFull(src io.ReaderAt, b []byte, off int64) error {
	n, err := src.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it ends at %d, inside what should be %d bytes at %d", ErrDamaged, off+int64(n), len(b), off)
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
}
