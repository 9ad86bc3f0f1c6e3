package swarm

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// clock is a time that a test moves.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Unix(1.7e9, 0)} }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

// site is a Server and the machines that report to it.
type site struct {
	*Server
	*clock
	t testing.TB
}

func newSite(t testing.TB, change ...func(*Options)) *site {
	c := newClock()
	s := &site{newServer(t, func() time.Time { return c.now }, change...), c, t}
	c.pass(time.Minute) // it has run for a while
	return s
}

// says reports for the machine number i of a rack, and returns the answer.
func (s *site) says(i int, rack string, change ...func(*Machine, *plan.Swarm)) plan.Upstreams {
	s.t.Helper()
	m := Machine{
		Order: fmt.Sprint("o", i), SN: fmt.Sprint("SN", i), Hostname: fmt.Sprint("web", i), Image: "web/1", Group: rack,
		Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Transport: plan.TransportRelay, Base: "http://10.9.9.9:8080",
	}
	r := plan.Swarm{Schema: plan.Schema, Port: 9000 + i, Total: 1 << 30, Sources: []plan.SwarmSource{}}
	for _, c := range change {
		c(&m, &r)
	}
	u, err := s.Report(s.t.Context(), m, r)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := u.Validate(); err != nil {
		s.t.Fatal(err)
	}
	return u
}

func got(n int64) func(*Machine, *plan.Swarm) {
	return func(_ *Machine, r *plan.Swarm) { r.Got, r.Held = n, n }
}

func ended(_ *Machine, r *plan.Swarm) { r.Got, r.Held, r.Done = r.Total, r.Total, true }

func by(t plan.Transport) func(*Machine, *plan.Swarm) {
	return func(m *Machine, r *plan.Swarm) {
		m.Transport = t
		if t == plan.TransportTorrent {
			r.PeerPort, r.PeerID = 6881, fmt.Sprintf("%040x", r.Port)
		}
	}
}

func ids(u plan.Upstreams) string {
	var list []string
	for _, x := range u.Upstreams {
		list = append(list, x.ID)
	}
	return strings.Join(list, " ")
}

func TestUpstreamsOfAChain(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Mirrors = []string{"http://mirror.example.org/images/"} })
	one := s.says(1, "r1")
	two := s.says(2, "r1")
	three := s.says(3, "r2")
	if ids(one) != "mirror1 origin" || ids(two) != "o1 mirror1 origin" || ids(three) != "o2 o1 mirror1 origin" {
		t.Fatalf("%q, %q, %q", ids(one), ids(two), ids(three))
	}
	if u := one.Upstreams; u[0].URL != "http://mirror.example.org/images/web/1/rootfs.squashfs" || u[1].URL != "http://10.9.9.9:8080/images/web/1/rootfs.squashfs" || u[1].Ticket != "" {
		t.Errorf("%+v", u)
	}
	relay := two.Upstreams[0]
	if relay.URL != "http://10.0.0.1:9001"+plan.ChunksPath || relay.Kind != plan.SourceRelay {
		t.Errorf("%+v", relay)
	}
	switch {
	case !plan.CheckTicket(one.Secret, relay.Ticket, s.now), !plan.CheckTicket(one.Secret, relay.Ticket, s.now.Add(ticketLife-time.Second)):
		t.Error("the ticket does not open the machine that it is for")
	case plan.CheckTicket(one.Secret, relay.Ticket, s.now.Add(ticketLife+ticketStep+time.Second)):
		t.Error("the ticket is good for ever")
	case plan.CheckTicket(two.Secret, relay.Ticket, s.now):
		t.Error("the ticket opens another machine")
	case !two.Keep || two.Linger:
		t.Errorf("%+v", two)
	}
	s.pass(2 * time.Second)
	if again := s.says(2, "r1"); again.Upstreams[0].Ticket != relay.Ticket {
		t.Error("the ticket is another one with each answer")
	}
}

func TestSecretsSurviveARestart(t *testing.T) {
	key, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	same := func(o *Options) { o.Key = key }
	a, b := newSite(t, same).says(1, "r1"), newSite(t, same).says(1, "r1")
	if string(a.Secret) != string(b.Secret) || len(a.Secret) != 32 {
		t.Errorf("%x and %x", a.Secret, b.Secret)
	}
	if c := newSite(t).says(1, "r1"); string(c.Secret) == string(a.Secret) {
		t.Error("another key makes the same secret")
	}
}

func TestAnotherServerTakesOverWhatWorks(t *testing.T) {
	before := newSite(t)
	from := func(id string, rate float64) func(*Machine, *plan.Swarm) {
		return func(_ *Machine, r *plan.Swarm) {
			r.Got, r.Held, r.Rate = 100*mib, 100*mib, rate
			r.Sources = []plan.SwarmSource{{ID: originID, Kind: plan.SourceOrigin, Got: 5, Rate: 1}, {ID: id, Kind: plan.SourceRelay, Got: 99 * mib, Rate: rate}}
		}
	}
	before.says(3, "r1")
	before.says(1, "r1")
	s := newSite(t)
	s.now = s.began.Add(time.Second)
	if u := s.says(2, "r1", from("o1", 9*mib)); len(u.Upstreams) != 0 || len(u.Secret) == 0 {
		t.Errorf("a machine whose source is not known yet is told to change: %q", ids(u))
	}
	head := s.says(3, "r1", from(originID, 9*mib))
	s.pass(time.Second)
	middle := s.says(1, "r1", from("o3", 9*mib))
	s.pass(time.Second)
	last := s.says(2, "r1", from("o1", 9*mib))
	if ids(head) != "origin o2" || ids(middle) != "o3 origin o2" || ids(last) != "o1 o3 origin" || s.Counts().Moved != 0 {
		t.Errorf("%q, %q, %q, %d moved", ids(head), ids(middle), ids(last), s.Counts().Moved)
	}
	s.pass(settleFor)
	if u := s.says(4, "r1", from("o9", 9*mib)); len(u.Upstreams) == 0 {
		t.Error("a machine whose source does not come back is told nothing")
	}
}

func TestBadChunksAreBlamedOnWhoServedThem(t *testing.T) {
	s := newSite(t)
	store := s.o.Registry.(*registry.Store)
	s.says(1, "r1", got(50*mib))
	s.says(2, "r1", got(40*mib))
	bad := func(id string) func(*Machine, *plan.Swarm) {
		return func(_ *Machine, r *plan.Swarm) {
			r.Sources = []plan.SwarmSource{{ID: id, Kind: plan.SourceRelay, Bad: 1, Down: "it is bad"}}
		}
	}
	s.says(9, "r9", bad("o2")) // was never told to read from it
	if s.says(3, "r1"); s.Counts().Bad != 0 {
		t.Fatal("a machine that read from nobody could blame another")
	}
	u := s.says(2, "r1", got(40*mib), bad("o1"))
	if strings.Contains(ids(u), "o1") || s.Counts().Bad != 1 {
		t.Errorf("%q, %+v", ids(u), s.Counts())
	}
	s.says(2, "r1", got(40*mib), bad("o1"))
	for i := 3; i < 6; i++ {
		if u := s.says(i, "r1"); strings.Contains(ids(u), "o1") {
			t.Errorf("machine %d is to read from the bad one: %q", i, ids(u))
		}
	}
	events, err := store.Events(t.Context(), registry.EventFilter{SN: "SN1"})
	if err != nil || len(events) != 1 || events[0].Kind != "warn" || !strings.Contains(events[0].Text, "SN2 (web2)") {
		t.Errorf("%+v, %v", events, err)
	}
	if v := s.View("web/1"); !slices.Contains(v[0].Machines[0].Marks, MarkBad) && !slices.Contains(v[0].Machines[len(v[0].Machines)-1].Marks, MarkBad) {
		t.Errorf("%+v", v)
	}
}

func TestASilentMachineIsNotReadFrom(t *testing.T) {
	s := newSite(t)
	s.says(1, "r1", got(50*mib))
	s.says(2, "r1", got(40*mib))
	s.says(3, "r1", got(30*mib))
	for range 4 {
		s.pass(2 * time.Second)
		s.says(1, "r1", got(50*mib))
		s.says(3, "r1", got(30*mib))
	}
	if u := s.says(3, "r1", got(30*mib)); ids(u) != "o1 origin" {
		t.Errorf("%q", ids(u))
	}
	s.pass(goneAfter + time.Second)
	s.says(3, "r1", got(30*mib))
	s.forget(s.now)
	if s.Has("o1") || !s.Has("o3") {
		t.Error("the gone ones are remembered, or the others are not")
	}
	if v := s.View("web"); len(v) != 1 || len(v[0].Machines) != 1 || v[0].Machines[0].From != "" {
		t.Errorf("%+v", v)
	}
}

// The first of a chain reads from the origin, and from those after it when that has gone for good.
func TestTheFirstIsToldWhoHasWhatItLacks(t *testing.T) {
	s := newSite(t)
	s.says(1, "r1", got(20*mib))
	s.says(2, "r1", got(20*mib))
	s.pass(time.Second)
	s.says(2, "r1", func(_ *Machine, r *plan.Swarm) { r.Got, r.Held, r.Done = r.Total, r.Total, true })
	if u := s.says(1, "r1", got(25*mib)); ids(u) != "origin o2" && ids(u) != "o2 origin" {
		t.Errorf("%q", ids(u))
	}
}

func TestASourceThatCannotBeReachedIsAvoided(t *testing.T) {
	s := newSite(t)
	s.says(1, "r1", got(50*mib))
	s.says(2, "r1", got(40*mib))
	s.says(3, "r1")
	s.pass(2 * time.Second)
	s.says(1, "r1", got(50*mib))
	s.says(2, "r1", got(40*mib))
	u := s.says(3, "r1", func(_ *Machine, r *plan.Swarm) {
		r.Sources = []plan.SwarmSource{{ID: "o2", Kind: plan.SourceRelay, Down: "no route to host"}}
	})
	if strings.Contains(ids(u), "o2") {
		t.Errorf("%q", ids(u))
	}
}

func TestWhoIsDoneStaysForWhoHasNobodyElse(t *testing.T) {
	s := newSite(t)
	s.says(1, "r1", got(900*mib))
	s.says(2, "r2", got(800*mib))
	if u := s.says(1, "r1", ended); !u.Linger || !u.Keep {
		t.Errorf("%+v", u)
	}
	for range 4 { // the limit is for each stay
		s.pass(2 * time.Second)
		s.says(2, "r2", got(850*mib))
		s.says(1, "r1", ended)
	}
	s.says(3, "r2", got(950*mib)) // another source in the reader's rack
	s.pass(2 * time.Second)
	s.says(3, "r2", ended)
	if u := s.says(1, "r1", ended); u.Linger {
		t.Errorf("it stays for one that has another source nearby: %+v", s.View(""))
	}
	alone := newSite(t)
	alone.says(1, "r1", ended)
	alone.says(2, "r1", got(1*mib))
	alone.pass(time.Second)
	if u := alone.says(1, "r1", ended); !u.Linger {
		t.Error("it does not stay")
	}
	alone.pass(lingerFor)
	alone.says(2, "r1", got(2*mib))
	if u := alone.says(1, "r1", ended); u.Linger {
		t.Error("it stays for ever")
	}
}

func TestChunksAreKeptForThoseThatWait(t *testing.T) {
	s := newSite(t)
	if u := s.says(1, "r1"); u.Keep {
		t.Error("one that installs alone keeps everything")
	}
	store := s.o.Registry.(*registry.Store)
	for _, sn := range []string{"SN1", "SN2"} {
		if _, _, err := store.PutHost(t.Context(), registry.Host{SN: sn}, "anna", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := store.CreateOrder(t.Context(), registry.Order{SN: sn, Image: "web/1", By: "anna", Reason: "r"}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.readOrders(t.Context()); err != nil {
		t.Fatal(err)
	}
	if u := s.says(1, "r1"); !u.Keep {
		t.Error("another machine has an order for the release, and nothing is kept for it")
	}
}

func TestRatesAreShared(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Rates = Rates{Global: 100e6, PerSubnet: 60e6, PerMachine: 40e6} })
	one := s.says(1, "r1")
	two := s.says(2, "r2")
	three := s.says(3, "r2")
	last := func(u plan.Upstreams) int64 {
		return u.Upstreams[slices.IndexFunc(u.Upstreams, func(x plan.Upstream) bool { return x.ID == originID })].Rate
	}
	switch {
	case one.Rate != 40e6, two.Rate != 40e6:
		t.Errorf("a machine may read %d and %d", one.Rate, two.Rate)
	case last(one) != 60e6:
		t.Errorf("the head may read %d from the origin", last(one))
	case two.Upstreams[0].Rate != 60e6:
		t.Errorf("what enters the second rack is %d", two.Upstreams[0].Rate)
	case three.Upstreams[0].Rate != 0:
		t.Errorf("within a rack it is %d", three.Upstreams[0].Rate)
	case last(three) != 30e6: // should it have to: the one that enters already counts too
		t.Errorf("from the origin it is %d", last(three))
	}
	for i := 4; i < 8; i++ {
		s.says(i, "r3", by(plan.TransportHTTP))
	}
	if u := s.says(4, "r3", by(plan.TransportHTTP)); last(u) != 15e6 {
		t.Errorf("four that read by HTTP may read %d each", last(u))
	}
	if err := s.SetRates(t.Context(), Rates{Global: 50e6}); err != nil {
		t.Fatal(err)
	}
	if u := s.says(1, "r1"); last(u) != 10e6 || u.Rate != 0 {
		t.Errorf("five that read from the origin: %d each, %d in all", last(u), u.Rate)
	}
	other := Server{o: s.o}
	other.o.Rates = Rates{}
	if err := other.readRates(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, own := other.Rates(); r != (Rates{Global: 50e6}) || !own {
		t.Errorf("another server of the registry has %+v, %v", r, own)
	}
	if err := s.ResetRates(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, own := s.Rates(); r.PerSubnet != 60e6 || own {
		t.Errorf("%+v, %v", r, own)
	}
}

type seed struct{ at netip.AddrPort }

func (s seed) Addr(release string) (netip.AddrPort, bool) { return s.at, release == "web/1" }

func TestTorrentPeersAreTheNeighboursInTheChain(t *testing.T) {
	at := netip.MustParseAddrPort("10.9.9.9:6881")
	s := newSite(t, func(o *Options) { o.Seed = seed{at} })
	s.says(7, "r1") // by relay: no neighbour
	one := s.says(1, "r1", by(plan.TransportTorrent))
	two := s.says(2, "r1", by(plan.TransportTorrent))
	s.says(3, "r1", by(plan.TransportTorrent))
	if !slices.Equal(one.Peers, []string{"10.9.9.9:6881"}) || !slices.Equal(two.Peers, []string{"10.0.0.1:6881"}) || ids(two) != "origin" {
		t.Errorf("%v, %v, %q", one.Peers, two.Peers, ids(two))
	}
	if n, known := s.Neighbours(fmt.Sprintf("%040x", 9002)); !known || !slices.Equal(n, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:6881")}) {
		t.Errorf("%v, %t", n, known)
	}
	if n, known := s.Neighbours(""); known || n != nil {
		t.Errorf("%v, %t", n, known)
	}
}

func TestAReleaseThatWasReplacedIsRefused(t *testing.T) {
	s := newSite(t)
	s.says(1, "r1")
	_, err := s.Report(t.Context(), Machine{Order: "o1", Image: "web/1"}, plan.Swarm{Schema: plan.Schema, Total: 2 << 30})
	if err == nil || !strings.Contains(err.Error(), "was replaced") {
		t.Error(err)
	}
}

func TestNoSecretIsLogged(t *testing.T) {
	var log strings.Builder
	s := newSite(t, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	one := s.says(1, "r1", got(50*mib))
	two := s.says(2, "r1", got(40*mib))
	s.says(2, "r1", func(_ *Machine, r *plan.Swarm) {
		r.Sources = []plan.SwarmSource{{ID: "o1", Kind: plan.SourceRelay, Bad: 3}}
	})
	if log.Len() == 0 || strings.Contains(log.String(), string(one.Secret)) || strings.Contains(log.String(), two.Upstreams[0].Ticket) {
		t.Errorf("%q", log.String())
	}
}

func TestEverybodyEndsWhateverHappens(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 3))
		hosts := fleet(r, 6+r.IntN(30), 1+r.IntN(4), 20, 25*time.Second)
		for _, h := range hosts {
			switch r.IntN(8) {
			case 0:
				h.dies = h.starts + time.Duration(1+r.IntN(30))*time.Second
			case 1:
				h.down, h.up = 5, 5
			case 2:
				h.disk = 6
			case 3:
				h.up = 4
			}
		}
		hosts[0].corrupt = seed%2 == 0
		n := simulate(t, 256, 20, hosts)
		t.Logf("%d machines: the last at %s, the origin sent %.2f copies", len(hosts), n.last(), n.sent/float64(n.total))
		if n.last() > 2*time.Minute {
			t.Errorf("seed %d: %s\n%s", seed, n.last(), n.picture())
		}
	}
}

func TestAMachineThatSeemsAheadStays(t *testing.T) {
	s := newSite(t)
	reads := func(mb, rate int64) func(*Machine, *plan.Swarm) {
		return func(_ *Machine, r *plan.Swarm) {
			r.Total, r.Got, r.Held, r.Rate = 1<<30, mb*mib, mb*mib, float64(rate*mib)
		}
	}
	s.says(1, "r1", reads(0, 0))
	s.says(2, "r1", reads(0, 0))
	s.pass(time.Second)
	s.says(1, "r1", reads(20, 20)) // its rate is smoothed: in truth it has got faster
	s.pass(2 * time.Second)
	if u := s.says(2, "r1", reads(190, 80)); ids(u) != "o1 origin" {
		t.Errorf("two seconds after the other's report it reads from %q", ids(u))
	}
	s.pass(time.Second)
	s.says(1, "r1", reads(21, 20))
	if u := s.says(2, "r1", reads(192, 80)); ids(u) != "origin" && ids(u) != "origin o1" {
		t.Errorf("it waits for one that is far behind, and reads from %q", ids(u))
	}
}

func TestWhoIsDoneStaysForItsNeighbourInABitTorrentChain(t *testing.T) {
	s := newSite(t)
	s.says(1, "r1", by(plan.TransportTorrent), got(900*mib))
	s.says(2, "r1", by(plan.TransportTorrent), got(800*mib))
	s.says(3, "r1", by(plan.TransportTorrent), ended) // another source in the same rack
	if u := s.says(1, "r1", by(plan.TransportTorrent), ended); !u.Linger {
		t.Errorf("%+v", s.View(""))
	}
}
