package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"imgbuild/image/plan"
)

// maxText bounds what one event says, in bytes.
const maxText = 16 << 10

// clean makes a text one that may be shown on a terminal: valid UTF-8 without control characters, of a bounded length.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "�")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

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
		query := `INSERT INTO events (id, at, sn, order_id, kind, person, message, machine) VALUES (?, ?, ?, ?, ?, ?, ?, ?)` + strings.Repeat(`, (?, ?, ?, ?, ?, ?, ?, ?)`, len(chunk)-1)
		args := make([]any, 0, 8*len(chunk))
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
			args = append(args, id, stamp(e.Time), clean(e.SN), clean(e.Order), clean(e.Kind), clean(e.By), clean(e.Text), machine)
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
	var at int64
	var machine string
	if err := row.Scan(&e.ID, &at, &e.SN, &e.Order, &e.Kind, &e.By, &e.Text, &machine); err != nil {
		return e, err
	}
	e.Time = moment(at)
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
	query, args := `SELECT id, at, sn, order_id, kind, person, message, machine FROM events WHERE id > ?`, []any{f.After}
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
// that ended before then. It returns how many events went.
func (s *Store) Tidy(ctx context.Context, before time.Time) (removed int64, err error) {
	err = s.write(ctx, "tidy registry", func(ctx context.Context, t *tx) error {
		const ended = `(SELECT id FROM orders WHERE ended > 0 AND ended < ?)`
		if removed, err = t.exec(ctx, `DELETE FROM events WHERE kind = ? AND order_id IN `+ended, string(plan.KindProgress), stamp(before)); err != nil {
			return err
		}
		_, err := t.exec(ctx, `DELETE FROM order_tokens WHERE order_id IN `+ended, stamp(before))
		return err
	})
	return removed, err
}

// bell tells those who watch that there is something new.
type bell struct {
	mu   sync.Mutex
	next chan struct{} // closed with the next ring
}

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// Watch sends all events after the one with this ID, then each new one as it is stored; with a negative ID only new ones.
// With PostgreSQL these are all servers' events. The channel is closed when the context ends or the registry is closed.
// Nothing is left out: a reader that is slow gets everything, later. While the database cannot be read, Watch waits for it.
func (s *Store) Watch(ctx context.Context, after int64) <-chan Event {
	s.listening.Do(func() { s.begin(s.listen) })
	out := make(chan Event, 64)
	if after < 0 {
		if id, err := s.lastEvent(ctx); err == nil {
			after = id
		}
	}
	open := s.begin(func() {
		defer close(out)
		for {
			news := s.bell.wait() // before reading, so that nothing falls between
			list, err := s.fetch(ctx, &after)
			if err != nil {
				// The caller sees a pause, and the rest of the server says what is wrong with the database.
				news = nil
			}
			for _, e := range list {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				case <-s.closing:
					return
				}
			}
			if len(list) == watchPage {
				continue
			}
			var again <-chan time.Time
			if err != nil {
				again = time.After(time.Second)
			}
			select {
			case <-news:
			case <-again:
			case <-ctx.Done():
				return
			case <-s.closing:
				return
			}
		}
	})
	if !open {
		close(out)
	}
	return out
}

const watchPage = 500

// fetch reads the next page and moves after behind it.
func (s *Store) fetch(ctx context.Context, after *int64) ([]Event, error) {
	if *after < 0 {
		id, err := s.lastEvent(ctx)
		if err != nil {
			return nil, err
		}
		*after = id
		return nil, nil
	}
	list, err := s.Events(ctx, EventFilter{After: *after, Limit: watchPage})
	if len(list) > 0 {
		*after = list[len(list)-1].ID
	}
	return list, err
}

func (s *Store) lastEvent(ctx context.Context) (id int64, err error) {
	err = s.ask(ctx, "read last event", func(ctx context.Context, t *tx) (err error) {
		id, err = t.number(ctx, `SELECT value FROM counters WHERE name = 'event'`)
		return err
	})
	return id, err
}

// listen hears other servers until the registry is closed.
func (s *Store) listen() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the registry, as its parent does
		<-s.closing
		cancel()
	}()
	s.backend.listen(ctx, s.bell.ring)
}
