package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"imgbuild/image"
)

// startLimit is how often a file is read from its start, for the sake of an earlier part or after a fault.
const startLimit = 16

// whole reads a file from its start, for servers that send no ranges. One stream at a time: what is wanted on the way is
// put, the rest is passed over, and for an earlier part the stream starts again.
type whole struct {
	t      *team
	body   *body
	s      *source
	unused func() bool // ends the watch over the source's use
	pos    int64
	fault  error // the last one
	starts int
	warned bool
}

// readWhole gets what is wanted from servers that send whole files only, until others may be asked or a request failed.
func (t *team) readWhole(ctx context.Context) error {
	w := &t.stream
	w.t = t
	defer w.drop()
	if !w.warned {
		w.warned = true
		t.o.Report.Warn("the server sends no ranges of files, so parts of the root file system will be downloaded more than once; nginx, Apache or Caddy would do better")
	}
	for {
		t.mu.Lock()
		c := choose(time.Now(), t.views(nil, false), t.o.Connections)
		changed, most := t.changed, runChunks(view{rate: 1e12}, int(t.o.RunBytes/image.ChunkSize), t.o.Connections, t.memory)
		var s *source
		if c.whole {
			s = t.sources[c.index]
		}
		t.mu.Unlock()
		if s == nil {
			return nil
		}
		if s != w.s {
			w.drop()
			w.s = s
		}
		first, n, err := t.claim(ctx, most, changed)
		if errors.Is(err, errIdle) || errors.Is(err, errChoose) {
			continue
		}
		if err != nil {
			return err
		}
		r := t.begin(first, n)
		good, err := w.get(ctx, r)
		t.giveBack(r)
		if err != nil || !good {
			return err
		}
	}
}

// get makes the stream stand at the run's start and takes it from there. It reports whether the stream goes on.
func (w *whole) get(ctx context.Context, r *run) (bool, error) {
	begun := time.Now()
	err := w.read(ctx, r)
	if err == nil {
		return true, nil
	}
	w.drop()
	if errors.Is(err, errTooOften) {
		if w.fault != nil {
			return false, fmt.Errorf("get %s: the server sends no ranges of files, and the whole file failed too often: %w: check that the file is complete there", w.s.shown, w.fault)
		}
		return false, fmt.Errorf("get %s: the server sends no ranges of files, and there is too little memory to do without: use a web server that sends them, such as nginx, Apache or Caddy", w.s.shown)
	}
	if !errors.Is(err, errUnused) {
		w.fault = err
	}
	_, err = w.t.judge(ctx, w.s, r, err, begun)
	return false, err
}

var errTooOften = errors.New("the file was begun too often")

func (w *whole) read(ctx context.Context, r *run) error {
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
	w.t.mu.Lock()
	r.from, r.brought = w.s, 0
	w.t.mu.Unlock()
	err := w.t.take(ctx, w.body, w.s, r, r.end)
	w.pos = r.pos
	return err
}

// start opens the stream.
func (w *whole) start(ctx context.Context) error {
	if w.starts++; w.starts > startLimit {
		return errTooOften
	}
	t, s := w.t, w.s
	t.mu.Lock()
	header, address := s.header(0, -1, true), s.URL
	t.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	unused := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	b, err := t.f.open(ctx, t.f.client, t.o.Stall, address, header)
	if err == nil {
		if b.response.StatusCode != http.StatusOK {
			err = statusError(b.response)
		} else if n := b.response.ContentLength; n >= 0 && n != t.b.Size() {
			err = sizeError(n, t.b.Size())
		}
		if err != nil {
			b.Close()
		}
	}
	if err != nil {
		unused()
		cancel(nil)
		return err
	}
	w.body, w.pos, w.unused = b, 0, unused
	return nil
}

// skip moves on to pos. Chunks that are wanted, and for which there is room, are kept on the way.
func (w *whole) skip(pos int64) error {
	t := w.t
	for w.pos < pos {
		i := int(w.pos / image.ChunkSize)
		_, length := image.Chunk(t.b.Size(), i)
		if w.pos%image.ChunkSize == 0 && t.b.ClaimOne(i) {
			buf := t.buffer()[:length]
			n, err := io.ReadFull(w.body, buf)
			w.moved(n)
			if err == nil {
				t.check(w.s, w.s, i, buf, true, nil, nil)
				continue
			}
			t.recycle(buf)
			t.b.Unclaim(i, 1)
			return ended(err)
		}
		n, err := io.CopyN(io.Discard, w.body, min(length-w.pos%image.ChunkSize, pos-w.pos))
		w.moved(int(n))
		if err != nil {
			return ended(err)
		}
	}
	return nil
}

func (w *whole) moved(n int) {
	w.pos += int64(n)
	if n > 0 {
		w.t.mu.Lock()
		defer w.t.mu.Unlock()
		w.t.progressed(w.s, n)
	}
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
		w.unused()
		w.body.Close()
		w.body = nil
	}
}
