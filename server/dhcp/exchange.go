package dhcp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// discover answers a client that looks for a server (RFC 2131, 4.3.1).
func (s *server) discover(q query, who person, now time.Time) answer {
	a, why := s.choose(q, &who, now)
	if !a.IsValid() {
		return answer{why: why, bad: true}
	}
	out := s.reply(q, &who, offer, a)
	out.why = fmt.Sprintf("offered %s, %s", a, why)
	l := s.leases.byAddr[a]
	if l != nil && l.active(now) { // his own already
		if l.state == Offered {
			out.put = []lease{s.lease(&who, a, Offered, now.Add(offerLife))}
		}
	} else {
		out.put = []lease{s.lease(&who, a, Offered, now.Add(offerLife))}
	}
	if (l == nil || !l.active(now) || l.state == Offered) && s.probes(a, now) {
		out.probe = a
	}
	return out
}

// probes reports whether it is time to ask whether somebody uses an address.
func (s *server) probes(a netip.Addr, now time.Time) bool {
	t, ok := s.probed[a]
	return s.cfg.Probe > 0 && (!ok || now.Sub(t) >= probeLife)
}

// lease makes a client's lease of an address.
func (s *server) lease(who *person, a netip.Addr, state State, expires time.Time) lease {
	return lease{addr: a, id: who.id, mac: who.mac, sn: who.sn, hostname: who.hostname, subnet: who.subnet.Prefix, state: state, expires: expires}
}

// request answers a client that wants an address: after an offer (SELECTING), after a restart (INIT-REBOOT), or to go on
// with the one it has (RENEWING, REBINDING) (RFC 2131, 4.3.2).
func (s *server) request(q query, who person, now time.Time) answer {
	p := q.packet
	want, id := p.addr(optRequested), p.addr(optServer)
	selecting, using := id.IsValid(), false
	switch {
	case selecting && !s.isSelf(q, id):
		out := silent("it chose the server %s", id)
		for _, l := range s.leases.byKey[who.key()] {
			if l.state == Offered {
				out.del = append(out.del, l.addr)
			}
		}
		return out
	case selecting && !want.IsValid():
		want = p.CIAddr
	case !selecting && !want.IsValid():
		want, using = p.CIAddr, true
	}
	if !want.IsValid() {
		return silent("it asks for no address")
	}
	// A client that renews sends to us alone, and no relay says where it is.
	direct := using && !p.GIAddr.IsValid() && q.link.has(q.to)
	if direct {
		who.subnet = s.subnetOf(want)
	} else {
		list := s.subnets(q)
		for _, n := range list {
			if n.Prefix.Contains(want) {
				who.subnet = n
			}
		}
		if who.subnet == nil && len(list) > 0 {
			return s.refuse(q, &who, "%s is not in %s, where the client is", want, list[0].Prefix)
		}
	}
	if who.subnet == nil {
		return silent("%s is in no subnet that is served here", want)
	}
	n := who.subnet
	l := s.leases.byAddr[want]
	mine := l != nil && l.mine(&who.client, who.sn)
	switch why := s.bars(want, &who, q, n); {
	case why == notInRange && !selecting && !direct && !mine:
		return silent("%s is in no range; it may be another server's", want)
	case why != "":
		return s.refuse(q, &who, "%s: %s", want, why)
	case !s.free(want, &who, now):
		return s.refuse(q, &who, "%s is leased to another client", want)
	}
	for _, a := range s.statics(&who, n) {
		if a == want {
			break
		}
		if s.free(a, &who, now) && s.bars(a, &who, q, n) == "" {
			return s.refuse(q, &who, "%s is kept for this client, which asks for %s", a, want)
		}
	}
	d := leaseTime(p, n)
	state := Bound
	if who.stage != running {
		state = Booting
	}
	out := s.reply(q, &who, ack, want)
	out.put, out.keep = []lease{s.lease(&who, want, state, now.Add(d))}, true
	out.why = fmt.Sprintf("leased %s for %s", want, d)
	// What has no record here (the leases were lost, or the offer is long ago) is asked about before it is given.
	if !mine && !using && s.probes(want, now) {
		out.probe = want
	}
	return out
}

// leaseTime is what the client asks for, if it is less than the subnet's.
func leaseTime(p *Packet, n *Subnet) time.Duration {
	if b := p.Options.Get(optLease); len(b) == 4 {
		return min(max(time.Duration(binary.BigEndian.Uint32(b))*time.Second, minLease), n.Lease)
	}
	return n.Lease
}

// refuse is a DHCPNAK: the client is to begin anew.
func (s *server) refuse(q query, who *person, format string, a ...any) answer {
	out := answer{why: "refused: " + fmt.Sprintf(format, a...), limit: q.packet.maxSize()}
	p := q.packet
	r := replyTo(p, nak)
	r.CIAddr = netip.Addr{}
	r.Options.Set(optServer, addrs(s.self(q, who.subnet)))
	r.Options.Set(optMessage, []byte(fmt.Sprintf(format, a...)))
	if who.raw != "" {
		r.Options.Set(optClientID, p.Options.Get(optClientID)) // RFC 6842
	}
	echo(r, p)
	out.reply = r
	if p.GIAddr.IsValid() {
		r.Flags |= flagBroadcast // RFC 2131, 4.3.2: the relay is to broadcast it
		out.way, out.to = unicast, netip.AddrPortFrom(p.GIAddr, portServer)
	} else {
		out.way, out.to = broadcast, everybody
	}
	return out
}

// decline takes note that somebody else uses an address (RFC 2131, 4.3.3).
func (s *server) decline(q query, who person, now time.Time) answer {
	a := q.packet.addr(optRequested)
	if id := q.packet.addr(optServer); id.IsValid() && !s.isSelf(q, id) {
		return silent("it declines what the server %s gave", id)
	}
	l := s.leases.byAddr[a]
	if l == nil || l.key() != who.key() || !l.active(now) {
		return silent("it declines %s, which it has not got", a)
	}
	out := answer{why: fmt.Sprintf("declined %s: another machine uses it; it is given to nobody for %s", a, declineLife), bad: true, keep: true}
	d := *l
	d.state, d.expires = Declined, now.Add(declineLife)
	out.put = []lease{d}
	return out
}

// release takes an address back (RFC 2131, 4.3.4).
func (s *server) release(q query, who person, now time.Time) answer {
	a := q.packet.CIAddr
	if id := q.packet.addr(optServer); id.IsValid() && !s.isSelf(q, id) {
		return silent("it releases what the server %s gave", id)
	}
	l := s.leases.byAddr[a]
	if l == nil || l.key() != who.key() || l.state == Declined {
		return silent("it releases %s, which it has not got", a)
	}
	d := *l
	d.state, d.expires = Released, now
	return answer{why: fmt.Sprintf("released %s", a), put: []lease{d}, keep: true}
}

// inform answers a client that has an address from elsewhere and wants to know the rest (RFC 2131, 4.3.5).
func (s *server) inform(q query, who person, _ time.Time) answer {
	at := q.packet.CIAddr
	if !at.IsValid() && q.from.Addr().Is4() && !q.from.Addr().IsUnspecified() && !q.packet.GIAddr.IsValid() {
		at = q.from.Addr()
	}
	if !at.IsValid() {
		return silent("it asks for settings and does not say its address")
	}
	if who.subnet = s.subnetOf(at); who.subnet == nil {
		return silent("%s is in no subnet that is served here", at)
	}
	out := s.reply(q, &who, ack, netip.Addr{})
	out.way, out.to = unicast, netip.AddrPortFrom(at, portClient)
	out.why = "informed " + at.String()
	return out
}
