package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/client"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// Install is an order for several machines.
type Install struct {
	Image  string // empty: each host's own
	Reason string
	Disks  []string
	Wipe   []string
	Unseal []string
	Fresh  bool
	// Layout is a preset's name or a file with a layout; empty: each host's own.
	Layout string
	Done   string
	// Transport is http, relay or torrent; empty is the server's.
	Transport string
	// Expires is a duration from now, as 2h or 3d, or a time as 2026-01-31 18:00; empty leaves it to the server.
	Expires string
	// Protected are the protected hosts among them, named for the second time.
	Protected []string
}

// Install orders installations.
func (t *Tool) Install(ctx context.Context, sns []string, o Install) error {
	if strings.TrimSpace(o.Reason) == "" {
		return usage("an order needs a reason: --reason 'new disks'")
	}
	for _, sn := range o.Protected {
		if !slices.Contains(sns, sn) {
			return usage("--protected %s: this host is not among those to install", sn)
		}
	}
	for _, d := range o.Disks {
		if len(sns) > 1 && !strings.HasPrefix(d, "/dev/") {
			return usage("--disk %s: %d machines cannot have the same disk; order them one by one", d, len(sns))
		}
	}
	declared, err := t.layoutOf(o.Layout)
	if err != nil {
		return err
	}
	expires, err := parseExpiry(o.Expires, t.Now().In(t.Zone))
	if err != nil {
		return err
	}
	out, err := each(ctx, t, "orders made", sns, itself, func(ctx context.Context, sn string) (*registry.Order, error) {
		n := client.NewOrder{SN: sn, Image: o.Image, Reason: o.Reason, Disks: o.Disks, Wipe: o.Wipe, Unseal: o.Unseal, Fresh: o.Fresh, Layout: declared, Done: o.Done, Transport: plan.Transport(o.Transport), Expires: expires}
		if slices.Contains(o.Protected, sn) {
			n.Protected = sn
		}
		return t.Client.CreateOrder(ctx, n)
	})
	if err != nil {
		return fmt.Errorf("order installations: %w", err)
	}
	made := good(out)
	if len(made) > 0 || t.Format != show.Table {
		if err := t.printOrders(values(made)); err != nil {
			return err
		}
	}
	return failures(t, "orders", out)
}

// parseExpiry reads a duration from now, or a time.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	at, err := parseWhen(s, now)
	if err != nil {
		return time.Time{}, err
	}
	if !at.After(now) {
		return time.Time{}, usage("%q is over already", s)
	}
	return at, nil
}

func parseWhen(s string, now time.Time) (time.Time, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if days, err := strconv.Atoi(n); err == nil && days > 0 && days < 10000 {
			return now.AddDate(0, 0, days), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(d), nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return at, nil
		}
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at, nil
	}
	return time.Time{}, usage("%q is neither a duration such as 2h or 3d nor a time such as 2026-01-31 18:00", s)
}

func values[T any](ps []*T) []T {
	out := make([]T, len(ps))
	for i, p := range ps {
		out[i] = *p
	}
	return out
}

func (t *Tool) printOrders(orders []registry.Order) error {
	now := t.Now().In(t.Zone)
	var rows [][]string
	for _, o := range orders {
		image := o.Image
		if o.Preview {
			image += " (preview)"
		}
		rows = append(rows, []string{o.ID, o.SN, image, string(o.State), o.By, show.Ago(o.Created, now), expiry(o, now), o.Reason})
	}
	return t.print(orEmpty(orders), []string{"ORDER", "SN", "IMAGE", "STATE", "BY", "MADE", "EXPIRES", "REASON"}, rows, "there is no such order")
}

// expiry matters only while nobody has come for the order.
func expiry(o registry.Order, now time.Time) string {
	if o.State != registry.OrderOpen || o.Expires.IsZero() {
		return ""
	}
	return "in " + show.Duration(o.Expires.Sub(now))
}

// Orders lists orders; with sns only those of these hosts.
func (t *Tool) Orders(ctx context.Context, sns []string, q client.OrderQuery) error {
	if len(sns) == 0 {
		orders, err := t.Client.Orders(ctx, q)
		if err != nil {
			return fmt.Errorf("list orders: %w", err)
		}
		return t.printOrders(orders)
	}
	out, err := each(ctx, t, "hosts read", sns, itself, func(ctx context.Context, sn string) ([]registry.Order, error) {
		q := q
		q.SN = sn
		return t.Client.Orders(ctx, q)
	})
	if err != nil {
		return fmt.Errorf("list orders: %w", err)
	}
	if err := t.printOrders(slices.Concat(good(out)...)); err != nil {
		return err
	}
	return failures(t, "hosts", out)
}

// find returns the order that a person means: by its ID, or the last one of a host by its serial number. With live it has
// to be one that can still be cancelled.
func (t *Tool) find(ctx context.Context, name string, live bool) (*registry.Order, error) {
	q := client.OrderQuery{SN: name}
	if live {
		q.States = []registry.OrderState{registry.OrderOpen, registry.OrderConsumed}
	}
	orders, err := t.Client.Orders(ctx, q)
	if err != nil && !client.NotFound(err) {
		return nil, err
	}
	if len(orders) > 0 {
		last := slices.MaxFunc(orders, func(a, b registry.Order) int { return a.Created.Compare(b.Created) })
		return &last, nil
	}
	o, err := t.Client.Order(ctx, name)
	if client.NotFound(err) {
		if live {
			return nil, errors.New("there is no live order of this ID or serial number")
		}
		return nil, errors.New("there is no order of this ID or serial number")
	}
	return o, err
}

// ShowOrders prints all of orders, which are named by their IDs or their hosts' serial numbers.
func (t *Tool) ShowOrders(ctx context.Context, names []string) error {
	out, err := each(ctx, t, "orders read", names, itself, func(ctx context.Context, n string) (*registry.Order, error) { return t.find(ctx, n, false) })
	if err != nil {
		return fmt.Errorf("show orders: %w", err)
	}
	orders := good(out)
	switch {
	case t.Format == show.Table:
		for i, o := range orders {
			if i > 0 {
				fmt.Fprintln(t.Out)
			}
			if err := t.showOrder(ctx, o); err != nil {
				return err
			}
		}
	case len(names) == 1 && len(orders) == 1:
		err = show.Value(t.Out, t.Format, orders[0])
	default:
		err = show.Value(t.Out, t.Format, orEmpty(orders))
	}
	if err != nil {
		return err
	}
	return failures(t, "orders", out)
}

// showOrder prints one order for a person, and what its preview has found.
func (t *Tool) showOrder(ctx context.Context, o *registry.Order) error {
	when := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.In(t.Zone).Format("Monday, 2 January 2006, 15:04:05")
	}
	for _, f := range [][2]string{
		{"order", o.ID}, {"sn", o.SN}, {"image", o.Image}, {"state", string(o.State)}, {"by", o.By}, {"reason", o.Reason},
		{"preview", yes(o.Preview)}, {"disks", strings.Join(o.Disks, " ")}, {"wipe", strings.Join(o.Wipe, " ")},
		{"unseal", strings.Join(o.Unseal, " ")}, {"fresh", yes(o.Fresh)}, {"layout", layoutText(o.Layout)}, {"done", o.Done}, {"transport", string(o.Transport)}, {"created", when(o.Created)},
		{"expires", when(o.Expires)}, {"consumed", when(o.Consumed)}, {"started", when(o.Started)}, {"ended", when(o.Ended)},
	} {
		if f[1] != "" {
			fmt.Fprintf(t.Out, "%-9s %s\n", f[0], show.Clean(f[1]))
		}
	}
	if !o.Preview || o.State != registry.OrderDone {
		return nil
	}
	found, err := t.Client.Outlook(ctx, o.ID)
	if err != nil {
		return fmt.Errorf("show order %s: read its preview: %w", o.ID, err)
	}
	if found.Refused != "" {
		fmt.Fprintf(t.Out, "%-9s %s\n", "refused", show.Clean(found.Refused))
	}
	fmt.Fprintln(t.Out)
	return t.printOutlook(found)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// Cancel takes orders back, which are named by their IDs or their hosts' serial numbers.
func (t *Tool) Cancel(ctx context.Context, names []string, reason string) error {
	out, err := each(ctx, t, "orders cancelled", names, itself, func(ctx context.Context, n string) (*registry.Order, error) {
		o, err := t.find(ctx, n, true)
		if err != nil {
			return nil, err
		}
		return o, t.Client.CancelOrder(ctx, o.ID, reason)
	})
	if err != nil {
		return fmt.Errorf("cancel orders: %w", err)
	}
	for _, o := range good(out) {
		late := ""
		if o.State == registry.OrderConsumed {
			late = "; its installation had begun"
		}
		t.said("%s: order %s is cancelled%s", show.Clean(o.SN), show.Clean(o.ID), late)
	}
	return failures(t, "orders", out)
}
