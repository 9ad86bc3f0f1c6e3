package control

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

// Bounds of what is kept for a server: events, the bytes of an event's text, and how often progress of one thing is told.
const (
	maxQueue      = 4096
	maxText       = 4096
	maxBatch      = 256
	progressEvery = 2 * time.Second
)

// Events is a report.Reporter that passes everything on to another one and keeps it for the server, from the start of the
// installer: what was said before the server was known is told too. It never blocks. When the queue is full, progress
// goes first, then the oldest remarks; how many is said.
type Events struct {
	next report.Reporter
	now  func() time.Time

	mu       sync.Mutex
	queue    []plan.Event // oldest first; Seq grows
	seq      int64
	sent     int64 // Seq of the last event that was in a batch
	dropped  int
	progress map[string]time.Time // when progress of a thing was last queued
	wake     chan struct{}
}

// NewEvents returns a reporter that passes on to next.
func NewEvents(next report.Reporter) *Events {
	return &Events{next: next, now: time.Now, progress: map[string]time.Time{}, wake: make(chan struct{}, 1)}
}

// Step implements report.Reporter.
func (e *Events) Step(n, of int, what string) {
	e.next.Step(n, of, what)
	e.add(plan.Event{Kind: plan.KindStep, Step: n, Of: of, Text: what})
}

// Progress implements report.Reporter.
func (e *Events) Progress(p report.Progress) {
	e.next.Progress(p)
	e.mu.Lock()
	now := e.now()
	complete := p.Total > 0 && p.Done >= p.Total
	if last, ok := e.progress[p.What]; ok && now.Sub(last) < progressEvery && !complete {
		e.mu.Unlock()
		return
	}
	e.progress[p.What] = now
	// What has not been sent yet is out of date.
	e.queue = slices.DeleteFunc(e.queue, func(q plan.Event) bool { return q.Kind == plan.KindProgress && q.Text == p.What && q.Seq > e.sent })
	e.mu.Unlock()
	e.add(plan.Event{Kind: plan.KindProgress, Text: p.What, Done: p.Done, Total: p.Total, Rate: p.Rate})
}

// Info implements report.Reporter.
func (e *Events) Info(format string, a ...any) {
	e.next.Info(format, a...)
	e.add(plan.Event{Kind: plan.KindInfo, Text: fmt.Sprintf(format, a...)})
}

// Warn implements report.Reporter.
func (e *Events) Warn(format string, a ...any) {
	e.next.Warn(format, a...)
	e.add(plan.Event{Kind: plan.KindWarn, Text: fmt.Sprintf(format, a...)})
}

func (e *Events) add(ev plan.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.put(ev)
	if len(e.queue) > maxQueue {
		e.shorten()
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *Events) put(ev plan.Event) {
	e.seq++
	ev.Seq, ev.Time, ev.Text = e.seq, e.now().UTC(), line(ev.Text, maxText)
	e.queue = append(e.queue, ev)
}

// shorten drops the event that is missed least. Steps, warnings and the end stay as long as there is anything else.
func (e *Events) shorten() {
	at := 0
	for _, kind := range []plan.Kind{plan.KindProgress, plan.KindInfo, plan.KindWarn} {
		if i := slices.IndexFunc(e.queue, func(q plan.Event) bool { return q.Kind == kind }); i >= 0 {
			at = i
			break
		}
	}
	e.queue = slices.Delete(e.queue, at, at+1)
	e.dropped++
}

// batch returns the oldest events, at most n, and remembers that they are on their way.
func (e *Events) batch(n int) []plan.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dropped > 0 && len(e.queue) > 0 {
		e.put(plan.Event{Kind: plan.KindWarn, Text: fmt.Sprintf("%d events were left out: the server was away for too long", e.dropped)})
		e.dropped = 0
	}
	b := slices.Clone(e.queue[:min(n, len(e.queue))])
	if len(b) > 0 {
		e.sent = max(e.sent, b[len(b)-1].Seq)
	}
	return b
}

// ack forgets what the server has. It reports whether that was anything.
func (e *Events) ack(seq int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := len(e.queue)
	e.queue = slices.DeleteFunc(e.queue, func(q plan.Event) bool { return q.Seq <= min(seq, e.sent) })
	return len(e.queue) < before
}

func (e *Events) empty() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.queue) == 0
}
