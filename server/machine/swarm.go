package machine

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/boot"
	"imgbuild/server/registry"
	"imgbuild/server/swarm"
)

// maxSwarm bounds what a machine says of its transfer.
const maxSwarm = 64 << 10

// Swarm is the handler of plan.SwarmPath.
func (s *Server) Swarm() http.Handler {
	return handler(s, maxSwarm, func(r *http.Request, said plan.Swarm) (any, error) {
		b, err := s.authorised(r)
		if err != nil {
			return nil, err
		}
		if err := checkSchema(said.Schema); err != nil {
			return nil, err
		}
		if err := said.Validate(); err != nil {
			return nil, refuse(http.StatusBadRequest, "what is said of the transfer cannot be: %v", err)
		}
		if b.order != nil && b.order.Preview {
			return nil, refuse(http.StatusConflict, "the order %s is a preview, which transfers nothing", b.id())
		}
		s.count.swarm.Add(1)
		if err := s.hear(r.Context(), b); err != nil {
			return nil, err
		}
		if s.o.Swarm == nil {
			return plan.Upstreams{Upstreams: []plan.Upstream{}}, nil
		}
		who, err := s.who(r, b)
		if err != nil {
			return nil, err
		}
		u, err := s.o.Swarm.Report(r.Context(), who, said)
		if err != nil {
			return nil, refuse(http.StatusConflict, "%v", err)
		}
		return u, nil
	})
}

// hear notes that the machine lives, if it was not heard for a while: most say so by their events.
func (s *Server) hear(ctx context.Context, b bearer) error {
	often := 2 * plan.HeartbeatSeconds * time.Second
	if b.live != nil && b.live.State == registry.LiveRunning {
		often = 10 * time.Minute // nobody takes it for lost
	}
	if s.o.Now().Sub(b.heard()) < often {
		return nil
	}
	_, err := s.report(ctx, b, nil)
	return err
}

// who is the machine of an order or a live boot. What the registry knows of it is asked once.
func (s *Server) who(r *http.Request, b bearer) (swarm.Machine, error) {
	base, err := boot.Base(s.o.URL, r)
	if err != nil {
		return swarm.Machine{}, refuse(http.StatusBadRequest, "%v", err)
	}
	m := swarm.Machine{Order: b.id(), SN: b.sn(), Image: b.image(), Address: boot.Client(r), Transport: cmp.Or(s.o.Transport, plan.TransportHTTP), Base: base}
	if b.order != nil {
		m.Transport = cmp.Or(b.order.Transport, m.Transport)
	}
	if s.o.Swarm.Has(m.Order) {
		return m, nil
	}
	h, err := s.o.Registry.Host(r.Context(), m.SN)
	if errors.Is(err, registry.ErrNotFound) {
		h, err = &registry.Host{}, nil // it was deleted meanwhile; its installation goes on
	}
	if err != nil {
		return m, err
	}
	m.Hostname, m.Group = h.Hostname, groupOf(h, m.Address, s.o.Subnets)
	return m, nil
}

// groupOf is the part of the network that a machine is in: the rack that somebody wrote down, else the switch that its
// card with a cable is at (LLDP), else the subnet of its address.
func groupOf(h *registry.Host, addr netip.Addr, subnets []netip.Prefix) string {
	if h.Rack != "" {
		return "rack " + h.Rack
	}
	if h.Inventory != nil {
		for _, n := range h.Inventory.NICs {
			if n.Link && n.Neighbour != nil && n.Neighbour.Chassis != "" {
				return "switch " + cmp.Or(n.Neighbour.System, n.Neighbour.Chassis)
			}
		}
	}
	for _, p := range subnets {
		if p.Contains(addr) {
			return "subnet " + p.String()
		}
	}
	bits := 24
	if addr.Is6() {
		bits = 64
	}
	if p, err := addr.Prefix(bits); err == nil && addr.IsValid() {
		return "subnet " + p.String()
	}
	return ""
}
