package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"imgbuild/installer/report"
)

// source is one address of the file and what is known of its faults. Its fields are guarded by transfer.mu.
type source struct {
	url, shown string
	whole      bool      // it sends whole files only
	faults     int       // in a row, without a byte in between
	odd        int       // answers that make no sense, and bad chunks
	retry      time.Time // not to be asked before
	lastFault  time.Time
	down       error // why it is not asked any more
}

// oddLimit is how many answers that make no sense a source may give.
const oddLimit = 5

// errOnlyWhole means that every source that is left sends whole files only.
var errOnlyWhole = errors.New("the server does not send ranges of files")

// badChunk is an error of Put for bytes that have another SHA-256 than the signed one.
type badChunk struct {
	i   int
	err error
}

func (b *badChunk) Error() string { return b.err.Error() }
func (b *badChunk) Unwrap() error { return b.err }

// pick returns the source to ask next, and how long to wait before.
func (t *transfer) pick() (*source, time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var up []*source
	for _, s := range t.sources {
		if s.down == nil && !s.whole {
			up = append(up, s)
		}
	}
	if len(up) == 0 {
		for _, s := range t.sources {
			if s.down == nil {
				return nil, 0, errOnlyWhole
			}
		}
		return nil, 0, t.allDown()
	}
	now := time.Now()
	s := slices.MinFunc(up, func(a, b *source) int {
		return cmp.Or(cmp.Compare(max(a.retry.Sub(now), 0), max(b.retry.Sub(now), 0)), cmp.Compare(a.odd, b.odd), cmp.Compare(a.faults, b.faults))
	})
	return s, max(s.retry.Sub(now), 0), nil
}

// allDown is the error when no source is left.
func (t *transfer) allDown() error {
	if len(t.sources) == 1 {
		return fmt.Errorf("get %s: %w", t.sources[0].shown, t.sources[0].down)
	}
	var texts []string
	for _, s := range t.sources {
		texts = append(texts, fmt.Sprintf("%s: %v", s.shown, s.down))
	}
	return fmt.Errorf("get the root file system: none of its %d addresses works: %s", len(texts), strings.Join(texts, "; "))
}

// progressed notes that a source brought bytes.
func (t *transfer) progressed(s *source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastByte = time.Now()
	s.faults, s.retry = 0, time.Time{}
}

// fault notes that a request which began at the given time failed, and decides what that means. It returns an error when
// the transfer is over.
func (t *transfer) fault(ctx context.Context, s *source, err error, begun time.Time) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ended := t.b.Err(); ended != nil {
		return ended
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(err, errOnlyWhole) {
		s.whole = true
		return nil
	}
	now := time.Now()
	var ans *answer
	var bad *badChunk
	switch {
	case errors.As(err, &bad):
		s.odd++
		t.bad[bad.i]++
		if t.bad[bad.i] >= t.o.BadLimit {
			return fmt.Errorf("get %s: chunk %d came wrong %d times: %w: publish the release again", s.shown, bad.i, t.bad[bad.i], err)
		}
	case errors.As(err, &ans) && ans.final:
		s.down = err
		if len(t.sources) > 1 {
			t.o.Report.Warn("%s is not used any more: %v", s.shown, err)
		}
		return nil
	case errors.As(err, &ans) && !ans.busy:
		if s.odd++; s.odd >= oddLimit {
			s.down = err
			return nil
		}
	}
	if begun.After(s.lastFault) || s.lastFault.IsZero() {
		s.faults++ // and not once for each connection that one fault broke
	}
	s.lastFault = now
	s.retry = now.Add(t.pause(s.faults))
	if ans != nil && ans.after > 0 {
		s.retry = now.Add(ans.after)
	}
	if silent := now.Sub(t.lastByte); silent > t.o.Patience {
		return fmt.Errorf("get %s: %w; gave up after %s without a byte", s.shown, err, report.Duration(silent))
	}
	if now.Sub(t.lastWarn) >= 5*time.Second {
		t.lastWarn = now
		t.o.Report.Warn("get %s: %v; trying again", s.shown, err)
	}
	return nil
}
