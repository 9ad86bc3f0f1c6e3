package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

// gather is how long events are collected before they are sent together.
const gather = 500 * time.Millisecond

// Delivery takes events to the server in the background, with heartbeats where there are none.
type Delivery struct {
	client *Client
	events *Events
	token  string
	every  time.Duration // heartbeat

	stop context.CancelFunc
	done chan struct{}
	ask  chan chan struct{} // closed by the loop when one exchange, begun later, has ended
	last chan struct{}      // closed when the last event is queued: gather no more

	mu     sync.Mutex
	reason string // why the server asks to stop; empty if it does not
}

// Deliver begins to send events with an installation's token, until End. ctx's end does not end it: what a stopped
// installation has to say is told too.
func (c *Client) Deliver(ctx context.Context, e *Events, token string) *Delivery {
	return c.deliver(ctx, e, token, plan.HeartbeatSeconds*time.Second)
}

func (c *Client) deliver(ctx context.Context, e *Events, token string, every time.Duration) *Delivery {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	d := &Delivery{
		client: c, events: e, token: token, every: every, stop: stop,
		done: make(chan struct{}), ask: make(chan chan struct{}), last: make(chan struct{}),
	}
	go func() { // ends with End
		defer close(d.done)
		d.run(ctx)
	}()
	return d
}

// Stopped says why the server wants the machine to stop, and whether it does. It is to be asked before the first write only.
func (d *Delivery) Stopped() (reason string, stopped bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reason, d.reason != ""
}

// Sync asks the server once more, so that Stopped knows what it wants now. A server that does not answer within the limit
// wants nothing.
func (d *Delivery) Sync(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answered := make(chan struct{})
	select {
	case d.ask <- answered:
	case <-ctx.Done():
		return
	case <-d.done:
		return
	}
	select {
	case <-answered:
	case <-ctx.Done():
	case <-d.done:
	}
}

// Via tells the server through another way to it that the machine is alive, and hears whether it wants it to stop. It is
// for the host's own network, while that is tried and nothing passes through the installer's. An error is a server that
// was not reached: any answer of its is one, also a refusal.
func (d *Delivery) Via(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error)) error {
	way := *d.client
	way.http = &http.Client{
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSHandshakeTimeout: 10 * time.Second},
		CheckRedirect: d.client.http.CheckRedirect,
	}
	_, err := d.exchange(ctx, &way, nil)
	var refused *Refused
	var b *busy
	if errors.As(err, &refused) && refused.Status/100 != 2 || errors.As(err, &b) {
		return nil
	}
	if err != nil {
		return plain(err)
	}
	return nil
}

// Preview is End for what an installation would do.
func (d *Delivery) Preview(o plan.Outlook, limit time.Duration) bool {
	return d.end(plan.Event{Kind: plan.KindPreview, Text: o.Refused, Outlook: &o}, limit)
}

// End tells how the installation ended, waits until the server has everything, but no longer than the limit, and ends
// the delivery. It reports whether the server has everything. It is called once.
func (d *Delivery) End(kind plan.Kind, text string, limit time.Duration) bool {
	return d.end(plan.Event{Kind: kind, Text: text}, limit)
}

func (d *Delivery) end(ev plan.Event, limit time.Duration) bool {
	d.events.add(ev)
	close(d.last)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-d.done:
	case <-timer.C:
	}
	d.stop()
	<-d.done
	return d.events.empty()
}

// run sends until ctx ends, or everything including the last event has arrived.
func (d *Delivery) run(ctx context.Context) {
	tries := pause{most: 15 * time.Second}
	size, hurry := maxBatch, false
	var away time.Time // since when the server has been away
	for {
		var asked chan struct{} // by Sync
		if !hurry {
			asked = d.gather(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		batch := d.events.batch(size)
		err := d.send(ctx, batch)
		if asked != nil {
			close(asked)
		}
		var refused *Refused
		switch {
		case err == nil:
			if !away.IsZero() {
				d.client.Report.Info("the server answers again, after %s", report.Duration(time.Since(away)))
			}
			hurry = len(batch) == size
			away, tries, size = time.Time{}, pause{most: tries.most}, maxBatch
			if d.ended() && d.events.empty() {
				return
			}
			continue
		case ctx.Err() != nil:
			return
		case errors.As(err, &refused) && !forbidden(refused) && len(batch) > 1:
			size, hurry = 1, true // to find out which of them it does not take
			continue
		case errors.As(err, &refused) && !forbidden(refused) && len(batch) == 1:
			d.events.next.Warn("the server does not take an event: %v", err) // to people only: it would be the next one
			d.events.ack(batch[0].Seq)
			hurry = true
			continue
		case away.IsZero():
			d.client.Report.Warn("tell the server what happens: %v; going on without, and trying again", plain(err))
			away = time.Now()
		}
		hurry = true
		if !d.rest(ctx, tries.after(err)) {
			return
		}
	}
}

// rest waits after a failure. Somebody waits for the last event: then it is short.
func (d *Delivery) rest(ctx context.Context, wait time.Duration) bool {
	last := d.last
	if d.ended() {
		last, wait = nil, min(wait, 2*time.Second)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-last:
		return true
	case <-ctx.Done():
		return false
	}
}

// gather waits for events, for a heartbeat's time or for somebody who asks, and after the first event a little longer for
// more. It returns what Sync waits for, if it asked.
func (d *Delivery) gather(ctx context.Context) chan struct{} {
	beat := time.NewTimer(d.every)
	defer beat.Stop()
	wake := d.events.wake
	var more <-chan time.Time
	for {
		select {
		case <-wake:
			t := time.NewTimer(gather)
			defer t.Stop()
			wake, more = nil, t.C
		case w := <-d.ask:
			return w
		case <-d.last:
			return nil
		case <-more:
			return nil
		case <-beat.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *Delivery) ended() bool {
	select {
	case <-d.last:
		return true
	default:
		return false
	}
}

// forbidden is the refusal of the token and not of what was sent.
func forbidden(r *Refused) bool {
	switch r.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone, http.StatusConflict:
		return true
	}
	return false
}

var errNotKept = errors.New("it answers, and keeps nothing of what it was sent")

// send makes one exchange, and forgets what the server has kept.
func (d *Delivery) send(ctx context.Context, batch []plan.Event) error {
	a, err := d.exchange(ctx, d.client, batch)
	if err != nil {
		return err
	}
	if !d.events.ack(a.Seq) && len(batch) > 0 {
		return errNotKept
	}
	return nil
}

func (d *Delivery) exchange(ctx context.Context, client *Client, batch []plan.Event) (plan.Answer, error) {
	if batch == nil {
		batch = []plan.Event{}
	}
	var a plan.Answer
	err := client.Post(ctx, plan.EventsPath, d.token, plan.Report{Schema: plan.Schema, Events: batch}, &a)
	var refused *Refused
	if errors.As(err, &refused) && forbidden(refused) {
		// The order is gone, or another one has come: whatever the machine was told is no longer wanted.
		d.wantStop("it no longer takes this installation's reports: " + refused.Error())
	}
	if err == nil && a.Stop {
		d.wantStop(line(a.Reason, 300))
	}
	return a, err
}

func (d *Delivery) wantStop(reason string) {
	if reason == "" {
		reason = "it does not say why"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reason = reason
}
