package swarm

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// network is a simulation: machines with links of their own read what the planner says, and its answers come from the real
// Server. Time passes in steps; in each a source's link is shared evenly by those who read from it.
type network struct {
	*Server
	t       testing.TB
	total   int64
	origin  float64 // bytes a second
	now     time.Time
	hosts   []*host
	sent    float64 // by the origin
	entered map[string]float64
	edges   int // changes of who reads from whom, but for first ones
}

// host is one machine of the simulation.
type host struct {
	id        string
	rack      string
	down, up  float64 // bytes a second
	disk      float64 // bytes a second; 0 is fast
	starts    time.Duration
	dies      time.Duration // 0 never
	corrupt   bool
	got       float64
	rate      float64
	from      string
	sources   map[string]*plan.SwarmSource
	last      plan.Upstreams
	began     bool
	dead      bool
	ended     time.Duration
	next      time.Duration // report
	full      bool
	waited    time.Duration // without a byte
	skipping  string        // a source that was given up
	skipUntil time.Duration
	noise     *rand.Rand // what its link carries changes every few seconds
	share     float64
}

func newServer(t testing.TB, now func() time.Time, change ...func(*Options)) *Server {
	t.Helper()
	store, err := registry.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	key, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Registry: store, Key: key, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Int64("t", now().Unix()-1.7e9)
		}
		return a
	}})), Now: now}
	for _, c := range change {
		c(&o)
	}
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const step = 50 * time.Millisecond

func simulate(t testing.TB, totalMiB int64, originMiB float64, hosts []*host) *network {
	t.Helper()
	n := &network{t: t, total: totalMiB * mib, origin: originMiB * mib, now: time.Unix(1.7e9, 0), hosts: hosts, entered: map[string]float64{}}
	n.Server = newServer(t, func() time.Time { return n.now })
	n.began = n.began.Add(-time.Hour) // it has run for long
	for i, h := range hosts {
		h.id, h.sources = fmt.Sprintf("m%03d", i+1), map[string]*plan.SwarmSource{}
		h.next = h.starts
		if h.down == 0 {
			h.down = originMiB
		}
		if h.up == 0 {
			h.up = h.down
		}
	}
	for at := time.Duration(0); !n.over(); at += step {
		if at > time.Hour {
			t.Fatalf("after an hour there are still machines that read:\n%s", n.picture())
		}
		n.now = n.now.Add(step)
		n.live(at)
		n.flow(at)
	}
	return n
}

func (n *network) over() bool {
	return !slices.ContainsFunc(n.hosts, func(h *host) bool { return !h.dead && h.ended == 0 })
}

func (n *network) host(id string) *host {
	for _, h := range n.hosts {
		if h.id == id {
			return h
		}
	}
	return nil
}

// live starts and kills machines, and has them report.
func (n *network) live(at time.Duration) {
	for i, h := range n.hosts {
		if h.dies > 0 && at >= h.dies {
			h.dead = true
		}
		if h.dead || at < h.next {
			continue
		}
		h.began = true
		if h.noise != nil {
			h.share = 0.3 + 0.7*h.noise.Float64()
		}
		h.next = at + plan.SwarmSeconds*time.Second
		r := plan.Swarm{Schema: plan.Schema, Port: 9000, Total: n.total, Got: int64(h.got), Held: int64(h.got), Rate: h.rate, Full: h.full, Done: h.ended > 0, Sources: []plan.SwarmSource{}}
		for _, s := range h.sources {
			r.Sources = append(r.Sources, *s)
		}
		who := Machine{Order: h.id, SN: h.id, Image: "web/1", Group: h.rack, Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Transport: plan.TransportRelay, Base: "http://10.9.9.9"}
		u, err := n.Report(n.t.Context(), who, r)
		if err != nil {
			n.t.Fatal(err)
		}
		if err := u.Validate(); err != nil {
			n.t.Fatal(err)
		}
		h.last = u
		if h.ended > 0 && !u.Linger && at > h.ended+20*time.Second {
			h.dead = true // it has written its boot loader, and boots
		}
	}
}

// choose is what a machine reads from now: the first source that lives and is not given up.
func (n *network) choose(h *host, at time.Duration) string {
	for _, u := range h.last.Upstreams {
		if u.Kind == plan.SourceOrigin {
			return originID
		}
		s := n.host(u.ID)
		if s == nil || s.dead || h.skipping == u.ID && at < h.skipUntil || h.sources[u.ID] != nil && h.sources[u.ID].Down != "" {
			continue
		}
		return u.ID
	}
	return originID
}

// flow moves bytes for one step.
func (n *network) flow(at time.Duration) {
	readers := map[string][]*host{}
	for _, h := range n.hosts {
		if !h.began || h.dead || h.ended > 0 {
			continue
		}
		from := n.choose(h, at)
		if from != h.from {
			if h.from != "" {
				n.edges++
			}
			h.from, h.waited = from, 0
		}
		readers[from] = append(readers[from], h)
	}
	type move struct {
		h    *host
		from string
		n    float64
	}
	var moves []move
	for from, list := range readers {
		up := n.origin
		held := float64(n.total)
		if s := n.host(from); s != nil {
			up, held = s.up*mib, s.got
		}
		up *= step.Seconds()
		// Fair shares: who can take least is served first and leaves the rest to the others.
		can := func(h *host) float64 {
			c := math.Min(h.down*mib*step.Seconds(), math.Max(0, held-h.got))
			if h.noise != nil {
				c = math.Min(c, h.share*h.down*mib*step.Seconds())
			}
			if h.disk > 0 {
				c = math.Min(c, h.disk*mib*step.Seconds())
			}
			return c
		}
		slices.SortFunc(list, func(a, b *host) int { return cmp.Or(cmp.Compare(can(a), can(b)), cmp.Compare(a.id, b.id)) })
		for i, h := range list {
			b := math.Min(can(h), up/float64(len(list)-i))
			up -= b
			moves = append(moves, move{h, from, b})
		}
	}
	for _, m := range moves {
		h := m.h
		h.full = h.disk > 0 && h.disk < h.down
		h.rate = 0.93*h.rate + 0.07*m.n/step.Seconds()
		src := h.sources[m.from]
		if src == nil {
			kind := plan.SourceRelay
			if m.from == originID {
				kind = plan.SourceOrigin
			}
			src = &plan.SwarmSource{ID: m.from, Kind: kind}
			h.sources[m.from] = src
		}
		if s := n.host(m.from); s != nil && s.corrupt && m.n > 0 {
			src.Bad, src.Down = src.Bad+1, "a chunk was bad"
			continue
		}
		if h.waited += step; m.n > 0 {
			h.waited = 0
		}
		if h.waited > 15*time.Second {
			h.skipping, h.skipUntil, h.waited = m.from, at+2*time.Second, 0
		}
		h.got += m.n
		src.Got = int64(h.got)
		src.Rate = 0.93*src.Rate + 0.07*m.n/step.Seconds()
		if m.from == originID {
			n.sent += m.n
		}
		if s := n.host(m.from); s == nil || s.rack != h.rack {
			n.entered[h.rack] += m.n
		}
		if h.got >= float64(n.total)-1 {
			h.got, h.ended, h.rate = float64(n.total), at, 0
			h.next = at // says so at once
		}
	}
	for _, h := range n.hosts {
		for id, s := range h.sources {
			if id != h.from {
				s.Rate *= 0.9
				if s.Rate < 1000 {
					s.Rate = 0
				}
			}
		}
	}
}

// last is when the last machine ended that lived to.
func (n *network) last() time.Duration {
	var d time.Duration
	for _, h := range n.hosts {
		d = max(d, h.ended)
	}
	return d
}

func (n *network) picture() string {
	text := ""
	for _, w := range n.swarms {
		parents := map[string]string{}
		for _, m := range w.ordered {
			if m.reads() {
				parents[m.Order] = m.parent
			}
			text += fmt.Sprintf("%s from %q: %d MiB at %.1f MiB/s, slow %v, poor %v, trial %v, suspects %d, silent %v\n", m.Order, m.parent, m.said.Got/mib, m.said.Rate/mib, m.slow, m.poor, !m.trial.IsZero(), m.suspects, m.silent(n.now))
		}
		text += tree(parents, "") + "\n"
	}
	return text
}

// fleet makes machines of several racks that start within a moment.
func fleet(r *rand.Rand, count, racks int, link float64, within time.Duration) []*host {
	var list []*host
	for i := range count {
		list = append(list, &host{rack: fmt.Sprint("rack ", i%racks), down: link, up: link, starts: time.Duration(r.Int64N(int64(within) + 1))})
	}
	return list
}

func TestAFleetEndsCloseToTheLimit(t *testing.T) {
	for _, tt := range []struct {
		count, racks int
	}{{1, 1}, {2, 1}, {8, 2}, {32, 4}, {80, 5}} {
		r := rand.New(rand.NewPCG(1, uint64(tt.count)))
		n := simulate(t, 512, 20, fleet(r, tt.count, tt.racks, 20, time.Second))
		heads := (tt.count + maxDepth - 1) / maxDepth
		limit := time.Duration(float64(heads) * 512 / 20 * float64(time.Second))
		t.Logf("%d machines: %s, the limit is %s; the origin sent %.2f copies, %d edges changed", tt.count, n.last(), limit, n.sent/float64(n.total), n.edges)
		if n.last() > limit*115/100+time.Second {
			t.Errorf("%d machines: %s, the limit is %s\n%s", tt.count, n.last(), limit, n.picture())
		}
		if n.sent > float64(n.total)*float64(heads)*1.1 {
			t.Errorf("%d machines: the origin sent %.2f copies", tt.count, n.sent/float64(n.total))
		}
	}
}

func TestFaultsCostWhatTheyCost(t *testing.T) {
	eight := func(change func([]*host)) []*host {
		list := fleet(rand.New(rand.NewPCG(2, 2)), 8, 2, 20, time.Second)
		change(list)
		return list
	}
	second := func(list []*host) *host { // in the order of starting
		return slices.SortedFunc(slices.Values(list), func(a, b *host) int { return cmp.Compare(a.starts, b.starts) })[1]
	}
	first := func(list []*host) *host {
		return slices.MinFunc(list, func(a, b *host) int { return cmp.Compare(a.starts, b.starts) })
	}
	for _, tt := range []struct {
		name   string
		hosts  []*host
		limit  time.Duration // of those that are not at fault
		copies float64
	}{
		{name: "a slow reader in the middle", hosts: eight(func(l []*host) { second(l).down, second(l).up = 2, 2 }), limit: 75 * time.Second, copies: 2},
		{name: "a slow reader at the origin", hosts: eight(func(l []*host) { first(l).down, first(l).up = 2, 2 }), limit: 80 * time.Second, copies: 2},
		{name: "a slow disk", hosts: eight(func(l []*host) { second(l).disk = 2 }), limit: 70 * time.Second, copies: 2},
		{name: "a slow server", hosts: eight(func(l []*host) { second(l).up = 2 }), limit: 85 * time.Second, copies: 2},
		{name: "a slow server at the origin", hosts: eight(func(l []*host) { first(l).up = 2 }), limit: 85 * time.Second, copies: 1.6},
		{name: "one that serves bad bytes", hosts: eight(func(l []*host) { second(l).corrupt = true }), limit: 65 * time.Second, copies: 2},
		{name: "two that die", hosts: eight(func(l []*host) { first(l).dies, l[5].dies = 20*time.Second, 25*time.Second }), limit: 70 * time.Second, copies: 1.5},
		{name: "late ones at a tenth, half and nine tenths", hosts: eight(func(l []*host) { l[5].starts, l[6].starts, l[7].starts = 5*time.Second, 25*time.Second, 46*time.Second }), limit: 110 * time.Second, copies: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := simulate(t, 1024, 20, tt.hosts)
			worst := time.Duration(0)
			text := ""
			for _, h := range n.hosts {
				text += fmt.Sprintf(" %s:%s", h.id, h.ended.Round(time.Second))
				if h.down == 20 && h.disk == 0 && h.dies == 0 {
					worst = max(worst, h.ended)
				}
			}
			t.Logf("worst %s, all %s, %.2f copies from the origin, %d edges changed;%s", worst, n.last(), n.sent/float64(n.total), n.edges, text)
			if worst > tt.limit || n.sent/float64(n.total) > tt.copies {
				t.Error("too slow, or too much from the origin\n" + n.picture())
			}
		})
	}
}

func TestUnsteadyLinksDoNotMakeASwarmFallApart(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 4))
		hosts := fleet(r, 12, 3, 20, 2*time.Second)
		for _, h := range hosts {
			h.noise, h.share = r, 1
		}
		n := simulate(t, 512, 20, hosts)
		t.Logf("%d machines: the last at %s, the origin sent %.2f copies, %d edges changed", len(hosts), n.last(), n.sent/float64(n.total), n.edges)
		if n.last() > 90*time.Second || n.sent > 2.2*float64(n.total) {
			t.Errorf("seed %d: %s\n%s", seed, n.last(), n.picture())
		}
	}
}
