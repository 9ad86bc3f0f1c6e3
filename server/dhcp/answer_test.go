package dhcp

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

const (
	macA = "52:54:00:00:00:0a"
	macB = "52:54:00:00:00:0b"
	pxe0 = `60="PXEClient:Arch:00000:UNDI:002001"`
)

// step is one message and what is to come of it.
type step struct {
	send *Packet
	to   string
	want string        // show's form; with … at its end, a prefix
	why  string        // part of the reason
	wait time.Duration // before it
}

func TestConversations(t *testing.T) {
	raw := func(a string) string { return a + " raw to " + strings.Fields(a)[1] + ":68" }
	for name, c := range map[string]struct {
		change func(*Config)
		hosts  []registry.Host
		steps  []step
	}{
		"a host with a static address gets it by its hardware address": {hosts: []registry.Host{known("A", "10.1.0.7", macA)}, steps: []step{
			{send: message(discover, macA), want: raw("OFFER 10.1.0.7")},
			{send: message(request, macA, "50=10.1.0.7", "54=10.1.0.1"), want: raw("ACK 10.1.0.7")},
			{send: message(request, macA, "ciaddr=10.1.0.7"), to: "10.1.0.1", want: "ACK 10.1.0.7 to 10.1.0.7:68"},
		}},
		"a host gets it by a serial number in its client identifier": {hosts: []registry.Host{known("SN-0042", "10.1.0.7")}, steps: []step{
			{send: message(discover, macA, `61="SN-0042"`), want: raw("OFFER 10.1.0.7")},
			{wait: 2 * time.Minute, send: message(discover, macB, `61=00534e2d30303432`), want: raw("OFFER 10.1.0.7")},
		}},
		"a host gets it by a serial number in its user class": {hosts: []registry.Host{known("SN-0042", "10.1.0.7")}, steps: []step{
			{send: message(discover, macA, `77="serial=SN-0042"`, "175=b10100"), want: raw("OFFER 10.1.0.7")},
		}},
		"a host without known hardware gets it by its UUID, in either byte order": {hosts: []registry.Host{{SN: "A", IP: "10.1.0.7", UUID: "4c4c4544-0035-4a10-8051-b4c04f4a3132"}}, steps: []step{
			{send: message(discover, macA, pxe0, "97=0044454c4c3500104a8051b4c04f4a3132"), want: raw("OFFER 10.1.0.7")},
			{send: message(discover, macA, pxe0, "97=004c4c454400354a108051b4c04f4a3132"), want: raw("OFFER 10.1.0.7")},
		}},
		"a host's hardware address of its inventory is as good": {hosts: []registry.Host{inventory(known("A", "10.1.0.7"), macB)}, steps: []step{
			{send: message(discover, macB), want: raw("OFFER 10.1.0.7")},
		}},
		"a static address is given to nobody else, even when he asks for it": {hosts: []registry.Host{known("A", "10.1.0.110", macA)}, steps: []step{
			{send: message(request, macB, "50=10.1.0.110"), want: "NAK broadcast to 255.255.255.255:68", why: "the registry's for A"},
			{send: message(request, macB, "ciaddr=10.1.0.110"), to: "10.1.0.1", want: "NAK broadcast to 255.255.255.255:68"},
			{send: message(request, macA, "50=10.1.0.110"), want: raw("ACK 10.1.0.110")},
		}},
		"a management controller's address is given to nobody": {hosts: []registry.Host{{SN: "A", OOB: &registry.OOB{Address: "10.1.0.110"}}}, steps: []step{
			{send: message(request, macB, "50=10.1.0.110", "54=10.1.0.1"), want: "NAK broadcast to 255.255.255.255:68", why: "the registry's for A"},
		}},
		"a management controller gets its own address and not its host's": {hosts: []registry.Host{{SN: "A", IP: "10.1.0.7", OOB: &registry.OOB{Address: "10.1.0.8"},
			Inventory: &plan.Inventory{BMC: &plan.BMC{MAC: macB}}}}, steps: []step{
			{send: message(discover, macB), want: raw("OFFER 10.1.0.8")},
		}},
		"two hosts that were written down with one address get neither it": {hosts: []registry.Host{known("A", "10.1.0.7", macA), known("B", "10.1.0.7", macB)}, steps: []step{
			{send: message(request, macA, "50=10.1.0.7", "54=10.1.0.1"), want: "NAK broadcast to 255.255.255.255:68"},
		}},
		"a port that a whole network configuration names gets that port's address": {hosts: []registry.Host{{SN: "A", Network: &plan.Network{Ethernets: []plan.Ethernet{
			{Name: "a", Match: plan.Match{MAC: macA}, IP: plan.IP{Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.20/24")}}},
			{Name: "b", Match: plan.Match{MAC: macB}, IP: plan.IP{Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.21/24")}}},
		}}}}, steps: []step{
			{send: message(discover, macB), want: raw("OFFER 10.1.0.21")},
			{send: message(discover, macA), want: raw("OFFER 10.1.0.20")},
		}},
		"reservations go before the registry, by hardware address, serial number and client identifier": {change: func(c *Config) {
			c.Reservations = []Reservation{{Address: ip("10.1.0.30"), MAC: "52-54-00-00-00-0A"}, {Address: ip("10.1.0.31"), SN: "SN-0042"}, {Address: ip("10.1.0.32"), ClientID: "01:52:54:00:00:00:0c"},
				{Address: ip("10.1.0.33"), ClientID: "printer"}}
		}, hosts: []registry.Host{known("A", "10.1.0.7", macA)}, steps: []step{
			{send: message(discover, macA), want: raw("OFFER 10.1.0.30")},
			{send: message(discover, macB, `61="SN-0042"`), want: raw("OFFER 10.1.0.31")},
			{send: message(discover, "52:54:00:00:00:0c", "61=01525400"+"00000c"), want: raw("OFFER 10.1.0.32")},
			{send: message(discover, "52:54:00:00:00:0d", `61="printer"`), want: raw("OFFER 10.1.0.33")},
		}},
		"a relay's client gets an address of the relay's subnet, through the relay": {steps: []step{
			{send: message(discover, macA, "relay=10.2.0.1", "82=0104abcdef01", "50=10.2.0.11"), want: "OFFER 10.2.0.11 to 10.2.0.1:67"},
			{send: message(request, macA, "relay=10.2.0.1", "50=10.2.0.11", "54=10.1.0.1"), want: "ACK 10.2.0.11 to 10.2.0.1:67"},
			{send: message(request, macA, "ciaddr=10.2.0.11"), to: "10.1.0.1", want: "ACK 10.2.0.11 to 10.2.0.11:68"},
			{send: message(request, macA, "relay=10.2.0.1", "50=10.1.0.150"), want: "NAK to 10.2.0.1:67", why: "is not in 10.2.0.0/24"},
		}},
		"a relay's link selection goes before its address (RFC 3527)": {steps: []step{
			{send: message(discover, macA, "relay=192.0.2.1", "82=05040a020000", "50=10.2.0.12"), want: "OFFER 10.2.0.12 to 192.0.2.1:67"},
		}},
		"a client's subnet selection goes before the relay's address (RFC 3011)": {steps: []step{
			{send: message(discover, macA, "relay=192.0.2.1", "118=10.2.0.0", "50=10.2.0.12"), want: "OFFER 10.2.0.12 to 192.0.2.1:67"},
		}},
		"a relay of a subnet that is not served gets nothing": {steps: []step{
			{send: message(discover, macA, "relay=10.3.0.1"), want: "nothing", why: "no subnet has the relay's address 10.3.0.1"},
			{send: message(request, macA, "relay=10.3.0.1", "50=10.3.0.9"), want: "nothing"},
		}},
		"the broadcast flag is honoured": {steps: []step{
			{send: message(discover, macA, "broadcast", "50=10.1.0.111"), want: "OFFER 10.1.0.111 broadcast to 255.255.255.255:68"},
		}},
		"a client that chose another server loses what was offered": {steps: []step{
			{send: message(discover, macA, "50=10.1.0.111"), want: raw("OFFER 10.1.0.111")},
			{send: message(request, macA, "50=10.1.0.9", "54=10.1.0.2"), want: "nothing", why: "chose the server 10.1.0.2"},
			{send: message(discover, macB, "50=10.1.0.111"), want: raw("OFFER 10.1.0.111")},
		}},
		"what is offered to one is not offered to another until the offer ends": {steps: []step{
			{send: message(discover, macA, "50=10.1.0.111"), want: raw("OFFER 10.1.0.111")},
			{send: message(request, macB, "50=10.1.0.111"), want: "NAK broadcast to 255.255.255.255:68", why: "leased to another"},
			{wait: 2 * time.Minute, send: message(discover, macB, "50=10.1.0.111"), want: raw("OFFER 10.1.0.111")},
		}},
		"a restarted client is told at once that it is elsewhere now": {steps: []step{
			{send: message(request, macA, "50=192.168.7.7"), want: "NAK broadcast to 255.255.255.255:68", why: "is not in 10.1.0.0/24"},
		}},
		"a restarted client whose address may be another server's hears nothing": {steps: []step{
			{send: message(request, macA, "50=10.1.0.77"), want: "nothing", why: "in no range"},
		}},
		"a client that renews a lease of which nothing is known gets it again": {steps: []step{
			{send: message(request, macA, "ciaddr=10.1.0.120"), to: "10.1.0.1", want: "ACK 10.1.0.120 to 10.1.0.120:68"},
		}},
		"a client that renews gets a NAK once another address is kept for it": {hosts: []registry.Host{known("A", "10.1.0.7", macA)}, steps: []step{
			{send: message(request, macA, "ciaddr=10.1.0.120"), to: "10.1.0.1", want: "NAK broadcast to 255.255.255.255:68", why: "10.1.0.7 is kept for this client"},
		}},
		"a declined address is given to nobody for an hour": {steps: []step{
			{send: message(discover, macA, "50=10.1.0.111"), want: raw("OFFER 10.1.0.111")},
			{send: message(request, macA, "50=10.1.0.111", "54=10.1.0.1"), want: raw("ACK 10.1.0.111")},
			{send: message(decline, macB, "50=10.1.0.111", "54=10.1.0.1"), want: "nothing", why: "has not got"},
			{send: message(decline, macA, "50=10.1.0.111", "54=10.1.0.1"), want: "nothing", why: "declined 10.1.0.111"},
			{send: message(request, macA, "50=10.1.0.111"), want: "NAK broadcast to 255.255.255.255:68"},
			{send: message(request, macB, "50=10.1.0.111"), want: "NAK broadcast to 255.255.255.255:68"},
			{wait: 61 * time.Minute, send: message(discover, macB, "50=10.1.0.111"), want: raw("OFFER 10.1.0.111")},
		}},
		"a released address is free, and kept for its client while nobody asks for it": {steps: []step{
			{send: message(discover, macA, "50=10.1.0.111"), want: raw("OFFER 10.1.0.111")},
			{send: message(request, macA, "50=10.1.0.111", "54=10.1.0.1"), want: raw("ACK 10.1.0.111")},
			{send: message(release, macB, "ciaddr=10.1.0.111", "54=10.1.0.1"), to: "10.1.0.1", want: "nothing", why: "has not got"},
			{send: message(release, macA, "ciaddr=10.1.0.111", "54=10.1.0.1"), to: "10.1.0.1", want: "nothing", why: "released"},
			{send: message(discover, macA), want: raw("OFFER 10.1.0.111")},
			{wait: time.Hour, send: message(discover, macB, "50=10.1.0.111"), want: raw("OFFER 10.1.0.111")},
		}},
		"a client that has an address is informed, and given none": {steps: []step{
			{send: message(inform, macA, "ciaddr=10.1.0.40", "55=0306"), to: "10.1.0.1", want: "ACK to 10.1.0.40:68"},
			{send: message(inform, macA, "ciaddr=192.0.2.1"), to: "10.1.0.1", want: "nothing", why: "in no subnet"},
		}},
		"a subnet without a range serves the registry's hosts alone": {change: func(c *Config) { c.Subnets[0].Ranges = nil }, hosts: []registry.Host{known("A", "10.1.0.7", macA)}, steps: []step{
			{send: message(discover, macA), want: raw("OFFER 10.1.0.7")},
			{send: message(discover, macB), want: "nothing", why: "has no range"},
		}},
		"an address that somebody else on the network uses is passed over": {hosts: []registry.Host{known("A", "10.1.0.7", macA)}, steps: []step{
			{send: message(discover, macA), want: raw("OFFER 10.1.0.7")},
			{send: message(request, macA, "50=10.1.0.7", "54=10.1.0.1"), want: raw("ACK 10.1.0.7")},
			{send: message(decline, macA, "50=10.1.0.7", "54=10.1.0.1"), want: "nothing"},
			{send: message(discover, macA), want: "OFFER 10.1.0.1…", why: "its own address 10.1.0.7 is used by somebody else"},
		}},
		"replies, BOOTP and messages without a sender are not answered": {steps: []step{
			{send: &Packet{Op: opReply, HType: 1, HLen: 6}, want: "nothing", why: "no request"},
			{send: &Packet{Op: opRequest, HType: 1, HLen: 6}, want: "nothing", why: "BOOTP"},
			{send: message(discover, ""), want: "nothing", why: "neither"},
			{send: message(offer, macA), want: "nothing"},
			{send: message(request, macA), want: "nothing", why: "asks for no address"},
		}},
		"a link without hardware addresses in the header gets broadcasts (RFC 4390)": {steps: []step{
			{send: message(discover, "", "61=ff00112233", "50=10.1.0.111"), want: "OFFER 10.1.0.111 broadcast to 255.255.255.255:68"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.change, c.hosts...)
			for i, s := range c.steps {
				w.now = w.now.Add(s.wait)
				to := "255.255.255.255"
				if s.to != "" {
					to = s.to
				}
				a := w.send(s.send, to)
				got := show(a)
				if prefix, ok := strings.CutSuffix(s.want, "…"); ok && strings.HasPrefix(got, prefix) {
					got = s.want
				}
				if got != s.want || !strings.Contains(a.why, s.why) {
					t.Errorf("step %d, %s: got %s, want %s\nit says: %s (want: %s)", i, typeName(s.send.Type()), got, s.want, a.why, s.why)
				}
			}
		})
	}
}

func TestWhatBootsNextOnAMachineKeepsTheAddress(t *testing.T) {
	firmware := []string{pxe0, "61=0044454c4c3500104a8051b4c04f4a3132"}
	ipxe := []string{`60="PXEClient:Arch:00000:UNDI:002001"`, `77="iPXE"`, "61=01" + strings.ReplaceAll(macA, ":", "")}
	ours := []string{`60="imgbuild"`, "61=01" + strings.ReplaceAll(macA, ":", "")}
	installed := []string{"61=ff0000000100020000ab11"}
	w := newWorld(t, nil)
	first := w.lease(macA, firmware...)
	for _, next := range [][]string{ipxe, ours, installed, installed, firmware, ipxe} {
		if a := w.lease(macA, next...); a != first {
			t.Errorf("%v got %s, the firmware %s", next, a, first)
		}
	}
	if n := len(w.s.leases.byAddr); n != 1 {
		t.Errorf("%d addresses were used", n)
	}
	// Two systems that run behind one hardware address, as containers do, are two clients.
	w.lease(macA, installed...)
	if a := w.lease(macA, "61=ff0000000100020000cd22"); a == first {
		t.Error("a second client on the same hardware took the first one's address over")
	}
}

func TestPortsOfOneHostDoNotFightOverItsAddress(t *testing.T) {
	w := newWorld(t, nil, known("A", "10.1.0.7", macA, macB))
	if a := w.lease(macA, pxe0); a != ip("10.1.0.7") {
		t.Errorf("the first port got %s", a)
	}
	if a := w.lease(macB, pxe0); a != ip("10.1.0.7") {
		t.Errorf("the firmware tries the second port and gets %s", a)
	}
	if a := w.lease(macB, `60="imgbuild"`); a != ip("10.1.0.7") {
		t.Errorf("the installer on the second port got %s", a)
	}
	if a := w.lease(macA, `60="imgbuild"`); a == ip("10.1.0.7") {
		t.Error("the installer on the first port got the address that it has on the second")
	}
}

func TestAFullRangeTakesWhatHasExpired(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Subnets[0].Ranges = []Range{span("10.1.0.100-10.1.0.102")} }, known("S", "10.1.0.101", "52:54:00:00:00:ff"))
	a, b := w.lease(macA), w.lease(macB)
	if a == b || a == ip("10.1.0.101") || b == ip("10.1.0.101") {
		t.Fatal(a, b)
	}
	third := message(discover, "52:54:00:00:00:0c")
	if got := w.send(third); got.reply != nil || !strings.Contains(got.why, "no address of 10.1.0.0/24 is free") || !got.bad {
		t.Errorf("%s: %s", show(got), got.why)
	}
	w.now = w.now.Add(59 * time.Minute)
	w.lease(macA)
	w.now = w.now.Add(2 * time.Minute)
	if got := w.send(third); got.reply == nil || got.reply.YIAddr != b {
		t.Errorf("got %s, want the expired %s", show(got), b)
	}
	w.send(message(release, macA, "ciaddr="+a.String()), "10.1.0.1")
	if got := w.send(message(discover, "52:54:00:00:00:0d")); got.reply == nil || got.reply.YIAddr != a {
		t.Errorf("got %s, want the released %s", show(got), a)
	}
}

func TestTheSameClientGetsTheSameAddressFromAnEmptyTable(t *testing.T) {
	first := newWorld(t, nil).lease(macA)
	if second := newWorld(t, nil).lease(macA); second != first {
		t.Errorf("got %s, then %s", first, second)
	}
}

func TestRepliesCarryWhatTheClientAsksFor(t *testing.T) {
	w := newWorld(t, nil, known("Web1", "10.1.0.7", macA))
	a := w.send(message(discover, macA, "55=0103060c0f1a1c2a77", "51=00000258"))
	for code, want := range map[byte]string{
		optMask: "\xff\xff\xff\x00", optRouter: "\x0a\x01\x00\xfd", optDNS: "\x0a\x01\x00\x35", optHostname: "web1", optDomain: "example.org", optMTU: "\x23\x28",
		optBroadcast: "\x0a\x01\x00\xff", optNTP: "\x0a\x01\x00\x7b", optSearch: "\x07example\x03org\x00\x03lab\x07example\x03org\x00",
		optLease: "\x00\x00\x02\x58", optT1: "\x00\x00\x01\x2c", optT2: "\x00\x00\x02\x0d", optServer: "\x0a\x01\x00\x01",
	} {
		if got := string(a.reply.Options.Get(code)); got != want {
			t.Errorf("option %d is %q, want %q", code, got, want)
		}
	}
	a = w.send(message(discover, macB, "55=01"))
	if a.reply.Options.Has(optRouter) || a.reply.Options.Has(optDNS) || a.reply.Options.Has(optHostname) || !a.reply.Options.Has(optMask) {
		t.Errorf("asked for the mask alone: %v", a.reply.Options)
	}
	a = w.send(message(discover, macB))
	if !a.reply.Options.Has(optRouter) || !a.reply.Options.Has(optDNS) || a.reply.Options.Has(optMTU) {
		t.Errorf("asked for nothing: %v", a.reply.Options)
	}
	a = w.send(message(inform, macB, "ciaddr=10.1.0.40"), "10.1.0.1")
	if a.reply.Options.Has(optLease) || a.reply.Options.Has(optT1) || a.reply.YIAddr.IsValid() || len(a.put) > 0 {
		t.Errorf("an INFORM is answered with a lease: %v", a.reply)
	}
}

func TestRelayInformationIsGivenBackUnchangedAndLast(t *testing.T) {
	w := newWorld(t, nil)
	info := "0104abcdef0102030a0b0c0b040a02000199020101"
	a := w.s.answer(query{packet: message(discover, macA, "relay=10.2.0.1", "82="+info), link: w.link}, noon)
	b, _ := a.reply.Marshal(a.limit)
	end := len(b) - 1
	for b[end] == 0 {
		end--
	}
	if got := b[end-23 : end]; got[0] != optRelay || got[1] != 21 || colons(got[2:]) != colons(message(discover, macA, "82="+info).Options.Get(optRelay)) {
		t.Errorf("the end of the options is %x", got)
	}
	if id := a.reply.addr(optServer); id != ip("10.2.0.1") {
		t.Errorf("the relay wants to be the server (RFC 5107), and the server says %s", id)
	}
	// What comes back to the relay with that identifier is ours.
	a = w.send(message(request, macA, "relay=10.2.0.1", "82="+info, "54=10.2.0.1", "50="+a.reply.YIAddr.String()))
	if a.reply == nil || a.reply.Type() != ack {
		t.Errorf("got %s: %s", show(a), a.why)
	}
}

func TestAnAddressIsAskedAboutBeforeItIsGivenToSomebodyNew(t *testing.T) {
	w := newWorld(t, nil)
	a := w.send(message(discover, macA))
	if a.probe != a.reply.YIAddr {
		t.Errorf("a new client's address is not probed: %v", a.probe)
	}
	w.s.probed[a.probe] = w.now
	if again := w.send(message(discover, macA)); again.probe.IsValid() || again.reply.YIAddr != a.reply.YIAddr {
		t.Errorf("probed again, or another address: %s", show(again))
	}
	w.lease(macA)
	w.now = w.now.Add(10 * time.Minute)
	if own := w.send(message(discover, macA)); own.probe.IsValid() {
		t.Error("a client's own leased address is probed")
	}
	if back := w.send(message(request, macB, "50=10.1.0.150")); back.probe != ip("10.1.0.150") || !back.keep {
		t.Errorf("an address without a record is given without a probe: %s", show(back))
	}
	if renew := w.send(message(request, macB, "ciaddr=10.1.0.151"), "10.1.0.1"); renew.probe.IsValid() {
		t.Error("an address that its client uses is probed: he would answer himself")
	}
	w.cfg.Probe = -1
	if off := w.send(message(discover, "52:54:00:00:00:0c")); off.probe.IsValid() {
		t.Error("probed though it is switched off")
	}
}

func TestNoAddressIsEverGivenTwice(t *testing.T) {
	hosts := []registry.Host{known("A", "10.1.0.110", macA), known("B", "10.1.0.120", macB)}
	w := newWorld(t, func(c *Config) { c.Subnets[0].Ranges = []Range{span("10.1.0.100-10.1.0.140")} }, hosts...)
	have := map[netip.Addr]string{}
	for i := range 60 {
		mac := netip.AddrFrom4([4]byte{2, 0, 0, byte(i)}).String()
		m := "02:00:00:00:00:" + string("0123456789abcdef"[i/16]) + string("0123456789abcdef"[i%16])
		o := w.send(message(discover, m))
		if o.reply == nil {
			if i < 38 {
				t.Fatalf("client %d got nothing: %s", i, o.why)
			}
			continue
		}
		a := o.reply.YIAddr
		if have[a] != "" || slices.Contains([]netip.Addr{ip("10.1.0.110"), ip("10.1.0.120")}, a) {
			t.Fatalf("%s goes to %s and %s", a, have[a], mac)
		}
		have[a] = mac
	}
	if len(have) != 38 { // of 41, two are hosts' and one is the time server's
		t.Errorf("%d of 38 free addresses were given", len(have))
	}
}
