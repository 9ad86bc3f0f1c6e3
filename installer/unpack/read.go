package unpack

import (
	"context"
	"fmt"
)

const (
	windowSize   = 1 << 20  // how much is read at a time at most, in bytes
	maxGap       = 64 << 10 // bytes that nobody needs and that are read rather than skipped
	maxWindows   = 64
	nodesPerJob  = 128
	kept         = 8192 // pieces and targets that a window keeps room for; a hostile image may have millions in one
	defaultInUse = 32 << 20
)

// job is work for one worker: entries to make, or a window to open and write.
type job struct {
	nodes []int32
	win   *window
}

// window is a stretch of the image with the pieces that lie in it. One worker has all of it, as what its pieces share,
// which are files and directories, is then seldom waited for. It goes back to free when it has been written.
type window struct {
	buf     []byte         // of its own, nil before it was needed
	data    []byte         // what was read: in buf, or lent
	give    func(read int) // gives data back; nil if they are in buf
	start   int64          // on the image
	pieces  []piece
	targets []target // of the first piece, then of the second, and so on
	free    chan<- *window
}

// bytes returns those of piece p as they lie on the image.
func (w *window) bytes(p *piece) []byte {
	at := p.Offset - w.start
	return w.data[at : at+int64(p.Size)]
}

func (w *window) done() {
	if w.give != nil {
		w.give(len(w.data))
	}
	w.data, w.give = nil, nil
	w.pieces, w.targets = w.pieces[:0], w.targets[:0]
	if cap(w.pieces)+cap(w.targets) > kept {
		w.pieces, w.targets = nil, nil
	}
	w.free <- w // has room for every window
}

// windows returns how many windows fit in the memory that the options allow, and how large they are, in bytes: where
// there are many workers and little memory they are smaller, so that each worker can have one while the next is read.
func (u *unpacker) windows(workers int) (n int, size int64) {
	limit := u.opts.MaxMemory
	if limit <= 0 {
		limit = defaultInUse
	}
	limit -= int64(workers) * u.blockSize
	size = max(u.blockSize, min(windowSize, limit/int64(2*workers+2)))
	return int(max(2, min(limit/size, int64(max(maxWindows, 2*workers+2))))), size
}

// reader reads the image in windows and hands them to the workers.
type reader struct {
	*unpacker
	jobs   chan<- job
	size   int64 // of a window, in bytes
	free   chan *window
	made   int   // windows, of at most as many as free has room for
	needed int64 // everything before it has been read and forgotten
}

func (r *reader) send(ctx context.Context, j job) error {
	select {
	case r.jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// window returns a window to read into.
func (r *reader) window(ctx context.Context) (*window, error) {
	if r.made < cap(r.free) && len(r.free) == 0 {
		r.made++
		return &window{free: r.free}, nil
	}
	select {
	case w := <-r.free:
		return w, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run sends everything that is to be done: names without data, then all data in ascending order.
func (r *reader) run(ctx context.Context) error {
	for nodes := r.plan.nodes; len(nodes) > 0; {
		n := min(len(nodes), nodesPerJob)
		if err := r.send(ctx, job{nodes: nodes[:n]}); err != nil {
			return err
		}
		nodes = nodes[n:]
	}
	lender, _ := r.src.src.(Lender)
	o := r.order()
	for b, _, more := o.next(); more; b, _, more = o.next() {
		w, err := r.window(ctx)
		if err != nil {
			return err
		}
		w.start = b.Offset
		size := r.size
		if lender != nil {
			size = int64(b.Size) // of a piece that does not lie in one; what follows it is borrowed again
			err = r.borrow(o, w, lender)
		}
		if w.data == nil && err == nil {
			err = r.copy(o, w, size)
		}
		if err != nil {
			w.done()
			return err
		}
		if b, _, more := o.next(); more {
			r.forgetTo(b.Offset)
		}
		if err := r.send(ctx, job{win: w}); err != nil {
			w.done()
			return err
		}
	}
	r.forgetTo(r.img.Superblock().DataEnd)
	return nil
}

// take takes the next pieces, of which there is one at least, into a window of at most the given size, and returns where they end.
func (o *order) take(w *window, size int64) (end int64) {
	end = w.start
	for b, _, more := o.next(); more && b.Offset <= end+maxGap && b.Offset+int64(b.Size) <= w.start+size; b, _, more = o.next() {
		o.takeOne(w)
		end = max(end, b.Offset+int64(b.Size))
	}
	return end
}

// copy reads the next pieces, of at most the given size together, into the window's own memory.
func (r *reader) copy(o *order, w *window, size int64) error {
	if int64(len(w.buf)) < size {
		w.buf = make([]byte, size)
	}
	n := o.take(w, size) - w.start
	if got, err := r.src.ReadAt(w.buf[:n], w.start); int64(got) < n {
		return fmt.Errorf("read %d bytes of the image at %d: %w", n, w.start, err)
	}
	w.data = w.buf[:n]
	return nil
}

// borrow takes the next pieces where the source has them. It takes none if the first does not lie there in one.
func (r *reader) borrow(o *order, w *window, from Lender) error {
	l, err := r.src.lend(from, w.start, r.size)
	if err == nil {
		err = l.err
	}
	if err != nil {
		return fmt.Errorf("read the image at %d: %w", w.start, err)
	}
	if b, _, _ := o.next(); int64(b.Size) > int64(len(l.data)) {
		l.give(0)
		return nil
	}
	n := o.take(w, int64(len(l.data))) - w.start
	w.data, w.give = l.data[:n], l.give
	r.src.read.Add(n)
	return nil
}

// forgetTo tells the source that nothing before end will be read again.
func (r *reader) forgetTo(end int64) {
	if r.needed < end {
		r.forget(r.needed, end-r.needed)
		r.needed = end
	}
}
