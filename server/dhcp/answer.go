package dhcp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Ports (RFC 2131, 4.1; PXE 2.1, 2.2.2).
const (
	portServer uint16 = 67
	portClient uint16 = 68
	portPXE    uint16 = 4011
)

// Times in memory.
const (
	offerLife   = time.Minute         // how long an address is kept for a client that has not asked for it yet
	declineLife = time.Hour           // how long an address that somebody else uses is given to nobody
	probeLife   = time.Minute         // how long the answer to a probe is good
	keepLife    = 30 * 24 * time.Hour // how long an ended lease is kept for the same client
)

// link is one interface of the server and its IPv4 addresses.
type link struct {
	name  string
	index int
	mac   []byte
	addrs []netip.Prefix
}

// query is a message and how it came.
type query struct {
	packet *Packet
	link   link
	from   netip.AddrPort
	to     netip.Addr // the address that it was sent to; broadcast, or one of ours
	port   uint16     // of ours: 67 or 4011
}

// way is how a reply reaches the client.
type way byte

const (
	unicast   way = iota // an ordinary datagram
	broadcast            // to everybody on the link
	raw                  // to the hardware address of a client that has no address yet
)

// answer is what comes of a query.
type answer struct {
	reply *Packet // nil: the client is told nothing
	way   way
	to    netip.AddrPort
	limit int // of the reply's size, in bytes
	// put are leases to be kept, durably if keep is set, before the reply is sent; del are addresses to be forgotten.
	put  []lease
	del  []netip.Addr
	keep bool
	// probe is an address that somebody else may use: he is asked before the reply is sent.
	probe netip.Addr
	// why says in a few words what was decided.
	why string
	// bad is set when a person ought to look.
	bad bool
}

func silent(format string, a ...any) answer { return answer{why: fmt.Sprintf(format, a...)} }

// server is everything that decisions are made from. Its methods decide and change nothing.
type server struct {
	cfg    *Config
	leases *table
	hosts  *hosts
	probed map[netip.Addr]time.Time // addresses of which nobody said that they are his, and when he was asked
	fixed  fixed
}

// fixed is the configuration's reservations, found quickly.
type fixed struct {
	byAddr map[netip.Addr]*Reservation
	byKey  map[string][]netip.Addr // mac …, id …, sn …
}

func newFixed(list []Reservation) fixed {
	f := fixed{byAddr: map[netip.Addr]*Reservation{}, byKey: map[string][]netip.Addr{}}
	for i := range list {
		r := &list[i]
		f.byAddr[r.Address] = r
		add := func(k string) { f.byKey[k] = append(f.byKey[k], r.Address) }
		switch {
		case r.MAC != "":
			add("mac " + r.MAC)
		case r.SN != "":
			add("sn " + r.SN)
		default:
			for _, id := range clientIDs(r.ClientID) {
				add("id " + id)
			}
		}
	}
	return f
}

// person is a client and what is known of him.
type person struct {
	client
	host   *host
	sn     string
	subnet *Subnet
}

// answer decides on one message.
func (s *server) answer(q query, now time.Time) answer {
	p := q.packet
	c := newClient(p)
	switch {
	case p.Op != opRequest:
		return silent("it is no request")
	case p.Type() == 0:
		return silent("it is BOOTP")
	case c.mac == "" && c.id == "":
		return silent("it has neither a hardware address nor a client identifier")
	case p.GIAddr.IsValid() && p.Hops > 16:
		return silent("it came through %d relays", p.Hops)
	case q.port == portPXE || s.cfg.Mode == Proxy:
		return s.proxy(q, c)
	}
	who := person{client: c, host: s.hosts.find(&c)}
	if who.host != nil && (c.mac == "" || c.mac != who.host.bmc) {
		who.sn = who.host.sn
	} else if who.host == nil {
		for _, sn := range c.serials {
			if len(s.fixed.byKey["sn "+sn]) > 0 {
				who.sn = sn
			}
		}
	}
	switch p.Type() {
	case discover:
		return s.discover(q, who, now)
	case request:
		return s.request(q, who, now)
	case decline:
		return s.decline(q, who, now)
	case release:
		return s.release(q, who, now)
	case inform:
		return s.inform(q, who, now)
	}
	return silent("a server has no answer to it")
}

// subnets are those that a client may have an address of, the likelier first: what a relay says (RFC 3527, RFC 3011,
// giaddr), or what the link is in.
func (s *server) subnets(q query) []*Subnet {
	at := q.packet.GIAddr
	if at.IsValid() {
		if l := sub(q.packet.Options.Get(optRelay)).Get(relayLink); len(l) == 4 {
			at = addr4(l)
		} else if a := q.packet.addr(optSubnet); a.IsValid() {
			at = a
		}
	}
	var list []*Subnet
	for i := range s.cfg.Subnets {
		n := &s.cfg.Subnets[i]
		if at.IsValid() {
			if n.Prefix.Contains(at) {
				return []*Subnet{n}
			}
		} else if !n.RelayOnly && slices.ContainsFunc(q.link.addrs, func(a netip.Prefix) bool { return n.Prefix.Contains(a.Addr()) }) {
			list = append(list, n)
		}
	}
	return list
}

// subnetOf is the subnet that has an address.
func (s *server) subnetOf(a netip.Addr) *Subnet {
	for i := range s.cfg.Subnets {
		if s.cfg.Subnets[i].Prefix.Contains(a) {
			return &s.cfg.Subnets[i]
		}
	}
	return nil
}

// self is what the server calls itself towards a client: what the relay wants (RFC 5107), the address by which the
// client reached it, one in the client's subnet, or its first.
func (s *server) self(q query, n *Subnet) netip.Addr {
	if q.packet.GIAddr.IsValid() {
		if o := sub(q.packet.Options.Get(optRelay)).Get(relayServerID); len(o) == 4 {
			return addr4(o)
		}
	}
	return s.own(q, n)
}

// own is self without what a relay wants.
func (s *server) own(q query, n *Subnet) netip.Addr {
	first := netip.Addr{}
	for _, a := range q.link.addrs {
		if a.Addr() == q.to || n != nil && !q.packet.GIAddr.IsValid() && n.Prefix.Contains(a.Addr()) {
			return a.Addr()
		}
		if !first.IsValid() {
			first = a.Addr()
		}
	}
	return first
}

// isSelf reports whether a server identifier is this server's.
func (s *server) isSelf(q query, id netip.Addr) bool {
	return id == s.self(q, nil) || q.link.has(id)
}

// bars says why an address of a subnet is not for this client, or "" if it may be his, if it is free.
func (s *server) bars(a netip.Addr, who *person, q query, n *Subnet) string {
	if n.never(a) || q.link.has(a) || a == q.packet.GIAddr {
		return "it is the network's own"
	}
	if slices.Contains(s.statics(who, n), a) {
		return ""
	}
	return s.barsAll(a, q, n)
}

// barsAll says why an address of a subnet is not for just anybody.
func (s *server) barsAll(a netip.Addr, q query, n *Subnet) string {
	switch {
	case !n.inRange(a):
		return notInRange
	case n.never(a) || n.serves(a) || q.link.has(a) || a == q.packet.GIAddr:
		return "it is the network's own"
	case s.fixed.byAddr[a] != nil:
		return "it is reserved for another client"
	}
	if l := s.hosts.taken[a]; len(l) > 0 {
		return "it is the registry's for " + l[0].sn
	}
	return ""
}

const notInRange = "it is in no range"

// has reports whether an address is the link's.
func (l *link) has(a netip.Addr) bool {
	return slices.ContainsFunc(l.addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// statics are the addresses that are kept for a client in a subnet, the most certain first.
func (s *server) statics(who *person, n *Subnet) []netip.Addr {
	var list []netip.Addr
	for _, k := range []string{"id " + who.raw, "mac " + who.mac, "sn " + who.sn} {
		for _, a := range s.fixed.byKey[k] {
			if n.Prefix.Contains(a) && !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	if who.host != nil {
		for _, a := range who.host.static(who.mac, n.Prefix) {
			if s.fixed.byAddr[a] == nil && len(s.hosts.taken[a]) == 1 { // what two have is given to neither
				list = append(list, a)
			}
		}
	}
	return list
}

// free reports whether an address is not in use by somebody else, as far as the leases know.
func (s *server) free(a netip.Addr, who *person, now time.Time) bool {
	l := s.leases.byAddr[a]
	return l == nil || !l.active(now) || l.mine(&who.client, who.sn)
}

// choose finds an address for a client, as RFC 2131, 4.3.1 has it: his own, the one that he had, the one that he asks for,
// any.
func (s *server) choose(q query, who *person, now time.Time) (netip.Addr, string) {
	list := s.subnets(q)
	if len(list) == 0 {
		if g := q.packet.GIAddr; g.IsValid() {
			return netip.Addr{}, fmt.Sprintf("no subnet has the relay's address %s", g)
		}
		return netip.Addr{}, "no subnet is on " + q.link.name
	}
	held := ""
	for _, n := range list {
		for _, a := range s.statics(who, n) {
			if s.free(a, who, now) && s.bars(a, who, q, n) == "" {
				who.subnet = n
				return a, "its own address"
			}
			l := s.leases.byAddr[a]
			held = fmt.Sprintf("; its own address %s is ", a)
			switch {
			case l == nil || !l.active(now):
				held += "the network's"
			case l.state == Declined:
				held += "used by somebody else on the network"
			default:
				held += "leased to " + l.key() + " until " + l.expires.UTC().Format(time.RFC3339)
			}
		}
	}
	for _, n := range list {
		if l := s.leases.find(&who.client, who.sn, n.Prefix); l != nil && s.bars(l.addr, who, q, n) == "" {
			who.subnet = n
			return l.addr, "the address that it had" + held
		}
	}
	if a := q.packet.addr(optRequested); a.IsValid() {
		for _, n := range list {
			if n.Prefix.Contains(a) && s.bars(a, who, q, n) == "" && s.free(a, who, now) {
				who.subnet = n
				return a, "the address that it asks for" + held
			}
		}
	}
	for _, n := range list {
		a, ok := s.leases.allocate(n, who.key(), now, func(a netip.Addr) bool { return s.barsAll(a, q, n) != "" })
		if ok {
			who.subnet = n
			return a, "a free address" + held
		}
	}
	if len(list[0].Ranges) == 0 {
		return netip.Addr{}, fmt.Sprintf("subnet %s has no range, and nothing is kept for this client%s", list[0].Prefix, held)
	}
	return netip.Addr{}, fmt.Sprintf("no address of %s is free%s", list[0].Prefix, held)
}
