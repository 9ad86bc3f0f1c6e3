package dhcp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgbuild/server/registry"
)

// Leases keeps leases; registry.Store does.
type Leases interface {
	// PutLease returns registry.ErrConflict for an address that another client has at this time: two servers that share
	// a registry do not both give it.
	PutLease(ctx context.Context, l registry.Lease, now time.Time) error
	DeleteLease(ctx context.Context, address netip.Addr) error
	Leases(ctx context.Context) ([]registry.Lease, error)
}

// Hosts are the registry's hosts and what happens to them; registry.Store has them.
type Hosts interface {
	Host(ctx context.Context, sn string) (*registry.Host, error)
	Hosts(ctx context.Context, f registry.HostFilter) ([]registry.Host, error)
	Watch(ctx context.Context, after int64) <-chan registry.Event
}

// Bounds. What comes beyond them is not answered; clients ask again.
const (
	writers   = 128 // leases that are stored at the same time, which the registry does in one commit
	backlog   = 64  // messages that wait for each writer
	maxProbes = 4096
)

// Server is a DHCP or proxyDHCP server.
type Server struct {
	cfg    Config
	leases Leases
	hosts  Hosts
	log    *slog.Logger
	now    func() time.Time
	asker  *asker
	queues []chan job // by address, so that the changes of one lease are stored in their order
	probes chan struct{}
	opened chan struct{}

	mu      sync.Mutex // guards what follows
	state   server
	limit   *limiter
	asking  map[netip.Addr]bool
	count   Counters
	ports   map[string]*port
	reloads time.Time
	told    time.Time // when it was last said that nobody can be asked about an address
}

// job is an answer whose leases are to be stored before it is sent.
type job struct {
	q   query
	on  *port
	ans answer
	who string
	old []string // for each lease, the key of the one that it replaces, if that is another client's
}

// New checks the configuration and makes a server. Nothing is opened before Run.
func New(cfg Config, leases Leases, hosts Hosts, log *slog.Logger) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, leases: leases, hosts: hosts, log: log, now: time.Now, limit: newLimiter(), asking: map[netip.Addr]bool{},
		ports: map[string]*port{}, probes: make(chan struct{}, maxProbes), opened: make(chan struct{})}
	s.state = server{cfg: &s.cfg, leases: newTable(), hosts: newHosts(), probed: map[netip.Addr]time.Time{}, fixed: newFixed(cfg.Reservations)}
	for range writers {
		s.queues = append(s.queues, make(chan job, backlog))
	}
	return s, nil
}

// Opened is closed when Run has the sockets of all interfaces: what is sent from then on is heard.
func (s *Server) Opened() <-chan struct{} { return s.opened }

// Run serves until the context ends, which is no error, or until it cannot: an interface is not there, a port is taken, the
// registry cannot be read. What has been acknowledged to clients is stored.
func (s *Server) Run(ctx context.Context) (err error) {
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	if s.cfg.Mode == Full {
		// Watching begins before reading, so that no change falls between.
		changes := s.hosts.Watch(ctx, -1)
		if err := s.load(ctx); err != nil {
			return err
		}
		g.Go(func() error { s.follow(ctx, changes); return nil })
		if s.cfg.Probe > 0 {
			if s.asker, err = newAsker(s.cfg.Probe); err != nil {
				return err
			}
			g.Go(func() error { s.asker.listenICMP(); return nil })
			context.AfterFunc(ctx, func() { _ = s.asker.icmp.Close() })
		}
		for _, q := range s.queues {
			g.Go(func() error { s.write(ctx, q); return nil })
		}
		g.Go(func() error { s.clean(ctx); return nil })
	}
	var opened []*port
	for _, name := range s.cfg.Interfaces {
		p, err := openPort(ctx, name)
		if err != nil {
			for _, p := range opened {
				p.close()
			}
			cancel()
			_ = g.Wait() // they end with the context, and have no other error
			return err
		}
		opened = append(opened, p)
	}
	close(s.opened)
	for _, p := range opened {
		g.Go(func() error { return s.serve(ctx, p) })
	}
	if err = g.Wait(); parent.Err() != nil {
		return nil
	}
	return err
}

// serve serves one interface as long as there is a context; an interface that goes away may come back.
func (s *Server) serve(ctx context.Context, p *port) error {
	for {
		name := p.link.Load().name
		s.mu.Lock()
		s.ports[name] = p
		s.mu.Unlock()
		s.log.Info("DHCP is served", "interface", name, "mode", string(s.cfg.Mode), "addresses", fmt.Sprint(p.link.Load().addrs))
		err := s.serveOnce(ctx, p)
		s.mu.Lock()
		delete(s.ports, name)
		s.mu.Unlock()
		if err != nil || ctx.Err() != nil {
			return err
		}
		s.log.Warn("DHCP waits for an interface that has gone away", "interface", name)
		if p, err = s.reopen(ctx, name); err != nil || p == nil {
			return err
		}
	}
}

func (s *Server) serveOnce(ctx context.Context, p *port) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	read := func(f func() error) {
		g.Go(func() error {
			defer cancel()
			return f()
		})
	}
	read(func() error {
		return p.read(p.dhcp, portServer, func(b []byte, from netip.AddrPort, to netip.Addr) { s.take(ctx, p, portServer, b, from, to) })
	})
	read(func() error {
		return p.read(p.pxe, portPXE, func(b []byte, from netip.AddrPort, to netip.Addr) { s.take(ctx, p, portPXE, b, from, to) })
	})
	if p.arp != nil && s.asker != nil {
		read(func() error { s.asker.listenARP(p.arp); return nil })
	}
	p.watch(ctx, 2*time.Second)
	cancel()
	p.close()
	return g.Wait()
}

func (s *Server) reopen(ctx context.Context, name string) (*port, error) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-t.C:
		}
		if _, err := readLink(name); err != nil {
			continue
		}
		return openPort(ctx, name)
	}
}

// take is where a message arrives. It must not wait: what takes time is left to others.
func (s *Server) take(ctx context.Context, p *port, number uint16, b []byte, from netip.AddrPort, to netip.Addr) {
	pk, err := Parse(b)
	if err != nil {
		s.add(func(c *Counters) { c.Received++; c.Malformed++ })
		s.log.Debug("DHCP message is not understood", "interface", p.link.Load().name, "from", from, "error", err)
		return
	}
	q := query{packet: pk, link: *p.link.Load(), from: from, to: to, port: number}
	c := newClient(pk)
	now := s.now()
	s.mu.Lock()
	s.count.Received++
	s.count.received(pk.Type())
	ok, first := s.limit.allow(c.key(), now)
	if !ok {
		s.count.Limited++
	}
	s.mu.Unlock()
	if !ok {
		if first {
			s.log.Warn("DHCP client asks too often and is not answered for a while", "client", c.String(), "interface", q.link.name, "class", c.class)
		}
		return
	}
	s.handle(ctx, p, q, &c, 0)
}

// handle decides, carries out and answers. tries counts addresses that turned out to be in use.
func (s *Server) handle(ctx context.Context, p *port, q query, c *client, tries int) {
	now := s.now()
	s.mu.Lock()
	a := s.state.answer(q, now)
	probing := a.probe.IsValid()
	if probing && s.asking[a.probe] {
		s.mu.Unlock()
		return // the answer to the first of these messages is on its way
	}
	old := s.apply(&a, probing)
	if probing {
		s.asking[a.probe] = true
	}
	s.mu.Unlock()
	s.say(q, c, &a, probing)
	switch {
	case probing:
		select {
		case s.probes <- struct{}{}:
			go func() {
				defer func() { <-s.probes }()
				s.probe(ctx, p, q, c, a.probe, tries)
			}()
		default:
			s.mu.Lock()
			delete(s.asking, a.probe)
			s.count.Overloaded++
			s.mu.Unlock()
		}
	case a.keep:
		j := job{q: q, on: p, ans: a, who: c.String(), old: old}
		select {
		case s.queues[number(a.put[0].addr)%writers] <- j:
		default:
			s.add(func(c *Counters) { c.Overloaded++ })
		}
	case a.reply != nil:
		s.send(p, q, &a, c.String())
	}
}

// apply takes an answer's lease changes into the table, and gives for each lease the client whose it was. What waits for a
// probe only holds its address. The caller has the lock.
func (s *Server) apply(a *answer, probing bool) []string {
	for _, d := range a.del {
		s.state.leases.remove(d)
	}
	old := make([]string, len(a.put))
	for i, l := range a.put {
		if probing && a.keep {
			continue
		}
		if o := s.state.leases.byAddr[l.addr]; o != nil && o.state != Offered && o.key() != l.key() {
			old[i] = o.key()
		}
		s.state.leases.put(l)
	}
	return old
}

// probe asks whether an address is in use, and decides again with what it has learnt.
func (s *Server) probe(ctx context.Context, p *port, q query, c *client, a netip.Addr, tries int) {
	var on *port
	if p.arp != nil && slices.ContainsFunc(p.link.Load().addrs, func(n netip.Prefix) bool { return n.Contains(a) }) {
		on = p
	}
	who, err := s.asker.inUse(ctx, a, on, q.packet.CHAddr[:min(6, int(q.packet.HLen))])
	if ctx.Err() != nil {
		return
	}
	now := s.now()
	s.mu.Lock()
	if err != nil {
		if s.count.Unasked++; now.Sub(s.told) > time.Minute {
			s.told = now
			s.log.Warn("DHCP cannot ask whether an address is in use, and takes it for free; this is said once a minute", "address", a, "error", err)
		}
	}
	delete(s.asking, a)
	s.state.probed[a] = now
	var d lease
	if who != "" {
		delete(s.state.probed, a)
		s.count.Conflicts++
		d = lease{addr: a, id: "conflict", mac: c.mac, state: Declined, expires: now.Add(declineLife)}
		if n := s.state.subnetOf(a); n != nil {
			d.subnet = n.Prefix
		}
		s.state.leases.put(d)
	}
	s.mu.Unlock()
	if who != "" {
		s.log.Warn("DHCP address is used by somebody who has no lease for it; it is given to nobody for a while", "address", a, "used by", who, "instead of", c.String(), "for", declineLife)
		if err := s.store(ctx, &d, ""); err != nil {
			s.log.Warn("DHCP cannot store that an address is in use", "address", a, "error", err)
		}
		if tries++; tries > 8 {
			return // the client asks again
		}
	}
	s.handle(ctx, p, q, c, tries)
}

func (s *Server) send(p *port, q query, a *answer, who string) {
	err := p.send(a, q.port)
	if err != nil && a.way == unicast {
		// The way back may lead through another interface.
		for _, o := range s.others(p) {
			if o.send(a, q.port) == nil {
				err = nil
				break
			}
		}
	}
	if err != nil {
		s.add(func(c *Counters) { c.Failed++ })
		s.log.Warn("DHCP reply cannot be sent", "client", who, "interface", q.link.name, "error", err)
		return
	}
	s.add(func(c *Counters) { c.sent(a.reply) })
}

func (s *Server) others(p *port) []*port {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*port
	for _, o := range s.ports {
		if o != p {
			list = append(list, o)
		}
	}
	return list
}

// say logs what was decided: leases and refusals for everybody, the rest for who looks closer.
func (s *Server) say(q query, c *client, a *answer, probing bool) {
	level := slog.LevelDebug
	switch {
	case a.bad:
		level = slog.LevelWarn
		if a.reply == nil && a.put == nil {
			s.add(func(c *Counters) { c.Exhausted++ })
		}
	case probing:
	case a.keep || a.reply != nil && a.reply.Type() == nak:
		level = slog.LevelInfo
	}
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	args := []any{"client", c.String(), "message", typeName(q.packet.Type()), "interface", q.link.name}
	if g := q.packet.GIAddr; g.IsValid() {
		args = append(args, "relay", g)
	}
	if c.class != "" {
		args = append(args, "class", c.class)
	}
	if probing {
		args = append(args, "asking whether it is in use", a.probe)
	}
	s.log.Log(context.Background(), level, "DHCP: "+a.why, args...)
}

func (s *Server) add(f func(*Counters)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.count)
}
