package swarm

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// judge finds out which machines nobody should wait for.
func (w *swarm) judge(now time.Time) {}

// plan makes one chain, by rack and then by age.
func (w *swarm) plan(now time.Time) {
	w.planned, w.stale = now, false
	list := slices.SortedFunc(maps.Values(w.members), func(a, b *member) int {
		return cmp.Or(cmp.Compare(b.said.Got, a.said.Got), cmp.Compare(a.Group, b.Group), cmp.Compare(a.age, b.age))
	})
	last := ""
	for _, m := range list {
		if now.Sub(m.heard) > silentAfter {
			continue
		}
		if !m.placed {
			m.parent, m.placed = last, true
		}
		if !m.bad && m.said.Port != 0 {
			last = m.Order
		}
	}
}
