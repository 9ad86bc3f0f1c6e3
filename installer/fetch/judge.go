package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/relay"
)

// What a relay says that has no bytes now.
var (
	errWaiting = errors.New("the machine waits for the chunk itself")
	errGone    = errors.New("the machine does not have the chunk any more")
	errTicket  = errors.New("the machine does not accept the ticket")
)

// relayAnswer is what an answer of a relay means if it has no bytes.
func relayAnswer(r *http.Response) error {
	switch r.StatusCode {
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		return nil
	case http.StatusUnauthorized:
		return errTicket
	case http.StatusServiceUnavailable:
		switch r.Header.Get(relay.Header) {
		case relay.Waiting:
			return errWaiting
		case relay.Gone:
			return errGone
		case relay.Busy:
			return &answer{text: "the machine serves as many others as it can", busy: true}
		}
	case http.StatusOK:
		return final("it sends no ranges, as a machine that installs would")
	}
	return statusError(r)
}

// next is what a worker is to do after a request.
type next struct {
	pause     time.Duration
	elsewhere bool // choose a source anew
}

const (
	// soon is how many bytes a request brings at least if its end is to be no fault of the source.
	soon = 64 << 10
	// tooFast is how long a relay holds a request for a chunk at least before it says that it waits.
	tooFast = 100 * time.Millisecond
)

// judge decides what the end of a request means, which began at the given time. It returns an error when the transfer is
// over.
func (t *Transfer) judge(ctx context.Context, s *source, r *run, err error, begun time.Time) (next, error) {
	if ctx.Err() != nil {
		return next{}, context.Cause(ctx)
	}
	if ended := t.b.Err(); ended != nil {
		return next{}, ended
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.view().relay && r.brought > 0 {
		r.gone = 0
	}
	if r.brought >= soon {
		r.fails = 0
	}
	if err == nil && r.brought == 0 {
		err = errors.New("the server sent nothing")
	}
	elsewhere := next{elsewhere: true}
	var ans *answer
	var stall errStall
	switch {
	case err == nil:
		return next{}, nil
	case errors.Is(err, errUnused):
		return elsewhere, nil
	case errors.Is(err, errWaiting):
		n := next{}
		if time.Since(begun) < tooFast {
			n.pause = tooFast
		}
		if time.Since(s.dry) >= 3*t.o.Stall && !s.detour && t.others(s) {
			s.detour, s.stalls = true, s.stalls+1
			r.avoid, r.avoidTo, r.detours = s, r.end, s
			n = elsewhere
		}
		return n, t.patient(s, err, begun)
	case errors.Is(err, errGone):
		r.gone = max(2*r.gone, 1)
		i := min(int(r.pos/image.ChunkSize)+r.gone-1, int((t.b.Size()-1)/image.ChunkSize))
		off, length := image.Chunk(t.b.Size(), i)
		r.avoid, r.avoidTo = s, min(off+length, r.end)
		return elsewhere, t.patient(s, err, begun)
	case errors.Is(err, errOnlyWhole):
		s.whole = true
		t.change()
		return elsewhere, nil
	case errors.Is(err, errTicket):
		s.denied = true
		t.drop(s, err)
		return elsewhere, nil
	case errors.As(err, &ans) && ans.final:
		t.drop(s, err)
		return elsewhere, nil
	case errors.As(err, &ans) && !ans.busy:
		if s.odd++; s.odd >= oddLimit {
			t.drop(s, err)
			return elsewhere, nil
		}
	case ans == nil:
		stalled := errors.As(err, &stall)
		if stalled {
			s.stalls++
		}
		// A connection that worked and broke is replaced by another to the same address first; but a machine that is
		// alive is never silent.
		if r.fails++; r.brought > 0 && r.fails == 1 && !(stalled && s.view().relay) {
			return next{}, nil
		}
	}
	var after time.Duration
	if ans != nil {
		after = ans.after
	}
	t.suspicious(s, err, begun, after)
	if err := t.patient(s, err, begun); err != nil {
		return next{}, err
	}
	t.warn(s, err)
	return elsewhere, nil
}

// others says whether any source but s might be asked.
func (t *Transfer) others(s *source) bool {
	for _, x := range t.sources {
		if x != s && x.down == nil {
			return true
		}
	}
	return false
}

// drop makes a source one that is not asked any more, and says so if others are left.
func (t *Transfer) drop(s *source, why error) {
	if s.down != nil {
		return
	}
	s.drop(why)
	if len(t.sources) > 1 {
		t.o.Report.Warn("%s is not used any more: %v", s.shown, why)
	}
	t.change()
}

// wrong notes that chunk i came with another SHA-256 than the signed one. From is who sent it, nil if it was more than
// one: s sent the end. It returns an error when the transfer is over.
func (t *Transfer) wrong(s, from *source, i int, err error) error {
	x := t.trouble[i]
	if x == nil {
		x = &trouble{}
		t.trouble[i] = x
	}
	if x.from = from; from == nil {
		return nil // it comes once more, from one alone
	}
	s.bad++
	if s.Kind == plan.SourceRelay {
		// It serves only what it has checked: its memory or its owner is not to be trusted.
		t.drop(s, fmt.Errorf("it sent a wrong chunk: %w", err))
		return nil
	}
	if x.times++; x.times >= t.o.BadLimit {
		return fmt.Errorf("get %s: chunk %d came wrong %d times: %w: %s", s.shown, i, x.times, err, t.o.Mend)
	}
	if s.bad >= oddLimit && t.others(s) {
		t.drop(s, fmt.Errorf("%d of its chunks were wrong, such as: %w", s.bad, err))
		return nil
	}
	t.warn(s, err)
	return nil
}

// probe asks sources that failed whether they are there again, while others are in use, until ctx ends.
func (t *team) probe(ctx context.Context) {
	for ctx.Err() == nil {
		t.mu.Lock()
		i, pause := due(time.Now(), t.views(nil, false))
		changed := t.changed
		if i >= 0 {
			s := t.sources[i]
			s.probing = true
			t.beside.Go(func() { t.ask(ctx, s) })
		}
		t.mu.Unlock()
		if i < 0 && await(ctx, changed, pause) != nil {
			return
		}
	}
}

// ask asks a source for one byte.
func (t *team) ask(ctx context.Context, s *source) {
	t.mu.Lock()
	isRelay, client, address, header := s.view().relay, t.f.client, s.URL, s.header(0, 0, false)
	if isRelay {
		client = t.f.direct
	}
	t.mu.Unlock()
	begun := time.Now()
	err := func() error {
		body, err := t.f.open(ctx, client, t.o.Stall, address, header)
		if err != nil {
			return err
		}
		defer body.Close()
		if isRelay {
			if err := relayAnswer(body.response); err != nil {
				return err
			}
		}
		switch body.response.StatusCode {
		case http.StatusPartialContent:
			if _, err = checkPartial(body.response, 0, t.b.Size()); err == nil {
				_, err = io.Copy(io.Discard, io.LimitReader(body, 2))
			}
			return err
		case http.StatusOK:
			return errOnlyWhole
		default:
			return statusError(body.response)
		}
	}()
	if ctx.Err() != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.probing = false
	var ans *answer
	switch {
	case errors.Is(err, errTicket):
		s.denied = true
		t.drop(s, err)
	case errors.As(err, &ans) && ans.final:
		t.drop(s, err)
	case err == nil, errors.Is(err, errWaiting), errors.Is(err, errGone), errors.Is(err, errOnlyWhole):
		s.whole = s.whole || errors.Is(err, errOnlyWhole)
		s.suspect, s.slow, s.retry = false, false, time.Time{}
		t.change()
	default:
		var after time.Duration
		if ans != nil {
			after = ans.after
		}
		t.suspicious(s, err, begun, after)
	}
}
