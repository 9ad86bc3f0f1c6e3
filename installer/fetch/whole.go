package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"imgbuild/image"
	"imgbuild/installer/blob"
)

// startLimit is how often a file is read from its start, for the sake of an earlier part or after a fault.
const startLimit = 16

// whole reads a file from its start, for servers that send no ranges. One stream at a time: what is wanted on the way is
// put, the rest is passed over, and for an earlier part the stream starts again.
type whole struct {
	t      *transfer
	body   *body
	s      *source
	pos    int64
	fault  error // the last one
	starts int
}

// readWhole gets everything from servers that send whole files only.
func (t *transfer) readWhole(ctx context.Context, most int) error {
	t.o.Report.Warn("the server sends no ranges of files, so parts of the root file system will be downloaded more than once; nginx, Apache or Caddy would do better")
	w := &whole{t: t}
	defer w.drop()
	for {
		first, n, err := t.b.Claim(ctx, most)
		if err != nil {
			return err
		}
		off, _ := image.Chunk(t.b.Size(), first)
		lastOff, lastLen := image.Chunk(t.b.Size(), first+n-1)
		err = w.get(ctx, &run{pos: off, end: lastOff + lastLen, buf: make([]byte, 0, image.ChunkSize)})
		t.b.Unclaim(first, n)
		if err != nil {
			return err
		}
	}
}

func (w *whole) get(ctx context.Context, r *run) error {
	for r.pos < r.end {
		begun := time.Now()
		err := w.read(ctx, r)
		if err == nil {
			continue
		}
		w.drop()
		if w.s == nil {
			return err
		}
		w.fault = err
		if err := w.t.fault(ctx, w.s, err, begun); err != nil {
			return err
		}
	}
	return nil
}

// read makes the stream stand at r.pos and takes the run from it.
func (w *whole) read(ctx context.Context, r *run) error {
	// A chunk that was begun on a stream that broke is begun again.
	r.pos -= r.pos % image.ChunkSize
	r.buf = r.buf[:0]
	if w.body != nil && w.pos > r.pos {
		w.drop()
	}
	if w.body == nil {
		if err := w.start(ctx); err != nil {
			return err
		}
	}
	if err := w.skip(r.pos); err != nil {
		return err
	}
	err := w.t.take(w.body, w.s, r, r.end)
	w.pos = r.pos // wrong after a bad chunk, but then the stream is dropped
	return err
}

// start opens the stream at the best source.
func (w *whole) start(ctx context.Context) error {
	if w.starts++; w.starts > startLimit && w.s != nil {
		shown := w.s.shown
		w.s = nil
		if w.fault != nil {
			return fmt.Errorf("get %s: the server sends no ranges of files, and the whole file failed too often: %w: check that the file is complete there", shown, w.fault)
		}
		return fmt.Errorf("get %s: the server sends no ranges of files, and there is too little memory to do without: use a web server that sends them, such as nginx, Apache or Caddy", shown)
	}
	s, pause, err := w.t.pickWhole()
	w.s = s
	if err != nil {
		return err
	}
	if err := sleep(ctx, pause); err != nil {
		return err
	}
	b, err := w.t.open(ctx, s.url, http.Header{"Cache-Control": {"no-cache"}})
	if err != nil {
		return err
	}
	if b.response.StatusCode != http.StatusOK {
		err = statusError(b.response)
	} else if n := b.response.ContentLength; n >= 0 && n != w.t.b.Size() {
		err = sizeError(n, w.t.b.Size())
	}
	if err != nil {
		b.Close()
		return err
	}
	w.body, w.pos = b, 0
	return nil
}

// skip moves on to pos. Chunks that are wanted, and for which there is room, are kept on the way.
func (w *whole) skip(pos int64) error {
	var buf []byte
	for w.pos < pos {
		i := int(w.pos / image.ChunkSize)
		_, length := image.Chunk(w.t.b.Size(), i)
		if w.pos%image.ChunkSize == 0 && w.t.b.ClaimOne(i) {
			if buf == nil {
				buf = make([]byte, image.ChunkSize)
			}
			n, err := io.ReadFull(w.body, buf[:length])
			w.pos += int64(n)
			if err == nil {
				w.t.progressed(w.s)
				err = w.t.b.Put(i, buf[:length])
			}
			w.t.b.Unclaim(i, 1)
			if errors.Is(err, image.ErrChunk) {
				return &badChunk{i, err}
			}
			if err != nil && !errors.Is(err, blob.ErrFull) {
				return ended(err)
			}
			continue
		}
		n, err := io.CopyN(io.Discard, w.body, min(length-w.pos%image.ChunkSize, pos-w.pos))
		w.pos += n
		if n > 0 {
			w.t.progressed(w.s)
		}
		if err != nil {
			return ended(err)
		}
	}
	return nil
}

// ended names the end of a stream that should have gone on in one way, whoever met it: io.ReadFull, io.CopyN or net/http.
func ended(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errShort
	}
	return err
}

func (w *whole) drop() {
	if w.body != nil {
		w.body.Close()
		w.body = nil
	}
}

// pickWhole returns the best source for a whole file.
func (t *transfer) pickWhole() (*source, time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var best *source
	for _, s := range t.sources {
		if s.down == nil && (best == nil || s.retry.Before(best.retry)) {
			best = s
		}
	}
	if best == nil {
		return nil, 0, t.allDown()
	}
	return best, max(time.Until(best.retry), 0), nil
}
