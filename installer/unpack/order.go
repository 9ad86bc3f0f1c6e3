package unpack

import (
	"container/heap"

	"imgbuild/installer/squashfs"
)

// piece is a data block or a fragment on the image, and every place where it has to be written. Equal files share blocks,
// and a fragment holds the tails of many files.
type piece struct {
	squashfs.Block
	targets int // how many of its window's targets are its
}

// target is where bytes of an opened block go.
type target struct {
	file int32
	from uint32 // offset in the opened block
	n    int32  // bytes
	at   int64  // offset in the file
	// whole says that the block holds these bytes and no others.
	whole bool
}

// order yields all pieces by their offset on the image.
type order struct {
	u       *unpacker
	active  cursors
	byStart []int32
	tails   []int32
}

// cursor is a file in the midst of its data blocks.
type cursor struct {
	squashfs.Cursor
	file  int32
	n     int
	block squashfs.Block
}

type cursors []cursor

func (c cursors) Len() int { return len(c) }
func (c cursors) Less(i, j int) bool {
	a, b := &c[i], &c[j]
	if a.block.Offset != b.block.Offset {
		return a.block.Offset < b.block.Offset
	}
	if a.block.Size != b.block.Size {
		return a.block.Size < b.block.Size
	}
	return a.file < b.file
}
func (c cursors) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *cursors) Push(x any)   { *c = append(*c, x.(cursor)) }
func (c *cursors) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

func (u *unpacker) order() *order {
	return &order{u: u, byStart: u.plan.byStart, tails: u.plan.tails}
}

// start begins the files whose first block may be the next piece.
func (o *order) start() {
	p := &o.u.plan
	for len(o.byStart) > 0 && (len(o.active) == 0 || p.start(o.byStart[0]) <= o.active[0].block.Offset) {
		c := cursor{Cursor: p.files[o.byStart[0]].inode.Cursor(), file: o.byStart[0]}
		c.n, c.block, _ = c.Next()
		heap.Push(&o.active, c)
		o.byStart = o.byStart[1:]
	}
}

// next returns the block of the next piece, and false after the last. A tail's block is a fragment.
func (o *order) next() (b squashfs.Block, tail, ok bool) {
	o.start()
	if len(o.tails) > 0 {
		b, tail, ok = o.u.tailBlock(o.tails[0]), true, true
	}
	if len(o.active) > 0 && (!ok || o.active[0].block.Offset <= b.Offset) {
		b, tail, ok = o.active[0].block, false, true
	}
	return b, tail, ok
}

// takeOne appends the next piece to a window.
func (o *order) takeOne(w *window) {
	b, tail, _ := o.next()
	at := len(w.targets)
	if tail {
		w.targets = o.fragment(b, w.targets)
	} else {
		w.targets = o.block(b, w.targets)
	}
	w.pieces = append(w.pieces, piece{b, len(w.targets) - at})
}

// block takes the files that have the data block b.
func (o *order) block(b squashfs.Block, targets []target) []target {
	for len(o.active) > 0 && o.active[0].block == b {
		c := &o.active[0]
		in := o.u.plan.files[c.file].inode
		targets = append(targets, target{
			file: c.file, n: int32(in.BlockLen(c.n)), at: int64(c.n) * o.u.blockSize, whole: true,
		})
		var ok bool
		if c.n, c.block, ok = c.Next(); ok {
			heap.Fix(&o.active, 0)
		} else {
			heap.Pop(&o.active)
		}
	}
	return targets
}

// fragment takes the files whose tails the fragment b holds.
func (o *order) fragment(b squashfs.Block, targets []target) []target {
	for len(o.tails) > 0 && o.u.tailBlock(o.tails[0]) == b {
		in := o.u.plan.files[o.tails[0]].inode
		_, from, n := in.Tail()
		targets = append(targets, target{
			file: o.tails[0], from: from, n: int32(n), at: int64(in.NumBlocks()) * o.u.blockSize,
		})
		o.tails = o.tails[1:]
	}
	return targets
}
