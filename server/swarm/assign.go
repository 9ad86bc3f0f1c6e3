package swarm

import (
	"cmp"
	"slices"
	"time"

	"imgbuild/image/plan"
)

// plan brings the swarm's plan up to date. Machines that read by relay and those that read by BitTorrent do not read from each
// other; those that read by HTTP read from the origin.
func (w *swarm) plan(now time.Time) {
	w.planned, w.stale = now, false
	for _, t := range []plan.Transport{plan.TransportRelay, plan.TransportTorrent} {
		w.planFor(t, now)
	}
	for _, m := range w.ordered {
		if m.Transport == plan.TransportHTTP {
			w.move(m, "", now)
		}
	}
	w.holders = w.holders[:0]
	w.origin = 0
	clear(w.entering)
	for _, m := range w.ordered {
		if m.silent(now) {
			continue
		}
		if !m.leaf(now) && m.Transport != plan.TransportHTTP {
			w.holders = append(w.holders, m)
		}
		if !m.reads() || !m.placed {
			continue
		}
		if m.fromOrigin() {
			w.origin++
		}
		if w.enters(m) {
			w.entering[m.Group]++
		}
	}
	slices.SortStableFunc(w.holders, func(a, b *member) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.said.Held, a.said.Held))
	})
}

// rank puts machines that are done before others.
func rank(m *member) int {
	if m.said.Done {
		return 0
	}
	return 1
}

// planFor plans for the machines of one transport.
func (w *swarm) planFor(t plan.Transport, now time.Time) {
	var nodes []*node
	previous := map[string]string{}
	for _, m := range w.ordered {
		if m.Transport != t || m.silent(now) {
			continue
		}
		n := &node{id: m.Order, group: m.Group, age: m.age, got: m.got(now), vague: w.vague(m, now), held: m.said.Held, left: m.said.Total - m.got(now), done: m.said.Done, leaf: m.leaf(now), avoid: map[string]bool{}}
		for id := range m.avoid {
			n.avoid[id] = true
		}
		switch {
		case m.placed:
			previous[m.Order] = m.parent
		case m.claim != "" && w.members[m.claim] != nil:
			previous[m.Order] = m.claim
		case m.claim == originID:
			previous[m.Order] = ""
		case m.claim != "" && now.Before(w.settled):
			continue // it goes on as it does until the one that it reads from is known
		}
		nodes = append(nodes, n)
	}
	for id, parent := range arrange(nodes, previous, w.slack()) {
		w.move(w.members[id], parent, now)
	}
}

// fromOrigin reports whether a machine reads from the origin: as planned, or because nothing else works.
func (m *member) fromOrigin() bool {
	if m.parent == "" {
		return true
	}
	for _, s := range m.said.Sources {
		if s.ID == originID && s.Rate > 0 {
			return true
		}
	}
	return false
}

// enters reports whether what a machine reads comes from outside of its group.
func (w *swarm) enters(m *member) bool {
	p := w.members[m.parent]
	return p == nil || p.Group != m.Group
}

// above reports whether a machine gets its bytes, over any number of others, from the machine top.
func (w *swarm) above(m, top *member) bool {
	for range len(w.members) {
		if m == nil {
			return false
		}
		if m == top {
			return true
		}
		m = w.members[m.parent]
	}
	return false
}
