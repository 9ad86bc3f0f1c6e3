package stick

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"imgbuild/builder/progress"
)

// errInterrupted is what ended when the context did.
var errInterrupted = errors.New("interrupted")

func interrupted(ctx context.Context) error {
	return fmt.Errorf("%w (%w)", errInterrupted, context.Cause(ctx))
}

// buffers are blocks at addresses that O_DIRECT takes. The first is kept for the image's first block, the others go round.
type buffers struct{ all [][]byte }

func newBuffers() (*buffers, error) {
	var b buffers
	for range 4 {
		m, err := unix.Mmap(-1, 0, block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			b.free()
			return nil, fmt.Errorf("get memory for blocks: %w", err)
		}
		b.all = append(b.all, m)
	}
	return &b, nil
}

func (b *buffers) free() {
	for _, m := range b.all {
		_ = unix.Munmap(m) // it is what Mmap gave
	}
}

// pipe takes each block after the first through fill and then through use, which work at the same time on different blocks, in order.
// fill says how many bytes it got; it is a goroutine of its own that has ended when pipe returns.
func (j *job) pipe(ctx context.Context, fill func(b []byte, off int64) (int, error), use func(b []byte, n int, off int64) error) error {
	type piece struct {
		b   []byte
		n   int
		off int64
	}
	free, full := make(chan []byte, len(j.bufs.all)), make(chan piece)
	for _, b := range j.bufs.all[1:] {
		free <- b
	}
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(full)
		for off := int64(block); off < j.image.Size; off += block {
			if inner.Err() != nil {
				return interrupted(inner)
			}
			b := <-free // there are more buffers than hands
			n, err := fill(b, off)
			if err != nil {
				return err
			}
			select {
			case full <- piece{b, n, off}:
			case <-inner.Done():
				return interrupted(inner)
			}
		}
		return nil
	})
	g.Go(func() error {
		total := j.image.Size - min(block, j.image.Size)
		for p := range full {
			if inner.Err() != nil {
				return interrupted(inner)
			}
			if err := use(p.b, p.n, p.off); err != nil {
				return err
			}
			free <- p.b
			j.moved += int64(p.n)
			j.report.Step(progress.Step{Done: j.moved, Total: total, Bytes: true})
		}
		return nil
	})
	return g.Wait()
}
