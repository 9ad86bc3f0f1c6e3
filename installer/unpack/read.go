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
	buf     []byte
	start   int64 // on the image
	pieces  []piece
	targets []target // of the first piece, then of the second, and so on
	free    chan<- *window
}

// data returns the bytes of piece p as they lie on the image.
func (w *window) data(p *piece) []byte {
	at := p.Offset - w.start
	return w.buf[at : at+int64(p.Size)]
}

func (w *window) done() {
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
		return &window{buf: make([]byte, r.size), free: r.free}, nil
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
	o := r.order()
	b, _, more := o.next()
	for more {
		w, err := r.window(ctx)
		if err != nil {
			return err
		}
		w.start = b.Offset
		end := b.Offset
		for more && b.Offset <= end+maxGap && b.Offset+int64(b.Size) <= w.start+r.size {
			o.take(w)
			end = max(end, b.Offset+int64(b.Size))
			b, _, more = o.next()
		}
		if n, err := r.src.ReadAt(w.buf[:end-w.start], w.start); int64(n) < end-w.start {
			return fmt.Errorf("read %d bytes of the image at %d: %w", end-w.start, w.start, err)
		}
		if more {
			r.forgetTo(b.Offset)
		}
		if err := r.send(ctx, job{win: w}); err != nil {
			return err
		}
	}
	r.forgetTo(r.img.Superblock().DataEnd)
	return nil
}

// forgetTo tells the source that nothing before end will be read again.
func (r *reader) forgetTo(end int64) {
	if r.needed < end {
		r.forget(r.needed, end-r.needed)
		r.needed = end
	}
}
