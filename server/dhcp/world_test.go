package dhcp

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// world is a server's state and the link that messages come by.
type world struct {
	t    *testing.T
	cfg  Config
	s    *server
	link link
	now  time.Time
}

func newWorld(t *testing.T, change func(*Config), hosts ...registry.Host) *world {
	t.Helper()
	cfg := Config{Mode: Full, Interfaces: []string{"br0"}, Subnets: []Subnet{
		{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Ranges: []Range{span("10.1.0.100-10.1.0.199")}, Gateway: ip("10.1.0.254"), DNS: []netip.Addr{ip("10.1.0.53")},
			Domain: "example.org", Search: []string{"example.org", "lab.example.org"}, NTP: []netip.Addr{ip("10.1.0.123")}, MTU: 9000, Lease: time.Hour},
		{Prefix: netip.MustParsePrefix("10.2.0.0/24"), Ranges: []Range{span("10.2.0.10-10.2.0.12")}, Gateway: ip("10.2.0.1"), Lease: 2 * time.Hour, RelayOnly: true},
	}}
	if change != nil {
		change(&cfg)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cfg: cfg, now: noon, link: link{name: "br0", index: 2, mac: hw("02:00:00:00:00:01"), addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}}}
	w.s = &server{cfg: &w.cfg, leases: newTable(), hosts: newHosts(), probed: map[netip.Addr]time.Time{}, fixed: newFixed(cfg.Reservations)}
	for i := range hosts {
		w.s.hosts.put(&hosts[i])
	}
	return w
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func span(s string) Range {
	a, b, _ := strings.Cut(s, "-")
	return Range{ip(a), ip(b)}
}

func hw(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// message makes a client's message. Each option is as 50=10.1.0.7, 60="text", 93=0007 (hex) or relay=10.2.0.1.
func message(t byte, mac string, opts ...string) *Packet {
	p := &Packet{Op: opRequest, HType: 1, XID: 0x1234}
	if mac != "" {
		p.HLen = 6
		copy(p.CHAddr[:], hw(mac))
	}
	p.Options.Set(optType, []byte{t})
	for _, o := range opts {
		k, v, _ := strings.Cut(o, "=")
		switch k {
		case "relay":
			p.GIAddr, p.Hops = ip(v), 1
			continue
		case "ciaddr":
			p.CIAddr = ip(v)
			continue
		case "broadcast":
			p.Flags = flagBroadcast
			continue
		}
		var code byte
		if _, err := fmt.Sscan(k, &code); err != nil {
			panic(err)
		}
		if s, ok := strings.CutPrefix(v, `"`); ok {
			p.Options.Set(code, []byte(strings.TrimSuffix(s, `"`)))
		} else if a, err := netip.ParseAddr(v); err == nil {
			p.Options.Set(code, addrs(a))
		} else if b, err := hex.DecodeString(v); err == nil {
			p.Options.Set(code, b)
		} else {
			panic(o)
		}
	}
	return p
}

// send lets the world decide and carries the lease changes out, as the server does. A message goes through the wire format.
func (w *world) send(p *Packet, to ...string) answer {
	w.t.Helper()
	b, _ := p.Marshal(maxPacket)
	p, err := Parse(b)
	if err != nil {
		w.t.Fatal(err)
	}
	q := query{packet: p, link: w.link, port: portServer, to: ip("255.255.255.255"), from: netip.MustParseAddrPort("0.0.0.0:68")}
	for _, s := range to {
		if s == "4011" {
			q.port, q.from = portPXE, netip.MustParseAddrPort("10.1.0.150:4011")
			continue
		}
		q.to = ip(s)
	}
	a := w.s.answer(q, w.now)
	for _, d := range a.del {
		w.s.leases.remove(d)
	}
	for _, l := range a.put {
		w.s.leases.put(l)
	}
	if a.reply != nil {
		b, left := a.reply.Marshal(a.limit)
		if len(left) > 0 {
			w.t.Logf("left out: %v", left)
		}
		if a.reply, err = Parse(b); err != nil {
			w.t.Fatal(err)
		}
	}
	return a
}

// lease does DISCOVER and REQUEST, and gives the address.
func (w *world) lease(mac string, opts ...string) netip.Addr {
	w.t.Helper()
	o := w.send(message(discover, mac, opts...))
	if o.reply == nil {
		w.t.Fatalf("%s got no offer: %s", mac, o.why)
	}
	a := w.send(message(request, mac, append(opts, "50="+o.reply.YIAddr.String(), "54=10.1.0.1")...))
	if a.reply == nil || a.reply.Type() != ack || a.reply.YIAddr != o.reply.YIAddr {
		w.t.Fatalf("%s was offered %s and got %s", mac, o.reply.YIAddr, show(a))
	}
	return a.reply.YIAddr
}

// show writes an answer in one line: what, to where, which address.
func show(a answer) string {
	if a.reply == nil {
		return "nothing"
	}
	s := typeName(a.reply.Type())
	if a.reply.YIAddr.IsValid() {
		s += " " + a.reply.YIAddr.String()
	}
	return s + " " + [...]string{"to", "broadcast to", "raw to"}[a.way] + " " + a.to.String()
}

func known(sn, addr string, macs ...string) registry.Host {
	return registry.Host{SN: sn, Hostname: strings.ToLower(sn), IP: addr, Netmask: "255.255.255.0", GW: "10.1.0.253", MACs: macs}
}

func inventory(h registry.Host, macs ...string) registry.Host {
	h.Inventory = &plan.Inventory{}
	for _, m := range macs {
		h.Inventory.NICs = append(h.Inventory.NICs, plan.NIC{MAC: m})
	}
	return h
}
