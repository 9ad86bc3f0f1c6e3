package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"imgbuild/image/plan"
)

// append adds a line to the diary, with the end of the transaction.
func (t *tx) append(e Event) { t.events = append(t.events, e) }

// flush stores the transaction's events. Their IDs grow in the order in which they become visible: nobody who reads up to
// one ever misses an earlier one.
func (t *tx) flush(ctx context.Context) error {
	if len(t.events) == 0 {
		return nil
	}
	last, err := t.next(ctx, "event", len(t.events))
	if err != nil {
		return err
	}
	id := last - int64(len(t.events))
	for chunk := range slices.Chunk(t.events, 100) {
		query := `INSERT INTO events (id, at, sn, order_id, kind, person, message, machine, preview, live) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)` + strings.Repeat(`, (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, len(chunk)-1)
		args := make([]any, 0, 10*len(chunk))
		for _, e := range chunk {
			id++
			if e.Time.IsZero() {
				e.Time = t.now
			}
			machine := ""
			if e.Machine != nil {
				data, err := json.Marshal(e.Machine)
				if err != nil {
					return err
				}
				machine = string(data)
			}
			args = append(args, id, stamp(e.Time), clean(e.SN), clean(e.Order), clean(e.Kind), clean(e.By), clean(e.Text), machine, flag(e.Preview), flag(e.Live))
		}
		if _, err := t.exec(ctx, query, args...); err != nil {
			return err
		}
	}
	t.last = last
	return nil
}

func scanEvent(row scanner) (Event, error) {
	var e Event
	var at, preview, live int64
	var machine string
	if err := row.Scan(&e.ID, &at, &e.SN, &e.Order, &e.Kind, &e.By, &e.Text, &machine, &preview, &live); err != nil {
		return e, err
	}
	e.Time, e.Preview, e.Live = moment(at), preview != 0, live != 0
	if machine != "" {
		e.Machine = new(plan.Event)
		if err := json.Unmarshal([]byte(machine), e.Machine); err != nil {
			return e, fmt.Errorf("read event %d as it is stored: %w", e.ID, err)
		}
	}
	return e, nil
}

// Append adds lines to the diary that no other method writes. An event without a time has the server's.
func (s *Store) Append(ctx context.Context, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	return s.write(ctx, "write diary", func(_ context.Context, t *tx) error {
		for _, e := range events {
			t.append(e)
		}
		return nil
	})
}

// EventFilter chooses events; what is empty chooses all.
type EventFilter struct {
	SN    string
	Order string
	Kinds []string
	// After is the ID after which the list begins.
	After int64
	Limit int // 0 is no limit
	// Last asks for the last Limit events instead of the first.
	Last bool
}

// Events returns events in the order in which they happened.
func (s *Store) Events(ctx context.Context, f EventFilter) (list []Event, err error) {
	query, args := `SELECT id, at, sn, order_id, kind, person, message, machine, preview, live FROM events WHERE id > ?`, []any{f.After}
	if f.SN != "" {
		query += ` AND sn = ?`
		args = append(args, f.SN)
	}
	if f.Order != "" {
		query += ` AND order_id = ?`
		args = append(args, f.Order)
	}
	if len(f.Kinds) > 0 {
		query += ` AND kind IN (?` + strings.Repeat(", ?", len(f.Kinds)-1) + `)`
		for _, k := range f.Kinds {
			args = append(args, k)
		}
	}
	query += ` ORDER BY id`
	if f.Last {
		query += ` DESC`
	}
	if f.Limit > 0 {
		query += ` LIMIT ?`
		args = append(args, f.Limit)
	}
	err = s.ask(ctx, "read events", func(ctx context.Context, t *tx) (err error) {
		list, err = all(ctx, t, scanEvent, query, args...)
		return err
	})
	if f.Last {
		slices.Reverse(list)
	}
	return list, err
}

// Tidy removes what nobody needs any more: the progress (not the steps, warnings and ends) and the tokens of installations
// that ended before then, and of live boots that something else took the place of. It returns how many events went.
func (s *Store) Tidy(ctx context.Context, before time.Time) (removed int64, err error) {
	err = s.write(ctx, "tidy registry", func(ctx context.Context, t *tx) error {
		const ended = `(SELECT id FROM orders WHERE ended > 0 AND ended < ?)`
		if removed, err = t.exec(ctx, `DELETE FROM events WHERE kind = ? AND order_id IN `+ended, string(plan.KindProgress), stamp(before)); err != nil {
			return err
		}
		const settled = `(SELECT id FROM live_boots WHERE state <> 'starting' AND since < ?)`
		n, err := t.exec(ctx, `DELETE FROM events WHERE kind = ? AND order_id IN `+settled, string(plan.KindProgress), stamp(before))
		if err != nil {
			return err
		}
		removed += n
		if _, err := t.exec(ctx, `DELETE FROM live_boots WHERE over > 0 AND over < ?`, stamp(before)); err != nil {
			return err
		}
		_, err = t.exec(ctx, `DELETE FROM order_tokens WHERE order_id IN `+ended, stamp(before))
		return err
	})
	return removed, err
}
