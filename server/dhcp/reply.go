package dhcp

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// everybody is where broadcasts to clients go.
var everybody = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), portClient)

// replyTo makes a reply with what every one takes from the message that it answers (RFC 2131, 4.3.1, table 3).
func replyTo(p *Packet, t byte) *Packet {
	r := &Packet{Op: opReply, HType: p.HType, HLen: p.HLen, XID: p.XID, Flags: p.Flags, CIAddr: p.CIAddr, GIAddr: p.GIAddr, CHAddr: p.CHAddr}
	if t == offer {
		r.CIAddr = netip.Addr{}
	}
	r.Options.Set(optType, []byte{t})
	return r
}

// echo gives back what is the relay's (RFC 3046, 2.2).
func echo(r, p *Packet) {
	if b := p.Options.Get(optRelay); b != nil {
		r.Options.Set(optRelay, b)
	}
}

// reply makes an OFFER or ACK of an address; without one, the ACK of an INFORM. What is needed most comes first: a
// client with little room loses the end.
func (s *server) reply(q query, who *person, t byte, a netip.Addr) answer {
	p, n := q.packet, who.subnet
	r := replyTo(p, t)
	r.YIAddr = a
	o := &r.Options
	o.Set(optServer, addrs(s.self(q, n)))
	if a.IsValid() {
		d := leaseTime(p, n)
		o.Set(optLease, seconds(d))
		o.Set(optT1, seconds(d/2)) // RFC 2131, 4.4.5
		o.Set(optT2, seconds(d*7/8))
	}
	if who.raw != "" {
		o.Set(optClientID, p.Options.Get(optClientID)) // RFC 6842
	}
	if p.wants(optMask) {
		m := number(n.broadcast()) ^ number(n.Prefix.Addr()) ^ 0xffffffff
		o.Set(optMask, binary.BigEndian.AppendUint32(nil, uint32(m)))
	}
	gateway, dns, search := n.Gateway, n.DNS, n.Search
	name := ""
	if h := who.host; h != nil && who.sn != "" {
		if h.gateway.IsValid() && n.Prefix.Contains(h.gateway) && a == h.addr {
			gateway = h.gateway
		}
		if len(addrs(h.dns...)) > 0 {
			dns = h.dns
		}
		if len(h.search) > 0 {
			search = h.search
		}
		name = h.hostname
	}
	if f := s.fixed.byAddr[a]; f != nil && f.Hostname != "" {
		name = f.Hostname
	}
	set := func(code byte, data []byte) {
		if len(data) > 0 && p.wants(code) {
			o.Set(code, data)
		}
	}
	set(optRouter, addrs(gateway))
	set(optDNS, addrs(dns...))
	s.boot(q, &who.client, r, n)
	short, domain, _ := strings.Cut(name, ".")
	if n.Domain != "" {
		domain = n.Domain
	}
	set(optHostname, []byte(short))
	set(optDomain, []byte(domain))
	set(optSearch, searchList(search))
	if explicit(p, optNTP) {
		set(optNTP, addrs(n.NTP...))
	}
	if explicit(p, optBroadcast) {
		set(optBroadcast, addrs(n.broadcast()))
	}
	if n.MTU > 0 && explicit(p, optMTU) {
		set(optMTU, binary.BigEndian.AppendUint16(nil, uint16(n.MTU)))
	}
	echo(r, p)
	out := answer{reply: r, limit: p.maxSize()}
	out.way, out.to = direction(p, r)
	return out
}

// explicit reports whether option 55 names an option: those that a client without a list has no use for.
func explicit(p *Packet, code byte) bool { return p.Options.Has(optParameters) && p.wants(code) }

// direction is where a reply goes (RFC 2131, 4.1).
func direction(p, r *Packet) (way, netip.AddrPort) {
	switch {
	case p.GIAddr.IsValid():
		return unicast, netip.AddrPortFrom(p.GIAddr, portServer)
	case p.CIAddr.IsValid():
		return unicast, netip.AddrPortFrom(p.CIAddr, portClient)
	case p.Flags&flagBroadcast != 0 || p.HLen != 6 || !r.YIAddr.IsValid():
		return broadcast, everybody
	}
	return raw, netip.AddrPortFrom(r.YIAddr, portClient)
}

// boot says to firmware where its boot loader is, and to iPXE where its script is. iPXE never gets a boot loader: that is
// what would load iPXE again and again.
func (s *server) boot(q query, c *client, r *Packet, n *Subnet) bool {
	if c.stage != firmware {
		return false
	}
	b, own := &s.cfg.Boot, s.own(q, n)
	name := b.Loaders[c.platform]
	if shim := b.Shims[c.platform]; shim != "" {
		name = shim
	}
	next, file := own, name
	if b.TFTP.IsValid() {
		next = b.TFTP
	}
	class := ""
	switch {
	case c.ipxe:
		file = b.at(own) + b.Script
	case name == "":
		return false
	case c.http:
		file, class = b.at(own)+b.Loader+name, "HTTPClient"
	default:
		class = "PXEClient"
	}
	if class == "" && s.cfg.Mode == Proxy || q.port == portPXE {
		class = "PXEClient" // whoever answers for a proxyDHCP says so (PXE 2.1, 2.2.1), to iPXE too
		if c.http {
			class = "HTTPClient"
		}
	}
	r.SIAddr = next
	o, p := &r.Options, q.packet
	if class != "" {
		o.Set(optClass, []byte(class))
	}
	if len(file) < 128 {
		r.File = file
	}
	// An HTTP client reads only the option (UEFI 2.10, 24.7.3); the others read the field, and some only what they asked for.
	if c.ipxe || c.http || r.File == "" || explicit(p, optBootFile) {
		o.Set(optBootFile, []byte(file))
	}
	if !c.http && explicit(p, optTFTPServer) {
		o.Set(optTFTPServer, []byte(next.String()))
	}
	if class == "PXEClient" {
		// Bit 3: use the file of this reply, show no menu, look for no boot server.
		o.Set(optVendor, []byte{pxeDiscovery, 1, 8, optEnd})
	}
	if u := p.Options.Get(optUUID); len(u) == 17 {
		o.Set(optUUID, u)
	}
	if c.ipxe && s.cfg.Mode == Full {
		o.Set(optIPXE, []byte{ipxeNoProxy, 1, 1}) // else it waits for a proxyDHCP that is not there
	}
	return true
}

// at is the HTTP server's URL for a client that reached this server by an address.
func (b *Boot) at(own netip.Addr) string {
	url := strings.TrimSuffix(b.URL, "/")
	if url == "" {
		return "http://" + own.String()
	}
	scheme, rest, _ := strings.Cut(url, "://")
	if strings.HasPrefix(rest, ":") {
		return scheme + "://" + own.String() + rest
	}
	return url
}

// proxy answers as a proxyDHCP does (PXE 2.1, 2.2): to firmware only, without an address, to what asks for one on port 67
// or for a boot loader on port 4011.
func (s *server) proxy(q query, c client) answer {
	p := q.packet
	if c.stage != firmware || !c.pxe && !c.http {
		return silent("it does not boot from the network")
	}
	t := offer
	switch {
	case q.port == portPXE && (p.Type() == request || p.Type() == inform || p.Type() == discover):
		t = ack
	case q.port == portServer && p.Type() == discover:
	case q.port == portServer && p.Type() == inform:
		t = ack
	default:
		return silent("a proxyDHCP has no answer to it")
	}
	r := replyTo(p, t)
	r.Options.Set(optServer, addrs(s.self(q, nil)))
	if !s.boot(q, &c, r, nil) {
		return silent("there is no boot loader for its platform")
	}
	if c.raw != "" {
		r.Options.Set(optClientID, p.Options.Get(optClientID))
	}
	echo(r, p)
	out := answer{reply: r, limit: p.maxSize(), why: "told to load " + string(r.bootFile())}
	switch {
	case q.port == portPXE:
		out.way, out.to = unicast, q.from
		if !q.from.Addr().IsValid() || q.from.Addr().IsUnspecified() {
			out.way, out.to = broadcast, everybody
		}
	default:
		out.way, out.to = direction(p, r)
	}
	return out
}

func (p *Packet) bootFile() string {
	if b := p.Options.Get(optBootFile); b != nil {
		return string(b)
	}
	return p.File
}
