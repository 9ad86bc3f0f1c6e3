package unpack

import (
	"context"
	"io"
	"sync/atomic"
)

// Lender is a source that has its bytes in memory already, and need not copy them.
type Lender interface {
	// Lend waits for the bytes from off on, and lends at least one of them and at most the given number, unchanged until give
	// is called with how many of them were read.
	Lend(off, most int64) (data []byte, give func(read int), err error)
}

// source reads the image and gives up when ctx ends, which a ReadAt that waits for bytes from the network need not do.
type source struct {
	ctx  context.Context
	src  io.ReaderAt
	read atomic.Int64
}

// ReadAt is src.ReadAt. The goroutine in which it runs ends when src.ReadAt does; after ctx's end nobody uses p again.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	type result struct {
		n   int
		err error
	}
	r, err := wait(s.ctx, func() result {
		n, err := s.src.ReadAt(p, off)
		return result{n, err}
	}, func(result) {})
	if err != nil {
		return 0, err
	}
	s.read.Add(int64(r.n))
	return r.n, r.err
}

// lent is what a Lender lent.
type lent struct {
	data []byte
	give func(read int)
	err  error
}

// lend is Lend. What comes after ctx's end is given back.
func (s *source) lend(from Lender, off, most int64) (lent, error) {
	return wait(s.ctx, func() lent {
		data, give, err := from.Lend(off, most)
		return lent{data, give, err}
	}, func(l lent) {
		if l.err == nil {
			l.give(0)
		}
	})
}

// wait calls f, in a goroutine of its own, and returns what it does; or ctx's cause, and then late gets what f returns.
func wait[T any](ctx context.Context, f func() T, late func(T)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	done := make(chan T, 1)
	go func() { done <- f() }()
	select {
	case r := <-done:
		return r, nil
	case <-ctx.Done():
		go func() { late(<-done) }()
		return none, context.Cause(ctx)
	}
}
