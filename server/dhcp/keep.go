package dhcp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	"imgbuild/server/registry"
)

// load reads leases and hosts.
func (s *Server) load(ctx context.Context) error {
	list, err := s.leases.Leases(ctx)
	if err != nil {
		return fmt.Errorf("start DHCP: read leases: %w", err)
	}
	hosts, err := s.hosts.Hosts(ctx, registry.HostFilter{Inventory: true})
	if err != nil {
		return fmt.Errorf("start DHCP: read hosts: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.merge(list)
	for i := range hosts {
		s.state.hosts.put(&hosts[i])
	}
	return nil
}

// merge takes stored leases into the table, where they are news: another server may have written them. The caller has the
// lock.
func (s *Server) merge(list []registry.Lease) {
	now := s.now()
	for i := range list {
		n := fromRegistry(&list[i])
		have := s.state.leases.byAddr[n.addr]
		switch {
		case have == nil, have.state == Offered && have.key() != n.key() && n.active(now), have.state != Offered && have.expires.Before(n.expires):
			s.state.leases.put(n)
		}
	}
}

// follow takes over what people change in the registry, until the context ends.
func (s *Server) follow(ctx context.Context, changes <-chan registry.Event) {
	for e := range changes {
		if e.SN == "" || e.Order != "" { // what happens to an order, or is said of an installation, changes no address
			continue
		}
		h, err := s.hosts.Host(ctx, e.SN)
		for err != nil && !errors.Is(err, registry.ErrNotFound) {
			if ctx.Err() != nil {
				return
			}
			s.log.Warn("DHCP cannot read a host that was changed, and tries again", "sn", e.SN, "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			h, err = s.hosts.Host(ctx, e.SN)
		}
		s.mu.Lock()
		if err != nil {
			s.state.hosts.remove(e.SN)
		} else {
			s.state.hosts.put(h)
		}
		clear(s.state.leases.full)
		s.mu.Unlock()
	}
}

// write stores leases and then sends what waits for that. When the context ends, what is in the queue is stored still.
func (s *Server) write(ctx context.Context, queue <-chan job) {
	for {
		select {
		case j := <-queue:
			s.keep(ctx, j)
			continue
		case <-ctx.Done():
		}
		select {
		case j := <-queue:
			s.keep(ctx, j)
		default:
			return
		}
	}
}

// keep stores an answer's leases and sends its reply. A lease that another server has given meanwhile is refused.
func (s *Server) keep(ctx context.Context, j job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for i := range j.ans.put {
		l := &j.ans.put[i]
		err := s.store(ctx, l, j.old[i])
		switch {
		case err == nil:
			continue
		case errors.Is(err, registry.ErrConflict):
			s.log.Warn("DHCP lease is another server's", "address", l.addr, "client", j.who)
			s.mu.Lock()
			s.state.leases.remove(l.addr)
			s.mu.Unlock()
			s.reload(ctx)
			if j.ans.reply == nil {
				return
			}
			who := person{client: newClient(j.q.packet), subnet: s.state.subnetOf(l.addr)}
			j.ans = s.state.refuse(j.q, &who, "%s is leased to another client", l.addr)
			s.send(j.on, j.q, &j.ans, j.who)
			return
		}
		// The client gets no answer and asks again: nothing is acknowledged that is not stored.
		s.add(func(c *Counters) { c.Failed++ })
		s.log.Error("DHCP lease cannot be stored, and the client is not answered", "address", l.addr, "client", j.who, "error", err)
		return
	}
	if j.ans.reply != nil {
		s.send(j.on, j.q, &j.ans, j.who)
	}
}

// store writes one lease. old is the client who had it: taking it over from him is deliberate, and not a conflict.
func (s *Server) store(ctx context.Context, l *lease, old string) error {
	r := toRegistry(l)
	err := s.leases.PutLease(ctx, r, s.now())
	if errors.Is(err, registry.ErrConflict) && (old != "" || l.state == Declined) {
		if err := s.leases.DeleteLease(ctx, l.addr); err != nil {
			return err
		}
		return s.leases.PutLease(ctx, r, s.now())
	}
	return err
}

// reload reads the leases again, at most every second.
func (s *Server) reload(ctx context.Context) {
	s.mu.Lock()
	now := s.now()
	recent := now.Sub(s.reloads) < time.Second
	if !recent {
		s.reloads = now
	}
	s.mu.Unlock()
	if recent {
		return
	}
	list, err := s.leases.Leases(ctx)
	if err != nil {
		s.log.Warn("DHCP cannot read leases", "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.merge(list)
}

// clean forgets, once a minute, what is over, and looks what other servers have written.
func (s *Server) clean(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s.reload(ctx)
		for _, a := range s.forget(s.now()) {
			if err := s.leases.DeleteLease(ctx, a); err != nil && ctx.Err() == nil {
				s.log.Warn("DHCP cannot delete an old lease", "address", a, "error", err)
				break
			}
		}
	}
}

// forget removes old leases, offers and probes from memory, and says which leases are to be deleted.
func (s *Server) forget(now time.Time) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.state.probed, func(_ netip.Addr, t time.Time) bool { return now.Sub(t) >= probeLife })
	var offers []netip.Addr
	for a, l := range s.state.leases.byAddr {
		if l.state == Offered && !now.Before(l.expires) {
			offers = append(offers, a)
		}
	}
	for _, a := range offers {
		s.state.leases.remove(a)
	}
	return s.state.leases.forget(now.Add(-keepLife))
}

func toRegistry(l *lease) registry.Lease {
	return registry.Lease{Address: l.addr, ClientID: l.key(), MAC: l.mac, SN: l.sn, Hostname: l.hostname, Subnet: l.subnet, State: string(l.state), Expires: l.expires}
}

func fromRegistry(r *registry.Lease) lease {
	id, _ := strings.CutPrefix(r.ClientID, "id ")
	if id == r.ClientID {
		id = ""
	}
	return lease{addr: r.Address, id: id, mac: r.MAC, sn: r.SN, hostname: r.Hostname, subnet: r.Subnet, state: State(r.State), expires: r.Expires}
}
