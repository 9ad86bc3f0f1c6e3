// Package squashtest makes small squashfs images for tests: what is asked of it goes in, right or wrong, and an image comes
// out, without mksquashfs and without root. It compresses nothing, checks nothing, and is not for anything but tests.
package squashtest

import (
	"encoding/binary"
	"math/bits"

	"imgbuild/installer/squashfs"
)

// Node is a file of any type.
type Node struct {
	Type   squashfs.Type
	Mode   uint16
	MTime  uint32
	Nlink  uint32 // 0: 1
	Target string
	Rdev   uint32 // as the kernel's new_encode_dev packs it
	// Data is a regular file's content; a whole block of zeros becomes a hole.
	Data []byte
	// Hole is how many blocks of nothing follow Data, whose length is then a multiple of the block size.
	Hole int
	// Entries are what is in a directory, in the order in which its listing is to have them.
	Entries []Entry

	number uint32
	ref    uint64 // block << 16 | offset
	start  uint64
	words  []uint32
	frag   uint32
	fragAt uint32
}

// Entry is a name in a directory. Several entries may have the same Node.
type Entry struct {
	Name string
	Node *Node
}

// Options are what is the same for the whole image.
type Options struct {
	BlockSize uint32 // 0: 4096
	UID, GID  uint32
	Fragments bool // put the ends of files into fragments
}

type maker struct {
	o      Options
	data   []byte
	tail   []byte
	frags  []byte
	inodes []byte
	dirs   []byte
	count  uint32
}

// Image returns the image whose root directory is root.
func Image(root *Node, o Options) []byte {
	if o.BlockSize == 0 {
		o.BlockSize = 4096
	}
	m := &maker{o: o, data: make([]byte, 96)}
	m.files(root, map[*Node]bool{})
	m.flushTail()
	m.inode(root)
	le := binary.LittleEndian
	img := m.data
	inodeTable := len(img)
	img = blocks(img, m.inodes, nil)
	dirTable := len(img)
	img = blocks(img, m.dirs, nil)
	var index []byte
	img = blocks(img, m.frags, &index)
	fragTable := len(img)
	img, index = append(img, index...), nil
	ids := le.AppendUint32(le.AppendUint32(nil, o.UID), o.GID)
	img = blocks(img, ids, &index)
	idTable := len(img)
	img = append(img, index...)

	le.PutUint32(img, 0x73717368)
	le.PutUint32(img[4:], m.count)
	le.PutUint32(img[12:], o.BlockSize)
	le.PutUint32(img[16:], uint32(len(m.frags)/16))
	le.PutUint16(img[20:], uint16(squashfs.Gzip))
	le.PutUint16(img[22:], uint16(bits.TrailingZeros32(o.BlockSize)))
	le.PutUint16(img[24:], 1|2|8|0x200)
	le.PutUint16(img[26:], 2)
	le.PutUint16(img[28:], 4)
	le.PutUint64(img[32:], root.ref)
	for at, v := range map[int]int{40: len(img), 48: idTable, 56: -1, 64: inodeTable, 72: dirTable, 80: fragTable, 88: -1} {
		le.PutUint64(img[at:], uint64(v))
	}
	return img
}

// blocks appends table as raw metadata blocks, and where each begins to index.
func blocks(img, table []byte, index *[]byte) []byte {
	for len(table) > 0 {
		n := min(len(table), 8192)
		if index != nil {
			*index = binary.LittleEndian.AppendUint64(*index, uint64(len(img)))
		}
		img = binary.LittleEndian.AppendUint16(img, uint16(n)|1<<15)
		img = append(img, table[:n]...)
		table = table[n:]
	}
	return img
}

// ref is the reference to offset at in a table of raw metadata blocks.
func ref(at int) uint64 { return uint64(at/8192*8194)<<16 | uint64(at%8192) }

// files writes the data of all files below n.
func (m *maker) files(n *Node, seen map[*Node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	for _, e := range n.Entries {
		m.files(e.Node, seen)
	}
	if n.Type != squashfs.Regular {
		return
	}
	n.start, n.frag = uint64(len(m.data)), ^uint32(0)
	bs := int(m.o.BlockSize)
	rest := n.Data
	for len(rest) >= bs || len(rest) > 0 && !m.o.Fragments {
		k := min(bs, len(rest))
		n.words = append(n.words, m.block(rest[:k]))
		rest = rest[k:]
	}
	n.words = append(n.words, make([]uint32, n.Hole)...)
	if len(rest) > 0 {
		if len(m.tail)+len(rest) > bs {
			m.flushTail()
		}
		n.frag, n.fragAt = uint32(len(m.frags)/16), uint32(len(m.tail))
		m.tail = append(m.tail, rest...)
	}
}

// block appends a data block and returns its size word, 0 for a hole.
func (m *maker) block(b []byte) uint32 {
	for _, c := range b {
		if c != 0 {
			m.data = append(m.data, b...)
			return uint32(len(b)) | 1<<24
		}
	}
	return 0
}

func (m *maker) flushTail() {
	if len(m.tail) == 0 {
		return
	}
	le := binary.LittleEndian
	m.frags = le.AppendUint64(m.frags, uint64(len(m.data)))
	m.frags = le.AppendUint64(m.frags, uint64(len(m.tail))|1<<24)
	m.data = append(m.data, m.tail...)
	m.tail = nil
}

// inode writes the inodes below n, the listing if n is a directory, and n's inode.
func (m *maker) inode(n *Node) {
	if n.number != 0 {
		return
	}
	for _, e := range n.Entries {
		m.inode(e.Node)
	}
	le := binary.LittleEndian
	m.count++
	n.number = m.count
	listing := len(m.dirs)
	for _, e := range n.Entries {
		m.dirs = le.AppendUint32(m.dirs, 0)
		m.dirs = le.AppendUint32(m.dirs, uint32(e.Node.ref>>16))
		m.dirs = le.AppendUint32(m.dirs, e.Node.number)
		m.dirs = le.AppendUint16(m.dirs, uint16(e.Node.ref))
		m.dirs = le.AppendUint16(m.dirs, 0)
		m.dirs = le.AppendUint16(m.dirs, uint16(e.Node.Type))
		m.dirs = le.AppendUint16(m.dirs, uint16(len(e.Name)-1))
		m.dirs = append(m.dirs, e.Name...)
	}
	n.ref = ref(len(m.inodes))
	kind := uint16(n.Type)
	if n.Type == squashfs.Directory || n.Type == squashfs.Regular {
		kind += 7
	}
	b := le.AppendUint16(m.inodes, kind)
	b = le.AppendUint16(b, n.Mode)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, 1)
	b = le.AppendUint32(b, n.MTime)
	b = le.AppendUint32(b, n.number)
	nlink, none := max(n.Nlink, 1), ^uint32(0)
	switch n.Type {
	case squashfs.Directory:
		b = words(b, nlink, uint32(len(m.dirs)-listing+3), uint32(ref(listing)>>16), 0)
		b = le.AppendUint16(b, 0)
		b = le.AppendUint16(b, uint16(ref(listing)))
		b = words(b, none)
	case squashfs.Regular:
		b = le.AppendUint64(b, n.start)
		b = le.AppendUint64(b, uint64(len(n.Data)+n.Hole*int(m.o.BlockSize)))
		b = le.AppendUint64(b, 0)
		b = words(b, nlink, n.frag, n.fragAt, none)
		b = words(b, n.words...)
	case squashfs.Symlink:
		b = words(b, nlink, uint32(len(n.Target)))
		b = append(b, n.Target...)
	case squashfs.BlockDevice, squashfs.CharDevice:
		b = words(b, nlink, n.Rdev)
	default:
		b = words(b, nlink)
	}
	m.inodes = b
}

func words(b []byte, w ...uint32) []byte {
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
