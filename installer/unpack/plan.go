package unpack

import (
	"cmp"
	"slices"
	"sync/atomic"

	"imgbuild/installer/squashfs"
)

// plan is what will be written, in what order.
type plan struct {
	files []file  // regular files with data on the image
	nodes []int32 // entries without: links, nodes, empty files and files that are all hole
	links []link
	// byStart are the indexes of files with data blocks, by where these begin.
	byStart []int32
	// tails are the indexes of files with a tail in a fragment, by where that fragment lies.
	tails []int32
}

// file is a regular file with data. A file with names on several file systems is there once for each.
type file struct {
	inode  *squashfs.Inode
	entry  int32
	pieces int32        // data blocks that are not holes, and the tail
	left   atomic.Int32 // pieces that are not written yet
	made   bool         // it exists; only openFile, which never runs twice at a time for one file, touches it
}

// link is a further name of an entry that was made before.
type link struct{ entry, of int32 }

// primary is the first name of an inode on one file system.
type primary struct {
	inode *squashfs.Inode
	dev   uint64
}

func (u *unpacker) makePlan() {
	p := &u.plan
	count := 0
	for i := range u.tree.Entries {
		if u.tree.Entries[i].Inode.Type == squashfs.Regular {
			count++
		}
	}
	p.files = make([]file, 0, count) // files hold counters and must not move
	first := make(map[primary]int32)
	for i := range u.tree.Entries {
		e := &u.tree.Entries[i]
		switch {
		case e.Inode.Type == squashfs.Directory:
			u.stats.Dirs++
			continue
		case e.Inode.Nlink > 1: // an inode that has more names than it says becomes several files
			k := primary{e.Inode, u.dirs.device[e.Parent]}
			if of, ok := first[k]; ok {
				p.links = append(p.links, link{int32(i), of})
				u.stats.HardLinks++
				continue
			}
			first[k] = int32(i)
		}
		u.planFile(int32(i), e.Inode)
	}
	for i := range p.files {
		in := p.files[i].inode
		c := in.Cursor()
		if _, _, ok := c.Next(); ok {
			p.byStart = append(p.byStart, int32(i))
		}
		if _, _, n := in.Tail(); n > 0 {
			p.tails = append(p.tails, int32(i))
		}
	}
	slices.SortStableFunc(p.byStart, func(a, b int32) int { return cmp.Compare(p.start(a), p.start(b)) })
	slices.SortStableFunc(p.tails, func(a, b int32) int { return cmp.Compare(u.tailBlock(a).Offset, u.tailBlock(b).Offset) })
}

// planFile plans to make what the entry names.
func (u *unpacker) planFile(entry int32, in *squashfs.Inode) {
	switch in.Type {
	case squashfs.Regular:
		u.stats.Files++
		u.prog.FilesTotal++
	case squashfs.Symlink:
		u.stats.Symlinks++
	default:
		u.stats.Devices++
	}
	pieces, bytes := 0, int64(0)
	if in.Type == squashfs.Regular {
		pieces, bytes = measure(in)
	}
	if pieces == 0 {
		u.plan.nodes = append(u.plan.nodes, entry)
		return
	}
	n := len(u.plan.files)
	u.plan.files = u.plan.files[:n+1]
	f := &u.plan.files[n]
	f.inode, f.entry, f.pieces = in, entry, int32(pieces)
	f.left.Store(f.pieces)
	u.prog.BytesTotal += bytes
}

// start is where the first data block of file i lies.
func (p *plan) start(i int32) int64 {
	c := p.files[i].inode.Cursor()
	_, b, _ := c.Next()
	return b.Offset
}

// tailBlock is where the fragment with file i's tail lies. Reading the inode has checked that there is one.
func (u *unpacker) tailBlock(i int32) squashfs.Block {
	f, _, _ := u.plan.files[i].inode.Tail()
	b, err := u.img.Fragment(f)
	if err != nil {
		return squashfs.Block{}
	}
	return b
}

// measure counts what of a file has to be written: pieces, which are data blocks and a tail, and their bytes.
func measure(in *squashfs.Inode) (pieces int, bytes int64) {
	c := in.Cursor()
	for n, _, ok := c.Next(); ok; n, _, ok = c.Next() {
		pieces++
		bytes += int64(in.BlockLen(n))
	}
	if _, _, tail := in.Tail(); tail > 0 {
		pieces++
		bytes += int64(tail)
	}
	return pieces, bytes
}
