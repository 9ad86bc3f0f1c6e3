package ctl

import (
	"context"
	"fmt"
	"slices"
	"time"

	"imgbuild/server/client"
	"imgbuild/server/ctl/diary"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// LogOptions are those of Logs.
type LogOptions struct {
	Order  string // of one order; empty: of the host's last
	All    bool   // everything that ever happened to the host
	Follow bool   // and go on, until the person has had enough
}

// Logs prints what happened to a host, from the order to the first boot, or since it last booted from memory.
func (t *Tool) Logs(ctx context.Context, sn string, o LogOptions) error {
	q := client.EventQuery{SN: sn, Order: o.Order}
	if !o.All && o.Order == "" {
		orders, err := t.Client.Orders(ctx, client.OrderQuery{SN: sn})
		if err != nil && !client.NotFound(err) {
			return fmt.Errorf("read the log of %s: %w", sn, err)
		}
		if installs := slices.DeleteFunc(slices.Clone(orders), func(o registry.Order) bool { return o.Preview }); len(installs) > 0 {
			orders = installs
		}
		h, err := t.Client.Host(ctx, sn)
		if err != nil && !client.NotFound(err) {
			return fmt.Errorf("read the log of %s: %w", sn, err)
		}
		q.Order = lastOf(orders, h)
	}
	events, err := t.Client.Events(ctx, q)
	if err != nil {
		return fmt.Errorf("read the log of %s: %w", sn, err)
	}
	if len(events) == 0 {
		if _, err := t.Client.Host(ctx, sn); err != nil {
			return fmt.Errorf("read the log of %s: %w", sn, err)
		}
		fmt.Fprintf(t.Err, "nothing has happened to %s yet\n", show.Clean(sn))
	}
	if t.Format != show.Table {
		if !o.Follow {
			return show.Value(t.Out, t.Format, orEmpty(events))
		}
		return t.followValues(ctx, events, client.EventQuery{SN: sn, After: lastID(events)})
	}
	d := diary.New(t.Out, t.Zone)
	d.Clock(events)
	for _, e := range events {
		if err := d.Add(e); err != nil {
			return err
		}
	}
	if err := d.Flush(); err != nil || !o.Follow {
		return err
	}
	err = t.Client.Follow(ctx, client.EventQuery{SN: sn, After: lastID(events)}, t.follower(d.Add))
	if interrupted(ctx, err) {
		return d.Flush()
	}
	return fmt.Errorf("follow the log of %s: %w", sn, err)
}

// lastOf is the ID of what a host did last: an order, or a boot from memory that began after it was made.
func lastOf(orders []registry.Order, h *registry.Host) string {
	id, at := "", time.Time{}
	if len(orders) > 0 {
		last := slices.MaxFunc(orders, func(a, b registry.Order) int { return a.Created.Compare(b.Created) })
		id, at = last.ID, last.Created
	}
	if h != nil && h.LiveBoot != nil && h.LiveBoot.Started.After(at) {
		return h.LiveBoot.ID
	}
	return id
}

func lastID(events []registry.Event) int64 {
	var last int64
	for _, e := range events {
		last = max(last, e.ID)
	}
	return last
}

// followValues prints each event as a JSON object in its own line: a stream has no end that a list could have.
func (t *Tool) followValues(ctx context.Context, events []registry.Event, q client.EventQuery) error {
	if t.Format != show.JSON {
		return usage("a stream is printed as -o json, one event a line, or for people")
	}

	for _, e := range events {
		if err := show.Line(t.Out, e); err != nil {
			return err
		}
	}
	err := t.Client.Follow(ctx, q, t.follower(func(e registry.Event) error { return show.Line(t.Out, e) }))
	if interrupted(ctx, err) {
		return nil
	}
	return fmt.Errorf("follow events: %w", err)
}
