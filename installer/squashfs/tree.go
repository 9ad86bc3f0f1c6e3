package squashfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// maxPath is the longest path, in bytes, that Linux takes in one call.
const maxPath = 4095

// maxName is the longest name of one entry, in bytes.
const maxName = 255

// Entry is one name in the tree.
type Entry struct {
	Name   string // "" for the root
	Parent int32  // index of the directory's entry; -1 for the root
	// Inode is shared by all names of a file that has several.
	Inode *Inode
}

// Tree is every name of an image. A directory stands before what is in it, and everything below a directory directly
// follows it; entries of one directory are in byte order.
type Tree struct {
	Entries []Entry
}

// Path returns the path of entry i from the root of the image, without a leading slash; "." is the root.
func (t *Tree) Path(i int) string {
	var names []string
	for ; t.Entries[i].Parent >= 0; i = int(t.Entries[i].Parent) {
		names = append(names, t.Entries[i].Name)
	}
	if names == nil {
		return "."
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// walk is one reading of the tree.
type walk struct {
	r       *Reader
	tree    *Tree
	inodes  map[int]*Inode // by offset in the inode table
	listing int            // bytes of listings read
	lists   int            // bytes of inodes read
}

// level is a directory that is being walked.
type level struct {
	entry int32
	path  int // bytes in its path
	names []dirent
}

type dirent struct {
	name   string
	inode  int // offset in the inode table
	number uint32
	kind   Type
}

// Tree reads all directories. An image in which a directory has two names, or in which listings or inodes overlap, is
// damaged.
func (r *Reader) Tree() (*Tree, error) {
	t := &Tree{}
	w := &walk{r: r, tree: t, inodes: make(map[int]*Inode, min(int(r.sb.Inodes), len(r.inodes.data)/16))}
	at, err := r.inodes.find(r.sb.root>>16, uint32(r.sb.root&0xffff))
	if err != nil {
		return nil, fmt.Errorf("read squashfs root directory: %w", err)
	}
	root, err := w.inode(at)
	if err != nil {
		return nil, fmt.Errorf("read squashfs root directory: %w", err)
	}
	if root.Type != Directory {
		return nil, fmt.Errorf("read squashfs root directory: %w: it is a %s", ErrDamaged, root.Type)
	}
	t.Entries = append(t.Entries, Entry{Parent: -1, Inode: root})
	names, err := w.list(root)
	if err != nil {
		return nil, fmt.Errorf("read squashfs root directory: %w", err)
	}
	stack := []level{{names: names}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if len(top.names) == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		d := top.names[0]
		top.names = top.names[1:]
		below, err := w.add(top, d)
		if err != nil {
			dir := t.Path(int(top.entry))
			return nil, fmt.Errorf("read squashfs entry %q in directory %q: %w", d.name, dir, err)
		}
		if below != nil {
			stack = append(stack, *below)
		}
	}
	return t, nil
}

// add appends one name to the tree, and returns the level below it if it is a directory.
func (w *walk) add(dir *level, d dirent) (*level, error) {
	known := len(w.inodes)
	i, err := w.inode(d.inode)
	if err != nil {
		return nil, err
	}
	path := dir.path + len(d.name)
	if dir.entry > 0 {
		path++
	}
	switch {
	case i.Number != d.number || i.Type != d.kind:
		return nil, fmt.Errorf("%w: its directory says inode %d, a %s, and the inode says %d, a %s",
			ErrDamaged, d.number, d.kind, i.Number, i.Type)
	case path > maxPath:
		return nil, fmt.Errorf("%w: its path has %d bytes; at most %d are possible", ErrDamaged, path, maxPath)
	case i.Type == Directory && len(w.inodes) == known:
		return nil, fmt.Errorf("%w: the directory is already somewhere else in the tree", ErrDamaged)
	case len(w.tree.Entries) >= 1<<31-1:
		return nil, fmt.Errorf("%w: too many entries", ErrDamaged)
	}
	w.tree.Entries = append(w.tree.Entries, Entry{Name: d.name, Parent: dir.entry, Inode: i})
	if i.Type != Directory {
		return nil, nil
	}
	names, err := w.list(i)
	if err != nil {
		return nil, err
	}
	return &level{entry: int32(len(w.tree.Entries) - 1), path: path, names: names}, nil
}

func (w *walk) inode(at int) (*Inode, error) {
	if i, ok := w.inodes[at]; ok {
		return i, nil
	}
	i, err := w.r.inode(at)
	if err != nil {
		return nil, err
	}
	// Inodes do not overlap either, so that no list of blocks is read many times.
	if w.lists += 16 + len(i.data); w.lists > len(w.r.inodes.data) {
		return nil, fmt.Errorf("%w: inodes overlap", ErrDamaged)
	}
	w.inodes[at] = &i
	return &i, nil
}

// list reads a directory's listing: runs of a header and up to 256 entries whose inodes lie in one metadata block.
func (w *walk) list(dir *Inode) ([]dirent, error) {
	if dir.listing == 0 {
		return nil, nil
	}
	le := binary.LittleEndian
	at, err := w.r.dirs.find(dir.start>>16, uint32(dir.start&0xffff))
	if err != nil {
		return nil, fmt.Errorf("listing: %w", err)
	}
	b, err := w.r.dirs.take(at, uint64(dir.listing))
	if err != nil {
		return nil, fmt.Errorf("listing: %w", err)
	}
	// Listings do not overlap, so that all of them together are no larger than the table: a small image cannot claim a
	// huge tree by giving many directories the same listing.
	if w.listing += len(b); w.listing > len(w.r.dirs.data) {
		return nil, fmt.Errorf("%w: directories share their listings", ErrDamaged)
	}
	var names []dirent
	last := ""
	for len(b) > 0 {
		if len(b) < 12 {
			return nil, fmt.Errorf("%w: the listing ends inside a header", ErrDamaged)
		}
		count, block, base := uint64(le.Uint32(b))+1, le.Uint32(b[4:]), le.Uint32(b[8:])
		if count > 256 {
			return nil, fmt.Errorf("%w: a header in the listing counts %d entries", ErrDamaged, count)
		}
		b = b[12:]
		for range count {
			d, rest, err := w.entry(b, block, base)
			if err != nil {
				return nil, err
			}
			if d.name <= last {
				return nil, fmt.Errorf("%w: the listing has %q after %q; names must be in order and different", ErrDamaged, d.name, last)
			}
			names, last, b = append(names, d), d.name, rest
		}
	}
	return names, nil
}

// entry reads one entry of a listing.
func (w *walk) entry(b []byte, block, base uint32) (d dirent, rest []byte, err error) {
	le := binary.LittleEndian
	if len(b) < 8 {
		return d, nil, fmt.Errorf("%w: the listing ends inside an entry", ErrDamaged)
	}
	n := int(le.Uint16(b[6:])) + 1
	if len(b) < 8+n {
		return d, nil, fmt.Errorf("%w: the listing ends inside a name", ErrDamaged)
	}
	name := b[8 : 8+n]
	switch {
	case n > maxName:
		return d, nil, fmt.Errorf("%w: a name has %d bytes; at most %d are possible", ErrDamaged, n, maxName)
	case string(name) == "." || string(name) == ".." || bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0:
		return d, nil, fmt.Errorf("%w: %q is not a file's name", ErrDamaged, name)
	}
	at, err := w.r.inodes.find(uint64(block), uint32(le.Uint16(b)))
	if err != nil {
		return d, nil, fmt.Errorf("inode of %q: %w", name, err)
	}
	d = dirent{name: string(name), inode: at, number: base + uint32(int32(int16(le.Uint16(b[2:])))), kind: Type(le.Uint16(b[4:]))}
	return d, b[8+n:], nil
}
