package swarm

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// member is one machine of a swarm.
type member struct {
	Machine
	swarm  *swarm
	age    int // order of joining, from 1
	joined time.Time
	heard  time.Time
	doneAt time.Time
	said   plan.Swarm

	parent string          // the order that it is planned to read from; empty is the origin
	placed bool            // parent was planned
	given  map[string]bool // sources that it was ever told of
	bad    bool            // served a bad chunk
	// claim is what it read from when this server had just started and did not know it: another one has planned that, or this one
	// before.
	claim string
	verdict
}

// take takes in a report.
func (m *member) take(who Machine, r plan.Swarm, now time.Time) {
	if who.Address != m.Address || r.Port != m.said.Port || r.Done != m.said.Done {
		m.swarm.stale = true
	}
	m.Address, m.Base = who.Address, who.Base
	switch {
	case !r.Done:
		m.doneAt = time.Time{}
	case m.doneAt.IsZero():
		m.doneAt = now
	}
	m.said, m.heard = r, now
	m.notes(now)
}

// blame finds machines that served a bad chunk to this one, and has nobody read from them again. Only who was told to read
// from a machine can blame it.
func (s *Server) blame(m *member, now time.Time) []registry.Event {
	var events []registry.Event
	for _, src := range m.said.Sources {
		from := m.swarm.members[src.ID]
		if src.Bad == 0 || src.Kind != plan.SourceRelay || from == nil || from.bad || from == m || !m.given[src.ID] {
			continue
		}
		from.bad, m.swarm.stale = true, true
		s.count.Bad++
		text := fmt.Sprintf("it served chunks of %s to %s whose SHA-256 is not the signed one: no machine reads from it any more. Is its memory good?", m.Image, name(m))
		s.o.Log.Warn("machine serves bad bytes", "sn", from.SN, "order", from.Order, "to", m.SN, "chunks", src.Bad)
		events = append(events, registry.Event{Time: now, SN: from.SN, Order: from.Order, Kind: string(plan.KindWarn), Text: text})
	}
	return events
}

func name(m *member) string {
	if m.Hostname != "" {
		return m.SN + " (" + m.Hostname + ")"
	}
	return m.SN
}

// secretOf makes the key of the machines' secrets: another one than what signs plans.
func secretOf(key image.PrivateKey) ([]byte, error) {
	data, err := key.Marshal()
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	h.Write([]byte("imgbuild relay secrets 1\n"))
	h.Write(data)
	return h.Sum(nil), nil
}

// secretFor is what tickets for reading from an order's machine are made with: the same on every server of a registry, and
// after a restart.
func (s *Server) secretFor(order string) []byte {
	h := hmac.New(sha256.New, s.secret)
	h.Write([]byte(order))
	return h.Sum(nil)
}

// Tickets are the same for a while, so that who has one need not use another with each answer.
const (
	ticketLife = time.Hour
	ticketStep = 15 * time.Minute
)

func (s *Server) ticket(order string, now time.Time) string {
	return plan.Ticket(s.secretFor(order), now.Truncate(ticketStep).Add(ticketStep+ticketLife))
}

// source is what a machine reads most from; empty if it reads nothing.
func source(r plan.Swarm) string {
	best, rate := "", 0.
	for _, s := range r.Sources {
		if s.Down == "" && s.Rate > rate {
			best, rate = s.ID, s.Rate
		}
	}
	return best
}
