// Package swarm plans which machine reads a release's root file system from which. What machines say of their transfers
// (plan.Swarm) comes in; from whom each is to read (plan.Upstreams), the picture of it all for people, and a line in the
// diary of a machine that serves bad bytes go out.
//
// It keeps what it knows in memory, and asks nobody who reads bytes to trust another: every chunk is checked by its reader.
// It never leaves a machine without the release's own address, and never writes a secret or a ticket into a log.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// Registry is what is asked of the registry.
type Registry interface {
	Orders(ctx context.Context, f registry.OrderFilter) ([]registry.Order, error)
	Append(ctx context.Context, events ...registry.Event) error
	Setting(ctx context.Context, key string) (value []byte, ok bool, err error)
	SetSetting(ctx context.Context, key string, value []byte) error
	DeleteSetting(ctx context.Context, key string) error
}

// Seed is a BitTorrent client of the server's own that has whole releases.
type Seed interface {
	// Addr is where machines reach it for a release (name/version); an unspecified address stands for the one at which they reach
	// the server. ok is false if it does not seed that.
	Addr(release string) (addr netip.AddrPort, ok bool)
}

// Options say how to plan. Registry and Key are required.
type Options struct {
	Registry Registry
	// Key is the one that signs plans: the secrets of machines are made with it.
	Key image.PrivateKey
	// Mirrors are directories that hold NAME/VERSION/ of releases too, each with a slash at its end.
	Mirrors []string
	// Rates are the limits until somebody sets others.
	Rates Rates
	Seed  Seed         // nil without
	Log   *slog.Logger // slog.Default()
	Now   func() time.Time
	// Every is how often Run looks at orders and rates; 2 s.
	Every time.Duration
}

// Machine is who says how a transfer goes.
type Machine struct {
	Order    string // its ID
	SN       string
	Hostname string
	Image    string // name/version
	// Group is the part of the network that the machine is in: its rack, its switch or its subnet.
	Group     string
	Address   netip.Addr
	Transport plan.Transport
	// Base is the server's address as the machine reaches it.
	Base string
}

// Server plans for all releases. It is safe for use from many goroutines.
type Server struct {
	o      Options
	secret []byte // of the machines' secrets

	mu     sync.Mutex
	swarms map[string]*swarm // by release and size of its root file system
	orders map[string]*member
	began  time.Time
	rates  Rates
	own    bool           // rates are somebody's, and not the configuration's
	wanted map[string]int // by release: machines that have an order for it
	count  Counts
}

// swarm are the machines that transfer one release.
type swarm struct {
	image   string
	total   int64
	log     *slog.Logger
	members map[string]*member // by order
	joined  int                // how many ever
	came    time.Time          // the last one
	planned time.Time
	stale   bool    // has to be planned anew
	best    float64 // bytes a second: the most that any machine has read with
	turned  time.Time
	moved   int64 // times that a machine was told to read from another
	settled time.Time

	ordered  []*member      // by age
	holders  []*member      // whom others may read from, those that hold most first
	origin   int            // how many read from the origin
	entering map[string]int // by group: how many read from outside of it
}

// Times of the planner.
const (
	silentAfter = 6 * time.Second  // nobody reads from a machine that has said nothing for so long
	goneAfter   = 60 * time.Second // nobody remembers it
	lingerFor   = 2 * time.Minute  // a machine that is done stays for others at most
	planEvery   = time.Second
	settleFor   = 5 * time.Second // after its start the server lets machines go on as they do
)

// New returns a Server. Rates that somebody has set before take the place of the configuration's.
func New(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Every <= 0 {
		o.Every = 2 * time.Second
	}
	secret, err := secretOf(o.Key)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, secret: secret, swarms: map[string]*swarm{}, orders: map[string]*member{}, began: o.Now(), rates: o.Rates, wanted: map[string]int{}}
	return s, s.readRates(ctx)
}

// Has reports whether an order's machine is known already: what never changes of it need not be found out again.
func (s *Server) Has(order string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orders[order] != nil
}

// Report takes in what a machine says of its transfer and answers from whom it is to read. Of a machine that Has knows, only
// Order, Address and Base are looked at. The error is for the machine.
func (s *Server) Report(ctx context.Context, m Machine, r plan.Swarm) (plan.Upstreams, error) {
	u, events, err := s.report(m, r)
	if len(events) > 0 {
		if err := s.o.Registry.Append(ctx, events...); err != nil {
			s.o.Log.Error("write down who serves bad bytes", "err", err)
		}
	}
	return u, err
}

func (s *Server) report(who Machine, r plan.Swarm) (plan.Upstreams, []registry.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	m, err := s.member(who, r, now)
	if err != nil {
		return plan.Upstreams{}, nil, err
	}
	w := m.swarm
	m.take(who, r, now)
	events := s.blame(m, now)
	if w.stale || now.Sub(w.planned) >= planEvery {
		w.judge(now)
		w.plan(now)
	}
	s.count.Reports++
	return s.upstreams(m, now), events, nil
}

// member finds who reports, or lets it join.
func (s *Server) member(who Machine, r plan.Swarm, now time.Time) (*member, error) {
	m := s.orders[who.Order]
	if m != nil && m.swarm.total != r.Total {
		return nil, fmt.Errorf("the root file system of %s had %d bytes before and has %d now: the release was replaced while it was installed", m.Image, m.swarm.total, r.Total)
	}
	if m != nil {
		return m, nil
	}
	key := fmt.Sprintf("%s %d", who.Image, r.Total)
	w := s.swarms[key]
	if w == nil {
		w = &swarm{image: who.Image, total: r.Total, log: s.o.Log, members: map[string]*member{}, entering: map[string]int{}, settled: s.began.Add(settleFor)}
		s.swarms[key] = w
	}
	w.joined, w.came = w.joined+1, now
	m = &member{Machine: who, swarm: w, age: w.joined, joined: now, given: map[string]bool{}, verdict: verdict{avoid: map[string]time.Time{}}}
	if !m.Transport.Valid() {
		m.Transport = plan.TransportHTTP
	}
	if now.Before(w.settled) && r.Got > 0 {
		m.claim = source(r)
	}
	w.members[who.Order], s.orders[who.Order] = m, m
	w.ordered = append(w.ordered, m)
	w.stale = true
	s.count.Joined++
	return m, nil
}

// Counts are what a server has done since it started.
type Counts struct {
	Reports, Joined int64
	Bad             int64 // machines that served a bad chunk
	Moved           int64 // times that a machine was told to read from another than before
}

// Counts returns what was done.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.count
	for _, w := range s.swarms {
		c.Moved += w.moved
	}
	return c
}

// Run keeps up with the registry, and forgets machines that have left, until the context ends.
func (s *Server) Run(ctx context.Context) error {
	t := time.NewTicker(s.o.Every)
	defer t.Stop()
	said := ""
	for {
		err := errors.Join(s.readRates(ctx), s.readOrders(ctx))
		s.forget(s.o.Now())
		switch {
		case err == nil || ctx.Err() != nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			s.o.Log.Error("plan who reads from whom: going on with what is known", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// readOrders learns which machines will want which release: those that install keep it for them.
func (s *Server) readOrders(ctx context.Context) error {
	s.mu.Lock()
	idle := len(s.swarms) == 0
	s.mu.Unlock()
	if idle {
		return nil
	}
	orders, err := s.o.Registry.Orders(ctx, registry.OrderFilter{States: []registry.OrderState{registry.OrderOpen, registry.OrderConsumed}})
	if err != nil {
		return err
	}
	wanted := map[string]int{}
	for _, o := range orders {
		if !o.Preview && o.Finished.IsZero() {
			wanted[o.Image]++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = wanted
	return nil
}

// forget removes machines that have not been heard for long.
func (s *Server) forget(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, w := range s.swarms {
		for id, m := range w.members {
			if now.Sub(m.heard) > goneAfter {
				w.acquit(m)
				delete(w.members, id)
				delete(s.orders, id)
				w.stale = true
			}
		}
		w.ordered = slices.DeleteFunc(w.ordered, func(m *member) bool { return w.members[m.Order] == nil })
		if len(w.members) == 0 {
			s.count.Moved += w.moved
			delete(s.swarms, key)
		}
	}
}
