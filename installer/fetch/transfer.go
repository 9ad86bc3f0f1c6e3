package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgbuild/image"
	"imgbuild/installer/blob"
	"imgbuild/installer/report"
)

// transfer is one blob on its way, from one or more sources that have the same bytes.
type transfer struct {
	*Fetcher
	b       *blob.Blob
	meter   *report.Meter
	sources []*source
	single  chan struct{} // holds a token: whoever takes it is the one worker that reads servers without ranges

	mu       sync.Mutex
	lastByte time.Time
	lastWarn time.Time
	bad      map[int]int // how often a chunk came wrong
}

// run is a piece of the file that a worker promised to get.
type run struct {
	pos, end int64  // what is still to come
	buf      []byte // the bytes of the chunk that pos lies in, from the chunk's start on
	fresh    bool   // ask caches on the way not to answer themselves
}

// Blob feeds b from urls, which all lead to the same file, until b is closed. An error has also been given to b.Fail.
func (f *Fetcher) Blob(ctx context.Context, urls []string, b *blob.Blob) error {
	t := &transfer{Fetcher: f, b: b, meter: report.NewMeter(f.o.What, b.Size()), single: make(chan struct{}, 1),
		lastByte: time.Now(), bad: map[int]int{}}
	t.single <- struct{}{}
	for _, u := range urls {
		t.sources = append(t.sources, &source{url: u, shown: Shown(u)})
	}
	if len(urls) == 0 {
		err := errors.New("get the root file system: there is no address to get it from")
		b.Fail(err)
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	most := min(int(f.o.RunBytes/image.ChunkSize), max(int(b.Stats().Limit/image.ChunkSize)/(2*f.o.Connections), 1))
	for range f.o.Connections {
		group.Go(func() error { return t.work(ctx, most) })
	}
	var beside sync.WaitGroup // these end when the workers have
	beside.Go(func() { t.show(ctx) })
	beside.Go(func() {
		select {
		case <-b.Ended():
			cancel()
		case <-ctx.Done():
		}
	})
	err := group.Wait()
	cancel()
	beside.Wait()
	if ended := b.Err(); ended != nil {
		err = ended
	}
	if errors.Is(err, blob.ErrClosed) {
		return nil
	}
	if err != nil {
		b.Fail(err)
	}
	return err
}

// show reports progress once a second.
func (t *transfer) show(ctx context.Context) {
	if t.o.What == "-" {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for complete := false; !complete; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := t.b.Stats()
		t.meter.Set(s.Arrived)
		t.o.Report.Progress(t.meter.Progress())
		complete = s.Arrived == s.Size
	}
}

// work gets one run of chunks after the other.
func (t *transfer) work(ctx context.Context, most int) error {
	for {
		first, n, err := t.b.Claim(ctx, most)
		if err != nil {
			return err
		}
		off, _ := image.Chunk(t.b.Size(), first)
		lastOff, lastLen := image.Chunk(t.b.Size(), first+n-1)
		r := &run{pos: off, end: lastOff + lastLen, buf: make([]byte, 0, image.ChunkSize)}
		err = t.get(ctx, r)
		t.b.Unclaim(first, n)
		if errors.Is(err, errOnlyWhole) {
			select {
			case <-t.single:
				// From now on this worker alone reads, and the others have ended or will.
				return t.readWhole(ctx, most)
			default:
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// get gets a run from whichever source is best, until it is complete or nobody can be asked any more.
func (t *transfer) get(ctx context.Context, r *run) error {
	for r.pos < r.end {
		s, pause, err := t.pick()
		if err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		begun, before := time.Now(), r.pos
		err = t.part(ctx, s, r)
		if err == nil && r.pos > before {
			continue
		}
		if err == nil {
			err = errors.New("the server sent nothing")
		}
		if err := t.fault(ctx, s, err, begun); err != nil {
			return err
		}
	}
	return nil
}

// part sends one request and takes what it brings.
func (t *transfer) part(ctx context.Context, s *source, r *run) error {
	h := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", r.pos, r.end-1)}}
	if r.fresh {
		h.Set("Cache-Control", "no-cache")
	}
	body, err := t.open(ctx, s.url, h)
	if err != nil {
		return err
	}
	defer body.Close()
	switch body.response.StatusCode {
	case http.StatusPartialContent:
		c, err := checkPartial(body.response, r.pos, t.b.Size())
		if err != nil {
			return err
		}
		err = t.take(body, s, r, min(c.last+1, r.end))
		if err == nil {
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
		return unsatisfiable(body.response, r.pos, t.b.Size())
	default:
		return statusError(body.response)
	}
}

// take reads bytes from r.pos to end and puts every chunk that is complete. After a bad chunk r stands at its start.
func (t *transfer) take(body io.Reader, s *source, r *run, end int64) error {
	for r.pos < end {
		i := int(r.pos / image.ChunkSize)
		off, length := image.Chunk(t.b.Size(), i)
		r.buf = r.buf[:r.pos-off]
		n, err := body.Read(r.buf[len(r.buf):min(length, end-off)])
		if n > 0 {
			r.buf = r.buf[:len(r.buf)+n]
			r.pos += int64(n)
			t.progressed(s)
		}
		if int64(len(r.buf)) == length {
			if perr := t.b.Put(i, r.buf); errors.Is(perr, image.ErrChunk) {
				r.pos, r.buf, r.fresh = off, r.buf[:0], true
				return &badChunk{i, perr}
			} else if perr != nil && !errors.Is(perr, blob.ErrFull) {
				return perr
			}
		}
		if err == io.EOF && r.pos < end {
			return errShort
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// errShort is a body that ended before its announced end, or a connection that did.
var errShort = errors.New("the connection ended too early")
