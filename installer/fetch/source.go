package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

// source is one address of the file and what is known of it. Its fields are guarded by Transfer.mu.
type source struct {
	Source
	shown  string
	ctx    context.Context // ends when the source is not to be used any more
	cancel context.CancelCauseFunc
	pace   *pace
	*tally

	whole     bool // it sends whole files only
	suspect   bool // see view
	slow      bool // suspect for being far slower than others: only an answer to a probe changes that
	retry     time.Time
	faults    int // in a row, without a byte in between
	odd       int // answers that make no sense, in a row without a good chunk in between
	lastFault time.Time
	fault     error     // the last one
	dry       time.Time // since when a relay was asked and brought nothing; zero if it brings
	detour    bool      // while it is late, one run is asked for elsewhere
	probing   bool
	heard     time.Time // when bytes came last
	busy      int       // workers that have a place at it
	idle      int       // those of them that have nothing to do
	rate      float64   // of one connection, in bytes a second
	down      error     // why it is not asked any more
	denied    bool      // down for its ticket: another one helps
}

// tally is what a source brought. It stays the same when its address changes.
type tally struct {
	got         int64 // bytes of chunks that were good
	bad, stalls int
	slowTimes   int
	meter       *report.Meter
	came        int64 // bytes that came, good or not
}

// oddLimit is how many answers that make no sense a source may give in a row, and how many chunks an origin may send wrong
// while there are others.
const oddLimit = 5

var (
	errOnlyWhole = errors.New("the server does not send ranges of files")
	errUnused    = errors.New("the source is not used any more")
	errBeaten    = errors.New("another source was faster")
	errChoose    = errors.New("another source may be better")
	errIdle      = errors.New("nothing is wanted")
)

func newSource(x Source) *source {
	s := &source{Source: x, shown: Shown(x.URL), pace: newPace(x.Rate), tally: &tally{meter: report.NewMeter(x.ID, 0)}}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// update takes over what is new in x. Another address makes it another source with the same tally.
func (s *source) update(x Source) *source {
	if x.URL != s.URL {
		s.cancel(errUnused)
		return s.revive(x)
	}
	if s.denied && x.Ticket != s.Ticket {
		s.denied, s.down = false, nil
		s.ctx, s.cancel = context.WithCancelCause(context.Background())
	}
	s.Source = x
	s.pace.set(x.Rate)
	return s
}

// revive makes a source that was not used anew. A relay that sent a bad chunk stays down wherever it is.
func (s *source) revive(x Source) *source {
	n := newSource(x)
	n.tally = s.tally
	if s.down != nil && !s.denied && (s.URL == x.URL || s.Kind == plan.SourceRelay && s.bad > 0) {
		n.drop(s.down)
	}
	if s.URL == x.URL {
		n.whole, n.odd = s.whole, s.odd
	}
	return n
}

// drop makes the source one that is not asked any more.
func (s *source) drop(why error) {
	if s.down == nil {
		s.down = why
		s.cancel(errUnused)
	}
}

func (s *source) view() view {
	return view{tier: s.Tier, relay: s.Kind == plan.SourceRelay, ordered: s.Ordered, whole: s.whole, down: s.down != nil,
		suspect: s.suspect, retry: s.retry, probing: s.probing, busy: s.busy, odd: s.odd + s.bad, rate: s.rate}
}

// tell is what others are told of the source.
func (s *source) tell() plan.SwarmSource {
	s.meter.Set(s.came)
	x := plan.SwarmSource{ID: s.ID, Kind: s.Kind, Got: s.got, Rate: s.meter.Progress().Rate, Bad: s.bad, Stalls: s.stalls}
	why := s.down
	if why == nil && s.suspect {
		why = s.fault
	}
	if why != nil {
		x.Down = why.Error()
		x.Down = strings.ToValidUTF8(x.Down[:min(len(x.Down), 500)], "")
	}
	return x
}

// header is what a request to the source carries.
func (s *source) header(first, last int64, fresh bool) http.Header {
	h := http.Header{}
	if last >= 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", first, last))
	}
	if s.Ticket != "" {
		h.Set("Authorization", "Bearer "+s.Ticket)
	}
	if fresh {
		h.Set("Cache-Control", "no-cache")
	}
	return h
}

// views are what choose and its like decide by. A worker that has work does not count those who have none: what they wait
// for may be what it holds. The caller has the lock.
func (t *Transfer) views(avoid *source, working bool) []view {
	views := make([]view, len(t.sources))
	for i, s := range t.sources {
		views[i] = s.view()
		views[i].avoid = s == avoid
		if working {
			views[i].busy -= s.idle
		}
	}
	return views
}

// allDown is the error when no source is left.
func (t *Transfer) allDown() error {
	if len(t.sources) == 1 {
		return fmt.Errorf("get %s: %w", t.sources[0].shown, t.sources[0].down)
	}
	var texts []string
	for _, s := range t.sources {
		texts = append(texts, fmt.Sprintf("%s: %v", s.shown, s.down))
	}
	return fmt.Errorf("get the root file system: none of its %d addresses works: %s", len(texts), strings.Join(texts, "; "))
}

// elsewhere is how long a source is avoided in vain before it is asked all the same.
const elsewhere = 2 * time.Second

// acquire waits for a source that may be asked now, with a place at it that release gives back. Avoid is one that is not
// to be asked if there is another, or nil; working is true for a worker that has a run.
func (t *Transfer) acquire(ctx context.Context, working bool, avoid *source) (*source, error) {
	asked := time.Now()
	for {
		if avoid != nil && time.Since(asked) >= elsewhere {
			avoid = nil
		}
		t.mu.Lock()
		c := choose(time.Now(), t.views(avoid, working), t.o.Connections)
		changed := t.changed
		switch {
		case c.over:
			err := t.allDown()
			t.mu.Unlock()
			return nil, err
		case c.whole:
			t.mu.Unlock()
			return nil, errOnlyWhole
		case c.index >= 0:
			s := t.sources[c.index]
			s.busy++
			if s.suspect {
				s.slow = false // it is the best there is
			}
			t.mu.Unlock()
			return s, nil
		}
		t.mu.Unlock()
		if c.alone && avoid != nil {
			if err := sleep(ctx, t.f.pause(1)); err != nil {
				return nil, err
			}
			avoid = nil
			continue
		}
		if avoid != nil && (c.wait == 0 || c.wait > elsewhere) {
			c.wait = elsewhere
		}
		if err := await(ctx, changed, c.wait); err != nil {
			return nil, err
		}
	}
}

// await waits until something changes or, if d is not 0, d has passed.
func await(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	var timer <-chan time.Time
	if d > 0 {
		tm := time.NewTimer(d)
		defer tm.Stop()
		timer = tm.C
	}
	select {
	case <-changed:
	case <-timer:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// release gives the place at a source back.
func (t *Transfer) release(s *source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.busy--
	t.change()
}

// progressed notes that a source brought n bytes.
func (t *Transfer) progressed(s *source, n int) {
	t.troubled, s.dry = time.Time{}, time.Time{}
	s.faults = 0
	s.came += int64(n)
	s.heard = time.Now()
	if s.suspect && !s.slow {
		s.suspect, s.retry = false, time.Time{}
		t.change()
	}
}

// suspicious notes that a source failed: it is not asked before a pause, and others take over.
func (t *Transfer) suspicious(s *source, err error, begun time.Time, after time.Duration) {
	now := time.Now()
	if begun.After(s.lastFault) || s.lastFault.IsZero() {
		s.faults++ // and not once for each connection that one fault broke
	}
	s.lastFault, s.fault, s.suspect = now, err, true
	s.retry = now.Add(max(t.f.pause(s.faults), after))
	t.change()
}

// patient notes that a request which began at the given time brought no byte, and is an error when that has gone on for
// too long.
func (t *Transfer) patient(s *source, err error, begun time.Time) error {
	if t.troubled.IsZero() {
		t.troubled = begun
	}
	if silent := time.Since(t.troubled); silent > t.o.Patience {
		return fmt.Errorf("get %s: %w; gave up after %s without a byte", s.shown, err, report.Duration(silent))
	}
	return nil
}

// warn says what went wrong, not too often.
func (t *Transfer) warn(s *source, err error) {
	if now := time.Now(); now.Sub(t.lastWarn) >= 5*time.Second {
		t.lastWarn = now
		t.o.Report.Warn("get %s: %v; trying again", s.shown, err)
	}
}
