package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"imgbuild/image/plan"
)

// OfferLife is how long a boot may take from its script to its claim.
const OfferLife = time.Hour

// FirstBoot is how long the installed system may take to report its first boot.
const FirstBoot = time.Hour

// Offer stores that a boot script was given to a machine. digest is the SHA-256, in hex, of the script's nonce, order the
// live order that the boot may consume, or empty for a boot that may only be inspected. OfferLive is for one that runs a release.
func (s *Store) Offer(ctx context.Context, sn, order, digest string, now time.Time) error {
	return s.write(ctx, "offer boot to "+sn, func(ctx context.Context, t *tx) error {
		return t.offer(ctx, sn, order, "", digest, now)
	})
}

func (t *tx) offer(ctx context.Context, sn, order, live, digest string, now time.Time) error {
	if digest == "" {
		return invalid("boot", "it has no digest")
	}
	if problem := checkLine(sn); problem != "" {
		return invalid("sn", problem)
	}
	if _, err := t.exec(ctx, `DELETE FROM offers WHERE created < ?`, stamp(now.Add(-2*OfferLife))); err != nil {
		return err
	}
	n, err := t.exec(ctx, `INSERT INTO offers (digest, sn, order_id, live, created) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, digest, sn, order, live, stamp(now))
	if err == nil && n == 0 {
		err = fmt.Errorf("the nonce was used before: %w", ErrConflict)
	}
	return err
}

// Offer is what a boot was started for.
type Offer struct {
	SN    string // of the machine that the nonce was given to
	Order string // that the boot may consume; empty for none
	Live  string // the release, as name/version, that it may run from memory; empty for none
}

// Offered says to whom a boot's nonce was given, and what for; nil if it was never given, or too long ago. A boot that has
// consumed its live order is known as long as that lives.
func (s *Store) Offered(ctx context.Context, digest string, now time.Time) (offer *Offer, err error) {
	err = s.read(ctx, "read offer", func(ctx context.Context, t *tx) error {
		o, err := first(ctx, t, scanOrder, `SELECT `+orderColumns+` FROM orders WHERE state = 'consumed' AND boot = ?`, digest)
		if err != nil {
			return err
		}
		if o != nil && digest != "" {
			offer = &Offer{SN: o.SN, Order: o.ID}
			return nil
		}
		offer, err = first(ctx, t, func(row scanner) (v Offer, err error) { return v, row.Scan(&v.SN, &v.Order, &v.Live) },
			`SELECT sn, order_id, live FROM offers WHERE digest = ? AND created > ?`, digest, stamp(now.Add(-OfferLife)))
		return err
	})
	return offer, err
}

// Consume gives an open order to one boot: the first that asks and was offered it. The same boot may ask again; any other,
// and any that comes too late, gets ErrConflict.
func (s *Store) Consume(ctx context.Context, order, digest string, now time.Time) (o *Order, err error) {
	err = s.write(ctx, "consume order "+order, func(ctx context.Context, t *tx) error {
		if o, err = t.order(ctx, order); err != nil {
			return err
		}
		switch {
		case digest == "":
			return invalid("boot", "it has no digest")
		case o.State == OrderConsumed && o.Boot == digest:
			return nil
		case o.State != OrderOpen:
			return fmt.Errorf("it is %s: %w", o.State, ErrConflict)
		case !now.Before(o.Expires):
			return fmt.Errorf("it expired at %s: %w", o.Expires.Format(time.RFC3339), ErrConflict)
		}
		offered, err := t.number(ctx, `SELECT COUNT(*) FROM offers WHERE digest = ? AND sn = ? AND order_id = ? AND created > ?`, digest, o.SN, o.ID, stamp(now.Add(-OfferLife)))
		if err != nil {
			return err
		}
		if offered == 0 {
			return fmt.Errorf("this boot was not offered it: %w", ErrConflict)
		}
		h, err := t.host(ctx, o.SN)
		if err != nil {
			return err
		}
		if err := h.guard(o); err != nil {
			return err
		}
		turn, err := t.next(ctx, "turn", 1)
		if err != nil {
			return err
		}
		if _, err := t.exec(ctx, `UPDATE orders SET state = 'consumed', boot = ?, consumed = ?, heard = ?, turn = ?, rack = ? WHERE id = ?`,
			digest, stamp(now), stamp(now), turn, share(&h.Host), order); err != nil {
			return err
		}
		t.append(Event{SN: o.SN, Order: order, Preview: o.Preview, Kind: "claimed", Text: "the machine has booted and taken the order"})
		o, err = t.order(ctx, order)
		return err
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// guard refuses an order for a host that was protected after it was made. A preview does no harm.
func (h *stored) guard(o *Order) error {
	if h.Protect && !o.Preview && o.Names < 2 {
		return fmt.Errorf("the host was protected after the order was made: cancel the order and make one that names the host twice: %w", ErrConflict)
	}
	return nil
}

func (t *tx) guard(ctx context.Context, o *Order) error {
	h, err := t.host(ctx, o.SN)
	if err != nil {
		return err
	}
	return h.guard(o)
}

// OrderByToken returns the order whose installation has this token, whatever its state.
func (s *Store) OrderByToken(ctx context.Context, tokenDigest string) (o *Order, err error) {
	err = s.ask(ctx, "read order by token", func(ctx context.Context, t *tx) error {
		o, err = first(ctx, t, scanOrder, `SELECT `+orderColumns+` FROM orders WHERE id = (SELECT order_id FROM order_tokens WHERE digest = ?)`, tokenDigest)
		if err == nil && o == nil {
			err = fmt.Errorf("no installation has this token: %w", ErrNotFound)
		}
		return err
	})
	return o, err
}

// Report stores what a machine says of its installation; no events are a heartbeat. seq is the last event that is stored:
// those up to it are passed over when they come again. A failed event ends the order as failed, a done one frees the slot, and
// what a preview has found ends the preview as done. A machine that was lost is found, as long as no other order was made. Of an
// order that has ended otherwise the events are kept, and change nothing.
func (s *Store) Report(ctx context.Context, order string, events []plan.Event, now time.Time) (seq int64, err error) {
	err = s.write(ctx, "store report on order "+order, func(ctx context.Context, t *tx) error {
		o, err := t.order(ctx, order)
		if err != nil {
			return err
		}
		seq = o.seq
		if err := t.find(ctx, o); err != nil {
			return err
		}
		for _, e := range events {
			if e.Seq <= seq {
				continue
			}
			seq = e.Seq
			if err := t.reported(ctx, o, e, now); err != nil {
				return err
			}
		}
		_, err = t.exec(ctx, `UPDATE orders SET heard = ?, seq = ? WHERE id = ?`, stamp(now), seq, order)
		return err
	})
	return seq, err
}

// reported stores one event, and does what follows from it. o is changed with it.
func (t *tx) reported(ctx context.Context, o *Order, e plan.Event, now time.Time) error {
	found := e.Outlook
	e.Outlook = nil // it is the order's, and not the diary's
	e.Text = clean(e.Text)
	if e.Kind == plan.KindPreview && found != nil && o.Preview {
		e.Text = "what an installation would do is known"
		if found.Refused != "" {
			e.Text = "an installation would be refused: " + clean(found.Refused)
		}
	}
	switch e.Kind {
	case plan.KindStep, plan.KindProgress, plan.KindInfo, plan.KindWarn, plan.KindFailed, plan.KindDone, plan.KindPreview:
	default:
		e.Kind = plan.KindInfo // the diary's other kinds are the server's words
	}
	t.append(Event{Time: now, SN: o.SN, Order: o.ID, Preview: o.Preview, Kind: string(e.Kind), Text: e.Text, Machine: &e})
	if o.State != OrderConsumed {
		return nil
	}
	switch {
	case e.Kind == plan.KindFailed:
		return t.settle(ctx, o, OrderFailed, Failed, "", now)
	case e.Kind == plan.KindDone && !o.Preview:
		_, err := t.exec(ctx, `UPDATE orders SET finished = ? WHERE id = ? AND finished = 0`, stamp(now), o.ID)
		return err
	case e.Kind == plan.KindPreview && o.Preview && found != nil:
		text, err := outlookText(*found)
		if err != nil {
			t.append(Event{Time: now, SN: o.SN, Order: o.ID, Preview: o.Preview, Kind: string(plan.KindFailed), Text: "the preview cannot be kept: " + err.Error()})
			return t.settle(ctx, o, OrderFailed, Failed, "", now)
		}
		return t.settle(ctx, o, OrderDone, Installed, text, now)
	}
	return nil
}

// settle ends an order by what its machine has said.
func (t *tx) settle(ctx context.Context, o *Order, state OrderState, host State, outlook string, now time.Time) error {
	o.State = state
	if _, err := t.exec(ctx, `UPDATE orders SET state = ?, outlook = ?, ended = ? WHERE id = ?`, string(state), outlook, stamp(now), o.ID); err != nil {
		return err
	}
	return t.moveHost(ctx, o, host)
}

// find makes a lost installation live again that is heard from. o is changed with it.
func (t *tx) find(ctx context.Context, o *Order) error {
	if o.State != OrderFailed || !o.Lost {
		return nil
	}
	newest, err := t.newest(ctx, o)
	if err != nil || !newest {
		return err
	}
	if other, err := t.live(ctx, o.SN); err != nil || other != nil {
		return err // a preview that waits for the machine
	}
	_, err = t.exec(ctx, `UPDATE orders SET state = 'consumed', ended = 0, lost = 0 WHERE id = ?`, o.ID)
	if err != nil {
		return err
	}
	if err := t.moveHost(ctx, o, Installing); err != nil {
		return err
	}
	o.State, o.Lost, o.Ended = OrderConsumed, false, time.Time{}
	t.append(Event{SN: o.SN, Order: o.ID, Preview: o.Preview, Kind: "found", Text: "the machine is heard again: it goes on"})
	return nil
}

// Silent returns the consumed orders whose machines were last heard before since: those that wait, those that install,
// and, FirstBoot later, those that are done and have not reported their first boot. A server that was down itself asks only
// when machines have had the time to report again.
func (s *Store) Silent(ctx context.Context, since time.Time) (list []Order, err error) {
	err = s.ask(ctx, "list silent machines", func(ctx context.Context, t *tx) error {
		list, err = all(ctx, t, scanOrder, `SELECT `+orderColumns+` FROM orders WHERE state = 'consumed' AND ((finished = 0 AND heard < ?) OR (finished > 0 AND heard < ?)) ORDER BY turn`,
			stamp(since), stamp(since.Add(-FirstBoot)))
		return err
	})
	return list, err
}

// LoseOrder ends an order as failed, and its host as lost, if the machine has still not been heard since then, and reports
// whether it did.
func (s *Store) LoseOrder(ctx context.Context, id string, since time.Time, text string, now time.Time) (lost bool, err error) {
	err = s.write(ctx, "mark machine of order "+id+" as lost", func(ctx context.Context, t *tx) error {
		o, err := t.order(ctx, id)
		if err != nil {
			return err
		}
		if !o.Finished.IsZero() {
			since = since.Add(-FirstBoot)
		}
		if lost = o.State == OrderConsumed && o.Heard.Before(since); !lost {
			return nil
		}
		return t.end(ctx, o, OrderFailed, Lost, now, Event{Kind: "lost", Text: clean(text)})
	})
	return lost, err
}

// MarkBooted stores the first boot of what was installed: the order is done, the host installed. It may come twice. Of an
// order that was cancelled or has failed the report is stored too, because the machine runs what it says; but not if
// another order was made meanwhile, or the host deleted.
func (s *Store) MarkBooted(ctx context.Context, order string, b plan.Booted, now time.Time) error {
	return s.write(ctx, "store first boot of order "+order, func(ctx context.Context, t *tx) error {
		o, err := t.order(ctx, order)
		if err != nil {
			return err
		}
		if o.Preview {
			return fmt.Errorf("it is a preview, which installs nothing: %w", ErrConflict)
		}
		if o.State == OrderDone {
			return nil
		}
		newest, err := t.newest(ctx, o)
		if err != nil {
			return err
		}
		if !newest || o.Started.IsZero() {
			return fmt.Errorf("it is %s, and not what the host runs: %w", o.State, ErrConflict)
		}
		h, err := t.host(ctx, o.SN)
		if err != nil {
			return err
		}
		b = cleaned(b)
		data, err := json.Marshal(b)
		if err != nil {
			return err
		}
		h.booted, h.State, h.Updated, h.Revision = string(data), Installed, t.now, h.Revision+1
		if err := t.save(ctx, h, false); err != nil {
			return err
		}
		if o.Live() || o.Lost {
			if _, err := t.exec(ctx, `UPDATE orders SET state = 'done', lost = 0, heard = ?, ended = ? WHERE id = ?`, stamp(now), stamp(now), order); err != nil {
				return err
			}
		}
		t.append(Event{Time: now, SN: o.SN, Order: order, Kind: "booted", Text: bootedText(b)})
		return t.endLive(ctx, o.SN, now)
	})
}

func bootedText(b plan.Booted) string {
	text := fmt.Sprintf("%s has booted: %s, kernel %s", b.Hostname, b.System, b.Kernel)
	if b.BootSeconds > 0 {
		text += fmt.Sprintf(", after %.0f s", b.BootSeconds)
	}
	if len(b.Failed) > 0 {
		text += fmt.Sprintf("; %d units failed", len(b.Failed))
	}
	return text
}
