package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"imgbuild/image"
	"imgbuild/installer/blob"
)

// errShort is a body that ended before its announced end, or a connection that did.
var errShort = errors.New("the connection ended too early")

// part sends one request and takes what it brings.
func (t *team) part(ctx context.Context, s *source, r *run) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.mu.Lock()
	now := time.Now()
	end := r.end
	if r.avoid != nil {
		end = min(end, r.avoidTo)
	}
	if len(r.buf) > 0 && (r.from != s || r.mixed) {
		if r.pure || r.from.down != nil { // from its start, from this one alone
			r.pos -= int64(len(r.buf))
			r.buf = r.buf[:0]
		} else {
			r.mixed = true
		}
	}
	if len(r.buf) == 0 {
		r.mixed = false
	}
	r.from, r.source, r.began, r.heard, r.brought, r.stop = s, s, now, now, 0, cancel
	r.marks = [2]mark{{at: now}, {at: now}}
	pos, header := r.pos, s.header(r.pos, end-1, r.fresh)
	if s.dry.IsZero() {
		s.dry = now
	}
	stall := t.o.Stall * time.Duration(min(1+s.faults, 4))
	relay, client := s.view().relay, t.f.client
	if relay {
		client, stall = t.f.direct, t.o.Stall
	}
	unused := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	address := s.URL
	t.mu.Unlock()
	defer unused()
	err := func() error {
		body, err := t.f.open(ctx, client, stall, address, header)
		if err != nil {
			return err
		}
		defer body.Close()
		if relay {
			if err := relayAnswer(body.response); err != nil {
				return err
			}
		}
		switch body.response.StatusCode {
		case http.StatusPartialContent:
			c, err := checkPartial(body.response, pos, t.b.Size())
			if err != nil {
				return err
			}
			if err = t.take(ctx, body, s, r, min(c.last+1, end)); err == nil {
				// The end of the body is read as well, so that the connection can be used again.
				var one [1]byte
				body.Read(one[:])
			}
			return err
		case http.StatusOK:
			if n := body.response.ContentLength; n >= 0 && n != t.b.Size() {
				return sizeError(n, t.b.Size())
			}
			return errOnlyWhole
		case http.StatusRequestedRangeNotSatisfiable:
			return unsatisfiable(body.response, pos, t.b.Size())
		default:
			return statusError(body.response)
		}
	}()
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := time.Since(now).Seconds(); d > 0 && r.brought >= image.ChunkSize/2 {
		if rate := float64(r.brought) / d; s.rate == 0 {
			s.rate = rate
		} else {
			s.rate = (s.rate + rate) / 2
		}
	}
	r.source = nil
	return err
}

// take reads bytes from r.pos to end, or to the run's end if somebody takes over, and hands every chunk that is complete
// to be checked.
func (t *team) take(ctx context.Context, body io.Reader, s *source, r *run, end int64) error {
	for {
		t.mu.Lock()
		end = min(end, r.end)
		t.mu.Unlock()
		if r.pos >= end {
			return nil
		}
		if r.buf == nil {
			r.buf = t.buffer()
		}
		i := int(r.pos / image.ChunkSize)
		off, length := image.Chunk(t.b.Size(), i)
		have := r.pos - off
		n, err := body.Read(r.buf[have : have+t.piece(s, min(length, end-off)-have)])
		if n > 0 {
			r.buf = r.buf[:have+int64(n)]
			t.came(s, r, n)
			if werr := wait(ctx, int64(n), t.pace, s.pace); werr != nil {
				return werr
			}
		}
		if int64(len(r.buf)) == length {
			if err := t.hand(ctx, s, r, i); err != nil {
				return err
			}
		}
		if err == io.EOF && r.pos < end {
			return errShort
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
}

func (t *Transfer) piece(s *source, n int64) int64 { return s.pace.piece(t.pace.piece(n)) }

// came notes that n bytes came for a run.
func (t *Transfer) came(s *source, r *run, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progressed(s, n)
	now := time.Now()
	r.pos += int64(n)
	r.brought += int64(n)
	r.heard = now
	if now.Sub(r.marks[1].at) >= 2*time.Second {
		r.marks[0], r.marks[1] = r.marks[1], mark{now, r.brought}
	}
}

// hand has a complete chunk checked and put, beside what comes next.
func (t *team) hand(ctx context.Context, s *source, r *run, i int) error {
	select {
	case <-t.checks:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	data, from := r.buf, s
	var twins *twin
	if r.twin != nil && r.twin.chunk == i {
		twins, r.twin = r.twin, nil
	}
	if r.mixed {
		from = nil
	}
	claim := false
	if r.n > 0 && r.first == i {
		claim = true
		r.first++
		r.n--
	}
	r.buf, r.mixed = nil, false
	t.mu.Unlock()
	t.beside.Go(func() {
		t.check(s, from, i, data, claim, twins, r)
		t.checks <- struct{}{}
	})
	return nil
}

// check puts a chunk. Claim says that it is given back if it is not good.
func (t *team) check(s, from *source, i int, data []byte, claim bool, w *twin, r *run) {
	spare, err := t.b.Give(i, data)
	t.mu.Lock()
	defer t.mu.Unlock()
	if spare != nil {
		t.free = append(t.free, spare[:0])
	}
	if err != nil && claim {
		defer t.b.Unclaim(i, 1) // when it is known what was wrong
	}
	switch {
	case err == nil:
		delete(t.trouble, i)
		if w != nil {
			if w.won {
				return
			}
			w.won = true
			if w.slow != r && w.slow.twin == w && w.slow.stop != nil {
				w.slow.stop(errBeaten)
			}
		}
		s.got, s.odd = s.got+int64(len(data)), 0
	case errors.Is(err, image.ErrChunk):
		if err := t.wrong(s, from, i, err); err != nil {
			t.fail(err)
		}
	case errors.Is(err, blob.ErrFull), t.b.Err() != nil:
	default:
		t.fail(err)
	}
}
