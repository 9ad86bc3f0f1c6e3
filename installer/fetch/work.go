package fetch

import (
	"context"
	"errors"
	"sync"
	"time"

	"imgbuild/image"
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
		if r.source == nil || r.n > 0 && r.first != int(r.pos/image.ChunkSize) {
			continue // nobody is asked, or a chunk that is complete is about to be handed on
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
	k := hedge(flights, mine, s.rate, t.hedgeAfter())
	if k < 0 {
		return nil
	}
	slow, f := runs[k], flights[k]
	i := int(slow.pos / image.ChunkSize)
	off, length := image.Chunk(t.b.Size(), i)
	r := &run{first: slow.first, n: slow.n, pos: off, end: slow.end, twin: &twin{chunk: i, slow: slow}}
	slow.n, slow.end, slow.twin = 0, min(slow.end, off+length), r.twin
	t.runs[r] = struct{}{}
	rate := slow.source.rate
	if rate == 0 {
		rate = f.rate
	}
	if x := slow.source; x != s && (now.Sub(x.heard) >= t.hedgeAfter() || rate*farBelow < s.rate) { // all of it, and not one connection
		x.stalls++
		x.slowTimes++
		x.slow, x.suspect, x.fault = true, true, errors.New("it is far slower than others")
		x.retry = now.Add(t.o.Stall << min(x.slowTimes, 4))
		t.change()
	}
	if now.Sub(t.lastHedge) >= 5*time.Second {
		t.lastHedge = now
		t.o.Report.Info("chunk %d comes at %d kB/s from %s: it is asked for once more", i, int(f.rate/1000), slow.source.shown)
	}
	return r
}

// hedgeAfter is how long a request may be silent, or slow, before somebody else is asked.
func (t *Transfer) hedgeAfter() time.Duration { return t.o.Stall * 2 / 5 }

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
		back := r.avoid != nil && r.pos >= r.avoidTo // what was to come from elsewhere has come
		if back {
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
		if s != nil && (s == avoid || back) {
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
