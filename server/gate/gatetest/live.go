package gatetest

import (
	"context"
	"fmt"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// How soon a host may start another live boot, and how long the one before is remembered.
const (
	liveEvery = 10 * time.Second
	liveKept  = 24 * time.Hour
)

// OfferLive stores a nonce's digest.
func (m *Memory) OfferLive(_ context.Context, sn, image, digest string, now time.Time) error {
	if _, ok := m.offers[digest]; ok {
		return registry.ErrConflict
	}
	m.offers[digest] = offer{registry.Offer{SN: sn, Live: image}, now}
	return nil
}

// StartLive begins a live boot, or gives one that has begun another token.
func (m *Memory) StartLive(_ context.Context, b registry.LiveBoot, token string, now time.Time) (time.Duration, error) {
	h, o, f := m.hosts[b.SN], m.live[b.SN], m.offers[b.Boot]
	switch {
	case b.Image == "":
		return 0, registry.ErrInvalid
	case h == nil:
		return 0, registry.ErrNotFound
	case m.Trusting:
	case f.SN != b.SN || f.Live != b.Image || !f.at.After(now.Add(-registry.OfferLife)),
		h.State == registry.New || h.Live == nil || !h.Live.Covers(b.Image),
		o != nil && o.Due(now):
		return 0, registry.ErrConflict
	}
	l := m.boots[b.Boot]
	if l == nil {
		if last := m.runs[b.SN]; last != nil && now.Sub(last.Started) < liveEvery {
			return liveEvery - now.Sub(last.Started), nil
		}
		for _, old := range m.boots {
			if old.SN == b.SN && old.Heard.Before(now.Add(-liveKept)) {
				m.forget(old)
			}
		}
		l = &liveBoot{LiveBoot: b}
		l.ID, l.Started = fmt.Sprintf("l%d", len(m.boots)+1), now
		m.boots[b.Boot], m.runs[b.SN] = l, l
	}
	l.Heard, m.lives[token] = now, l
	return 0, nil
}

func (m *Memory) forget(b *liveBoot) {
	for token, of := range m.lives {
		if of == b {
			delete(m.lives, token)
		}
	}
}

// LiveByToken reads the one that has the token.
func (m *Memory) LiveByToken(_ context.Context, token string) (*registry.LiveBoot, error) {
	if b := m.lives[token]; b != nil {
		c := b.LiveBoot
		return &c, nil
	}
	return nil, registry.ErrNotFound
}

// ReportLive stores what the machine says.
func (m *Memory) ReportLive(_ context.Context, id string, events []plan.Event, now time.Time) (int64, error) {
	for _, b := range m.boots {
		if b.ID != id {
			continue
		}
		for _, e := range events {
			b.seq = max(b.seq, e.Seq)
		}
		b.Heard = now
		return b.seq, nil
	}
	return 0, registry.ErrNotFound
}

// live is a boot that was told to run a release from memory.
func (p *play) live(m *machine, digest, image string, seen int64) {
	if !p.InTurn && p.r.IntN(4) == 0 { // somebody does something between the decision and the start
		p.step()
	}
	before := p.host(m.serial)
	p.counter++
	token := fmt.Sprintf("live-%d", p.counter)
	wait, err := p.w.StartLive(p.ctx, registry.LiveBoot{SN: m.serial, Image: image, Boot: digest}, token, p.clock.now)
	result := p.class(err)
	p.line("live %s: %s, waits %s, %s", m.serial, image, wait, result)
	switch {
	case result != "ok":
		p.stats["live boots refused"]++
	case wait > 0:
		p.stats["live boots wait"]++
	default:
		p.mayRun(m, digest, image, seen)
		p.stats["live boots"]++
		m.lives = append(m.lives, token)
	}
	if after := p.host(m.serial); before != nil && (after == nil || after.State != before.State) {
		p.breaks("a live boot took the host %s from %s to %+v", m.serial, before.State, after)
	}
}

// mayRun is asked of each live boot when its machine is told to run a release.
func (p *play) mayRun(m *machine, digest, image string, seen int64) {
	h, approved := p.hosts[m.serial]
	switch {
	case p.started[digest] != m.serial+" "+image:
		p.breaks("boot %s of %s runs %s, and was started for %q", digest, m.serial, image, p.started[digest])
	case !approved || h.Live == nil || !h.Live.Covers(image):
		p.breaks("%s runs %s, which nobody wishes: %+v", m.serial, image, h.Live)
	case p.gate && seen == h.Revision && h.UUID != "" && m.uuid != "" && h.UUID != m.uuid,
		p.gate && seen == h.Revision && len(h.MACs) > 0 && h.MACs[0] != m.mac:
		p.breaks("a machine that is not the one that was written down runs as %s", m.serial)
	}
	for i, e := range p.book {
		if i > 0 && e.sn == m.serial && !e.over && (e.boot != "" || p.clock.now.Before(e.expires)) {
			p.breaks("%s runs %s, and order %d lives", m.serial, image, i)
		}
	}
}

// reportLive is a machine telling how its live boot goes on.
func (p *play) reportLive(m *machine) {
	if len(m.lives) == 0 {
		return
	}
	before := p.host(m.serial)
	b, err := p.w.LiveByToken(p.ctx, m.lives[len(m.lives)-1])
	if result := p.class(err); result != "ok" {
		p.line("live report of %s: %s", m.serial, result)
		return
	}
	kind := []plan.Kind{plan.KindStep, plan.KindFailed, plan.KindDone, plan.KindPreview}[p.r.IntN(4)]
	m.seq += int64(p.r.IntN(2))
	seq, err := p.w.ReportLive(p.ctx, b.ID, []plan.Event{{Seq: m.seq, Kind: kind}}, p.clock.now)
	p.line("live report of %s: %s, %d, %s", m.serial, kind, seq, p.class(err))
	if after := p.host(m.serial); before != nil && (after == nil || after.State != before.State) {
		p.breaks("what a live boot said took the host %s from %s to %+v", m.serial, before.State, after)
	}
	p.stats["live boots run"]++
}
