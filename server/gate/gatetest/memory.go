package gatetest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"imgbuild/image/identity"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// Memory is the registry's rules in as few lines as they can be said in: what registry.Store has to do, and what it is
// compared with. It is not safe for several goroutines.
type Memory struct {
	// Trusting takes the rules out of what a machine's boot goes through: it is the gate alone that has to hold then.
	Trusting bool

	clock  func() time.Time
	hosts  map[string]*registry.Host
	orders map[string]*order
	newest map[string]*order // by serial number, without previews
	last   map[string]*order // with them
	live   map[string]*order
	offers map[string]offer
	tokens map[string]*order
	turn   int
	boots  map[string]*liveBoot // by digest
	runs   map[string]*liveBoot // by serial number: what the host does now
	lives  map[string]*liveBoot // by token
}

type order struct {
	registry.Order
	prior registry.State
	gone  bool // the host was deleted since
	turn  int
	seq   int64
}

type offer struct {
	registry.Offer
	at time.Time
}

type liveBoot struct {
	registry.LiveBoot
	seq int64
}

// NewMemory returns an empty registry.
func NewMemory(clock func() time.Time) *Memory {
	return &Memory{clock: clock, hosts: map[string]*registry.Host{}, orders: map[string]*order{}, newest: map[string]*order{}, last: map[string]*order{},
		live: map[string]*order{}, offers: map[string]offer{}, tokens: map[string]*order{},
		boots: map[string]*liveBoot{}, runs: map[string]*liveBoot{}, lives: map[string]*liveBoot{}}
}

// Host is registry.Store's, as all methods are.
func (m *Memory) Host(_ context.Context, sn string) (*registry.Host, error) {
	h := m.hosts[sn]
	if h == nil {
		return nil, registry.ErrNotFound
	}
	c := *h
	return &c, nil
}

// PutHost creates or replaces.
func (m *Memory) PutHost(_ context.Context, h registry.Host, _ string, _ int64) (*registry.Host, bool, error) {
	if identity.Junk(h.SN) != "" {
		return nil, false, registry.ErrInvalid
	}
	for _, mac := range h.MACs {
		for sn, o := range m.hosts {
			if sn != h.SN && slices.Contains(o.MACs, mac) {
				return nil, false, registry.ErrInvalid
			}
		}
	}
	old := m.hosts[h.SN]
	h.State = registry.Known
	if old != nil && old.State != registry.New {
		h.State = old.State
	}
	m.hosts[h.SN] = &h
	return &h, old == nil, nil
}

// DeleteHost refuses while an order lives.
func (m *Memory) DeleteHost(_ context.Context, sn, _ string) error {
	switch {
	case m.hosts[sn] == nil:
		return registry.ErrNotFound
	case m.live[sn] != nil:
		return registry.ErrConflict
	}
	delete(m.hosts, sn)
	delete(m.runs, sn)
	for _, o := range m.orders {
		o.gone = o.gone || o.SN == sn
	}
	return nil
}

// SeeMachine registers as new.
func (m *Memory) SeeMachine(_ context.Context, inv plan.Inventory) (*registry.Host, bool, error) {
	if h := m.hosts[inv.Serial]; h != nil {
		return h, false, nil
	}
	h := &registry.Host{SN: inv.Serial, State: registry.New, UUID: inv.UUID}
	for _, n := range inv.NICs {
		taken := false
		for _, o := range m.hosts {
			taken = taken || slices.Contains(o.MACs, n.MAC)
		}
		if !taken {
			h.MACs = append(h.MACs, n.MAC)
		}
	}
	m.hosts[inv.Serial] = h
	return h, true, nil
}

// CreateOrder makes the host's one live order.
func (m *Memory) CreateOrder(_ context.Context, o registry.Order, names int) (*registry.Order, error) {
	h := m.hosts[o.SN]
	now := m.clock()
	switch {
	case h == nil:
		return nil, registry.ErrNotFound
	case !o.Expires.After(now), h.Protect && names < 2 && !o.Preview:
		return nil, registry.ErrInvalid
	case h.State == registry.New:
		return nil, registry.ErrConflict
	}
	if l := m.live[o.SN]; l != nil {
		if l.State != registry.OrderOpen || now.Before(l.Expires) {
			return nil, registry.ErrConflict
		}
		m.end(l, registry.OrderExpired, l.prior, now)
	}
	o.ID, o.State, o.Created, o.Names = fmt.Sprintf("o%d", len(m.orders)+1), registry.OrderOpen, now, names
	n := &order{Order: o, prior: h.State}
	m.orders[o.ID], m.live[o.SN], m.last[o.SN] = n, n, n
	if !o.Preview {
		m.newest[o.SN], h.State = n, registry.Ordered
	}
	c := n.Order
	return &c, nil
}

func (m *Memory) end(o *order, state registry.OrderState, host registry.State, now time.Time) {
	o.State, o.Ended, o.Lost = state, now, host == registry.Lost
	if m.live[o.SN] == o { // a lost installation may end beside a preview
		delete(m.live, o.SN)
	}
	if !o.Preview {
		m.state(o.SN, host)
	}
}

func (m *Memory) state(sn string, s registry.State) {
	if h := m.hosts[sn]; h != nil {
		h.State = s
	}
}

// LiveOrder is nil where there is none.
func (m *Memory) LiveOrder(_ context.Context, sn string) (*registry.Order, error) {
	if o := m.live[sn]; o != nil {
		c := o.Order
		return &c, nil
	}
	return nil, nil
}

// Order reads one.
func (m *Memory) Order(_ context.Context, id string) (*registry.Order, error) {
	if o := m.orders[id]; o != nil {
		c := o.Order
		return &c, nil
	}
	return nil, registry.ErrNotFound
}

// OrderByToken reads the one whose installation has the token.
func (m *Memory) OrderByToken(_ context.Context, digest string) (*registry.Order, error) {
	if o := m.tokens[digest]; o != nil {
		c := o.Order
		return &c, nil
	}
	return nil, registry.ErrNotFound
}

// CancelOrder takes back.
func (m *Memory) CancelOrder(_ context.Context, id, _, _ string) error {
	o := m.orders[id]
	switch {
	case o == nil:
		return registry.ErrNotFound
	case o.State == registry.OrderCancelled:
		return nil
	case !o.Live():
		return registry.ErrConflict
	case o.Started.IsZero():
		m.end(o, registry.OrderCancelled, o.prior, m.clock())
	default:
		m.end(o, registry.OrderCancelled, registry.Failed, m.clock())
	}
	return nil
}

// ExpireOrders ends open orders whose time is over.
func (m *Memory) ExpireOrders(_ context.Context, now time.Time) ([]registry.Order, error) {
	var list []registry.Order
	for _, o := range m.live {
		if o.State == registry.OrderOpen && !now.Before(o.Expires) {
			m.end(o, registry.OrderExpired, o.prior, now)
			list = append(list, o.Order)
		}
	}
	slices.SortFunc(list, func(a, b registry.Order) int { return a.Expires.Compare(b.Expires) })
	return list, nil
}

// Offer stores a nonce's digest.
func (m *Memory) Offer(_ context.Context, sn, order, digest string, now time.Time) error {
	if _, ok := m.offers[digest]; ok {
		return registry.ErrConflict
	}
	m.offers[digest] = offer{registry.Offer{SN: sn, Order: order}, now}
	return nil
}

// Offered says to whom a nonce was given.
func (m *Memory) Offered(_ context.Context, digest string, now time.Time) (*registry.Offer, error) {
	for _, o := range m.live {
		if o.State == registry.OrderConsumed && o.Boot == digest {
			return &registry.Offer{SN: o.SN, Order: o.ID}, nil
		}
	}
	if f, ok := m.offers[digest]; ok && f.at.After(now.Add(-registry.OfferLife)) {
		return &f.Offer, nil
	}
	return nil, nil
}

// Consume gives an order to its first boot.
func (m *Memory) Consume(_ context.Context, id, digest string, now time.Time) (*registry.Order, error) {
	o := m.orders[id]
	if o == nil {
		return nil, registry.ErrNotFound
	}
	f, offered := m.offers[digest]
	switch {
	case o.State == registry.OrderConsumed && o.Boot == digest && !m.Trusting:
	case !m.Trusting && (o.State != registry.OrderOpen || !now.Before(o.Expires) ||
		!offered || f.SN != o.SN || f.Order != id || !f.at.After(now.Add(-registry.OfferLife)) ||
		m.hosts[o.SN].Protect && o.Names < 2 && !o.Preview):
		return nil, registry.ErrConflict
	default:
		m.turn++
		o.State, o.Boot, o.Consumed, o.Heard, o.turn = registry.OrderConsumed, digest, now, now, m.turn
	}
	c := o.Order
	return &c, nil
}

// StartOrder gives a slot, in turn. Memory knows the global limit only.
func (m *Memory) StartOrder(_ context.Context, id, token string, limits registry.SlotLimits, now time.Time) (int, error) {
	o := m.orders[id]
	switch {
	case o == nil:
		return 0, registry.ErrNotFound
	case !m.Trusting && (o.State != registry.OrderConsumed || !o.Finished.IsZero() || o.Started.IsZero() && m.hosts[o.SN].Protect && o.Names < 2 && !o.Preview):
		return 0, registry.ErrConflict
	}
	o.Heard = now
	if o.Preview {
		if o.Started.IsZero() {
			o.Started = now
		}
		m.tokens[token] = o
		return 0, nil
	}
	if o.Started.IsZero() {
		running, ahead := 0, 0
		for _, l := range m.live {
			switch {
			case l.State != registry.OrderConsumed, l.Preview:
			case !l.Started.IsZero() && l.Finished.IsZero():
				running++
			case l.Started.IsZero() && l.turn < o.turn && l.Heard.After(now.Add(-plan.LostSeconds*time.Second)):
				ahead++
			}
		}
		if limits.Global > 0 && running+ahead >= limits.Global {
			return ahead + 1, nil
		}
		o.Started = now
		delete(m.runs, o.SN)
		m.state(o.SN, registry.Installing)
	}
	m.tokens[token] = o
	return 0, nil
}

// Report stores what the machine says.
func (m *Memory) Report(_ context.Context, id string, events []plan.Event, now time.Time) (int64, error) {
	o := m.orders[id]
	if o == nil {
		return 0, registry.ErrNotFound
	}
	if o.Lost && !o.gone && m.live[o.SN] == nil && (o.Preview && m.last[o.SN] == o || !o.Preview && m.newest[o.SN] == o) {
		o.State, o.Lost, o.Ended = registry.OrderConsumed, false, time.Time{}
		m.live[o.SN] = o
		if !o.Preview {
			m.state(o.SN, registry.Installing)
		}
	}
	for _, e := range events {
		if e.Seq <= o.seq {
			continue
		}
		o.seq = e.Seq
		if o.State != registry.OrderConsumed {
			continue
		}
		switch {
		case e.Kind == plan.KindFailed:
			m.end(o, registry.OrderFailed, registry.Failed, now)
		case e.Kind == plan.KindPreview && o.Preview && e.Outlook != nil:
			m.end(o, registry.OrderDone, "", now)
		case e.Kind == plan.KindDone && !o.Preview && o.Finished.IsZero():
			o.Finished = now
		}
	}
	o.Heard = now
	return o.seq, nil
}

// Silent lists who was not heard.
func (m *Memory) Silent(_ context.Context, since time.Time) ([]registry.Order, error) {
	var list []*order
	for _, o := range m.live {
		if o.State == registry.OrderConsumed && o.Heard.Before(bound(&o.Order, since)) {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *order) int { return a.turn - b.turn })
	var orders []registry.Order
	for _, o := range list {
		orders = append(orders, o.Order)
	}
	return orders, nil
}

func bound(o *registry.Order, since time.Time) time.Time {
	if o.Finished.IsZero() {
		return since
	}
	return since.Add(-registry.FirstBoot)
}

// LoseOrder gives a silent machine up.
func (m *Memory) LoseOrder(_ context.Context, id string, since time.Time, _ string, now time.Time) (bool, error) {
	o := m.orders[id]
	if o == nil {
		return false, registry.ErrNotFound
	}
	if o.State != registry.OrderConsumed || !o.Heard.Before(bound(&o.Order, since)) {
		return false, nil
	}
	m.end(o, registry.OrderFailed, registry.Lost, now)
	return true, nil
}

// MarkBooted ends an installation well.
func (m *Memory) MarkBooted(_ context.Context, id string, _ plan.Booted, now time.Time) error {
	o := m.orders[id]
	switch {
	case o == nil:
		return registry.ErrNotFound
	case o.Preview:
		return registry.ErrConflict
	case o.State == registry.OrderDone:
		return nil
	case m.newest[o.SN] != o, o.gone, o.Started.IsZero():
		return registry.ErrConflict
	case o.Live() || o.Lost:
		m.end(o, registry.OrderDone, registry.Installed, now)
	}
	delete(m.runs, o.SN)
	m.state(o.SN, registry.Installed)
	return nil
}
