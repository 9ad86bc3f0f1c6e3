package registry

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
)

// live writes a host down that runs web from memory.
func live(t *testing.T, s *Store, sn string) {
	t.Helper()
	write(t, s, Host{SN: sn, Live: &Live{Image: "web", LiveOptions: plan.LiveOptions{Size: "25%", Persist: []string{"/var=VAR"}}}})
}

// runs starts a live boot of web/1.
func runs(t *testing.T, s *Store, sn, digest string, now time.Time) *LiveBoot {
	t.Helper()
	if err := s.OfferLive(t.Context(), sn, "web/1", digest, now); err != nil {
		t.Fatal(err)
	}
	if wait, err := s.StartLive(t.Context(), LiveBoot{SN: sn, Image: "web/1", Boot: digest}, "token of "+digest, now); wait != 0 || err != nil {
		t.Fatal(wait, err)
	}
	b, err := s.LiveByToken(t.Context(), "token of "+digest)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func liveState(t *testing.T, s *Store, sn string) LiveState {
	t.Helper()
	h, err := s.Host(t.Context(), sn)
	if err != nil {
		t.Fatal(err)
	}
	if h.LiveBoot == nil {
		return ""
	}
	return h.LiveBoot.State
}

func TestALiveBootFromOfferToRunning(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now().Truncate(time.Microsecond)
		live(t, s, "SN-1")
		if got, err := s.Offered(ctx, "boot-1", now); got != nil || err != nil {
			t.Fatal(got, err)
		}
		b := runs(t, s, "SN-1", "boot-1", now)
		if got, err := s.Offered(ctx, "boot-1", now); err != nil || got == nil || *got != (Offer{SN: "SN-1", Live: "web/1"}) {
			t.Errorf("%+v, %v", got, err)
		}
		if b.SN != "SN-1" || b.Image != "web/1" || b.State != LiveStarting || !b.Started.Equal(now) || len(b.ID) != 12 {
			t.Errorf("%+v", b)
		}
		if seq, err := s.ReportLive(ctx, b.ID, []plan.Event{{Seq: 1, Kind: plan.KindStep, Text: "get \x1b[31mit"}, {Seq: 2, Kind: plan.KindPreview, Outlook: &plan.Outlook{}}}, now.Add(time.Second)); seq != 2 || err != nil {
			t.Fatal(seq, err)
		}
		later := now.Add(20 * time.Second)
		if seq, err := s.ReportLive(ctx, b.ID, []plan.Event{{Seq: 2, Kind: plan.KindFailed}, {Seq: 3, Kind: plan.KindDone, Text: "the image runs"}}, later); seq != 3 || err != nil {
			t.Fatal(seq, err)
		}
		h, err := s.Host(ctx, "SN-1")
		if err != nil || h.State != Known || h.Booted != nil || h.LiveBoot == nil || h.LiveBoot.ID != b.ID || h.LiveBoot.State != LiveRunning || !h.LiveBoot.Started.Equal(now) || !h.LiveBoot.Since.Equal(later) || h.Revision != 3 {
			t.Errorf("%+v, %+v, %v", h, h.LiveBoot, err)
		}
		if err := s.MarkLiveBooted(ctx, b.ID, plan.Booted{Hostname: "web1", System: "EL", Kernel: "5.14"}, later); err != nil {
			t.Fatal(err)
		}
		diary, err := s.Events(ctx, EventFilter{Order: b.ID})
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, e := range diary {
			if e.SN != "SN-1" || !e.Live || e.Preview {
				t.Errorf("%+v", e)
			}
			lines = append(lines, e.Kind+": "+e.Text)
		}
		want := []string{"live: the machine has booted to run web/1 from memory", "step: get [31mit", "info: ", "done: the image runs", "booted: web1 has booted: EL, kernel 5.14"}
		if !reflect.DeepEqual(lines, want) {
			t.Errorf("%q", lines)
		}
		if lost, err := s.LoseLives(ctx, later.Add(time.Hour), later.Add(time.Hour)); len(lost) != 0 || err != nil {
			t.Errorf("what runs is lost because it is silent: %+v, %v", lost, err)
		}
		if c, err := s.Counts(ctx); err != nil || c.Live[LiveRunning] != 1 || len(c.Live) != 1 {
			t.Errorf("%+v, %v", c, err)
		}
		// It boots again and again.
		runs(t, s, "SN-1", "boot-2", later.Add(time.Minute))
		if got := liveState(t, s, "SN-1"); got != LiveStarting {
			t.Errorf("it is %s", got)
		}
		if seq, err := s.ReportLive(ctx, b.ID, []plan.Event{{Seq: 4, Kind: plan.KindFailed}}, later); seq != 4 || err != nil || liveState(t, s, "SN-1") != LiveStarting {
			t.Errorf("a boot of before changes the host: %d, %v", seq, err)
		}
	})
}

func TestOnlyABootThatWasOfferedAReleaseRunsIt(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now().Truncate(time.Microsecond)
		live(t, s, "SN-1")
		live(t, s, "SN-2")
		known(t, s, "SN-3")
		offer := func(sn, image, digest string, at time.Time) {
			t.Helper()
			if err := s.OfferLive(ctx, sn, image, digest, at); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.OfferLive(ctx, "SN-1", "web", "x", now); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
		if err := s.Offer(ctx, "SN-1", "", "inspected", now); err != nil {
			t.Fatal(err)
		}
		offer("SN-2", "web/1", "another's", now)
		offer("SN-1", "web/2", "another", now)
		offer("SN-1", "db/1", "not his", now)
		offer("SN-1", "web/1", "old", now.Add(-OfferLife))
		offer("SN-3", "web/1", "nobody's wish", now)
		offer("SN-1", "web/1", "good", now)
		start := func(sn, image, digest string) error {
			wait, err := s.StartLive(ctx, LiveBoot{SN: sn, Image: image, Boot: digest}, digest+sn+image, now)
			if wait != 0 {
				t.Errorf("it waits %s", wait)
			}
			return err
		}
		for _, digest := range []string{"", "never", "inspected", "another's", "another", "old"} {
			if start("SN-1", "web/1", digest) == nil {
				t.Errorf("boot %q runs", digest)
			}
		}
		if err := start("SN-1", "db/1", "not his"); !errors.Is(err, ErrConflict) {
			t.Error(err)
		}
		if err := start("SN-3", "web/1", "nobody's wish"); !errors.Is(err, ErrConflict) {
			t.Error(err)
		}
		o := ordered(t, s, "SN-1")
		if err := start("SN-1", "web/1", "good"); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), o.ID) {
			t.Errorf("an order does not go first: %v", err)
		}
		if err := s.CancelOrder(ctx, o.ID, "alice", ""); err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{"token-1", "token-2"} {
			if wait, err := s.StartLive(ctx, LiveBoot{SN: "SN-1", Image: "web/1", Boot: "good"}, token, now); wait != 0 || err != nil {
				t.Fatal(wait, err)
			}
		}
		a, errA := s.LiveByToken(ctx, "token-1")
		b, errB := s.LiveByToken(ctx, "token-2")
		if errA != nil || errB != nil || a.ID != b.ID {
			t.Errorf("%+v, %+v, %v, %v", a, b, errA, errB)
		}
		if err := start("SN-2", "web/1", "good"); !errors.Is(err, ErrConflict) {
			t.Errorf("another machine runs with that nonce: %v", err)
		}
		if _, err := s.LiveByToken(ctx, "token-3"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if _, err := s.OrderByToken(ctx, "token-1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a live boot's token is an installation's: %v", err)
		}
		offer("SN-1", "web/1", "soon", now)
		if wait, err := s.StartLive(ctx, LiveBoot{SN: "SN-1", Image: "web/1", Boot: "soon"}, "x", now.Add(3*time.Second)); wait != liveEvery-3*time.Second || err != nil {
			t.Errorf("waits %s, %v", wait, err)
		}
		if wait, err := s.StartLive(ctx, LiveBoot{SN: "SN-1", Image: "web/1", Boot: "soon"}, "x", now.Add(liveEvery)); wait != 0 || err != nil {
			t.Errorf("waits %s, %v", wait, err)
		}
	})
}

func TestAMachineThatFallsSilentBeforeItRunsIsLostUntilItIsHeard(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		live(t, s, "SN-1")
		b := runs(t, s, "SN-1", "boot-1", now)
		if lost, err := s.LoseLives(ctx, now, now); len(lost) != 0 || err != nil {
			t.Fatal(lost, err)
		}
		later := now.Add(100 * time.Second)
		lost, err := s.LoseLives(ctx, later.Add(-90*time.Second), later)
		if err != nil || len(lost) != 1 || lost[0].SN != "SN-1" || liveState(t, s, "SN-1") != LiveLost || state(t, s, "SN-1") != Known {
			t.Fatalf("%+v, %v", lost, err)
		}
		if list, err := s.Hosts(ctx, HostFilter{Live: []LiveState{LiveLost, LiveFailed}}); err != nil || len(list) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
		if _, err := s.ReportLive(ctx, b.ID, nil, later); err != nil || liveState(t, s, "SN-1") != LiveStarting {
			t.Errorf("it is %s, %v", liveState(t, s, "SN-1"), err)
		}
		if _, err := s.ReportLive(ctx, b.ID, []plan.Event{{Seq: 1, Kind: plan.KindFailed, Text: "too little memory"}, {Seq: 2, Kind: plan.KindDone}}, later); err != nil || liveState(t, s, "SN-1") != LiveFailed {
			t.Errorf("it is %s, %v", liveState(t, s, "SN-1"), err)
		}
		if list, err := s.Hosts(ctx, HostFilter{Live: []LiveState{LiveStarting}}); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		if _, err := s.ReportLive(ctx, "nothing", nil, later); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestWhatIsInstalledTakesThePlaceOfWhatRan(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now()
		live(t, s, "SN-1")
		b := runs(t, s, "SN-1", "boot-1", now)
		o := taken(t, s, "SN-1", "boot-2", now)
		if got := liveState(t, s, "SN-1"); got != LiveStarting {
			t.Errorf("an order that has not begun ends what runs: %q", got)
		}
		if _, err := s.StartOrder(ctx, o.ID, "token", SlotLimits{}, now); err != nil || liveState(t, s, "SN-1") != "" {
			t.Errorf("%s, %v", liveState(t, s, "SN-1"), err)
		}
		if n, err := s.Tidy(ctx, now); n != 0 || err != nil {
			t.Error(n, err)
		}
		if _, err := s.LiveByToken(ctx, "token of boot-1"); err != nil {
			t.Error(err)
		}
		if _, err := s.ReportLive(ctx, b.ID, []plan.Event{{Seq: 1, Kind: plan.KindProgress}, {Seq: 2, Kind: plan.KindDone}}, now); err != nil {
			t.Error(err)
		}
		if n, err := s.Tidy(ctx, now.Add(time.Hour)); n != 1 || err != nil {
			t.Error(n, err)
		}
		if _, err := s.LiveByToken(ctx, "token of boot-1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("the token of long ago is good: %v", err)
		}
		if err := s.MarkBooted(ctx, o.ID, plan.Booted{Serial: "SN-1"}, now); err != nil {
			t.Fatal(err)
		}
		runs(t, s, "SN-1", "boot-3", now.Add(time.Hour))
		if err := s.DeleteHost(ctx, "SN-1", "alice"); err != nil {
			t.Fatal(err)
		}
		live(t, s, "SN-1")
		if got := liveState(t, s, "SN-1"); got != "" {
			t.Errorf("another host of that serial number is %s", got)
		}
	})
}

func TestWhatAHostIsToRunIsChecked(t *testing.T) {
	for name, c := range map[string]struct {
		live Live
		want string
	}{
		"a release":             {Live{Image: "web/1.2"}, ""},
		"its newest version":    {Live{Image: "web", LiveOptions: plan.LiveOptions{Size: "4GiB", Persist: []string{"/var=VAR", "/home=HOME"}, Root: "nfs:10.0.0.1:/srv/web"}}, ""},
		"no release":            {Live{}, "live.image: it is missing"},
		"a path":                {Live{Image: "../web"}, `live.image: "../web" is not the name of a release`},
		"all of the memory":     {Live{Image: "web", LiveOptions: plan.LiveOptions{Size: "100%"}}, "live.size: "},
		"a size without a unit": {Live{Image: "web", LiveOptions: plan.LiveOptions{Size: "4"}}, "live.size: "},
		"a directory twice":     {Live{Image: "web", LiveOptions: plan.LiveOptions{Persist: []string{"/var=A", "/var=B"}}}, "live.persist[1]: /var is given twice"},
		"a directory elsewhere": {Live{Image: "web", LiveOptions: plan.LiveOptions{Persist: []string{"/etc=A"}}}, "live.persist[0]: "},
		"too many directories":  {Live{Image: "web", LiveOptions: plan.LiveOptions{Persist: make([]string, maxPersist+1)}}, "live.persist: it names 17"},
		"no NFS":                {Live{Image: "web", LiveOptions: plan.LiveOptions{Root: "10.0.0.1:/srv"}}, "live.root: "},
	} {
		h := Host{SN: "SN-1", Live: &c.live}
		err := ValidateHost(&h)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want) || !errors.Is(err, ErrInvalid)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestWhatAHostRunsIsChangedLikeEverythingElse(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		known(t, s, "SN-1")
		h, err := s.PatchHost(ctx, "SN-1", []byte(`{"live":{"image":"web","size":"25%"},"live_boot":{"id":"x"}}`), "alice", 0)
		if err != nil || h.Live == nil || h.Live.Image != "web" || h.Live.Size != "25%" || h.LiveBoot != nil {
			t.Fatalf("%+v, %v", h, err)
		}
		h, err = s.PatchHost(ctx, "SN-1", []byte(`{"live":{"size":null,"persist":["/var=VAR"]}}`), "alice", 0)
		if err != nil || h.Live.Size != "" || len(h.Live.Persist) != 1 {
			t.Fatalf("%+v, %v", h, err)
		}
		if _, err = s.PatchHost(ctx, "SN-1", []byte(`{"live":{"moon":1}}`), "alice", 0); err == nil || !strings.Contains(err.Error(), "live.moon: there is no such field") {
			t.Error(err)
		}
		if h, err = s.PatchHost(ctx, "SN-1", []byte(`{"live":null}`), "alice", 0); err != nil || h.Live != nil {
			t.Errorf("%+v, %v", h, err)
		}
		diary, err := s.Events(ctx, EventFilter{SN: "SN-1", Kinds: []string{"changed"}})
		if err != nil || len(diary) != 3 || diary[0].Text != `live: nothing → {"image":"web","size":"25%"}` || diary[0].By != "alice" || diary[2].Text != `live: {"image":"web","persist":["/var=VAR"]} → nothing` {
			t.Errorf("%+v, %v", diary, err)
		}
	})
}
