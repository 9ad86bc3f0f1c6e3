package squashfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Type is what an inode is.
type Type uint8

// The types of inodes. Extended inodes, which the format numbers 7 higher, differ only in what they can hold.
const (
	Directory Type = 1 + iota
	Regular
	Symlink
	BlockDevice
	CharDevice
	FIFO
	Socket
)

// String returns the type's name for error messages.
func (t Type) String() string {
	names := [...]string{"unknown", "directory", "file", "symbolic link", "block device", "character device", "FIFO", "socket"}
	if int(t) >= len(names) {
		t = 0
	}
	return names[t]
}

const (
	extended   = 7          // added to the type of an extended inode
	noFragment = ^uint32(0) // the file has no tail in a fragment
	noXattrs   = ^uint32(0) // the inode has no extended attributes
	maxTarget  = 4095       // bytes in a symbolic link's target: Linux's PATH_MAX less its NUL
	maxFile    = 1<<63 - 1  // bytes in a file
)

// Inode is one file, directory, link or node, however many names it has.
type Inode struct {
	Type  Type
	Mode  uint16 // permissions with setuid, setgid and sticky: 07777
	UID   uint32
	GID   uint32
	MTime uint32 // seconds since 1970, up to 2106
	Nlink uint32
	// Number is the inode number, 1 to Superblock.Inodes. Names with the same Number are the same file.
	Number uint32
	// Rdev is major<<32 | minor of a device.
	Rdev uint64
	// Size is a regular file's length in bytes, holes included.
	Size int64

	fragment  uint32
	fragAt    uint32
	xattr     uint32
	blockSize uint32
	start     uint64 // of a file's data; of a directory's listing: metadata block << 16 | offset
	listing   uint32 // bytes in a directory's listing
	data      []byte // of a symbolic link, its target; of a file, the size words of its blocks
}

// Target returns where a symbolic link points.
func (i *Inode) Target() string {
	if i.Type != Symlink {
		return ""
	}
	return string(i.data)
}

// Tail returns where the end of a file lies when it is in a fragment: the fragment's number, the offset in the
// decompressed fragment, and the length, which is 0 when there is no such tail.
func (i *Inode) Tail() (fragment, offset uint32, length int) {
	if i.Type != Regular || i.fragment == noFragment {
		return 0, 0, 0
	}
	return i.fragment, i.fragAt, int(i.Size % int64(i.blockSize))
}

// NumBlocks returns how many data blocks the file has, those that are holes included, the tail in a fragment not.
func (i *Inode) NumBlocks() int {
	if i.Type != Regular {
		return 0
	}
	return len(i.data) / 4
}

// BlockLen returns how many bytes of the file data block n holds.
func (i *Inode) BlockLen(n int) int {
	return int(min(int64(i.blockSize), i.Size-int64(n)*int64(i.blockSize)))
}

// Cursor goes through the data blocks of a file. They lie one after the other on the image.
type Cursor struct {
	inode *Inode
	next  int
	off   uint64
}

// Cursor returns a cursor before the first data block.
func (i *Inode) Cursor() Cursor { return Cursor{inode: i, off: i.start} }

// Next returns the next data block and its number in the file. Blocks that are holes, which take no room on the image,
// are left out. It returns false after the last block.
func (c *Cursor) Next() (n int, b Block, ok bool) {
	for c.next < c.inode.NumBlocks() {
		n = c.next
		w := binary.LittleEndian.Uint32(c.inode.data[n*4:])
		b = Block{Offset: int64(c.off), Size: int32(w & blockSizeMask), Raw: w&blockRaw != 0}
		c.next++
		c.off += uint64(b.Size)
		if b.Size > 0 {
			return n, b, true
		}
	}
	return 0, Block{}, false
}

// inode reads the inode at offset at of the inode table.
func (r *Reader) inode(at int) (Inode, error) {
	le := binary.LittleEndian
	h, err := r.inodes.take(at, 16)
	if err != nil {
		return Inode{}, err
	}
	kind := le.Uint16(h)
	i := Inode{
		Mode: le.Uint16(h[2:]) & 0o7777, MTime: le.Uint32(h[8:]), Number: le.Uint32(h[12:]),
		Nlink: 1, xattr: noXattrs, fragment: noFragment, blockSize: r.sb.BlockSize,
	}
	uid, gid := int(le.Uint16(h[4:])), int(le.Uint16(h[6:]))
	switch {
	case kind == 0 || kind > uint16(Socket)+extended:
		return i, fmt.Errorf("%w: an inode has the unknown type %d", ErrDamaged, kind)
	case uid >= len(r.ids) || gid >= len(r.ids):
		return i, fmt.Errorf("%w: inode %d has owner %d and group %d of %d", ErrDamaged, i.Number, uid, gid, len(r.ids))
	case i.Number == 0 || i.Number > r.sb.Inodes:
		return i, fmt.Errorf("%w: an inode has number %d of %d", ErrDamaged, i.Number, r.sb.Inodes)
	}
	i.UID, i.GID = r.ids[uid], r.ids[gid]
	long := kind > uint16(Socket)
	if long {
		kind -= extended
	}
	i.Type = Type(kind)
	at += len(h)
	switch i.Type {
	case Directory:
		err = r.directoryInode(&i, at, long)
	case Regular:
		err = r.fileInode(&i, at, long)
	case Symlink:
		err = r.symlinkInode(&i, at, long)
	default:
		err = r.nodeInode(&i, at, long)
	}
	if err == nil && i.xattr != noXattrs {
		err = r.xattrs.check(i.xattr)
	}
	if err != nil {
		return i, fmt.Errorf("inode %d, a %s: %w", i.Number, i.Type, err)
	}
	return i, nil
}

func (r *Reader) directoryInode(i *Inode, at int, long bool) error {
	le := binary.LittleEndian
	var block, offset, size uint32
	if long {
		b, err := r.inodes.take(at, 24)
		if err != nil {
			return err
		}
		i.Nlink, size, block = le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])
		offset, i.xattr = uint32(le.Uint16(b[18:])), le.Uint32(b[20:])
		// An index for searching by name follows; whoever reads all names does not need it.
	} else {
		b, err := r.inodes.take(at, 16)
		if err != nil {
			return err
		}
		block, i.Nlink, size, offset = le.Uint32(b), le.Uint32(b[4:]), uint32(le.Uint16(b[8:])), uint32(le.Uint16(b[10:]))
	}
	// The size counts three bytes for "." and "..", which are not stored.
	i.listing = max(size, 3) - 3
	i.start = uint64(block)<<16 | uint64(offset)
	return nil
}

func (r *Reader) fileInode(i *Inode, at int, long bool) error {
	le := binary.LittleEndian
	var size uint64
	n := 16
	if long {
		n = 40
	}
	b, err := r.inodes.take(at, uint64(n))
	if err != nil {
		return err
	}
	if long {
		i.start, size, i.Nlink = le.Uint64(b), le.Uint64(b[8:]), le.Uint32(b[24:])
		i.fragment, i.fragAt, i.xattr = le.Uint32(b[28:]), le.Uint32(b[32:]), le.Uint32(b[36:])
	} else {
		i.start, i.fragment, i.fragAt, size = uint64(le.Uint32(b)), le.Uint32(b[4:]), le.Uint32(b[8:]), uint64(le.Uint32(b[12:]))
	}
	if size > maxFile {
		return fmt.Errorf("%w: its size is %d", ErrDamaged, size)
	}
	i.Size = int64(size)
	blocks := size / uint64(i.blockSize)
	tail := size % uint64(i.blockSize)
	if i.fragment == noFragment {
		if tail > 0 {
			blocks++
		}
	} else if err := r.checkTail(i, tail); err != nil {
		return err
	}
	if blocks > uint64(len(r.inodes.data))/4 {
		return fmt.Errorf("%w: its size is %d, and its list of blocks does not fit in the table", ErrDamaged, size)
	}
	if i.data, err = r.inodes.take(at+n, blocks*4); err != nil {
		return err
	}
	off := i.start
	for n := range i.NumBlocks() {
		b, err := r.sb.block(off, le.Uint32(i.data[n*4:]))
		if err != nil {
			return fmt.Errorf("data block %d: %w", n, err)
		}
		off += uint64(b.Size)
	}
	return nil
}

func (r *Reader) checkTail(i *Inode, tail uint64) error {
	if tail == 0 {
		if i.Size > 0 {
			return fmt.Errorf("%w: a tail of no bytes is in fragment %d", ErrDamaged, i.fragment)
		}
		i.fragment = noFragment
		return nil
	}
	if uint64(i.fragAt)+tail > uint64(i.blockSize) {
		return fmt.Errorf("%w: its tail of %d bytes at %d does not fit in a fragment of %d", ErrDamaged, tail, i.fragAt, i.blockSize)
	}
	_, err := r.Fragment(i.fragment)
	return err
}

func (r *Reader) symlinkInode(i *Inode, at int, long bool) error {
	le := binary.LittleEndian
	b, err := r.inodes.take(at, 8)
	if err != nil {
		return err
	}
	n := le.Uint32(b[4:])
	i.Nlink = le.Uint32(b)
	if n == 0 || n > maxTarget {
		return fmt.Errorf("%w: its target has %d bytes", ErrDamaged, n)
	}
	if i.data, err = r.inodes.take(at+8, uint64(n)); err != nil {
		return err
	}
	if bytes.IndexByte(i.data, 0) >= 0 {
		return fmt.Errorf("%w: its target %q holds a NUL", ErrDamaged, i.data)
	}
	if long {
		x, err := r.inodes.take(at+8+int(n), 4)
		if err != nil {
			return err
		}
		i.xattr = le.Uint32(x)
	}
	return nil
}

func (r *Reader) nodeInode(i *Inode, at int, long bool) error {
	le := binary.LittleEndian
	n := 4
	device := i.Type == BlockDevice || i.Type == CharDevice
	if device {
		n += 4
	}
	if long {
		n += 4
	}
	b, err := r.inodes.take(at, uint64(n))
	if err != nil {
		return err
	}
	i.Nlink = le.Uint32(b)
	if device {
		d := le.Uint32(b[4:]) // as the kernel's new_encode_dev packs it
		i.Rdev = uint64(d>>8&0xfff)<<32 | uint64(d&0xff|d>>12&0xfff00)
	}
	if long {
		i.xattr = le.Uint32(b[n-4:])
	}
	return nil
}
