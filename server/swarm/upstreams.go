package swarm

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/releases"
)

const (
	originID = "origin"
	mirrorID = "mirror" // and a number
	spares   = 2        // sources besides the planned one, the one before that, and the origin
	crowd    = 250      // machines of a swarm that may ask in each second
	few      = 100      // machines of a swarm that ask more often while others join
)

// upstreams is the answer for a machine: from whom it is to read.
func (s *Server) upstreams(m *member, now time.Time) plan.Upstreams {
	w := m.swarm
	u := plan.Upstreams{Upstreams: []plan.Upstream{}, Rate: s.rates.PerMachine}
	if m.Transport != plan.TransportHTTP {
		u.Secret, u.Keep, u.Linger = s.secretFor(m.Order), w.others(m)+s.waiting(w) > 0, w.lingers(m, now)
	}
	if n := len(w.members); n > crowd*plan.SwarmSeconds {
		u.AskSeconds = float64(n) / crowd
	} else if n <= few && now.Sub(w.came) < settleFor {
		u.AskSeconds = 1 // who joins changes where others read from
	}
	if !m.placed && m.reads() {
		return u // it is to go on as it does
	}
	switch m.Transport {
	case plan.TransportRelay:
		for _, p := range w.sources(m, now) {
			u.Upstreams = append(u.Upstreams, s.relay(m, p, now))
		}
	case plan.TransportTorrent:
		for _, at := range s.peers(m) {
			u.Peers = append(u.Peers, at.String())
		}
		if m.reads() {
			u.Rate = least(u.Rate, s.entryRate(m, w.members[m.parent]))
			if m.parent == "" {
				u.Rate = least(u.Rate, s.originRate(m))
			}
		}
	}
	entry := s.entryRate(m, nil)
	for i, mirror := range s.o.Mirrors {
		u.Upstreams = append(u.Upstreams, plan.Upstream{ID: fmt.Sprintf("%s%d", mirrorID, i+1), Kind: plan.SourceOrigin, URL: mirror + m.Image + "/" + image.RootfsFile, Rate: entry})
	}
	u.Upstreams = append(u.Upstreams, plan.Upstream{ID: originID, Kind: plan.SourceOrigin, URL: m.Base + releases.Prefix + m.Image + "/" + image.RootfsFile,
		Rate: least(entry, s.originRate(m))})
	if m.Transport == plan.TransportRelay {
		for _, p := range w.lastResorts(m, now) {
			if !slices.ContainsFunc(u.Upstreams, func(x plan.Upstream) bool { return x.ID == p.Order }) {
				u.Upstreams = append(u.Upstreams, s.relay(m, p, now))
			}
		}
	}
	for _, up := range u.Upstreams {
		m.given[up.ID] = true
	}
	return u
}

// sources are the machines to read from: the planned one, the one that that reads from, and those that hold most. There are
// none of a machine that is to read from the origin, which comes after all of them.
func (w *swarm) sources(m *member, now time.Time) []*member {
	if m.parent == "" {
		return nil
	}
	var list []*member
	add := func(p *member) {
		_, avoided := m.avoid[idOf(p)]
		if p == nil || p == m || avoided || p.silent(now) || p.bad || p.Transport != m.Transport || p.port() == 0 || !p.Address.IsValid() {
			return
		}
		for _, l := range list {
			if l == p {
				return
			}
		}
		list = append(list, p)
	}
	p := w.members[m.parent]
	add(p)
	if p != nil && p.reads() {
		add(w.members[p.parent])
	}
	planned := len(list)
	most := w.holders[:min(len(w.holders), 4*spares)]
	for i := range most {
		h := most[(i+m.age)%len(most)] // not all the same ones
		if len(list) < planned+spares && (h.said.Done || h.said.Held >= w.slack()) && h.got(now) >= m.got(now) && !w.above(h, m) {
			add(h)
		}
	}
	return list
}

// lastResorts are machines to ask when even the origin has gone: those that hold most, wherever they read from. Where the server has
// gone with it, nobody can name those that will have what this one lacks then.
func (w *swarm) lastResorts(m *member, now time.Time) []*member {
	var list []*member
	for _, h := range w.holders {
		if _, avoided := m.avoid[h.Order]; !avoided && len(list) < spares && h != m && !h.silent(now) && !h.bad && h.Transport == m.Transport && h.port() != 0 && h.Address.IsValid() {
			list = append(list, h)
		}
	}
	return list
}

func idOf(m *member) string {
	if m == nil {
		return ""
	}
	return m.Order
}

// relay is another machine as a source.
func (s *Server) relay(m, p *member, now time.Time) plan.Upstream {
	at := netip.AddrPortFrom(p.Address, uint16(p.said.Port))
	return plan.Upstream{ID: p.Order, Kind: plan.SourceRelay, URL: "http://" + at.String() + plan.ChunksPath, Ticket: s.ticket(p.Order, now), Rate: s.entryRate(m, p)}
}

// others is how many other machines of the swarm read.
func (w *swarm) others(m *member) int {
	n := 0
	for _, o := range w.members {
		if o != m && o.reads() {
			n++
		}
	}
	return n
}

// waiting is how many machines have an order for the release and have not come yet.
func (s *Server) waiting(w *swarm) int {
	here := 0
	for _, m := range w.members {
		if m.reads() {
			here++
		}
	}
	return max(0, s.wanted[w.image]-here)
}

// lingers reports whether a machine that is done is to stay a while: one that reads from it has no other source nearby, or would lose
// seconds by connecting to it, as with BitTorrent.
func (w *swarm) lingers(m *member, now time.Time) bool {
	if m.reads() || m.bad || now.Sub(m.doneAt) > lingerFor {
		return false
	}
	for _, r := range w.members {
		if r.parent == m.Order && r.reads() && r.placed && !r.silent(now) && (m.Transport == plan.TransportTorrent || !w.near(r, m, now)) {
			return true
		}
	}
	return false
}

// near reports whether a machine has another source than this one in its own group.
func (w *swarm) near(r, but *member, now time.Time) bool {
	for _, h := range w.holders {
		if h != but && h != r && h.Group == r.Group && h.Transport == r.Transport && h.got(now) >= r.got(now) && !h.silent(now) && !w.above(h, r) {
			return true
		}
	}
	return false
}

// originRate is a machine's share of what may leave the server.
func (s *Server) originRate(m *member) int64 {
	n := 0
	for _, w := range s.swarms {
		n += w.origin
	}
	if !m.fromOrigin() {
		n++ // should it have to
	}
	return share(s.rates.Global, n)
}

// entryRate is a machine's share of what may enter its group, if the source p, or the origin if that is nil, is outside.
func (s *Server) entryRate(m, p *member) int64 {
	if p != nil && p.Group == m.Group {
		return 0
	}
	n := 0
	for _, w := range s.swarms {
		n += w.entering[m.Group]
	}
	if !m.swarm.enters(m) {
		n++
	}
	return share(s.rates.PerSubnet, n)
}

// share is one of n shares of a limit; 0 is no limit.
func share(limit int64, n int) int64 {
	if limit == 0 {
		return 0
	}
	return max(limit/int64(max(n, 1)), leastRate)
}

// least is the tighter of two limits.
func least(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// peers are BitTorrent's planned neighbours: who is before a machine in the chain, and the server's own seed before the first.
func (s *Server) peers(m *member) []netip.AddrPort {
	if !m.placed {
		return nil
	}
	if at, ok := m.swarm.peer(m.parent); ok {
		return []netip.AddrPort{at}
	}
	if at, ok := s.seed(m); ok {
		return []netip.AddrPort{at}
	}
	return nil
}

// seed is where a machine reaches the server's own seed: at the address of the server itself, if the seed names no other.
func (s *Server) seed(m *member) (netip.AddrPort, bool) {
	if s.o.Seed == nil {
		return netip.AddrPort{}, false
	}
	at, ok := s.o.Seed.Addr(m.Image)
	if !ok || !at.Addr().IsUnspecified() {
		return at, ok
	}
	base, err := url.Parse(m.Base)
	if err != nil {
		return netip.AddrPort{}, false
	}
	host, err := netip.ParseAddr(base.Hostname())
	return netip.AddrPortFrom(host, at.Port()), err == nil
}

// peer is where a machine's BitTorrent listens.
func (w *swarm) peer(order string) (netip.AddrPort, bool) {
	p := w.members[order]
	if p == nil || p.said.PeerPort == 0 || !p.Address.IsValid() {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(p.Address, uint16(p.said.PeerPort)), true
}

// Neighbours are the planned neighbours of a BitTorrent client, by its peer ID in hex: who it is to read from. Who reads from it
// connects of its own. Known is false of a client that no installing machine has named.
func (s *Server) Neighbours(peerID string) (list []netip.AddrPort, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.orders {
		if peerID != "" && m.said.PeerID == peerID {
			return s.peers(m), true
		}
	}
	return nil, false
}
