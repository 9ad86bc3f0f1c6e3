// Package squashfs reads squashfs 4.0 images, the form in which a release carries its root file system.
//
// In comes an io.ReaderAt, whose ReadAt may wait until the bytes are there: all metadata, which mksquashfs puts at the end
// of the image, is read by Open in one ascending pass, and file data only by the caller, in whatever order it likes. Out
// come the tree, its inodes, their extended attributes, and where on the image each block of each file lies, with a
// Decompressor to open those blocks.
//
// The image is taken to be hostile: every size and offset in it is checked, nothing is allocated because the image says
// so beyond the bounds below, and what is damaged ends in an error that wraps ErrDamaged. The package never writes, never
// starts a goroutine, and knows nothing of where the files will go.
//
// The format is described in the kernel's Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h; the
// comments use the names found there.
package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrDamaged is wrapped by every error that says the image contradicts itself or the format.
var ErrDamaged = errors.New("the squashfs image is damaged")

// Bounds on what Open keeps in memory, in bytes. A root file system of a million files needs about a tenth of them.
const (
	maxMetadata = 256 << 20 // metadata as it lies on the image
	maxTable    = 256 << 20 // one decompressed table
)

// metadataSize is the size, in bytes, of every decompressed metadata block but a table's last.
const metadataSize = 8192

// noTable is the start of a table that is not there.
const noTable = ^uint64(0)

// Reader holds an image's metadata. It may be used by several goroutines at the same time.
type Reader struct {
	sb     Superblock
	inodes *table
	dirs   *table
	ids    []uint32
	frags  []byte // 16 bytes each
	xattrs xattrTables
}

// Open reads the superblock at the start of the image, then everything from the inode table to the end, in ascending
// order. Size is the image's size in bytes. Open reads no file data.
func Open(src io.ReaderAt, size int64) (*Reader, error) {
	sb, err := readSuperblock(src, size)
	if err != nil {
		return nil, fmt.Errorf("read squashfs superblock: %w", err)
	}
	m, err := readMetadata(src, sb)
	if err != nil {
		return nil, fmt.Errorf("read squashfs metadata: %w", err)
	}
	r := &Reader{sb: sb}
	end := uint64(sb.BytesUsed) // of the directory table: where the first of the others begins
	if r.ids, err = m.readIDs(&end); err != nil {
		return nil, fmt.Errorf("read squashfs ID table: %w", err)
	}
	if r.frags, err = m.readFragments(&end); err != nil {
		return nil, fmt.Errorf("read squashfs fragment table: %w", err)
	}
	if r.xattrs, err = m.readXattrs(&end); err != nil {
		return nil, fmt.Errorf("read squashfs extended attribute table: %w", err)
	}
	if err = m.skipExports(&end); err != nil {
		return nil, fmt.Errorf("read squashfs export table: %w", err)
	}
	if r.inodes, err = m.readTable(sb.inodeTable, sb.dirTable); err != nil {
		return nil, fmt.Errorf("read squashfs inode table: %w", err)
	}
	if r.dirs, err = m.readTable(sb.dirTable, end); err != nil {
		return nil, fmt.Errorf("read squashfs directory table: %w", err)
	}
	return r, nil
}

// Superblock returns what the image says about itself.
func (r *Reader) Superblock() Superblock { return r.sb }

// NewDecompressor returns a decompressor for this image's data blocks and fragments. It is for one goroutine; make one for
// each.
func (r *Reader) NewDecompressor() (*Decompressor, error) {
	return newDecompressor(r.sb.Compressor, int(r.sb.BlockSize))
}

// Fragments returns the number of fragment blocks.
func (r *Reader) Fragments() int { return len(r.frags) / fragmentEntrySize }

// Fragment returns where fragment block i lies.
func (r *Reader) Fragment(i uint32) (Block, error) {
	if int64(i) >= int64(r.Fragments()) {
		return Block{}, fmt.Errorf("%w: fragment %d of %d is asked for", ErrDamaged, i, r.Fragments())
	}
	e := r.frags[int(i)*fragmentEntrySize:]
	b, err := r.sb.block(binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint32(e[8:]))
	if err != nil {
		return Block{}, fmt.Errorf("fragment %d: %w", i, err)
	}
	if b.Size == 0 {
		return Block{}, fmt.Errorf("%w: fragment %d has no bytes", ErrDamaged, i)
	}
	return b, nil
}

// Block is a data block or a fragment block as it lies on the image.
type Block struct {
	Offset int64 // from the start of the image, in bytes
	Size   int32 // in bytes on the image; 0 is a hole in a sparse file, which takes no room
	Raw    bool  // stored as it is, not compressed
}

// In a data block's size word, the lower 24 bits are the size and the next says that the block is not compressed.
const (
	blockRaw      = 1 << 24
	blockSizeMask = blockRaw - 1
)

// block checks where a block would lie: between the superblock and the inode table.
func (s *Superblock) block(offset uint64, word uint32) (Block, error) {
	size := word & blockSizeMask
	switch {
	case word&^(blockRaw|blockSizeMask) != 0:
		return Block{}, fmt.Errorf("%w: a block's size is the unknown word %#x", ErrDamaged, word)
	case size > s.BlockSize:
		return Block{}, fmt.Errorf("%w: a block takes %d bytes, more than the block size of %d", ErrDamaged, size, s.BlockSize)
	case size > 0 && (offset < superblockSize || offset > s.inodeTable || uint64(size) > s.inodeTable-offset):
		return Block{}, fmt.Errorf("%w: a block of %d bytes at %d lies outside the data, which ends at %d",
			ErrDamaged, size, offset, s.inodeTable)
	}
	return Block{Offset: int64(offset), Size: int32(size), Raw: word&blockRaw != 0}, nil
}
