package unpack

import (
	"context"
	"fmt"
	"sync/atomic"
)

const (
	windowSize   = 1 << 20  // how much is read at a time, in bytes
	maxGap       = 64 << 10 // bytes that nobody needs and that are read rather than skipped
	maxWindows   = 64
	nodesPerJob  = 128
	defaultInUse = 32 << 20
)

// job is work for one worker: entries to make, or a piece to open and write.
type job struct {
	nodes []int32
	piece piece
	win   *window
	data  []byte // of the piece as it lies on the image; part of win
}

// window is a stretch of the image. It goes back to free when all of its pieces are written.
type window struct {
	buf  []byte
	refs atomic.Int32
	free chan<- *window
}

func (w *window) done() {
	if w.refs.Add(-1) == 0 {
		w.free <- w // has room for every window
	}
}

// windows returns how many windows fit in the memory that the options allow.
func (u *unpacker) windows(workers int) int {
	limit := u.opts.MaxMemory
	if limit <= 0 {
		limit = defaultInUse
	}
	n := (limit - int64(workers)*u.blockSize) / max(windowSize, u.blockSize)
	return int(max(2, min(n, maxWindows)))
}

// read sends everything that is to be done: names without data, then all data in ascending order.
func (u *unpacker) read(ctx context.Context, jobs chan<- job, workers int) error {
	send := func(j job) error {
		select {
		case jobs <- j:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for nodes := u.plan.nodes; len(nodes) > 0; {
		n := min(len(nodes), nodesPerJob)
		if err := send(job{nodes: nodes[:n]}); err != nil {
			return err
		}
		nodes = nodes[n:]
	}
	count := u.windows(workers)
	free := make(chan *window, count)
	made := 0
	o := u.order()
	p, more := o.next()
	needed := int64(0) // everything before it has been read and forgotten
	for more {
		start, end := p.Offset, p.Offset+int64(p.Size)
		pieces := []piece{p}
		for {
			if p, more = o.next(); !more || p.Offset > end+maxGap || p.Offset+int64(p.Size) > start+windowSize {
				break
			}
			pieces = append(pieces, p)
			end = max(end, p.Offset+int64(p.Size))
		}
		var w *window
		if made < count && len(free) == 0 {
			made++
			w = &window{buf: make([]byte, max(windowSize, u.blockSize)), free: free}
		} else {
			select {
			case w = <-free:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if n, err := u.src.ReadAt(w.buf[:end-start], start); int64(n) < end-start {
			return fmt.Errorf("read %d bytes of the image at %d: %w", end-start, start, err)
		}
		next := u.img.Superblock().DataEnd
		if more {
			next = p.Offset
		}
		u.forget(needed, next-needed)
		needed = next
		w.refs.Store(int32(len(pieces)))
		for _, q := range pieces {
			at := q.Offset - start
			if err := send(job{piece: q, win: w, data: w.buf[at : at+int64(q.Size)]}); err != nil {
				return err
			}
		}
	}
	if end := u.img.Superblock().DataEnd; needed < end {
		u.forget(needed, end-needed)
	}
	return nil
}
