package registry

import (
	"context"
	"fmt"
	"time"

	"imgbuild/image/plan"
)

// SlotLimits is how many installations run at once; 0 is no limit. A host without a rack counts with its subnet.
type SlotLimits struct {
	Global   int `json:"global"`
	PerRack  int `json:"per_rack"`
	PerImage int `json:"per_image"`
}

// waiter is a consumed order as the queue sees it.
type waiter struct {
	id, rack, image string
	turn, started   int64
}

func scanWaiter(row scanner) (w waiter, err error) {
	return w, row.Scan(&w.id, &w.rack, &w.image, &w.turn, &w.started)
}

// slots are those that are taken.
type slots struct {
	limits        SlotLimits
	all           int
	racks, images map[string]int
}

func (s *slots) fits(w waiter) bool {
	return (s.limits.Global <= 0 || s.all < s.limits.Global) &&
		(s.limits.PerRack <= 0 || w.rack == "" || s.racks[w.rack] < s.limits.PerRack) &&
		(s.limits.PerImage <= 0 || s.images[w.image] < s.limits.PerImage)
}

func (s *slots) take(w waiter) {
	s.all++
	s.racks[w.rack]++
	s.images[w.image]++
}

// StartOrder gives a consumed order a slot and its installation a token (the digest is the SHA-256, in hex). Where there is no
// slot, place is the machine's place in the queue, 1 for the next; the machine asks again, and by that stays in the queue.
// Who consumed first starts first, among those that wait for the same. A started order that asks again gets another token,
// and keeps the ones before. A preview takes no slot: it reads some sectors of the disks and a manifest.
func (s *Store) StartOrder(ctx context.Context, id, tokenDigest string, limits SlotLimits, now time.Time) (place int, err error) {
	err = s.write(ctx, "start order "+id, func(ctx context.Context, t *tx) error {
		place = 0
		o, err := t.order(ctx, id)
		if err != nil {
			return err
		}
		switch {
		case tokenDigest == "":
			return invalid("token", "it has no digest")
		case o.State != OrderConsumed:
			return fmt.Errorf("it is %s: %w", o.State, ErrConflict)
		case !o.Finished.IsZero():
			return fmt.Errorf("its installation is done: %w", ErrConflict)
		}
		if o.Started.IsZero() {
			if err := t.guard(ctx, o); err != nil {
				return err
			}
			if !o.Preview {
				if place, err = t.place(ctx, id, limits, now); err != nil {
					return err
				}
			}
		}
		if place > 0 {
			return t.wait(ctx, o, place, now)
		}
		if _, err := t.exec(ctx, `INSERT INTO order_tokens (digest, order_id, created) VALUES (?, ?, ?)`, tokenDigest, id, stamp(now)); err != nil {
			return err
		}
		if !o.Started.IsZero() {
			_, err := t.exec(ctx, `UPDATE orders SET heard = ? WHERE id = ?`, stamp(now), id)
			return err
		}
		if _, err := t.exec(ctx, `UPDATE orders SET started = ?, heard = ? WHERE id = ?`, stamp(now), stamp(now), id); err != nil {
			return err
		}
		text := "the installation of " + o.Image + " starts"
		if o.Preview {
			text = "the preview of " + o.Image + " starts"
		}
		t.append(Event{SN: o.SN, Order: id, Preview: o.Preview, Kind: "started", Text: text})
		if !o.Preview {
			if err := t.endLive(ctx, o.SN, now); err != nil {
				return err
			}
		}
		return t.moveHost(ctx, o, Installing)
	})
	return place, err
}

// place finds an order's place in the queue; 0 if it may start. Machines before it that may start too but have not asked
// yet keep their slots, unless they have been silent for so long that they will not come.
func (t *tx) place(ctx context.Context, id string, limits SlotLimits, now time.Time) (int, error) {
	if limits == (SlotLimits{}) {
		return 0, nil
	}
	const columns = `SELECT id, rack, image, turn, started FROM orders WHERE state = 'consumed' AND preview = 0 AND `
	me, err := first(ctx, t, scanWaiter, columns+`id = ?`, id)
	if err != nil {
		return 0, err
	}
	running, err := all(ctx, t, scanWaiter, columns+`started > 0 AND finished = 0`)
	if err != nil {
		return 0, err
	}
	taken := slots{limits: limits, racks: map[string]int{}, images: map[string]int{}}
	for _, w := range running {
		taken.take(w)
	}
	comes := stamp(now.Add(-plan.LostSeconds * time.Second))
	ahead := func() (int, error) {
		n, err := t.number(ctx, `SELECT COUNT(*) FROM orders WHERE state = 'consumed' AND preview = 0 AND started = 0 AND turn < ? AND heard > ?`, me.turn, comes)
		return int(n) + 1, err
	}
	if !taken.fits(*me) {
		return ahead() // whoever is before it: so a long queue costs one count for each question
	}
	before, err := all(ctx, t, scanWaiter, columns+`started = 0 AND turn < ? AND heard > ? ORDER BY turn`, me.turn, comes)
	if err != nil {
		return 0, err
	}
	for _, w := range before {
		if !taken.fits(w) {
			continue
		}
		if taken.take(w); !taken.fits(*me) {
			return ahead()
		}
	}
	return 0, nil
}

// wait leaves an order in the queue. The diary hears of it once.
func (t *tx) wait(ctx context.Context, o *Order, place int, now time.Time) error {
	if _, err := t.exec(ctx, `UPDATE orders SET heard = ? WHERE id = ?`, stamp(now), o.ID); err != nil {
		return err
	}
	n, err := t.exec(ctx, `UPDATE orders SET queued = 1 WHERE id = ? AND queued = 0`, o.ID)
	if err == nil && n > 0 {
		t.append(Event{SN: o.SN, Order: o.ID, Kind: "queued", Text: fmt.Sprintf("all slots are taken: place %d in the queue", place)})
	}
	return err
}

// Queue returns the installations that run or wait for their first boot, in the order in which they consumed their orders,
// and then those that wait for a slot, with their places. Previews are in no queue.
func (s *Store) Queue(ctx context.Context) (list []Order, err error) {
	err = s.ask(ctx, "list queue", func(ctx context.Context, t *tx) error {
		list, err = all(ctx, t, scanOrder, `SELECT `+orderColumns+` FROM orders WHERE state = 'consumed' AND preview = 0 ORDER BY CASE WHEN started > 0 THEN 0 ELSE 1 END, turn`)
		return err
	})
	place := 0
	for i := range list {
		if list[i].Started.IsZero() {
			place++
			list[i].Place = place
		}
	}
	return list, err
}

// Counts is the registry in numbers.
type Counts struct {
	Hosts  map[State]int      `json:"hosts"`
	Orders map[OrderState]int `json:"orders"`
	// Installing, FirstBoot and Waiting divide the consumed orders that are no previews.
	Installing int `json:"installing"`
	FirstBoot  int `json:"first_boot"`
	Waiting    int `json:"waiting"`
	// Live are the hosts that were last heard to run a release from memory, or to try it.
	Live   map[LiveState]int `json:"live"`
	Leases int               `json:"leases"`
	// LastEvent is the ID of the newest event.
	LastEvent int64 `json:"last_event"`
}

// Counts counts.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	c := Counts{Hosts: map[State]int{}, Orders: map[OrderState]int{}, Live: map[LiveState]int{}}
	type group struct {
		name string
		n    int
	}
	scan := func(row scanner) (g group, err error) { return g, row.Scan(&g.name, &g.n) }
	err := s.read(ctx, "count", func(ctx context.Context, t *tx) error {
		hosts, err := all(ctx, t, scan, `SELECT state, COUNT(*) FROM hosts GROUP BY state`)
		if err != nil {
			return err
		}
		for _, g := range hosts {
			c.Hosts[State(g.name)] = g.n
		}
		orders, err := all(ctx, t, scan, `SELECT state, COUNT(*) FROM orders GROUP BY state`)
		if err != nil {
			return err
		}
		for _, g := range orders {
			c.Orders[OrderState(g.name)] = g.n
		}
		phases, err := all(ctx, t, scan, `SELECT CASE WHEN started = 0 THEN 'waiting' WHEN finished = 0 THEN 'installing' ELSE 'first' END, COUNT(*) FROM orders WHERE state = 'consumed' AND preview = 0 GROUP BY 1`)
		if err != nil {
			return err
		}
		for _, g := range phases {
			switch g.name {
			case "waiting":
				c.Waiting = g.n
			case "installing":
				c.Installing = g.n
			default:
				c.FirstBoot = g.n
			}
		}
		lives, err := all(ctx, t, scan, `SELECT state, COUNT(*) FROM live_boots WHERE over = 0 GROUP BY state`)
		if err != nil {
			return err
		}
		for _, g := range lives {
			c.Live[LiveState(g.name)] = g.n
		}
		leases, err := t.number(ctx, `SELECT COUNT(*) FROM leases`)
		if err != nil {
			return err
		}
		c.Leases = int(leases)
		c.LastEvent, err = t.number(ctx, `SELECT value FROM counters WHERE name = 'event'`)
		return err
	})
	return c, err
}
