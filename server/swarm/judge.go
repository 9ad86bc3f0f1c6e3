package swarm

import (
	"slices"
	"time"

	"imgbuild/image/plan"
)

// Times and shares of a verdict.
const (
	watchFor   = 4 * time.Second  // a machine falls behind for so long before it is moved
	trialFor   = 8 * time.Second  // and then shows with another source whose fault it was
	turnAfter  = 6 * time.Second  // a head has read from the origin for so long when another tries whether it can do better
	turnEvery  = 15 * time.Second // and no other does so soon after
	turnWorth  = 2 * time.Minute  // it costs some seconds, so that much has to be left
	avoidFor   = 30 * time.Second // a machine that could not be read from is not tried again by the same reader
	slowShare  = 0.6              // of the rate that it could have: less is slow
	mostBehind = 16 << 20         // bytes; for small files it is less
)

// verdict is what is thought of a machine.
type verdict struct {
	slow     bool      // reads slowly: nobody reads from it
	poor     bool      // serves slowly: nobody reads from it
	trial    time.Time // since when it shows whether it is slow; zero if it does not
	trialGot int64     // bytes that it had then
	accused  string    // the order of the machine that is at fault if it is not
	suspects int       // how many show that this one is not at fault

	since    time.Time // it reads from its present source
	lag      int64     // how far it was behind its source then, or at mark
	mark     time.Time
	slowFor  time.Time // since when it is slow beside others, zero if it is not
	full     time.Time // since when its disk is what it waits for; zero if it is not
	best     float64   // bytes a second: the most that it has read with while nobody waited for it
	headRate float64   // bytes a second that it read with before another took its place at the origin
	tried    bool      // it was compared with another at the origin
	avoid    map[string]time.Time
	refused  map[string]bool // sources that it says are down, as long as it says so
}

// slack is how far a machine may be behind the one that it reads from, and ahead of it: on fast networks what comes in half a second.
func (w *swarm) slack() int64 { return max(min(mostBehind, max(w.total/16, 1<<20)), int64(w.best/2)) }

// vague is how far what got says may be off: the rate of a machine is smoothed, and so may be far from what it is when it has just begun.
func (w *swarm) vague(m *member, now time.Time) int64 {
	return min(m.said.Total-m.said.Got, int64(w.best*max(now.Sub(m.heard), 0).Seconds()))
}

// got is how many bytes a machine has by now, as far as can be told from its last report.
func (m *member) got(now time.Time) int64 {
	age := min(now.Sub(m.heard), 3*time.Second).Seconds()
	return min(m.said.Total, m.said.Got+int64(m.said.Rate*max(age, 0)))
}

func (m *member) silent(now time.Time) bool {
	return now.Sub(m.heard) > max(silentAfter, time.Duration(3*float64(len(m.swarm.members))/crowd*float64(time.Second)))
}

// reads reports whether a machine still has something to read.
func (m *member) reads() bool { return !m.said.Done }

// leaf reports whether nobody is to read from a machine.
func (m *member) leaf(now time.Time) bool {
	overstayed := !m.doneAt.IsZero() && !m.said.Stays && now.Sub(m.doneAt) > lingerFor
	return m.bad || m.slow || m.poor || m.suspects > 0 || !m.trial.IsZero() || m.port() == 0 || overstayed
}

// port is where other machines read from this one.
func (m *member) port() int {
	if m.Transport == plan.TransportTorrent {
		return m.said.PeerPort
	}
	return m.said.Port
}

// judge finds out which machines nobody should wait for.
func (w *swarm) judge(now time.Time) {
	for _, m := range w.members {
		if m.silent(now) {
			w.acquit(m)
			continue
		}
		if m.said.Rate > w.best {
			w.best = m.said.Rate
		}
	}
	var behind *member // the first of a chain: those after it only wait for it
	for _, m := range w.ordered {
		switch {
		case m.silent(now) || !m.reads() || !m.placed:
			w.acquit(m)
		case !m.trial.IsZero():
			w.settle(m, now)
		case m.leaf(now):
			m.mark = time.Time{}
			w.spare(m, now)
		case m.parent != "":
			if w.fallsBehind(m, now) && (behind == nil || w.above(behind, m)) {
				behind = m
			}
		default:
			w.turn(m, now)
		}
	}
	if behind != nil {
		w.suspect(behind, now)
	}
}

// notes keeps since when a machine's disk is full, and which sources it could not read from.
func (m *member) notes(now time.Time) {
	if !m.said.Full {
		m.full = time.Time{}
	} else if m.full.IsZero() {
		m.full = now
	}
	down := map[string]bool{}
	for _, s := range m.said.Sources {
		if s.Kind != plan.SourceRelay || s.Down == "" {
			continue
		}
		down[s.ID] = true
		if !m.refused[s.ID] {
			m.avoid[s.ID] = now.Add(avoidFor)
			m.swarm.stale = true
		}
	}
	m.refused = down
	for id, until := range m.avoid {
		if now.After(until) && !down[id] {
			delete(m.avoid, id)
		}
	}
}

// lagging reports whether a machine has fallen further and further behind the one that it reads from.
func (w *swarm) lagging(m, p *member, now time.Time) bool {
	lag := p.got(now) - m.got(now)
	if now.Sub(m.since) < watchFor/2 { // the first moments with a source tell nothing
		return false
	}
	if m.mark.IsZero() {
		m.lag, m.mark = lag, now
		return false
	}
	if now.Sub(m.mark) < watchFor {
		return false
	}
	grown := lag - m.lag
	m.lag, m.mark = lag, now
	return lag > w.slack() && grown > w.slack()/8
}

// fallsBehind reports whether a machine is too slow for the one that it reads from.
func (w *swarm) fallsBehind(m *member, now time.Time) bool {
	p := w.members[m.parent]
	switch {
	case p == nil || m.said.Total-m.got(now) < w.slack():
		return false
	case p.reads():
		return w.lagging(m, p, now) && m.said.Rate < slowShare*p.said.Rate
	}
	return w.belowOthers(m, now)
}

// suspect sends a machine that falls behind to the chain's end, and the one that it reads from too, until it shows whose fault it
// was. One that says that its disk is the reason is believed. Only one shows that at a time, and no more than a third of all are
// thought slow: where many are, it is something else, and who is first does not matter.
func (w *swarm) suspect(m *member, now time.Time) {
	p := w.members[m.parent]
	guilty, reading := 0, 0
	for _, o := range w.members {
		if !o.trial.IsZero() {
			return
		}
		if o.silent(now) {
			continue
		}
		if reading++; o.slow || o.poor {
			guilty++
		}
	}
	if guilty > 0 && guilty >= reading/3 {
		return
	}
	w.stale = true
	if !m.full.IsZero() && now.Sub(m.full) >= watchFor/2 || m.headRate > 0 && m.headRate < slowShare*p.said.Rate {
		m.slow = true
		w.tell("machine reads slowly, and nobody reads from it any more", m, p)
		return
	}
	m.trial, m.trialGot, m.accused = now, m.said.Got, p.Order
	p.suspects++
	w.tell("machine falls behind: it shows with another source whose fault that is", m, p)
}

// spare has a machine that nobody waits for try another source when it has become slow beside itself.
func (w *swarm) spare(m *member, now time.Time) {
	m.best = max(m.best, m.said.Rate)
	if m.parent == "" || !m.full.IsZero() || m.said.Rate >= slowShare*m.best || now.Sub(m.since) < watchFor {
		m.slowFor = time.Time{}
		return
	}
	if m.slowFor.IsZero() {
		m.slowFor = now
	}
	if now.Sub(m.slowFor) >= watchFor {
		m.avoid[m.parent] = now.Add(avoidFor)
		w.stale = true
	}
}

// belowOthers reports whether a machine that reads from one that has everything has been slow beside others for a while.
func (w *swarm) belowOthers(m *member, now time.Time) bool {
	var rates []float64
	for _, o := range w.members {
		if o != m && o.reads() && !o.silent(now) && !o.leaf(now) {
			rates = append(rates, o.said.Rate)
		}
	}
	slices.Sort(rates)
	if len(rates) < 2 || m.said.Rate >= slowShare*rates[len(rates)/2] || now.Sub(m.since) < watchFor {
		m.slowFor = time.Time{}
		return false
	}
	if m.slowFor.IsZero() {
		m.slowFor = now
	}
	return now.Sub(m.slowFor) >= watchFor
}

// settle ends a trial: a machine that is as fast as it could be with another source was not slow, but what it read from is.
func (w *swarm) settle(m *member, now time.Time) {
	if now.Sub(m.since) < trialFor || now.Sub(m.trial) < trialFor {
		return
	}
	could := w.best
	if p := w.members[m.parent]; p != nil && p.reads() {
		could = p.said.Rate
	} else if m.parent == "" {
		if a := w.members[m.accused]; a != nil && a.reads() && !a.silent(now) {
			could = a.said.Rate
		}
	}
	sharing := 0
	for _, o := range w.members {
		if o.reads() && !o.silent(now) && o.parent == m.parent {
			sharing++
		}
	}
	accused := w.members[m.accused]
	fast := m.said.Rate >= slowShare*could/float64(max(sharing, 1))
	w.acquit(m)
	w.stale = true
	switch p := w.members[m.parent]; {
	case p != nil && p.reads() && p.said.Got <= m.said.Got+w.slack()/4 && m.said.Got-m.trialGot < w.slack():
		// It had to wait for the other source, which shows nothing.
	case !fast:
		m.slow = true
		w.tell("machine reads slowly, and nobody reads from it any more", m, accused)
	case accused != nil:
		accused.poor = true
		w.tell("machine serves slowly, and nobody reads from it any more", accused, m)
	}
}

// tell logs a verdict.
func (w *swarm) tell(text string, m, other *member) {
	with := ""
	if other != nil {
		with = other.SN
	}
	w.log.Info(text, "image", w.image, "sn", m.SN, "order", m.Order, "rate", int64(m.said.Rate), "with", with)
}

// acquit ends a trial without a verdict.
func (w *swarm) acquit(m *member) {
	if m.trial.IsZero() {
		return
	}
	if a := w.members[m.accused]; a != nil {
		a.suspects--
	}
	m.trial, m.accused, w.stale = time.Time{}, "", true
}

// turn has the second of a chain change places with the first, once, to see whether it reads faster from the origin, and again
// when the first has become slow. Everybody's rate is the first one's: nothing else could show that it is slow.
func (w *swarm) turn(h *member, now time.Time) {
	c := w.reader(h, now)
	if c == nil || c.said.Rate < slowShare*h.said.Rate || now.Sub(h.since) < turnAfter || h.said.Rate <= 0 || float64(h.said.Total-h.got(now)) < turnWorth.Seconds()*h.said.Rate {
		return
	}
	disk := !h.full.IsZero() && now.Sub(h.full) >= watchFor && c.full.IsZero()
	slow := h.said.Rate < slowShare*w.best
	if h.tried && (!disk && !slow || now.Sub(w.turned) < turnEvery) {
		return
	}
	next := w.reader(c, now)
	w.turned, w.stale = now, true
	w.tell("another machine tries whether it reads faster from the origin", c, h)
	h.headRate, c.tried, h.tried = h.said.Rate, true, true
	w.move(c, "", now)
	w.move(h, c.Order, now)
	if next != nil {
		w.move(next, h.Order, now)
	}
}

// reader is the machine that reads from this one and that others read from; nil if there is none.
func (w *swarm) reader(m *member, now time.Time) *member {
	for _, r := range w.ordered {
		if r.placed && r.parent == m.Order && r.reads() && !r.silent(now) && !r.leaf(now) {
			return r
		}
	}
	return nil
}

// move has a machine read from another one, or from the origin.
func (w *swarm) move(m *member, parent string, now time.Time) {
	if m.placed && m.parent == parent {
		return
	}
	if m.placed {
		w.moved++
	}
	m.parent, m.placed, m.since, m.mark, m.slowFor = parent, true, now, time.Time{}, time.Time{}
}
