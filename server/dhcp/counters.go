package dhcp

import "net/netip"

// Counters are what the server has done since it was made.
type Counters struct {
	Received uint64 // messages, of which
	Discovers, Requests, Declines, Releases, Informs,
	Malformed, // not understood
	Limited, // of clients that ask too often
	Overloaded uint64 // dropped, since too much was under way
	Offers, Acks, Naks uint64 // replies sent
	Conflicts          uint64 // addresses that somebody used without a lease
	Unasked            uint64 // addresses that were given though nobody could be asked about them
	Exhausted          uint64 // clients for whom there was no address
	Failed             uint64 // replies that could not be sent, leases that could not be stored
}

func (c *Counters) received(t byte) {
	switch t {
	case discover:
		c.Discovers++
	case request:
		c.Requests++
	case decline:
		c.Declines++
	case release:
		c.Releases++
	case inform:
		c.Informs++
	}
}

func (c *Counters) sent(r *Packet) {
	switch r.Type() {
	case offer:
		c.Offers++
	case ack:
		c.Acks++
	case nak:
		c.Naks++
	}
}

// Pool is how full a subnet is.
type Pool struct {
	Subnet netip.Prefix
	Size   int // addresses in its ranges
	Active int // of all its addresses, those that are leased, offered or in use by others
}

// Counters gives the counters as they are now.
func (s *Server) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Pools says how full the subnets are.
func (s *Server) Pools() []Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	list := make([]Pool, len(s.cfg.Subnets))
	for i := range s.cfg.Subnets {
		n := &s.cfg.Subnets[i]
		list[i].Subnet = n.Prefix
		for _, r := range n.Ranges {
			list[i].Size += int(r.size())
		}
	}
	for a, l := range s.state.leases.byAddr {
		if !l.active(now) {
			continue
		}
		for i := range list {
			if list[i].Subnet.Contains(a) {
				list[i].Active++
			}
		}
	}
	return list
}
