// Package gatetest plays random histories of orders, boots, claims and other machines against the gate and a registry, and
// watches that no machine installs that may not. A seed and a registry come in; what happened comes out, or the first step
// at which a rule was broken.
//
// It never looks into the registry to find out what is allowed: it keeps its own book of what people and machines did.
package gatetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/gate"
	"imgbuild/server/registry"
)

// World is the part of registry.Store that a machine's way goes through.
type World interface {
	Host(ctx context.Context, sn string) (*registry.Host, error)
	PutHost(ctx context.Context, h registry.Host, by string, ifRevision int64) (*registry.Host, bool, error)
	DeleteHost(ctx context.Context, sn, by string) error
	SeeMachine(ctx context.Context, inv plan.Inventory) (*registry.Host, bool, error)
	CreateOrder(ctx context.Context, o registry.Order, names int) (*registry.Order, error)
	Order(ctx context.Context, id string) (*registry.Order, error)
	LiveOrder(ctx context.Context, sn string) (*registry.Order, error)
	OrderByToken(ctx context.Context, digest string) (*registry.Order, error)
	CancelOrder(ctx context.Context, id, by, reason string) error
	ExpireOrders(ctx context.Context, now time.Time) ([]registry.Order, error)
	Offer(ctx context.Context, sn, order, digest string, now time.Time) error
	OfferLive(ctx context.Context, sn, image, digest string, now time.Time) error
	Offered(ctx context.Context, digest string, now time.Time) (*registry.Offer, error)
	StartLive(ctx context.Context, b registry.LiveBoot, tokenDigest string, now time.Time) (time.Duration, error)
	LiveByToken(ctx context.Context, digest string) (*registry.LiveBoot, error)
	ReportLive(ctx context.Context, id string, events []plan.Event, now time.Time) (int64, error)
	Consume(ctx context.Context, order, digest string, now time.Time) (*registry.Order, error)
	StartOrder(ctx context.Context, id, tokenDigest string, limits registry.SlotLimits, now time.Time) (int, error)
	Report(ctx context.Context, order string, events []plan.Event, now time.Time) (int64, error)
	Silent(ctx context.Context, since time.Time) ([]registry.Order, error)
	LoseOrder(ctx context.Context, id string, since time.Time, text string, now time.Time) (bool, error)
	MarkBooted(ctx context.Context, order string, b plan.Booted, now time.Time) error
}

// Clock is a time that moves when the play says so.
type Clock struct{ now time.Time }

// NewClock begins at a time of no meaning, in whole microseconds, as registries keep them.
func NewClock() *Clock { return &Clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

// Now is the clock's time.
func (c *Clock) Now() time.Time { return c.now }

// Stats counts what happened: a play in which nothing happens proves nothing.
type Stats map[string]int

// machine is a piece of hardware. Two may say the same serial number.
type machine struct {
	serial, mac, uuid string
	digests           []string // of all boots so far; the last is this one's
	tokens            []string // that it was given for installations and previews
	lives             []string // that it was given for live boots
	order             int      // that it installs by; 0 for none
	seq               int64
}

// entry is what the book has of an order.
type entry struct {
	id       string
	sn       string
	names    int
	preview  bool
	expires  time.Time
	offered  map[string]bool // digests of boots that were started for it
	boot     string          // the digest of the one boot that installs
	erased   bool            // that boot was told to install
	shown    bool            // it was told to make the preview
	finished bool
	over     bool // cancelled, failed, expired, done or given up, and not found again
}

// Game is what is played.
type Game struct {
	Seed  uint64
	Steps int
	// Decide is the gate; gate.Decide where it is nil. With another one it is the registry's own rules that have to hold, and
	// what a machine shows of itself besides its serial number is not looked at.
	Decide func(time.Time, gate.Policy, *registry.Host, *registry.Order, gate.Observation) gate.Verdict
	// InTurn lets nothing happen between a decision and what follows from it: for a registry that has no rules of its own.
	InTurn bool
	// Out gets one line on each step, if it is there: the same for the same seed in every world that keeps the rules.
	Out io.Writer
}

type play struct {
	Game
	ctx      context.Context
	w        World
	clock    *Clock
	r        *rand.Rand
	gate     bool // Decide is the gate
	machines []*machine
	book     []*entry                 // by ordinal, from 1
	ordinal  map[string]int           // by ID
	hosts    map[string]registry.Host // that people wrote down
	started  map[string]string        // by digest: the serial number and the release of boots that were started to run it
	slots    int
	counter  int
	stats    Stats
	broken   error
}

// Play makes random steps. The error is the first broken rule, or an error of the world itself.
func Play(ctx context.Context, w World, clock *Clock, g Game) (Stats, error) {
	p := &play{Game: g, ctx: ctx, w: w, clock: clock, r: rand.New(rand.NewPCG(g.Seed, 0)), book: []*entry{nil}, ordinal: map[string]int{},
		hosts: map[string]registry.Host{}, started: map[string]string{}, slots: 1 + int(g.Seed%2), stats: Stats{}}
	if p.gate = g.Decide == nil; p.gate {
		p.Decide = gate.Decide
	}
	for i := range 4 {
		p.machines = append(p.machines, &machine{serial: fmt.Sprintf("SN-%d01", i), mac: fmt.Sprintf("52:54:00:00:00:%02x", i), uuid: uuid(i)})
	}
	p.machines = append(p.machines,
		&machine{serial: "SN-001", mac: "52:54:00:00:00:77", uuid: uuid(7)}, // an impostor
		&machine{serial: "SN-101", mac: "52:54:00:00:00:01"},                // one that says little, and is taken for the real one
		&machine{serial: "To be filled by O.E.M.", mac: "52:54:00:00:00:88"})
	for i := range g.Steps {
		p.step()
		if p.broken != nil {
			return p.stats, fmt.Errorf("seed %d, step %d: %w", g.Seed, i, p.broken)
		}
	}
	return p.stats, nil
}

func uuid(i int) string { return fmt.Sprintf("00000000-1111-2222-3333-44444444%04x", i) }

// step does one thing.
func (p *play) step() {
	m := p.machines[p.r.IntN(len(p.machines))]
	switch n := p.r.IntN(100); {
	case n < 8:
		p.order(m)
	case n < 10:
		p.cancel()
	case n < 24:
		d := []time.Duration{time.Second, 10 * time.Second, time.Minute, 3 * time.Minute, 40 * time.Minute, 2 * time.Hour}[min(p.r.IntN(6), p.r.IntN(6), p.r.IntN(6))]
		p.clock.now = p.clock.now.Add(d)
		p.line("time +%s", d)
	case n < 26:
		p.expire()
	case n < 29:
		p.lose()
	case n < 34:
		p.put(m)
	case n < 35:
		p.line("delete %s: %s", m.serial, p.forget(m.serial))
	case n < 50:
		p.boot(m)
	case n < 74:
		p.claim(m, m.digest(len(m.digests)-1))
	case n < 77:
		p.claim(m, m.digest(p.r.IntN(max(len(m.digests), 1)))) // a boot of long ago, or one that was copied
	case n < 79:
		other := p.machines[p.r.IntN(len(p.machines))]
		p.claim(m, other.digest(len(other.digests)-1)) // another machine's nonce
	case n < 92:
		p.report(m)
	case n < 94:
		p.reportLive(m)
	default:
		p.booted(m)
	}
}

func (m *machine) digest(i int) string {
	if i < 0 || i >= len(m.digests) {
		return ""
	}
	return m.digests[i]
}

// line writes what was done and how it ended.
func (p *play) line(format string, a ...any) {
	if p.Out != nil {
		fmt.Fprintf(p.Out, format+"\n", a...)
	}
}

// class is what kind of error the world gave. What is none of the registry's own errors breaks the play.
func (p *play) class(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, registry.ErrNotFound):
		return "none"
	case errors.Is(err, registry.ErrConflict):
		return "conflict"
	case errors.Is(err, registry.ErrInvalid):
		return "invalid"
	}
	p.broken = errors.Join(p.broken, err)
	return "error"
}

func (p *play) breaks(format string, a ...any) {
	p.broken = errors.Join(p.broken, fmt.Errorf("a rule is broken: "+format, a...))
}

// host is what the world has, nil where there is none.
func (p *play) host(sn string) *registry.Host {
	h, err := p.w.Host(p.ctx, sn)
	if p.class(err) != "ok" {
		return nil
	}
	return h
}

func (p *play) due(sn string) *registry.Order {
	o, err := p.w.LiveOrder(p.ctx, sn)
	p.class(err)
	return o
}

// observe is what a machine shows of itself.
func (m *machine) observe() gate.Observation {
	return gate.Observation{Serial: m.serial, UUID: m.uuid, MACs: []string{m.mac}}
}

// boot is a boot by the network: a script is made, by the same steps as the boot server's.
func (p *play) boot(m *machine) {
	p.counter++
	digest := fmt.Sprintf("boot-%d", p.counter)
	h, o := p.host(m.serial), p.due(m.serial)
	v := p.Decide(p.clock.now, gate.Policy{InspectUnknown: p.r.IntN(2) == 0}, h, o, m.observe())
	m.order, m.seq = 0, 0
	p.stats["script: "+string(v.Action)]++
	if v.Action == plan.LocalBoot {
		m.digests = append(m.digests, "")
		p.line("boot %s: %s", m.serial, v.Action)
		return
	}
	m.digests = append(m.digests, digest)
	if v.Action == plan.Live {
		image := h.Live.Image
		if image == "web" {
			image = "web/2.0" // its newest version
		}
		p.started[digest] = m.serial + " " + image
		p.line("boot %s: %s, %s", m.serial, v.Action, p.class(p.w.OfferLive(p.ctx, m.serial, image, digest, p.clock.now)))
		return
	}
	id := ""
	if v.Action == plan.Install || v.Action == plan.Preview {
		id = o.ID
		p.book[p.ordinal[id]].offered[digest] = true
	}
	p.line("boot %s: %s, %s", m.serial, v.Action, p.class(p.w.Offer(p.ctx, m.serial, id, digest, p.clock.now)))
}

// claim is the installer asking for its plan, by the same steps as the server's.
func (p *play) claim(m *machine, digest string) {
	now := p.clock.now
	offer, err := p.w.Offered(p.ctx, digest, now)
	if p.class(err) != "ok" || offer == nil {
		p.line("claim %s: nonce not known", m.serial)
		return
	}
	h, o := p.host(m.serial), p.due(m.serial)
	seen := m.observe()
	seen.Claim, seen.Boot = true, digest
	if offer.SN == m.serial {
		seen.Offered, seen.Live = o != nil && offer.Order == o.ID, offer.Live
	}
	v := p.Decide(now, gate.Policy{InspectUnknown: true}, h, o, seen)
	shown := p.hosts[m.serial].Revision // what was written down when it was compared
	p.stats["claim: "+string(v.Action)]++
	if v.Action == plan.Live {
		p.live(m, digest, seen.Live, shown)
		return
	}
	if v.Action != plan.Install && v.Action != plan.Preview {
		how := ""
		if v.Action == plan.Inspect && h == nil {
			_, _, err := p.w.SeeMachine(p.ctx, plan.Inventory{Serial: m.serial, UUID: m.uuid, NICs: []plan.NIC{{MAC: m.mac}}})
			how = ", registered: " + p.class(err)
		}
		p.line("claim %s: %s%s", m.serial, v.Action, how)
		return
	}
	if !p.InTurn && p.r.IntN(4) == 0 { // somebody does something between the decision and the order
		p.step()
	}
	before := p.host(m.serial)
	if e := p.book[p.ordinal[o.ID]]; e.preview != (v.Action == plan.Preview) {
		p.breaks("order %d is for a preview %v and is answered with %s", p.ordinal[o.ID], e.preview, v.Action)
	}
	if v.Consume {
		if got, err := p.w.Consume(p.ctx, o.ID, digest, now); p.class(err) != "ok" {
			p.stats["consume: refused"]++
			p.line("claim %s: order %d refused: %s", m.serial, p.ordinal[o.ID], p.class(err))
			return
		} else if e := p.book[p.ordinal[o.ID]]; e.boot == "" {
			e.boot = digest
			p.mayConsume(m, e, got, digest)
		} else if e.boot != digest {
			p.breaks("order %d was consumed by %s and by %s", p.ordinal[o.ID], e.boot, digest)
		}
	}
	p.counter++
	token := fmt.Sprintf("token-%d", p.counter)
	place, err := p.w.StartOrder(p.ctx, o.ID, token, registry.SlotLimits{Global: p.slots}, now)
	result := p.class(err)
	p.line("claim %s: order %d, place %d, %s", m.serial, p.ordinal[o.ID], place, result)
	switch {
	case result != "ok":
	case place > 0:
		p.stats["waits"]++
	case v.Action == plan.Preview:
		p.mayPreview(m, o.ID, digest, shown)
		p.unchanged(p.book[p.ordinal[o.ID]], before, "the start of a preview")
		p.stats["previews"]++
		m.order, m.tokens = p.ordinal[o.ID], append(m.tokens, token)
	default:
		p.mayInstall(m, o.ID, digest, shown)
		p.stats["installs"]++
		m.order, m.tokens = p.ordinal[o.ID], append(m.tokens, token)
	}
}

// report is the installer telling how it goes on.
func (p *play) report(m *machine) {
	if len(m.tokens) == 0 {
		return
	}
	token := m.tokens[len(m.tokens)-1]
	if p.r.IntN(10) == 0 {
		token = m.tokens[p.r.IntN(len(m.tokens))]
	}
	o, err := p.w.OrderByToken(p.ctx, token)
	if p.class(err) != "ok" {
		p.breaks("the token %s is not known any more", token)
		return
	}
	kind := []plan.Kind{plan.KindStep, plan.KindProgress, plan.KindProgress, plan.KindFailed, plan.KindDone, plan.KindDone, plan.KindPreview}[p.r.IntN(7)]
	m.seq += int64(p.r.IntN(2))
	events := []plan.Event{{Seq: m.seq, Kind: kind}}
	if kind == plan.KindPreview && p.r.IntN(4) > 0 {
		events[0].Outlook = &plan.Outlook{Text: "it would be erased"}
	}
	if p.r.IntN(3) == 0 {
		events = nil
	}
	before := p.host(o.SN)
	seq, err := p.w.Report(p.ctx, o.ID, events, p.clock.now)
	p.unchanged(p.book[p.ordinal[o.ID]], before, "a preview's report")
	p.line("report %s on %d: %s, %d, %s, %s", m.serial, p.ordinal[o.ID], kind, seq, p.class(err), p.settle(o.ID))
	p.stats["report: "+string(kind)]++
}

// booted is the installed system's first boot.
func (p *play) booted(m *machine) {
	if len(m.tokens) == 0 {
		return
	}
	o, err := p.w.OrderByToken(p.ctx, m.tokens[p.r.IntN(len(m.tokens))])
	if p.class(err) != "ok" {
		return
	}
	if o.Finished.IsZero() && p.r.IntN(5) > 0 {
		return
	}
	before := p.host(o.SN)
	err = p.w.MarkBooted(p.ctx, o.ID, plan.Booted{Serial: m.serial}, p.clock.now)
	p.unchanged(p.book[p.ordinal[o.ID]], before, "what a preview has not installed")
	p.line("booted %s by %d: %s, %s", m.serial, p.ordinal[o.ID], p.class(err), p.settle(o.ID))
	p.stats["booted"]++
}
