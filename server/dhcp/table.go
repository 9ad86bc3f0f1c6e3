package dhcp

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"time"
)

// State is what a lease is.
type State string

// The states. Offered leases are kept in memory only.
const (
	Offered  State = "offered"
	Booting  State = "boot"     // bound, by firmware or our installer: what boots next on the same hardware address takes it over
	Bound    State = "bound"    // bound, by something that runs
	Released State = "released" // given back; kept for the same client while nobody else needs it
	Declined State = "declined" // somebody else uses the address, and nobody knows who
)

// lease is an address and who has it.
type lease struct {
	addr     netip.Addr
	id, mac  string // as in client
	sn       string // if the registry knows the client
	hostname string
	subnet   netip.Prefix
	state    State
	expires  time.Time
}

func (l *lease) key() string { return leaseKey(l.id, l.mac) }

// active reports whether nobody else may have the address.
func (l *lease) active(now time.Time) bool { return l.state != Released && now.Before(l.expires) }

// table is the leases, found by address, by client and by hardware address. It is not safe for concurrent use.
type table struct {
	byAddr map[netip.Addr]*lease
	byKey  map[string][]*lease
	byMAC  map[string][]*lease
	// full remembers subnets in which no address was free, and until when that is certain.
	full map[netip.Prefix]time.Time
}

func newTable() *table {
	return &table{byAddr: map[netip.Addr]*lease{}, byKey: map[string][]*lease{}, byMAC: map[string][]*lease{}, full: map[netip.Prefix]time.Time{}}
}

// put adds a lease, in the place of the address's former one.
func (t *table) put(l lease) {
	t.unlink(l.addr)
	p := &l
	t.byAddr[l.addr] = p
	if l.state == Released {
		clear(t.full)
	}
	if l.state == Declined { // it is nobody's: nobody is to find it as his
		return
	}
	t.byKey[l.key()] = append(t.byKey[l.key()], p)
	if l.mac != "" {
		t.byMAC[l.mac] = append(t.byMAC[l.mac], p)
	}
}

func (t *table) remove(a netip.Addr) {
	t.unlink(a)
	clear(t.full)
}

func (t *table) unlink(a netip.Addr) {
	l := t.byAddr[a]
	if l == nil {
		return
	}
	delete(t.byAddr, a)
	drop(t.byKey, l.key(), l)
	drop(t.byMAC, l.mac, l)
}

func drop(m map[string][]*lease, k string, l *lease) {
	list := slices.DeleteFunc(m[k], func(o *lease) bool { return o == l })
	if len(list) == 0 {
		delete(m, k)
		return
	}
	m[k] = list
}

// mine reports whether a lease is the client's, or his to take over: the same client, or the same hardware after a reset,
// or after its firmware. sn is the client's serial number, if the registry knows it.
func (l *lease) mine(c *client, sn string) bool {
	switch {
	case l.state == Declined:
		return false
	case l.key() == c.key():
		return true
	case c.mac != "" && l.mac == c.mac:
		return l.state == Booting || l.state == Offered || c.stage != running
	}
	// The same machine through another of its ports: only firmware is alone on it.
	return sn != "" && l.sn == sn && c.stage == firmware
}

// find gives the client's lease in a subnet: his own before one that he may take over, the youngest first.
func (t *table) find(c *client, sn string, in netip.Prefix) *lease {
	var best *lease
	for _, list := range [][]*lease{t.byKey[c.key()], t.byMAC[c.mac]} {
		for _, l := range list {
			if in.Contains(l.addr) && l.mine(c, sn) && (best == nil || best.expires.Before(l.expires)) {
				best = l
			}
		}
		if best != nil {
			return best
		}
	}
	return nil
}

// allocate finds an address of the subnet for a client that has none: one that nobody had before one that somebody had.
// Where it starts to look depends on the client, so that a client that was forgotten gets the same again, most often.
// barred are addresses that are not for everybody.
func (t *table) allocate(s *Subnet, key string, now time.Time, barred func(netip.Addr) bool) (netip.Addr, bool) {
	size := uint64(0)
	for _, r := range s.Ranges {
		size += r.size()
	}
	if size == 0 || now.Before(t.full[s.Prefix]) {
		return netip.Addr{}, false
	}
	h := fnv.New64a()
	h.Write([]byte(key))
	start := h.Sum64() % size
	var old *lease
	var soonest time.Time
	for i := range size {
		a := s.nth((start + i) % size)
		if barred(a) {
			continue
		}
		l := t.byAddr[a]
		if l == nil {
			return a, true
		}
		if l.active(now) {
			if soonest.IsZero() || l.expires.Before(soonest) {
				soonest = l.expires
			}
		} else if old == nil || l.expires.Before(old.expires) {
			old = l
		}
	}
	if old != nil {
		return old.addr, true
	}
	if soonest.IsZero() { // all are barred
		soonest = now.Add(10 * time.Second)
	}
	t.full[s.Prefix] = soonest
	return netip.Addr{}, false
}

// forget removes what ended before a time, and says which.
func (t *table) forget(before time.Time) []netip.Addr {
	var gone []netip.Addr
	for a, l := range t.byAddr {
		if l.expires.Before(before) {
			gone = append(gone, a)
		}
	}
	for _, a := range gone {
		t.remove(a)
	}
	return gone
}

func (r Range) size() uint64 { return number(r.Last) - number(r.First) + 1 }

func (r Range) contains(a netip.Addr) bool { return !a.Less(r.First) && !r.Last.Less(a) }

// nth is the nth address of a subnet's ranges.
func (s *Subnet) nth(n uint64) netip.Addr {
	for _, r := range s.Ranges {
		if n < r.size() {
			return address(number(r.First) + n)
		}
		n -= r.size()
	}
	return netip.Addr{}
}

// inRange reports whether an address is one for everybody.
func (s *Subnet) inRange(a netip.Addr) bool {
	return slices.ContainsFunc(s.Ranges, func(r Range) bool { return r.contains(a) })
}

// never reports whether an address is the network's own or its broadcast address, and so no machine's.
func (s *Subnet) never(a netip.Addr) bool {
	return s.Prefix.Bits() < 31 && (a == s.Prefix.Addr() || a == s.broadcast())
}

// serves reports whether an address is the gateway's or a server's.
func (s *Subnet) serves(a netip.Addr) bool {
	return a == s.Gateway || slices.Contains(s.DNS, a) || slices.Contains(s.NTP, a)
}

func (s *Subnet) broadcast() netip.Addr {
	return address(number(s.Prefix.Addr()) | (1<<(32-s.Prefix.Bits()) - 1))
}

func number(a netip.Addr) uint64 {
	b := a.As4()
	return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
}

func address(n uint64) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
