package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"imgbuild/server/registry"
)

// EventQuery chooses events, oldest first.
type EventQuery struct {
	SN    string // empty: of all hosts
	Order string // empty: of all orders
	After int64  // only events with a greater ID
	Limit int    // 0: no limit of ours
	Last  bool   // the last Limit ones, not the first
}

func (q EventQuery) values() url.Values {
	v := url.Values{}
	if q.SN != "" {
		v.Set("sn", q.SN)
	}
	if q.Order != "" {
		v.Set("order", q.Order)
	}
	if q.After > 0 {
		v.Set("after", strconv.FormatInt(q.After, 10))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Last {
		v.Set("last", "true")
	}
	return v
}

// eventPage is how many events are asked for at a time.
const eventPage = 5000

// Events returns the events that are chosen.
func (c *Client) Events(ctx context.Context, q EventQuery) ([]registry.Event, error) {
	var all []registry.Event
	for {
		ask := q
		ask.Limit = eventPage
		if q.Limit > 0 {
			ask.Limit = min(eventPage, q.Limit-len(all))
		}
		var got []registry.Event
		if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"events"}, query: ask.values(), out: &got}); err != nil {
			return nil, err
		}
		all = append(all, got...)
		if q.Last || len(got) != ask.Limit || q.Limit > 0 && len(all) >= q.Limit {
			return all, nil
		}
		q.After = got[len(got)-1].ID
	}
}

// silence is how long a stream may say nothing, not even a comment, before it counts as broken.
const silence = 75 * time.Second

// slowest is the longest pause between two attempts to reach a server.
const slowest = 15 * time.Second

// Follower is told what happens on a stream of events, one call at a time.
type Follower struct {
	// Event is given every event once and in order. An error ends Follow, which returns it.
	Event func(registry.Event) error
	// Up is called when the stream begins, and begins again; Down when it broke, with the reason and when it will be tried
	// again. Either may be nil.
	Up   func()
	Down func(err error, wait time.Duration)
}

// Follow hands on every event after q.After as it happens (server-sent events, WHATWG HTML 9.2), until ctx ends or the
// server refuses. When the connection breaks it comes back and goes on after the last event that it has seen. Limit and
// Last mean nothing here.
func (c *Client) Follow(ctx context.Context, q EventQuery, f Follower) error {
	q.Limit, q.Last = 0, false
	last := q.After
	pause := 500 * time.Millisecond
	retry := pause // as the server wishes, once it has said so
	for {
		began := time.Now()
		err := c.stream(ctx, q, &last, &retry, f)
		var stop stopError
		var refused *Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &stop):
			return stop.error
		case errors.As(err, &refused) && refused.Status < 500 && refused.Status != http.StatusTooManyRequests && refused.Status != http.StatusRequestTimeout:
			return err
		case !c.reached.Load():
			return err // never there: a wrong address, more likely than a restart
		}
		if time.Since(began) > slowest {
			pause = retry
		}
		if f.Down != nil {
			f.Down(err, pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(pause*2, slowest)
	}
}

// stopError is an error of the follower's own, which ends following.
type stopError struct{ error }

// stream reads one connection until it breaks.
func (c *Client) stream(ctx context.Context, q EventQuery, last *int64, retry *time.Duration, f Follower) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q.After = *last
	r := call{method: http.MethodGet, path: []string{"events"}, query: q.values(), header: http.Header{
		"Accept": {"text/event-stream"}, "Cache-Control": {"no-store"}, "Last-Event-ID": {strconv.FormatInt(*last, 10)},
	}}
	req, err := c.request(ctx, r, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	c.reached.Store(true)
	if resp.StatusCode != http.StatusOK {
		return c.readError(r, resp)
	}
	if f.Up != nil {
		f.Up()
	}
	watchdog := time.AfterFunc(silence, func() { cancel(fmt.Errorf("the stream was silent for %s", silence)) })
	defer watchdog.Stop()
	s := newStream(pulse{resp.Body, func() { watchdog.Reset(silence) }})
	for {
		m, err := s.next()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			if errors.Is(err, io.EOF) {
				return errors.New("the server ended the stream")
			}
			return fmt.Errorf("read events: %w", err)
		}
		if s.retry > 0 {
			*retry = min(s.retry, slowest)
		}
		if len(m.data) == 0 {
			continue
		}
		var e registry.Event
		if err := json.Unmarshal(m.data, &e); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if e.ID <= *last {
			continue // the server repeats what we have
		}
		*last = e.ID
		if err := f.Event(e); err != nil {
			return stopError{err}
		}
	}
}

// pulse calls beat whenever bytes come.
type pulse struct {
	r    io.Reader
	beat func()
}

func (p pulse) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.beat()
	}
	return n, err
}
