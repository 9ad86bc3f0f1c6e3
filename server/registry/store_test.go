package registry

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgbuild/image/plan"
)

// open opens a registry in a directory of the test's own.
func open(t *testing.T) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "registry.db"))
}

func openAt(t *testing.T, dsn string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// known writes a host down.
func known(t *testing.T, s *Store, sn string) {
	t.Helper()
	if _, _, err := s.PutHost(t.Context(), Host{SN: sn, Hostname: "host", IP: "10.0.0.7", Netmask: "24", GW: "10.0.0.1"}, "alice", 0); err != nil {
		t.Fatal(err)
	}
}

func ordered(t *testing.T, s *Store, sn string) *Order {
	t.Helper()
	o, err := s.CreateOrder(t.Context(), Order{SN: sn, Image: "web/1.0", By: "alice", Reason: "a new disk"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// taken is an order that a boot with this digest has consumed.
func taken(t *testing.T, s *Store, sn, digest string, now time.Time) *Order {
	t.Helper()
	o := ordered(t, s, sn)
	if err := s.Offer(t.Context(), sn, o.ID, digest, now); err != nil {
		t.Fatal(err)
	}
	o, err := s.Consume(t.Context(), o.ID, digest, now)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func state(t *testing.T, s *Store, sn string) State {
	t.Helper()
	h, err := s.Host(t.Context(), sn)
	if err != nil {
		t.Fatal(err)
	}
	return h.State
}

func TestAnInstallationFromOrderToFirstBoot(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		known(t, s, "SN-1")
		o := taken(t, s, "SN-1", "boot-1", now)
		if place, err := s.StartOrder(ctx, o.ID, "token-1", SlotLimits{Global: 1}, now); place != 0 || err != nil {
			t.Fatal(place, err)
		}
		if got := state(t, s, "SN-1"); got != Installing {
			t.Errorf("the host is %s", got)
		}
		events := []plan.Event{{Seq: 1, Time: now, Kind: plan.KindStep, Text: "partition", Step: 1, Of: 3}, {Seq: 2, Time: now, Kind: plan.KindProgress, Done: 10, Total: 100}}
		for range 2 {
			if seq, err := s.Report(ctx, o.ID, events, now); seq != 2 || err != nil {
				t.Fatal(seq, err)
			}
		}
		if seq, err := s.Report(ctx, o.ID, []plan.Event{{Seq: 3, Kind: plan.KindDone, Text: "done"}}, now); seq != 3 || err != nil {
			t.Fatal(seq, err)
		}
		byToken, err := s.OrderByToken(ctx, "token-1")
		if err != nil || byToken.ID != o.ID || byToken.Finished.IsZero() {
			t.Fatalf("%+v, %v", byToken, err)
		}
		for range 2 {
			if err := s.MarkBooted(ctx, o.ID, plan.Booted{Serial: "SN-1", Hostname: "host", System: "CentOS Stream 9", Kernel: "5.14"}, now); err != nil {
				t.Fatal(err)
			}
		}
		h, err := s.Host(ctx, "SN-1")
		if err != nil || h.State != Installed || h.Booted == nil || h.Booted.Kernel != "5.14" {
			t.Errorf("%+v, %v", h, err)
		}
		diary, err := s.Events(ctx, EventFilter{SN: "SN-1"})
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, e := range diary {
			kinds = append(kinds, e.Kind)
		}
		want := []string{"registered", "ordered", "claimed", "started", "step", "progress", "done", "booted"}
		if !slices.Equal(kinds, want) {
			t.Errorf("the diary has %v, want %v", kinds, want)
		}
		if _, err := s.Consume(ctx, o.ID, "boot-1", now); !errors.Is(err, ErrConflict) {
			t.Errorf("a finished order is consumed again: %v", err)
		}
	})
}

// eachStore runs a test on SQLite; with the build tag integration also on PostgreSQL.
func eachStore(t *testing.T, f func(*testing.T, *Store)) {
	t.Run("sqlite", func(t *testing.T) { f(t, open(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, openAt(t, postgresDSN(t))) })
}

// oneOfManyConsumes lets many boots run for one order, at all stores at once.
func oneOfManyConsumes(t *testing.T, stores ...*Store) {
	t.Helper()
	for round := range 20 {
		sn := fmt.Sprintf("SN-R%d", round)
		known(t, stores[0], sn)
		o := ordered(t, stores[0], sn)
		const boots = 8
		now := time.Now()
		for i := range boots {
			if err := stores[0].Offer(t.Context(), sn, o.ID, fmt.Sprintf("boot-%d-%d", round, i), now); err != nil {
				t.Fatal(err)
			}
		}
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range boots {
			wg.Go(func() {
				got, err := stores[i%len(stores)].Consume(t.Context(), o.ID, fmt.Sprintf("boot-%d-%d", round, i), now)
				switch {
				case err == nil && got.Boot == fmt.Sprintf("boot-%d-%d", round, i):
					won.Add(1)
				case !errors.Is(err, ErrConflict):
					t.Errorf("%+v, %v", got, err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d boots have consumed one order", won.Load())
		}
	}
}

func TestOfManyBootsOneConsumesAnOrder(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) { oneOfManyConsumes(t, s) })
}

func wantUnavailable(t *testing.T, err error, text string) {
	t.Helper()
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want that the database cannot be used, and %q", err, text)
	}
}

func TestServersThatStartTogetherMakeOneSchema(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { startTogether(t, filepath.Join(t.TempDir(), "registry.db")) })
	t.Run("postgres", func(t *testing.T) { startTogether(t, postgresDSN(t)) })
}

func startTogether(t *testing.T, dsn string) {
	t.Helper()
	var wg sync.WaitGroup
	keys := make(chan string, 8)
	for i := range 8 {
		wg.Go(func() {
			s, err := Open(t.Context(), dsn)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			key, err := s.SetSettingOnce(t.Context(), "key", []byte{byte(i)})
			if err != nil {
				t.Error(err)
			}
			keys <- string(key)
		})
	}
	wg.Wait()
	close(keys)
	one := <-keys
	for k := range keys {
		if k != one {
			t.Errorf("one server has the key %x and another %x", one, k)
		}
	}
}
