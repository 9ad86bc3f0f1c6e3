package dhcp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"imgbuild/server/registry"
)

// BenchmarkDecisions is a boot's DISCOVER and REQUEST, parsed, decided and written, with 10,000 hosts in the registry and
// as many strangers who have leases.
func BenchmarkDecisions(b *testing.B) {
	cfg, err := Config{Mode: Full, Interfaces: []string{"br0"}, Probe: -1, Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/16"),
		Ranges: []Range{span("10.1.100.0-10.1.255.0")}, Lease: time.Hour}}}.withDefaults()
	if err != nil {
		b.Fatal(err)
	}
	s := &server{cfg: &cfg, leases: newTable(), hosts: newHosts(), probed: map[netip.Addr]time.Time{}, fixed: newFixed(nil)}
	mac := func(i int) string { return fmt.Sprintf("02:00:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255) }
	const n = 10_000
	for i := range n {
		s.hosts.put(&registry.Host{SN: fmt.Sprint("SN", i), IP: fmt.Sprintf("10.1.%d.%d", i>>8, i&255), MACs: []string{mac(i)}})
	}
	l := link{name: "br0", index: 2, addrs: []netip.Prefix{netip.MustParsePrefix("10.1.255.254/16")}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m := mac(i % (2 * n))
		for _, p := range []*Packet{message(discover, m, pxe0), message(request, m, pxe0, "54=10.1.255.254")} {
			if p.Type() == request {
				p.Options.Set(optRequested, addrs(s.leases.byKey["mac "+m][0].addr))
			}
			wire, _ := p.Marshal(maxPacket)
			q := query{link: l, port: portServer, to: ip("255.255.255.255")}
			if q.packet, err = Parse(wire); err != nil {
				b.Fatal(err)
			}
			a := s.answer(q, noon)
			if a.reply == nil {
				b.Fatal(a.why)
			}
			for _, l := range a.put {
				s.leases.put(l)
			}
			a.reply.Marshal(a.limit)
		}
	}
}
