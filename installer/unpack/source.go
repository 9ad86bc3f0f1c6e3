package unpack

import (
	"context"
	"io"
	"sync/atomic"
)

// source reads the image and gives up when ctx ends, which a ReadAt that waits for bytes from the network need not do.
type source struct {
	ctx  context.Context
	src  io.ReaderAt
	read atomic.Int64
}

// ReadAt is src.ReadAt. The goroutine in which it runs ends when src.ReadAt does; after ctx's end nobody uses p again.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := s.src.ReadAt(p, off)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		s.read.Add(int64(r.n))
		return r.n, r.err
	case <-s.ctx.Done():
		return 0, context.Cause(s.ctx)
	}
}
