package registry

import (
	"context"
	"sync"
	"time"
)

// bell tells those who watch that there is something new.
type bell struct {
	mu   sync.Mutex
	next chan struct{} // closed with the next ring
	id   int64         // of the newest event that it has rung for
}

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

// ring wakes everybody, unless it has done so for this event already. 0 is an event that is not known.
func (b *bell) ring(id int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id > 0 && id <= b.id {
		return
	}
	b.id = max(b.id, id)
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
			wait := missed
			if err != nil {
				wait = time.Second // the caller sees a pause, and the rest of the server says what is wrong with the database
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
			select {
			case <-news:
			case <-time.After(wait):
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

const (
	watchPage = 500
	// missed is when Watch looks for events that it was not told of: those that another process wrote into a SQLite file.
	missed = 10 * time.Second
)

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
