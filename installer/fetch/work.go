package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"imgbuild/image"
	"imgbuild/installer/blob"
)

// run is a piece of the file that a worker promised to get. Its fields are guarded by Transfer.mu, but for buf.
type run struct {
	first, n int     // the chunks that it still holds a claim for
	pos, end int64   // what is still to come
	buf      []byte  // the bytes of the chunk that pos lies in, from the chunk's start on
	from     *source // who sent them; nil if there are none, or if it was more than one
	mixed    bool    // more than one source sent them
	pure     bool    // a chunk is to come from one source alone
	fresh    bool    // ask caches on the way not to answer themselves
	avoid    *source // not to be asked before pos has reached avoidTo
	avoidTo  int64
	detours  *source                 // the relay that is late, and was left for the sake of this run
	gone     int                     // chunks in a row that a relay did not have
	fails    int                     // requests in a row that broke soon
	twin     *twin                   // if the chunk that pos lies in is being fetched twice
	source   *source                 // who is asked now, nil if nobody is
	began    time.Time               // when the request that is under way began
	heard    time.Time               // when bytes came last, or the request began
	brought  int64                   // by the request that is under way
	marks    [2]mark                 // of the last seconds, for the rate
	stop     context.CancelCauseFunc // ends the request
}

// mark is how far a request was at a time.
type mark struct {
	at    time.Time
	bytes int64
}

// twin is a chunk that two runs fetch: the first that is good counts.
type twin struct {
	chunk int
	slow  *run
	won   bool
}

// team is the workers of one Run.
type team struct {
	*Transfer
	beside *sync.WaitGroup
	fail   context.CancelCauseFunc
}

// work gets one run of chunks after the other.
func (t *team) work(ctx context.Context) error {
	for {
		s, err := t.acquire(ctx, false, nil)
		if errors.Is(err, errOnlyWhole) {
			err = t.aloneWhole(ctx)
			if err != nil {
				return err
			}
			continue
		}
		if err != nil && ctx.Err() == nil && t.b.Err() == nil {
			// No source is left. That matters only if something is wanted still.
			first, n, cerr := t.b.Claim(ctx, 1)
			if cerr != nil {
				return cerr
			}
			t.b.Unclaim(first, n)
		}
		if err != nil {
			return err
		}
		r, err := t.find(ctx, s)
		if err != nil {
			t.release(s)
			if errors.Is(err, errChoose) {
				continue
			}
			return err
		}
		err = t.get(ctx, s, r)
		t.giveBack(r)
		if err != nil {
			return err
		}
	}
}

// aloneWhole reads whole files if nobody does so yet, and otherwise waits for a change.
func (t *team) aloneWhole(ctx context.Context) error {
	t.mu.Lock()
	changed := t.changed
	t.mu.Unlock()
	select {
	case <-t.single:
		err := t.readWhole(ctx)
		t.single <- struct{}{}
		t.mu.Lock()
		t.change()
		t.mu.Unlock()
		return err
	default:
		return await(ctx, changed, 0)
	}
}

// find waits for work for source s: chunks that are wanted, or those of a request that is too slow. It ends with
// errChoose when another source may be the one to ask.
func (t *team) find(ctx context.Context, s *source) (*run, error) {
	t.mu.Lock()
	s.idle++
	t.change()
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		s.idle--
		t.mu.Unlock()
	}()
	for {
		t.mu.Lock()
		changed, most, right := t.changed, 0, false
		views := t.views(nil, false)
		for i, x := range t.sources {
			if x == s {
				right = stays(views, i, t.o.Connections)
				most = runChunks(views[i], int(t.o.RunBytes/image.ChunkSize), t.o.Connections, t.memory)
			}
		}
		t.mu.Unlock()
		if !right {
			return nil, errChoose
		}
		first, n, err := t.claim(ctx, most, changed)
		switch {
		case err == nil:
			return t.begin(first, n), nil
		case errors.Is(err, errIdle):
			if r := t.takeOver(s); r != nil {
				return r, nil
			}
		case !errors.Is(err, errChoose):
			return nil, err
		}
	}
}

// claim waits for chunks to be wanted, until something changes (errChoose) or for a while (errIdle).
func (t *Transfer) claim(ctx context.Context, most int, changed <-chan struct{}) (first, n int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.o.Stall/20, errIdle)
	defer cancel()
	ctx, choose := context.WithCancelCause(ctx)
	defer choose(nil)
	go func() {
		select {
		case <-changed:
			choose(errChoose)
		case <-ctx.Done():
		}
	}()
	return t.b.Claim(ctx, most)
}

// begin makes a run of chunks that were claimed. A chunk that came wrong before is a run of its own.
func (t *Transfer) begin(first, n int) *run {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &run{first: first, n: n}
	for i := first; i < first+n && len(t.trouble) > 0; i++ {
		if x := t.trouble[i]; x != nil {
			r.n = max(i-first, 1)
			if i == first {
				r.fresh, r.pure, r.avoid = true, true, x.from
			}
			break
		}
	}
	if r.n < n {
		t.b.Unclaim(first+r.n, n-r.n)
	}
	r.pos, _ = image.Chunk(t.b.Size(), first)
	off, length := image.Chunk(t.b.Size(), first+r.n-1)
	r.end, r.avoidTo = off+length, off+length
	t.runs[r] = struct{}{}
	return r
}

// giveBack ends a run: what it did not get is wanted again.
func (t *Transfer) giveBack(r *run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.runs, r)
	t.b.Unclaim(r.first, r.n)
	r.n = 0
	if r.detours != nil {
		r.detours.detour = false
	}
	if r.buf != nil {
		t.free = append(t.free, r.buf[:0])
		r.buf = nil
	}
}

// takeOver returns a run with what a request brings too slowly, or nil. From then on the slow one gets no more than the
// chunk that it is in the midst of, and whoever has that first ends the other.
func (t *Transfer) takeOver(s *source) *run {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	var runs []*run
	var flights []flight
	mine := -1
	for i, x := range t.sources {
		if x == s {
			mine = i
		}
	}
	for r := range t.runs {
		if r.source == nil {
			continue
		}
		f := flight{source: -1, relay: r.source.view().relay, taken: r.twin != nil, age: now.Sub(r.began),
			silent: now.Sub(r.heard), left: r.end - r.pos, rate: r.speed(now)}
		for i, x := range t.sources {
			if x == r.source {
				f.source = i
			}
		}
		runs, flights = append(runs, r), append(flights, f)
	}
	k := hedge(flights, mine, s.rate, t.o.Stall*2/5)
	if k < 0 {
		return nil
	}
	slow, f := runs[k], flights[k]
	i := int(slow.pos / image.ChunkSize)
	off, length := image.Chunk(t.b.Size(), i)
	r := &run{first: slow.first, n: slow.n, pos: off, end: slow.end, twin: &twin{chunk: i, slow: slow}}
	slow.n, slow.end, slow.twin = 0, min(slow.end, off+length), r.twin
	t.runs[r] = struct{}{}
	if x := slow.source; x != s {
		x.stalls++
		x.slowTimes++
		x.slow, x.suspect, x.fault = true, true, fmt.Errorf("it is far slower than others")
		x.retry = now.Add(t.o.Stall << min(x.slowTimes, 4))
		t.change()
	}
	t.o.Report.Info("chunk %d comes at %d kB/s from %s: it is asked for once more", i, int(f.rate/1000), slow.source.shown)
	return r
}

// speed is what the request brought in the last seconds, in bytes a second.
func (r *run) speed(now time.Time) float64 {
	m := r.marks[0]
	if d := now.Sub(m.at).Seconds(); d > 0 {
		return float64(r.brought-m.bytes) / d
	}
	return 0
}

// get gets a run, from s first and then from whichever source is best, until it is complete or nobody can be asked any
// more. It releases s.
func (t *team) get(ctx context.Context, s *source, r *run) error {
	defer func() {
		if s != nil {
			t.release(s)
		}
	}()
	for {
		t.mu.Lock()
		if r.pos >= r.avoidTo {
			r.avoid = nil
		}
		left, avoid := r.end-r.pos, r.avoid
		if r.twin != nil && r.twin.won && r.twin.slow == r {
			left = 0
		}
		t.mu.Unlock()
		if left <= 0 {
			return nil
		}
		if s != nil && s == avoid {
			t.release(s)
			s = nil
		}
		if s == nil {
			var err error
			if s, err = t.acquire(ctx, true, avoid); err != nil {
				if errors.Is(err, errOnlyWhole) {
					return nil
				}
				return err
			}
			t.mu.Lock()
			if s == r.avoid {
				r.avoid = nil
			}
			t.mu.Unlock()
		}
		begun := time.Now()
		err := t.part(ctx, s, r)
		if errors.Is(err, errBeaten) {
			return nil
		}
		next, err := t.judge(ctx, s, r, err, begun)
		if err != nil {
			return err
		}
		if next.pause > 0 {
			if err := sleep(ctx, next.pause); err != nil {
				return err
			}
		}
		if next.elsewhere {
			t.release(s)
			s = nil
		}
	}
}

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
	relay, client := s.view().relay, t.client
	if relay {
		client, stall = t.direct, t.o.Stall
	}
	unused := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	address := s.URL
	t.mu.Unlock()
	defer unused()
	err := func() error {
		body, err := t.open(ctx, client, stall, address, header)
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
	data, from, twins := r.buf, s, r.twin
	if r.mixed {
		from = nil
	}
	claim := false
	if r.n > 0 && r.first == i {
		claim = true
		r.first++
		r.n--
	}
	r.buf, r.mixed, r.twin = nil, false, nil
	t.mu.Unlock()
	t.beside.Go(func() {
		t.check(s, from, i, data, claim, twins, r)
		t.checks <- struct{}{}
	})
	return nil
}

// check puts a chunk. Claim says that it is given back if it is not good.
func (t *team) check(s, from *source, i int, data []byte, claim bool, w *twin, r *run) {
	err := t.b.Put(i, data)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free = append(t.free, data[:0])
	if err != nil && claim {
		defer t.b.Unclaim(i, 1) // when it is known what was wrong
	}
	switch {
	case err == nil:
		delete(t.trouble, i)
		if w != nil && w.chunk == i {
			if w.won {
				return
			}
			w.won = true
			if w.slow != r && w.slow.twin == w && w.slow.stop != nil {
				w.slow.stop(errBeaten)
			}
		}
		s.got += int64(len(data))
	case errors.Is(err, image.ErrChunk):
		if err := t.wrong(s, from, i, err); err != nil {
			t.fail(err)
		}
	case errors.Is(err, blob.ErrFull), t.b.Err() != nil:
	default:
		t.fail(err)
	}
}

// errShort is a body that ended before its announced end, or a connection that did.
var errShort = errors.New("the connection ended too early")
