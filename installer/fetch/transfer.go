package fetch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/blob"
)

// Source is one place that has the file.
type Source struct {
	// ID names it among the sources of a transfer, as plan.Upstream's does.
	ID   string
	Kind plan.SourceKind // empty is plan.SourceOrigin
	URL  string
	// Ticket is a bearer token, if the source wants one. It is a secret.
	Ticket string
	// Rate is the most to be read from it, in bytes a second; 0 is no limit.
	Rate int64
	// Tier says when it is used: the sources of the lowest tier that works are used together.
	Tier int
	// Ordered has its chunks asked for one by one, so that they come in the order of the file although several requests are under
	// way: others read them from this machine in that order. A relay's always do.
	Ordered bool
}

// Transfer is one blob on its way, from sources that have the same bytes. All methods may be called from any goroutine.
type Transfer struct {
	f      *Fetcher
	o      Options
	b      *blob.Blob
	pace   *pace
	memory int           // chunks that the blob has room for
	single chan struct{} // holds a token: whoever takes it is the one worker that reads servers without ranges
	stream whole         // of whoever has that token
	checks chan struct{} // as many tokens as chunks may be checked at the same time

	mu        sync.Mutex
	sources   []*source // those that are used
	former    []*source // those that were, and brought something
	runs      map[*run]struct{}
	changed   chan struct{} // closed when a choice may turn out differently, then replaced
	trouble   map[int]*trouble
	troubled  time.Time // when the first request of those that brought no byte until now began; zero if bytes come
	lastWarn  time.Time
	lastHedge time.Time
	free      [][]byte // buffers of image.ChunkSize capacity
}

// trouble is what is known of a chunk that came wrong.
type trouble struct {
	times int     // from origins
	from  *source // who sent it last, nil if it was not one alone
}

// NewTransfer returns a transfer that feeds b. It has no sources, and does nothing, before Use and Run.
func (f *Fetcher) NewTransfer(b *blob.Blob) *Transfer {
	t := &Transfer{f: f, o: f.o, b: b, pace: newPace(0),
		memory: int(b.Stats().Limit / image.ChunkSize), single: make(chan struct{}, 1), checks: make(chan struct{}, f.o.Connections),
		runs: map[*run]struct{}{}, changed: make(chan struct{}), trouble: map[int]*trouble{}}
	t.single <- struct{}{}
	for range f.o.Connections {
		t.checks <- struct{}{}
	}
	return t
}

// Use makes these the sources, at once. One that was there before, with the same ID and URL, keeps what is known of it and
// the requests to it; requests to those that are not there any more end. Without sources the transfer pauses.
func (t *Transfer) Use(sources []Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var next []*source
	seen := map[string]bool{}
	for _, x := range sources {
		if x.Kind == "" {
			x.Kind = plan.SourceOrigin
		}
		if seen[x.ID] {
			continue
		}
		seen[x.ID] = true
		s := t.known(x)
		if !slices.Contains(t.sources, s) {
			t.troubled = time.Time{}
		}
		next = append(next, s)
	}
	for _, s := range t.sources {
		if !slices.Contains(next, s) {
			s.cancel(errUnused)
			if !slices.ContainsFunc(next, func(n *source) bool { return n.tally == s.tally }) {
				t.former = append(t.former, s)
			}
		}
	}
	t.sources = next
	t.change()
}

// known returns the source that x is, with what is known of it.
func (t *Transfer) known(x Source) *source {
	for _, s := range t.sources {
		if s.ID == x.ID && s.Kind == x.Kind {
			return s.update(x)
		}
	}
	for i, s := range t.former {
		if s.ID == x.ID && s.Kind == x.Kind {
			t.former = append(t.former[:i:i], t.former[i+1:]...)
			return s.revive(x)
		}
	}
	return newSource(x)
}

// SetRate sets the most that all sources together bring, in bytes a second; 0 is no limit.
func (t *Transfer) SetRate(rate int64) { t.pace.set(rate) }

// maxSources is how many sources are told of.
const maxSources = 64

// Sources says what each source brought: those that are used, in the order in which they are, then those that were.
func (t *Transfer) Sources() []plan.SwarmSource {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []plan.SwarmSource
	for _, s := range t.sources {
		all = append(all, s.tell())
	}
	for i := len(t.former) - 1; i >= 0; i-- {
		if x := t.former[i].tell(); x.Got > 0 || x.Bad > 0 || x.Stalls > 0 {
			all = append(all, x)
		}
	}
	return all[:min(len(all), maxSources)]
}

// change makes everybody who waits choose again. The caller has the lock.
func (t *Transfer) change() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Run feeds the blob until that ends, which is no error if it was closed, or until nobody can be asked any more: every
// source is down, none brought a byte for Options.Patience, or a chunk came wrong Options.BadLimit times. It does not end
// the blob, and may be called again after Use.
func (t *Transfer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	group, gctx := errgroup.WithContext(ctx)
	t.mu.Lock()
	t.troubled = time.Time{}
	t.mu.Unlock()
	var beside sync.WaitGroup // these end when the workers have
	w := &team{Transfer: t, beside: &beside, fail: cancel}
	// Twice as many as connections: some wait for a relay while others ask elsewhere.
	for range 2 * t.o.Connections {
		group.Go(func() error { return w.work(gctx) })
	}
	beside.Go(func() { w.probe(gctx) })
	beside.Go(func() {
		select {
		case <-t.b.Ended():
			cancel(t.b.Err())
		case <-gctx.Done():
		}
	})
	err := group.Wait()
	cancel(err)
	beside.Wait()
	if ended := t.b.Err(); ended != nil {
		err = ended
	}
	if errors.Is(err, blob.ErrClosed) {
		return nil
	}
	return err
}

// buffer is memory for one chunk.
func (t *Transfer) buffer() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := len(t.free); k > 0 {
		b := t.free[k-1]
		t.free = t.free[:k-1]
		return b
	}
	return make([]byte, 0, image.ChunkSize)
}

func (t *Transfer) recycle(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free = append(t.free, b[:0])
}
