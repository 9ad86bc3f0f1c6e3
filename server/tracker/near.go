package tracker

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// near returns whom a client is to connect to: seeds first, then those of its subnet, then those that were heard last; of very many
// that are alike, any. A seed needs no other one.
func (s *swarm) near(a announce, me netip.AddrPort, now time.Time) []peer {
	var ranks [4][]peer
	home := subnet(me.Addr())
	for _, p := range s.peers {
		if p.addr == me || p.id == a.id || p.gone(now) || a.left == 0 && p.complete {
			continue
		}
		n := 0
		if !p.complete {
			n += 2
		}
		if !home.Contains(p.addr.Addr()) {
			n++
		}
		if len(ranks[n]) < mostPeers {
			ranks[n] = append(ranks[n], *p)
		}
	}
	var list []peer
	for _, r := range ranks {
		slices.SortFunc(r, func(x, y peer) int { return cmp.Or(y.heard.Compare(x.heard), x.addr.Compare(y.addr)) })
		list = append(list, r...)
	}
	return list
}

// subnet is what counts as near: a /24, or an IPv6 link's /64.
func subnet(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // contains nothing
	}
	return p
}
