package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image/plan"
)

func TestTokensAreKnownByTheirSecretOnly(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		s.clock = func() time.Time { return now }
		secret, token, err := s.CreateToken(ctx, "ci", RoleOperate, now.Add(time.Hour))
		if err != nil || len(secret) < 43 || token.Role != RoleOperate {
			t.Fatal(secret, token, err)
		}
		if got, err := s.Authenticate(ctx, secret); err != nil || *got != *token {
			t.Errorf("%+v, %v", got, err)
		}
		for _, wrong := range []string{"", secret[:len(secret)-1], secret + " ", Digest(secret), "ci"} {
			if _, err := s.Authenticate(ctx, wrong); !errors.Is(err, ErrNotFound) {
				t.Errorf("%q: %v", wrong, err)
			}
		}
		if _, _, err := s.CreateToken(ctx, "ci", RoleRead, time.Time{}); !errors.Is(err, ErrConflict) {
			t.Errorf("a name is used twice: %v", err)
		}
		for _, wrong := range []struct {
			name    string
			role    Role
			expires time.Time
		}{{"", RoleRead, time.Time{}}, {"a\nb", RoleRead, time.Time{}}, {"a", "root", time.Time{}}, {"a", RoleRead, now}} {
			if _, _, err := s.CreateToken(ctx, wrong.name, wrong.role, wrong.expires); !errors.Is(err, ErrInvalid) {
				t.Errorf("%+v: %v", wrong, err)
			}
		}
		now = now.Add(time.Hour)
		if _, err := s.Authenticate(ctx, secret); !errors.Is(err, ErrNotFound) {
			t.Errorf("an expired token: %v", err)
		}
		forever, _, err := s.CreateToken(ctx, "ci", RoleAdmin, time.Time{})
		if err != nil {
			t.Fatalf("an expired token keeps its name: %v", err)
		}
		if list, err := s.Tokens(ctx); err != nil || len(list) != 1 || list[0].Role != RoleAdmin {
			t.Errorf("%+v, %v", list, err)
		}
		if err := s.RevokeToken(ctx, "ci"); err != nil {
			t.Error(err)
		}
		if _, err := s.Authenticate(ctx, forever); !errors.Is(err, ErrNotFound) {
			t.Errorf("a revoked token: %v", err)
		}
		if err := s.RevokeToken(ctx, "ci"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestRolesIncludeEachOther(t *testing.T) {
	roles := []Role{"", RoleRead, RoleOperate, RoleAdmin}
	for i, have := range roles {
		for j, need := range roles {
			if got, want := have.Allows(need), i >= j && j > 0; got != want {
				t.Errorf("%q allows what needs %q: %v", have, need, got)
			}
		}
	}
	if Role("root").Allows("root") || Role("admin ").Allows(RoleRead) {
		t.Error("an unknown role allows something")
	}
}

func TestAnAddressIsLeasedToOneClient(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
		address := netip.MustParseAddr("10.0.0.50")
		lease := Lease{Address: address, ClientID: "01:52:54:00:00:00:01", MAC: "52:54:00:00:00:01", SN: "SN-1", Hostname: "a\x00b", Subnet: netip.MustParsePrefix("10.0.0.0/24"), State: "bound", Expires: now.Add(time.Hour)}
		put := func(l Lease, at time.Time, want error) {
			t.Helper()
			if err := s.PutLease(ctx, l, at); !errors.Is(err, want) {
				t.Errorf("%+v: got %v, want %v", l, err, want)
			}
		}
		put(lease, now, nil)
		put(lease, now, nil)
		other := Lease{Address: address, MAC: "52:54:00:00:00:02", State: "bound", Expires: now.Add(2 * time.Hour)}
		put(other, now, ErrConflict)
		put(Lease{Address: address, MAC: lease.MAC, State: "bound", Expires: lease.Expires}, now, nil) // the same card with another program
		put(other, now.Add(time.Hour), nil)
		put(lease, now.Add(time.Hour), ErrConflict)
		put(Lease{Address: address}, now, ErrInvalid)
		put(Lease{MAC: "x"}, now, ErrInvalid)
		put(Lease{Address: netip.MustParseAddr("10.0.0.9"), ClientID: "c", Hostname: "a\x00b", Subnet: lease.Subnet}, now, nil)
		list, err := s.Leases(ctx)
		if err != nil || len(list) != 2 || list[0].MAC != other.MAC || !list[0].Expires.Equal(other.Expires) || list[0].Subnet.IsValid() || list[1].Hostname != "ab" || list[1].Subnet != lease.Subnet {
			t.Errorf("%+v, %v", list, err)
		}
		for range 2 {
			if err := s.DeleteLease(ctx, address); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestASettingIsMadeOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		if _, ok, err := s.Setting(ctx, "key"); ok || err != nil {
			t.Error(ok, err)
		}
		for _, v := range [][]byte{{0, 255, 'a'}, {1}} {
			if won, err := s.SetSettingOnce(ctx, "key", v); string(won) != "\x00\xffa" || err != nil {
				t.Errorf("%q, %v", won, err)
			}
		}
		if v, ok, err := s.Setting(ctx, "key"); string(v) != "\x00\xffa" || !ok || err != nil {
			t.Error(v, ok, err)
		}
		if won, err := s.SetSettingOnce(ctx, "empty", nil); len(won) != 0 || err != nil {
			t.Error(won, err)
		}
	})
}

func TestAWatchGivesEverythingOnceAndInOrder(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const n = 1500 // more than a page and a channel
		add := func(from, to int) {
			for i := from; i < to; i++ {
				if err := s.Append(ctx, Event{Kind: "info", Text: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			}
		}
		var batch []Event
		for i := range n - 100 {
			batch = append(batch, Event{Kind: "info", Text: fmt.Sprint(i)})
		}
		if err := s.Append(ctx, batch...); err != nil {
			t.Fatal(err)
		}
		all, late, fresh := s.Watch(ctx, 0), s.Watch(ctx, 700), s.Watch(ctx, -1)
		go add(n-100, n)
		for i := range n {
			if e := <-all; e.ID != int64(i+1) || e.Text != fmt.Sprint(i) {
				t.Fatalf("event %d is %+v", i, e)
			}
		}
		for i := 700; i < n; i++ {
			if e := <-late; e.ID != int64(i+1) {
				t.Fatalf("after 700, event %d is %+v", i, e)
			}
		}
		if e := <-fresh; e.ID != n-100+1 {
			t.Errorf("from now on begins with %+v", e)
		}
		cancel()
		for range all {
		}
		for range late {
		}
		for range fresh {
		}
	})
}

func TestWritesThatShareACommitDoNotShareTheirFate(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		// While the writer is held, the others gather.
		hold, held := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = s.write(t.Context(), "hold", func(context.Context, *tx) error { close(held); <-hold; return nil })
		})
		<-held
		gone, cancel := context.WithCancelCause(t.Context())
		const n = 90
		errs := make([]error, n)
		panics := make([]any, n)
		begun := make(chan struct{}, n)
		for i := range n {
			wg.Go(func() {
				defer func() { panics[i] = recover() }()
				ctx := t.Context()
				if i%6 == 4 {
					ctx = gone
				}
				begun <- struct{}{}
				errs[i] = s.write(ctx, "write", func(ctx context.Context, t *tx) error {
					if _, err := t.exec(ctx, `INSERT INTO settings (name, value) VALUES (?, ?)`, fmt.Sprint(i), []byte("x")); err != nil {
						return err
					}
					t.append(Event{Kind: "info", Text: fmt.Sprint(i)})
					switch i % 6 {
					case 1:
						return ErrConflict
					case 2:
						_, err := t.exec(ctx, `INSERT INTO nowhere VALUES (1)`)
						return err
					case 3:
						panic("a fault in here")
					case 5:
						_, err := t.exec(ctx, `INSERT INTO settings (name, value) VALUES (?, ?)`, fmt.Sprint(i), []byte("x")) // it is there
						return err
					}
					return nil
				})
			})
		}
		for range n {
			<-begun
		}
		cancel(errors.New("the caller has gone"))
		close(hold)
		wg.Wait()
		for i := range n {
			_, there, err := s.Setting(t.Context(), fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}
			switch i % 6 {
			case 0:
				if errs[i] != nil || !there {
					t.Errorf("write %d: %v, and it is there: %v", i, errs[i], there)
				}
			case 3:
				if panics[i] != "a fault in here" || there {
					t.Errorf("write %d: panic %v, and it is there: %v", i, panics[i], there)
				}
			default:
				if errs[i] == nil || there {
					t.Errorf("write %d: %v, and it is there: %v", i, errs[i], there)
				}
			}
		}
		events, err := s.Events(t.Context(), EventFilter{})
		if err != nil || len(events) != n/6 {
			t.Errorf("%d events, %v", len(events), err)
		}
	})
}

func TestAClosedRegistryEndsWatchesAndRefusesWrites(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"))
	if err != nil {
		t.Fatal(err)
	}
	watch := s.Watch(t.Context(), 0)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, open := <-watch; open {
		t.Error("there is an event")
	}
	if _, open := <-s.Watch(t.Context(), 0); open {
		t.Error("there is an event in a new watch")
	}
	if err := s.Append(t.Context(), Event{Kind: "info"}); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	if s.Ping(t.Context()) == nil {
		t.Error("it answers")
	}
}

func TestTidyingLeavesTheDiary(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		known(t, s, "SN-1")
		o := taken(t, s, "SN-1", "boot-1", now)
		if _, err := s.StartOrder(ctx, o.ID, "token", SlotLimits{}, now); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Report(ctx, o.ID, []plan.Event{{Seq: 1, Kind: plan.KindStep}, {Seq: 2, Kind: plan.KindProgress}, {Seq: 3, Kind: plan.KindProgress}, {Seq: 4, Kind: plan.KindFailed}}, now); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Tidy(ctx, now.Add(-time.Hour)); n != 0 || err != nil {
			t.Error(n, err)
		}
		if n, err := s.Tidy(ctx, now.Add(time.Hour)); n != 2 || err != nil {
			t.Error(n, err)
		}
		events, err := s.Events(ctx, EventFilter{Order: o.ID})
		if err != nil || len(events) != 5 {
			t.Errorf("%+v, %v", events, err)
		}
		if _, err := s.OrderByToken(ctx, "token"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestABackupIsMadeWhileTheRegistryIsWritten(t *testing.T) {
	s := open(t)
	known(t, s, "SN-1")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = s.Append(ctx, Event{Kind: "info", Text: "while it is copied"})
			}
		})
	}
	path := filepath.Join(t.TempDir(), "backup.db")
	if err := s.Backup(t.Context(), path); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
	if err := s.Backup(t.Context(), path); err == nil || !strings.Contains(err.Error(), "there is a file of this name") {
		t.Errorf("a backup replaces another: %v", err)
	}
	if err := s.Backup(t.Context(), filepath.Join(path, "x")); err == nil {
		t.Error("a backup below a file")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("beside the backup there is %v", left)
	}
	b := openAt(t, path)
	if err := b.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if h, err := b.Host(t.Context(), "SN-1"); err != nil || h.Hostname != "host" {
		t.Errorf("%+v, %v", h, err)
	}
	events, err := b.Events(t.Context(), EventFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if e.ID != int64(i+1) {
			t.Fatalf("event %d has the ID %d", i+1, e.ID)
		}
	}
}
