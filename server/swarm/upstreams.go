package swarm

import (
	"fmt"
	"net/netip"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/releases"
)

// upstreams is the answer for a machine: from whom it is to read.
func (s *Server) upstreams(m *member, now time.Time) plan.Upstreams {
	u := plan.Upstreams{Upstreams: []plan.Upstream{}, Secret: s.secretFor(m.Order), Rate: s.rates.PerMachine, Keep: true}
	if m.Transport == plan.TransportRelay && m.parent != "" {
		if p := m.swarm.members[m.parent]; p != nil {
			u.Upstreams = append(u.Upstreams, s.relay(p, now))
		}
	}
	for i, mirror := range s.o.Mirrors {
		u.Upstreams = append(u.Upstreams, plan.Upstream{ID: fmt.Sprintf("mirror%d", i+1), Kind: plan.SourceOrigin, URL: mirror + m.Image + "/" + image.RootfsFile})
	}
	u.Upstreams = append(u.Upstreams, plan.Upstream{ID: "origin", Kind: plan.SourceOrigin, URL: m.Base + releases.Prefix + m.Image + "/" + image.RootfsFile})
	for _, up := range u.Upstreams {
		m.given[up.ID] = true
	}
	return u
}

// relay is another machine as a source.
func (s *Server) relay(p *member, now time.Time) plan.Upstream {
	at := netip.AddrPortFrom(p.Address, uint16(p.said.Port))
	return plan.Upstream{ID: p.Order, Kind: plan.SourceRelay, URL: "http://" + at.String() + plan.ChunksPath, Ticket: s.ticket(p.Order, now)}
}
