package gatetest

import (
	"fmt"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// order is a person's order, for a machine that may be there or not.
func (p *play) order(m *machine) {
	e := &entry{sn: m.serial, names: 1 + p.r.IntN(2), preview: p.r.IntN(3) == 0, offered: map[string]bool{}}
	e.expires = p.clock.now.Add([]time.Duration{0, time.Minute, time.Hour, 5 * time.Hour}[p.r.IntN(4)])
	before := p.host(m.serial)
	o, err := p.w.CreateOrder(p.ctx, registry.Order{SN: m.serial, Image: "web/1.0", By: "alice", Reason: "a test", Preview: e.preview, Expires: e.expires}, e.names)
	result := p.class(err)
	if result != "ok" {
		p.line("order %s: %s", m.serial, result)
		return
	}
	p.stats["ordered"]++
	if o.Preview != e.preview {
		p.breaks("a preview %v was ordered and order %+v was made", e.preview, o)
	}
	for i, other := range p.book {
		if i > 0 && other.sn == e.sn && !other.over {
			if other.boot == "" && !p.clock.now.Before(other.expires) {
				other.over = true // an expired order makes place
				if !other.preview {
					before = nil // and its host is again what it was before that
				}
				continue
			}
			p.breaks("order %d was made while order %d lives", len(p.book), i)
		}
	}
	h, approved := p.hosts[e.sn]
	if !approved {
		p.breaks("%s was ordered and nobody has approved it", e.sn)
	}
	if h.Protect && e.names < 2 && !e.preview {
		p.breaks("%s is protected and was ordered by naming it once", e.sn)
	}
	if e.preview && before != nil {
		p.unchanged(e, before, "the order for a preview")
		p.stats["previews ordered"]++
	}
	e.id = o.ID
	p.ordinal[o.ID] = len(p.book)
	p.book = append(p.book, e)
	p.line("order %s: ok, %d", m.serial, p.ordinal[o.ID])
}

// cancel takes back one of the last orders.
func (p *play) cancel() {
	if len(p.book) < 2 {
		return
	}
	i := max(1, len(p.book)-1-p.r.IntN(6))
	e := p.book[i]
	before := p.host(e.sn)
	result := p.class(p.w.CancelOrder(p.ctx, e.id, "alice", "a test"))
	p.unchanged(e, before, "a preview's cancellation")
	if result == "ok" {
		e.over = true
	}
	p.stats["cancel: "+result]++
	p.line("cancel %d: %s, %s", i, result, p.settle(e.id))
}

// expire is the server's own sweep.
func (p *play) expire() {
	list, err := p.w.ExpireOrders(p.ctx, p.clock.now)
	p.class(err)
	for _, o := range list {
		e := p.book[p.ordinal[o.ID]]
		if e.boot != "" || p.clock.now.Before(e.expires) {
			p.breaks("order %d has expired, before its time or in use", p.ordinal[o.ID])
		}
		e.over = true
		p.stats["expired"]++
	}
	p.line("expire: %d", len(list))
}

// lose is the server's own sweep for silent machines.
func (p *play) lose() {
	since := p.clock.now.Add(-plan.LostSeconds * time.Second)
	list, err := p.w.Silent(p.ctx, since)
	p.class(err)
	for _, o := range list {
		before := p.host(o.SN)
		lost, err := p.w.LoseOrder(p.ctx, o.ID, since, "nothing was heard of it", p.clock.now)
		if p.class(err) == "ok" && !lost {
			p.breaks("order %d is silent and is not lost", p.ordinal[o.ID])
		}
		p.stats["lost"]++
		p.unchanged(p.book[p.ordinal[o.ID]], before, "a lost preview")
		p.line("lose %d: %s", p.ordinal[o.ID], p.settle(o.ID))
	}
}

// unchanged watches that nothing that happens to a preview shows in its host.
func (p *play) unchanged(e *entry, before *registry.Host, what string) {
	if !e.preview || before == nil {
		return
	}
	if after := p.host(e.sn); after == nil || after.State != before.State || after.Booted != nil && before.Booted == nil {
		p.breaks("%s took the host %s from %s to %+v", what, e.sn, before.State, after)
	}
}

// put is a person writing a host down, or changing it.
func (p *play) put(m *machine) {
	h := registry.Host{SN: m.serial, Protect: p.r.IntN(3) == 0}
	switch p.r.IntN(5) {
	case 0:
		h.UUID = uuid(9) // a mistake
	case 1:
		h.MACs = []string{m.mac}
	case 2:
		h.MACs, h.UUID = []string{m.mac}, m.uuid
	}
	switch p.r.IntN(4) {
	case 0:
		h.Live = &registry.Live{Image: "web"}
	case 1:
		h.Live = &registry.Live{Image: "web/1.0"}
	}
	_, created, err := p.w.PutHost(p.ctx, h, "alice", 0)
	result := p.class(err)
	if result == "ok" {
		p.counter++
		h.Revision = int64(p.counter) // the book's own
		p.hosts[h.SN] = h
	}
	p.line("put %s: %s, created %v", m.serial, result, created)
}

func (p *play) forget(sn string) string {
	result := p.class(p.w.DeleteHost(p.ctx, sn, "alice"))
	if result == "ok" {
		delete(p.hosts, sn)
		p.stats["deleted"]++
	}
	return result
}

// settle reads how an order stands into the book, and says it together with its host's state.
func (p *play) settle(id string) string {
	o, err := p.w.Order(p.ctx, id)
	if p.class(err) != "ok" {
		p.breaks("order %d is no more", p.ordinal[id])
		return ""
	}
	e := p.book[p.ordinal[id]]
	if e.over && o.Live() {
		if !e.erased && !e.shown {
			p.breaks("order %d was over, had never begun, and lives again", p.ordinal[id])
		}
		p.stats["found"]++
	}
	if e.preview && !o.Finished.IsZero() {
		p.breaks("order %d is a preview and has installed something: %+v", p.ordinal[id], o)
	}
	e.over, e.finished = !o.Live(), e.finished || !o.Finished.IsZero()
	state := registry.State("gone")
	if h := p.host(o.SN); h != nil {
		state = h.State
	}
	return fmt.Sprintf("order %s lost %v finished %v, host %s", o.State, o.Lost, !o.Finished.IsZero(), state)
}

// mayConsume is asked once of each order, when a boot has got it.
func (p *play) mayConsume(m *machine, e *entry, o *registry.Order, digest string) {
	switch {
	case o.ID != e.id || o.Boot != digest || o.State != registry.OrderConsumed:
		p.breaks("boot %s consumed an order and got %+v", digest, o)
	case e.over:
		p.breaks("an order was consumed that is over: %+v", o)
	case !p.clock.now.Before(e.expires) && !o.Consumed.Before(e.expires):
		p.breaks("an order was consumed that has expired: %+v", o)
	case m.serial != e.sn:
		p.breaks("the order for %s was consumed by %s", e.sn, m.serial)
	}
}

// mayInstall is asked of each installation at the moment from which a disk may be erased.
func (p *play) mayInstall(m *machine, id, digest string, seen int64) {
	n := p.ordinal[id]
	if n == 0 {
		p.breaks("%s installs without an order that a person has made", m.serial)
		return
	}
	e := p.book[n]
	h, approved := p.hosts[m.serial]
	switch {
	case e.sn != m.serial:
		p.breaks("%s installs by order %d, which is for %s", m.serial, n, e.sn)
	case e.boot != digest:
		p.breaks("boot %s installs by order %d, which is %q's", digest, n, e.boot)
	case !e.offered[digest]:
		p.breaks("boot %s installs by order %d, for which it was not started", digest, n)
	case e.preview:
		p.breaks("%s installs by order %d, which is for a preview", m.serial, n)
	case e.over:
		p.breaks("%s installs by order %d, which is over", m.serial, n)
	case e.finished:
		p.breaks("%s installs again by order %d, which was carried out", m.serial, n)
	case !approved:
		p.breaks("%s installs and nobody has approved it", m.serial)
	case p.gate && seen == h.Revision && h.UUID != "" && m.uuid != "" && h.UUID != m.uuid,
		p.gate && seen == h.Revision && len(h.MACs) > 0 && h.MACs[0] != m.mac:
		p.breaks("a machine that is not the one that was written down installs as %s", m.serial)
	case h.Protect && e.names < 2 && !e.erased:
		p.breaks("%s is protected and installs by order %d, which names it once", m.serial, n)
	}
	e.erased = true
}

// mayPreview is asked of each preview when its machine is told to make it.
func (p *play) mayPreview(m *machine, id, digest string, seen int64) {
	n := p.ordinal[id]
	if n == 0 {
		p.breaks("%s shows itself without an order that a person has made", m.serial)
		return
	}
	e := p.book[n]
	h, approved := p.hosts[m.serial]
	switch {
	case !e.preview:
		p.breaks("%s makes a preview by order %d, which is for an installation", m.serial, n)
	case e.sn != m.serial, e.boot != digest, !e.offered[digest]:
		p.breaks("boot %s of %s makes a preview by order %d, which is %q's of %s", digest, m.serial, n, e.boot, e.sn)
	case e.over:
		p.breaks("%s makes a preview by order %d, which is over", m.serial, n)
	case !approved:
		p.breaks("%s makes a preview and nobody has approved it", m.serial)
	case p.gate && seen == h.Revision && h.UUID != "" && m.uuid != "" && h.UUID != m.uuid,
		p.gate && seen == h.Revision && len(h.MACs) > 0 && h.MACs[0] != m.mac:
		p.breaks("a machine that is not the one that was written down makes a preview as %s", m.serial)
	}
	e.shown = true
}
