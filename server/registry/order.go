package registry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"imgbuild/image/plan"
)

// OrderLife is how long an order waits for its machine where nobody says otherwise.
const OrderLife = 24 * time.Hour

// conflictError has a sentence of its own and is still an ErrConflict.
type conflictError string

func (e conflictError) Error() string        { return string(e) }
func (e conflictError) Is(target error) bool { return target == ErrConflict }

const orderColumns = `id, sn, image, person, reason, names, disk, disks, wipe, unseal, fresh, layout, preview, finally, transport, state, boot, seq, lost, created, expires, consumed, started, heard, finished, ended`

func scanOrder(row scanner) (Order, error) {
	var o Order
	var names, fresh, preview, lost, created, expires, consumed, started, heard, finished, ended int64
	var disk, disks, wipe, unseal, declared, transport, state string
	err := row.Scan(&o.ID, &o.SN, &o.Image, &o.By, &o.Reason, &names, &disk, &disks, &wipe, &unseal, &fresh, &declared, &preview, &o.Done, &transport, &state, &o.Boot, &o.seq, &lost,
		&created, &expires, &consumed, &started, &heard, &finished, &ended)
	if err != nil {
		return o, err
	}
	for _, f := range []struct {
		text string
		to   any
	}{{disks, &o.Disks}, {wipe, &o.Wipe}, {unseal, &o.Unseal}, {declared, &o.Layout}} {
		if f.text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(f.text), f.to); err != nil {
			return o, fmt.Errorf("read order %s as it is stored: %w", o.ID, err)
		}
	}
	if disk != "" {
		o.Disks = []string{disk} // of an order from before schema 2
	}
	o.Transport = plan.Transport(transport)
	o.State, o.Names, o.Lost, o.Fresh, o.Preview = OrderState(state), int(names), lost != 0, fresh != 0, preview != 0
	o.Created, o.Expires, o.Consumed, o.Started = moment(created), moment(expires), moment(consumed), moment(started)
	o.Heard, o.Finished, o.Ended = moment(heard), moment(finished), moment(ended)
	return o, nil
}

func (t *tx) order(ctx context.Context, id string) (*Order, error) {
	o, err := first(ctx, t, scanOrder, `SELECT `+orderColumns+` FROM orders WHERE id = ?`, id)
	if err == nil && o == nil {
		err = fmt.Errorf("order %s: %w", id, ErrNotFound)
	}
	return o, err
}

// live is the host's live order, or nil.
func (t *tx) live(ctx context.Context, sn string) (*Order, error) {
	return first(ctx, t, scanOrder, `SELECT `+orderColumns+` FROM orders WHERE sn = ? AND state IN ('open', 'consumed')`, sn)
}

// newest reports whether what the host does is still this order's: nobody has made another one since, or deleted the host.
// What a preview says is over with the next order of any kind; what was installed stays, however many previews follow.
func (t *tx) newest(ctx context.Context, o *Order) (bool, error) {
	id, err := first(ctx, t, func(row scanner) (id string, err error) { return id, row.Scan(&id) },
		`SELECT id FROM orders WHERE sn = ? AND gone = 0 AND preview <= ? ORDER BY made DESC LIMIT 1`, o.SN, flag(o.Preview))
	return id != nil && *id == o.ID, err
}

// CreateOrder stores a person's wish that a machine be installed, or preview that. names is how often the person named the host: a protected
// host wants 2. The image is name/version; an empty one is the host's, if that names a version. An order that gives no end
// lives for OrderLife. There may be no other live order for the host, and the host may not be new: somebody has to have
// looked at it. A preview leaves the host in its state, and needs a protected host's name only once.
func (s *Store) CreateOrder(ctx context.Context, o Order, names int) (order *Order, err error) {
	err = s.write(ctx, "order installation of "+o.SN, func(ctx context.Context, t *tx) error {
		h, err := t.host(ctx, o.SN)
		if err != nil {
			return err
		}
		made := Order{ID: newID(), SN: o.SN, Image: o.Image, By: strings.TrimSpace(o.By), Reason: strings.TrimSpace(o.Reason), Disks: o.Disks, Wipe: o.Wipe,
			Unseal: o.Unseal, Fresh: o.Fresh, Layout: o.Layout, Preview: o.Preview, Done: o.Done, Transport: o.Transport, State: OrderOpen, Names: names, Created: t.now, Expires: o.Expires}
		if made.Image == "" {
			made.Image = h.Image
		}
		if made.Expires.IsZero() {
			made.Expires = t.now.Add(OrderLife)
		}
		if err := made.validate(h, t.now); err != nil {
			return err
		}
		if h.State == New {
			return conflictError("nobody has approved the machine yet: write it down or approve it first")
		}
		if other, err := t.live(ctx, o.SN); err != nil {
			return err
		} else if other != nil && other.State == OrderOpen && !t.now.Before(other.Expires) {
			if err := t.expire(ctx, other, t.now); err != nil {
				return err
			}
			if h, err = t.host(ctx, o.SN); err != nil {
				return err
			}
		} else if other != nil {
			return conflictError(fmt.Sprintf("there is already order %s by %s, which is %s: imgctl order cancel %s takes it back", other.ID, other.By, other.State, other.ID))
		}
		if err := t.insertOrder(ctx, made, h.State); err != nil {
			return err
		}
		if err := t.moveHost(ctx, &made, Ordered); err != nil {
			return err
		}
		t.append(Event{SN: o.SN, Order: made.ID, Preview: made.Preview, Kind: "ordered", By: made.By, Text: fmt.Sprintf("%s ordered: %s; the order waits until %s",
			made.what(), made.Reason, made.Expires.UTC().Format(time.RFC3339))})
		order, err = t.order(ctx, made.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return order, nil
}

// what is ordered, for the diary.
func (o *Order) what() string {
	if o.Preview {
		return "a preview of " + o.Image
	}
	return o.Image
}

// moveHost moves the order's host on its way. Of a preview nothing shows in the host.
func (t *tx) moveHost(ctx context.Context, o *Order, state State) error {
	if o.Preview {
		return nil
	}
	return t.setState(ctx, o.SN, state)
}

func (t *tx) insertOrder(ctx context.Context, o Order, prior State) error {
	var texts [4]string
	for i, f := range []struct {
		value any
		there bool
	}{{o.Disks, len(o.Disks) > 0}, {o.Wipe, len(o.Wipe) > 0}, {o.Unseal, len(o.Unseal) > 0}, {o.Layout, o.Layout != nil}} {
		if !f.there {
			continue
		}
		data, err := json.Marshal(f.value)
		if err != nil {
			return err
		}
		texts[i] = string(data)
	}
	made, err := t.next(ctx, "order", 1)
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, `INSERT INTO orders (id, sn, image, person, reason, names, disk, disks, wipe, unseal, fresh, layout, preview, finally, transport, state, prior, rack, boot, seq, turn, queued, lost, gone, created, expires, consumed, started, heard, finished, ended, made)
		VALUES (?, ?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', 0, 0, 0, 0, 0, ?, ?, 0, 0, 0, 0, 0, ?)`,
		o.ID, o.SN, o.Image, o.By, o.Reason, o.Names, texts[0], texts[1], texts[2], flag(o.Fresh), texts[3], flag(o.Preview), o.Done, string(o.Transport), string(o.State), string(prior), stamp(o.Created), stamp(o.Expires), made)
	return err
}

// newID is 60 random bits in 12 letters and digits that people can tell apart.
func newID() string {
	const letters = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's base 32
	var b [12]byte
	_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
	for i := range b {
		b[i] = letters[b[i]&31]
	}
	return string(b[:])
}

// LiveOrder returns the host's live order; nil and no error where there is none. An open one may be past its end.
func (s *Store) LiveOrder(ctx context.Context, sn string) (o *Order, err error) {
	err = s.ask(ctx, "read live order of "+sn, func(ctx context.Context, t *tx) (err error) { o, err = t.live(ctx, sn); return err })
	return o, err
}

// Order returns one order.
func (s *Store) Order(ctx context.Context, id string) (o *Order, err error) {
	err = s.ask(ctx, "read order", func(ctx context.Context, t *tx) (err error) { o, err = t.order(ctx, id); return err })
	return o, err
}

// OrderFilter chooses orders; what is empty chooses all.
type OrderFilter struct {
	SN     string
	States []OrderState
	Limit  int // 0 is no limit
}

// Orders returns orders, the newest first.
func (s *Store) Orders(ctx context.Context, f OrderFilter) (list []Order, err error) {
	query, args := `SELECT `+orderColumns+` FROM orders WHERE 1 = 1`, []any{}
	if f.SN != "" {
		query += ` AND sn = ?`
		args = append(args, f.SN)
	}
	if len(f.States) > 0 {
		query += ` AND state IN (?` + strings.Repeat(", ?", len(f.States)-1) + `)`
		for _, v := range f.States {
			args = append(args, string(v))
		}
	}
	query += ` ORDER BY made DESC`
	if f.Limit > 0 {
		query += ` LIMIT ?`
		args = append(args, f.Limit)
	}
	err = s.ask(ctx, "list orders", func(ctx context.Context, t *tx) (err error) {
		list, err = all(ctx, t, scanOrder, query, args...)
		return err
	})
	return list, err
}

// CancelOrder takes a live order back; one that is cancelled already stays so. An installation that runs is told to stop
// with its next report: before it writes to the disk it does, after that it goes on, and the host is failed until its
// system reports.
func (s *Store) CancelOrder(ctx context.Context, id, by, reason string) error {
	return s.write(ctx, "cancel order "+id, func(ctx context.Context, t *tx) error {
		if by == "" {
			return invalid("by", "nobody is named who cancels it")
		}
		for _, f := range []struct{ name, value string }{{"by", by}, {"reason", reason}} {
			if problem := checkLine(f.value); problem != "" {
				return invalid(f.name, problem)
			}
		}
		o, err := t.order(ctx, id)
		if err != nil {
			return err
		}
		switch {
		case o.State == OrderCancelled:
			return nil
		case !o.Live():
			return fmt.Errorf("it is %s: %w", o.State, ErrConflict)
		}
		text := "order cancelled"
		if reason != "" {
			text += ": " + reason
		}
		state := Failed
		switch {
		case o.Started.IsZero():
			if state, err = t.prior(ctx, o); err != nil {
				return err
			}
		case !o.Preview:
			text += "; the installation had begun"
		}
		return t.end(ctx, o, OrderCancelled, state, t.now, Event{Kind: "cancelled", By: by, Text: text})
	})
}

// prior is the state that the host had when the order was made.
func (t *tx) prior(ctx context.Context, o *Order) (State, error) {
	v, err := first(ctx, t, func(row scanner) (v string, err error) { return v, row.Scan(&v) }, `SELECT prior FROM orders WHERE id = ?`, o.ID)
	if err != nil || v == nil {
		return Known, err
	}
	return State(*v), nil
}

// end makes an order be no more, with a line in the diary and the host's state, which is Lost for an order whose machine went
// silent. A preview's host stays as it is.
func (t *tx) end(ctx context.Context, o *Order, state OrderState, host State, now time.Time, e Event) error {
	if _, err := t.exec(ctx, `UPDATE orders SET state = ?, ended = ?, lost = ? WHERE id = ?`, string(state), stamp(now), flag(host == Lost), o.ID); err != nil {
		return err
	}
	if err := t.moveHost(ctx, o, host); err != nil {
		return err
	}
	e.SN, e.Order, e.Preview = o.SN, o.ID, o.Preview
	t.append(e)
	return nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (t *tx) expire(ctx context.Context, o *Order, now time.Time) error {
	state, err := t.prior(ctx, o)
	if err != nil {
		return err
	}
	return t.end(ctx, o, OrderExpired, state, now, Event{Kind: "expired", Text: "the order expired: the machine did not come"})
}

// ExpireOrders ends the open orders whose time is over, and returns them as they are now.
func (s *Store) ExpireOrders(ctx context.Context, now time.Time) (ended []Order, err error) {
	overdue := func(ctx context.Context, t *tx) ([]Order, error) {
		return all(ctx, t, scanOrder, `SELECT `+orderColumns+` FROM orders WHERE state = 'open' AND expires <= ? ORDER BY expires`, stamp(now))
	}
	const what = "expire orders"
	err = s.ask(ctx, what, func(ctx context.Context, t *tx) (err error) { ended, err = overdue(ctx, t); return err })
	if err != nil || len(ended) == 0 {
		return nil, err // most of the time; a write would sync the disk
	}
	err = s.write(ctx, what, func(ctx context.Context, t *tx) (err error) {
		if ended, err = overdue(ctx, t); err != nil {
			return err
		}
		for i := range ended {
			if err := t.expire(ctx, &ended[i], now); err != nil {
				return err
			}
			ended[i].State, ended[i].Ended = OrderExpired, moment(stamp(now))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ended, nil
}

// share is whose slots of SlotLimits.PerRack a host takes: its rack's, else its subnet's.
func share(h *Host) string {
	if h.Rack != "" {
		return h.Rack
	}
	ip, err := netip.ParseAddr(h.IP)
	if err != nil {
		return ""
	}
	bits, problem := prefixLength(h.Netmask, ip)
	if problem != "" {
		return ""
	}
	return netip.PrefixFrom(ip, bits).Masked().String()
}
