package machine

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/image/seal"
	"imgbuild/server/registry"
)

func TestAnInstallationFromOrderToFirstBoot(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1", Hostname: "web1.example.org", IP: "10.0.0.5", Netmask: "255.255.255.0", GW: "10.0.0.1", DNS: []netip.Addr{netip.MustParseAddr("10.0.0.2")},
		SerialConsole: "ttyS1,115200n8", Users: []plan.User{{Name: "ops", SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHT2zbKwyb0QIzUFBhfrOSkPr06uEwE+OlQ0T7Yi5HFa a"}}},
		Metadata: json.RawMessage(`{"role":"db"}`)})
	o := s.order(t, "SN-WEB1")
	c := s.computer("SN-WEB1")
	if got := c.start(t); got != "install" {
		t.Fatalf("the script says %s", got)
	}
	p := c.mustClaim(t, plan.Install)
	want := plan.Plan{Schema: plan.Schema, Boot: c.boot, Serial: "SN-WEB1", Action: plan.Install, Issued: s.now, Reason: "order " + o.ID + " by anna: new disks", Token: p.Token,
		Order: o.ID, Manifest: s.http.URL + "/images/web/1/manifest.json", Done: "reboot", CheckNetwork: true,
		Transport: plan.TransportRelay, Mirrors: []string{"http://mirror.example.org/images/web/1/"},
		Host: plan.Host{Hostname: "web1.example.org", SerialConsole: "ttyS1,115200n8", Metadata: json.RawMessage(`{"role":"db"}`),
			Users: []plan.User{{Name: "ops", SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHT2zbKwyb0QIzUFBhfrOSkPr06uEwE+OlQ0T7Yi5HFa a"}}},
			Network: &plan.Network{DNS: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Ethernets: []plan.Ethernet{{Name: "lan", Match: plan.Match{Link: 1},
				IP: plan.IP{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")}, Gateway4: netip.MustParseAddr("10.0.0.1")}}}}}}
	sealed, err := seal.Parse(p.Seal)
	if err != nil || !sealed.SignedBy(s.key.Public()) || sealed.Serial != "SN-WEB1" || sealed.Order != o.ID || sealed.Image != "web/1" || sealed.Protect || !sealed.Time.Equal(s.now.Truncate(time.Second)) {
		t.Errorf("the seal is %+v, %v", sealed, err)
	}
	p.Seal = nil
	got, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(wanted) {
		t.Errorf("the plan is\n%s\nwant\n%s", got, wanted)
	}
	if again := c.mustClaim(t, plan.Install); again.Token == p.Token || again.Order != p.Order {
		t.Errorf("the same boot asks again and is told %+v", again)
	}
	c.token = p.Token // the first is still good
	if a, err := c.report(plan.KindStep, plan.KindProgress); err != nil || a.Seq != 2 || a.Stop {
		t.Errorf("%+v, %v", a, err)
	}
	c.seq = 0
	if a, err := c.report(plan.KindStep, plan.KindProgress, plan.KindInfo); err != nil || a.Seq != 3 {
		t.Errorf("what was sent before is sent again: %+v, %v", a, err)
	}
	if a, err := c.report(plan.KindDone); err != nil || a.Seq != 4 {
		t.Errorf("%+v, %v", a, err)
	}
	if other := s.computer("SN-WEB1"); other.start(t) != "localboot" {
		t.Error("the network boot after the installation does not boot the disk")
	}
	for range 2 {
		if err := c.booted(); err != nil {
			t.Error(err)
		}
	}
	h, err := s.store.Host(t.Context(), "SN-WEB1")
	if err != nil || h.State != registry.Installed || h.Booted.Hostname != "web1" || len(h.Inventory.Disks) != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	if o, err := s.store.Order(t.Context(), o.ID); err != nil || o.State != registry.OrderDone {
		t.Errorf("%+v, %v", o, err)
	}
	var kinds []string
	for _, line := range s.diary(t, "SN-WEB1") {
		k, _, _ := strings.Cut(line, ":")
		kinds = append(kinds, k)
	}
	if got := strings.Join(kinds, " "); got != "registered ordered decided claimed inventory started step progress info done decided booted" {
		t.Errorf("the diary reads: %s\n%s", got, strings.Join(s.diary(t, "SN-WEB1"), "\n"))
	}
	c.mustClaim(t, plan.LocalBoot)
}

func TestAMachineThatNobodyKnowsIsRegisteredAndDoesNothingMore(t *testing.T) {
	s := newSite(t, options{unknown: true})
	c := s.computer("SN-NEW")
	c.inv.UUID, c.inv.Product = "4c4c4544-0000-1000-8000-000000000001", "R640"
	if got := c.start(t); got != "inspect" {
		t.Fatalf("the script says %s", got)
	}
	if p := c.mustClaim(t, plan.Inspect); p.Token != "" || p.Manifest != "" || p.Order != "" {
		t.Errorf("%+v", p)
	}
	h, err := s.store.Host(t.Context(), "SN-NEW")
	if err != nil || h.State != registry.New || h.UUID != c.inv.UUID || h.Model != "R640" || h.Inventory == nil {
		t.Fatalf("%+v, %v", h, err)
	}
	c.mustClaim(t, plan.LocalBoot)
	if got := c.start(t); got != "localboot" {
		t.Errorf("the next script says %s", got)
	}
	if n := s.Counts().Registered; n != 1 {
		t.Errorf("%d registered", n)
	}
}

func TestAMachineThatIsAnotherThanWrittenDownIsInspectedAndNothingElseHappens(t *testing.T) {
	for name, change := range map[string]func(*plan.Inventory){
		"its UUID":  func(i *plan.Inventory) { i.UUID = "4c4c4544-0000-1000-8000-00000000000f" },
		"its model": func(i *plan.Inventory) { i.Product = "R740" },
		"its MACs":  func(i *plan.Inventory) { i.NICs[0].MAC = "52:54:00:00:00:0f" },
	} {
		s := newSite(t, options{})
		s.host(t, registry.Host{SN: "SN-WEB1", UUID: "4c4c4544-0000-1000-8000-000000000001", Model: "R640", MACs: []string{"52:54:00:00:00:01"}})
		o := s.order(t, "SN-WEB1")
		c := s.computer("SN-WEB1")
		c.inv.UUID, c.inv.Product = "4c4c4544-0000-1000-8000-000000000001", "R640"
		if c.start(t) != "install" {
			t.Fatal("not started")
		}
		change(&c.inv)
		for range 2 {
			p := c.mustClaim(t, plan.Inspect)
			if !strings.Contains(p.Reason, "not the one that was written down") {
				t.Errorf("%s: %s", name, p.Reason)
			}
		}
		h, err := s.store.Host(t.Context(), "SN-WEB1")
		if err != nil || h.Inventory != nil {
			t.Errorf("%s: the inventory is stored: %+v, %v", name, h, err)
		}
		if o, err = s.store.Order(t.Context(), o.ID); err != nil || o.State != registry.OrderOpen {
			t.Errorf("%s: the order is %s, %v", name, o.State, err)
		}
		if n := count(s.diary(t, "SN-WEB1"), "refused: "); n != 1 {
			t.Errorf("%s: it is written down %d times", name, n)
		}
	}
}

func count(lines []string, prefix string) int {
	n := 0
	for _, l := range lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

func TestOfManyBootsOneHasTheOrder(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	o := s.order(t, "SN-WEB1")
	const boots, each = 20, 5
	var mu sync.Mutex
	winners := map[string]int{}
	var wg sync.WaitGroup
	var all []*computer
	for range boots {
		c := s.computer("SN-WEB1")
		if c.start(t) != "install" {
			t.Fatal("not started")
		}
		all = append(all, c)
	}
	for _, c := range all {
		for range each {
			own := *c
			wg.Go(func() {
				p, err := own.claim()
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if p.Action == plan.Install && p.Order == o.ID {
					winners[own.boot]++
				} else if p.Action != plan.LocalBoot {
					t.Errorf("%+v", p)
				}
			})
		}
	}
	wg.Wait()
	if len(winners) != 1 {
		t.Fatalf("%d boots have the order", len(winners))
	}
	for _, n := range winners {
		if n != each {
			t.Errorf("the boot that has the order was told so %d of %d times", n, each)
		}
	}
}

func TestWhatCannotBeCarriedOutDoesNotUseTheOrderUp(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	o := s.order(t, "SN-WEB1")
	c := s.computer("SN-WEB1")
	if c.start(t) != "install" {
		t.Fatal("not started")
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "web/1")); err != nil {
		t.Fatal(err)
	}
	rescan(t, s)
	if p := c.mustClaim(t, plan.LocalBoot); !strings.Contains(p.Reason, "no such release") {
		t.Error(p.Reason)
	}
	if o, err := s.store.Order(t.Context(), o.ID); err != nil || o.State != registry.OrderOpen {
		t.Errorf("the order is %s, %v", o.State, err)
	}
	if n := count(s.diary(t, "SN-WEB1"), "refused: the order cannot be carried out"); n != 1 {
		t.Errorf("%q", s.diary(t, "SN-WEB1"))
	}
}

func rescan(t *testing.T, s *site) {
	t.Helper()
	if err := s.o.Images.(interface{ Scan() error }).Scan(); err != nil {
		t.Fatal(err)
	}
}

func TestAReleaseThatVanishesUnderAnInstallationMakesItWait(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	s.order(t, "SN-WEB1")
	c := s.computer("SN-WEB1")
	c.start(t)
	c.mustClaim(t, plan.Install)
	if err := os.Rename(filepath.Join(s.dir, "web/1"), filepath.Join(s.dir, "away")); err != nil {
		t.Fatal(err)
	}
	rescan(t, s)
	if p := c.mustClaim(t, plan.Wait); p.RetrySeconds <= 0 || p.RetrySeconds > plan.LostSeconds/2 {
		t.Errorf("%+v", p)
	}
	if err := os.Rename(filepath.Join(s.dir, "away"), filepath.Join(s.dir, "web/1")); err != nil {
		t.Fatal(err)
	}
	rescan(t, s)
	c.mustClaim(t, plan.Install)
}

func TestACancelledInstallationIsToldToStop(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	o := s.order(t, "SN-WEB1")
	c := s.computer("SN-WEB1")
	c.start(t)
	c.mustClaim(t, plan.Install)
	if a, err := c.report(); err != nil || a.Stop {
		t.Fatalf("%+v, %v", a, err)
	}
	if err := s.store.CancelOrder(t.Context(), o.ID, "anna", "wrong machine"); err != nil {
		t.Fatal(err)
	}
	if a, err := c.report(plan.KindStep); err != nil || !a.Stop || !strings.Contains(a.Reason, "was cancelled") || a.Seq != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	c.mustClaim(t, plan.LocalBoot)
}

func TestAFailedInstallationEndsItsOrder(t *testing.T) {
	s := newSite(t, options{limits: registry.SlotLimits{Global: 1}})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	o := s.order(t, "SN-WEB1")
	c := s.computer("SN-WEB1")
	c.start(t)
	c.mustClaim(t, plan.Install)
	if _, err := c.report(plan.KindFailed); err != nil {
		t.Fatal(err)
	}
	if o, err := s.store.Order(t.Context(), o.ID); err != nil || o.State != registry.OrderFailed {
		t.Errorf("%+v, %v", o, err)
	}
	s.order(t, "SN-WEB1")
	if c.start(t) != "install" {
		t.Error("a new order does not start it")
	}
	c.mustClaim(t, plan.Install)
}

func TestASilentMachineIsLostAndALateReportFindsIt(t *testing.T) {
	s := newSite(t, options{limits: registry.SlotLimits{Global: 1}})
	for _, sn := range []string{"SN-WEB1", "SN-WEB2"} {
		s.host(t, registry.Host{SN: sn})
	}
	o := s.order(t, "SN-WEB1")
	w := watch{s: s.Server}
	w.deaf(s.clock())
	step := func(d time.Duration, heard ...*computer) {
		t.Helper()
		for ; d > 0; d -= 10 * time.Second {
			s.pass(10 * time.Second)
			w.look(t.Context(), s.clock())
			for _, c := range heard {
				if _, err := c.report(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	c := s.computer("SN-WEB1")
	c.start(t)
	c.mustClaim(t, plan.Install)
	step(5*time.Minute, c)
	state := func() registry.OrderState {
		t.Helper()
		o, err := s.store.Order(t.Context(), o.ID)
		if err != nil {
			t.Fatal(err)
		}
		return o.State
	}
	if state() != registry.OrderConsumed {
		t.Fatalf("a machine that reports is taken for lost: %s", state())
	}
	step(80 * time.Second)
	if state() != registry.OrderConsumed {
		t.Fatalf("lost too soon: %s", state())
	}
	step(20 * time.Second)
	if state() != registry.OrderFailed || s.Counts().Lost != 1 {
		t.Fatalf("not lost: %s", state())
	}
	if h, err := s.store.Host(t.Context(), "SN-WEB1"); err != nil || h.State != registry.Lost {
		t.Errorf("%+v, %v", h, err)
	}
	s.order(t, "SN-WEB2")
	other := s.computer("SN-WEB2")
	other.start(t)
	other.mustClaim(t, plan.Install) // the slot is free
	if a, err := c.report(plan.KindStep); err != nil || a.Stop {
		t.Errorf("a late report: %+v, %v", a, err)
	}
	if state() != registry.OrderConsumed {
		t.Errorf("a late report does not find it: %s", state())
	}
	step(100*time.Second, other)
	if state() != registry.OrderFailed {
		t.Fatalf("not lost again: %s", state())
	}
	s.order(t, "SN-WEB1")
	if a, err := c.report(plan.KindStep); err != nil || !a.Stop || !strings.Contains(a.Reason, "another order") {
		t.Errorf("a late report after another order: %+v, %v", a, err)
	}
}

func TestAServerThatCouldNotHearTakesNobodyForLost(t *testing.T) {
	broken := &breakable{}
	s := newSite(t, options{registry: func(st *registry.Store) Registry { broken.Registry = st; return broken }})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	s.order(t, "SN-WEB1")
	c := s.computer("SN-WEB1")
	c.start(t)
	c.mustClaim(t, plan.Install)
	w := watch{s: s.Server}
	w.deaf(s.clock())
	look := func(what string, d, every time.Duration, want int64) {
		t.Helper()
		for ; d > 0; d -= every {
			s.pass(every)
			w.look(t.Context(), s.clock())
		}
		if got := s.Counts().Lost; got != want {
			t.Fatalf("%s: %d machines are lost, want %d", what, got, want)
		}
	}
	look("the server has just started", 80*time.Second, 5*time.Second, 0)
	look("the program was stopped for an hour", time.Hour, time.Hour, 0)
	look("and goes on", 80*time.Second, 5*time.Second, 0)
	broken.err = errors.New("database is gone")
	look("the database is gone", 10*time.Minute, 5*time.Second, 0)
	broken.err = nil
	look("and is back", 80*time.Second, 5*time.Second, 0)
	s.pass(-2 * time.Hour)
	look("the clock is set back", 80*time.Second, 5*time.Second, 0)
	s.pass(2 * time.Hour)
	look("and forth", 80*time.Second, 5*time.Second, 0)
	look("nothing is heard", 20*time.Second, 5*time.Second, 1)
}

func TestOrdersThatNobodyComesForExpire(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	s.order(t, "SN-WEB1")
	s.o.Every = time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	events := s.store.Watch(ctx, -1)
	go func() { done <- s.Run(ctx) }()
	s.pass(25 * time.Hour)
	for e := range events {
		if e.Kind == "expired" {
			break
		}
	}
	stop()
	if err := <-done; err != nil || s.Counts().Expired != 1 {
		t.Errorf("%v, %+v", err, s.Counts())
	}
}

func TestAMachineThatIsToldToStayOffIsAwaited(t *testing.T) {
	s := newSite(t, options{})
	w := watch{s: s.Server}
	for done, want := range map[string]int64{"poweroff": 0, "reboot": 1} {
		sn := "SN-" + done
		s.host(t, registry.Host{SN: sn})
		if _, err := s.store.CreateOrder(t.Context(), registry.Order{SN: sn, Image: "web/1", By: "anna", Reason: "r", Done: done, Expires: s.clock().Add(time.Hour)}, 1); err != nil {
			t.Fatal(err)
		}
		c := s.computer(sn)
		c.start(t)
		if p := c.mustClaim(t, plan.Install); p.Done != done {
			t.Errorf("%+v", p)
		}
		if _, err := c.report(plan.KindDone); err != nil {
			t.Fatal(err)
		}
		s.pass(2 * registry.FirstBoot)
		before := s.Counts().Lost
		if err := w.round(t.Context(), s.clock()); err != nil || s.Counts().Lost-before != want {
			t.Errorf("%s: %d lost, %v", done, s.Counts().Lost-before, err)
		}
		if err := c.booted(); err != nil {
			t.Errorf("%s: %v", done, err)
		}
	}
}
