package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"imgbuild/server/registry"
)

// events lists what has happened, or tells it as it happens to who accepts a stream.
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	q := query{values: r.URL.Query()}
	f := registry.EventFilter{
		SN: q.text("sn"), Order: q.text("order"), After: int64(q.number("after", 0, 0, 1<<53)),
		Limit: q.number("limit", 1000, 1, 10000), Last: q.flag("last"),
	}
	hasAfter := r.URL.Query().Has("after")
	if err := q.problem(); err != nil {
		a.fail(w, r, err)
		return
	}
	if wantsStream(r) {
		a.stream(w, r, f, hasAfter)
		return
	}
	list, err := a.o.Store.Events(r.Context(), f)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if len(list) == f.Limit && !f.Last {
		nextPage(w, r, strconv.FormatInt(list[len(list)-1].ID, 10))
	}
	w.Header().Set("Vary", "Accept")
	writeJSON(w, http.StatusOK, notNil(list))
}

func wantsStream(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for _, part := range strings.Split(accept, ",") {
			if media, _, err := mime.ParseMediaType(strings.TrimSpace(part)); err == nil && media == "text/event-stream" {
				return true
			}
		}
	}
	return false
}

// stream tells events as they happen (server-sent events, WHATWG HTML 9.2): those after Last-Event-ID or after, and without
// either those from now on. It ends when the reader goes or is too slow, when its token does not count any more, and when
// the server stops; a reader comes back with the last ID that it has seen and misses nothing.
func (a *API) stream(w http.ResponseWriter, r *http.Request, f registry.EventFilter, hasAfter bool) {
	select {
	case a.streams <- struct{}{}:
		defer func() { <-a.streams }()
	default:
		a.fail(w, r, refuse(http.StatusServiceUnavailable, "", "%d streams are open already; try again later", maxStreams))
		return
	}
	after, err := a.streamStart(r, f, hasAfter)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	events := a.o.Store.Watch(ctx, after)
	a.o.Metrics.streams.Inc()
	defer a.o.Metrics.streams.Dec()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Vary", "Accept")
	w.Header().Set("X-Accel-Buffering", "no") // proxies that buffer would hold everything back
	s := &sse{w: w, control: http.NewResponseController(w), patience: a.o.SlowReader}
	defer func() { _ = s.control.SetWriteDeadline(time.Time{}) }() // the connection may serve another request
	err = s.send("retry: 2000\n: events after " + strconv.FormatInt(after, 10) + "\n\n")
	alive := time.NewTicker(a.o.KeepAlive)
	defer alive.Stop()
	for err == nil {
		select {
		case <-ctx.Done():
			return
		case <-a.drained:
			return
		case <-alive.C:
			if _, bad := a.authenticate(ctx, who(r).secret); errors.Is(bad, errToken) {
				a.o.Log.Info("a stream of events ended: its token does not count any more", "name", who(r).name)
				return
			}
			err = s.send(": alive\n\n")
		case e, ok := <-events:
			if !ok {
				return
			}
			if f.SN != "" && e.SN != f.SN || f.Order != "" && e.Order != f.Order {
				continue
			}
			err = s.event(e)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		a.o.Metrics.dropped.Inc()
		a.o.Log.Info("a reader of events was dropped: it took nothing for too long", "name", who(r).name, "client", r.RemoteAddr)
	}
}

// streamStart is the ID after which a stream begins.
func (a *API) streamStart(r *http.Request, f registry.EventFilter, hasAfter bool) (int64, error) {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 {
			return 0, refuse(http.StatusBadRequest, "Last-Event-ID", "%q is not an event's ID", last)
		}
		return n, nil
	}
	if hasAfter {
		return f.After, nil
	}
	c, err := a.o.Store.Counts(r.Context())
	return c.LastEvent, err
}

// sse writes one stream.
type sse struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
}

func (s *sse) event(e registry.Event) error {
	data, err := json.Marshal(e) // one line: JSON has no bare line breaks
	if err != nil {
		return fmt.Errorf("encode event %d: %w", e.ID, err)
	}
	return s.send("id: " + strconv.FormatInt(e.ID, 10) + "\ndata: " + string(data) + "\n\n")
}

// send writes to the reader, who has a bounded time to take it.
func (s *sse) send(text string) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(s.patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.control.Flush()
}
