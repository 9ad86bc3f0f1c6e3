package dhcp

import (
	"bytes"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestAnotherLibraryReadsWhatWeWrite(t *testing.T) {
	w := newWorld(t, nil, known("Web1", "10.1.0.7", macA))
	a := w.s.answer(query{packet: message(discover, macA, pxe0, "55=0103060c0f1a1c2a774243", "82=0104abcdef01", "relay=10.1.0.1"), link: w.link}, noon)
	b, left := a.reply.Marshal(maxPacket)
	if len(left) > 0 {
		t.Errorf("left out: %v", left)
	}
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	if p.MessageType() != dhcpv4.MessageTypeOffer || !p.YourIPAddr.Equal(net.IPv4(10, 1, 0, 7)) || p.HostName() != "web1" || p.IPAddressLeaseTime(0) != time.Hour ||
		p.BootFileName != "undionly.kpxe" || p.BootFileNameOption() != "undionly.kpxe" || p.TFTPServerName() != "10.1.0.1" || p.ClassIdentifier() != "PXEClient" ||
		!reflect.DeepEqual(p.DomainSearch().Labels, []string{"example.org", "lab.example.org"}) || p.ClientHWAddr.String() != macA || p.RelayAgentInfo() == nil {
		t.Errorf("it reads %s", p.Summary())
	}
}

func TestWeReadWhatAnotherLibraryWrites(t *testing.T) {
	d, err := dhcpv4.NewDiscovery(hw(macA), dhcpv4.WithUserClass("iPXE", true), dhcpv4.WithRequestedOptions(dhcpv4.OptionRouter), dhcpv4.WithBroadcast(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(d.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(p)
	if p.Type() != discover || c.mac != macA || !c.ipxe || p.Flags != flagBroadcast || !p.wants(optRouter) || p.wants(optNTP) {
		t.Errorf("it is %+v", p)
	}
}

func TestAClientWithLittleRoomLosesWhatItNeedsLeast(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Subnets[0].Search = nil
		for range 25 {
			c.Subnets[0].Search = append(c.Subnets[0].Search, strings.Repeat("x", 20)+".example.org")
		}
	})
	relay := strings.Repeat("ab", 60)
	p := message(discover, macA, "55=01030677", "82=013c"+relay)
	a := w.s.answer(query{packet: p, link: w.link}, noon)
	b, left := a.reply.Marshal(a.limit)
	if len(b) > defaultSize || !bytes.Equal(left, []byte{optSearch}) {
		t.Errorf("%d bytes without %v", len(b), left)
	}
	r, err := Parse(b)
	if err != nil || !r.Options.Has(optRouter) || !r.Options.Has(optRelay) {
		t.Errorf("%v %v", r, err)
	}
	p.Options.Set(optMaxSize, []byte{0x05, 0xdc}) // 1500
	a = w.s.answer(query{packet: p, link: w.link}, noon)
	if b, left = a.reply.Marshal(a.limit); len(left) > 0 || len(b) > 1472 {
		t.Errorf("%d bytes without %v", len(b), left)
	}
}

func TestOptionsAreReadFromTheFieldsWhenTheyOverflow(t *testing.T) {
	b, _ := message(discover, macA, "52=03").Marshal(300)
	copy(b[44:], []byte{optClass, 3, 'P', 'X', 'E', optEnd})
	copy(b[108:], []byte{optHostname, 2, 'h', 'i', 0, optClass, 6, 'C', 'l', 'i', 'e', 'n', 't'})
	p, err := Parse(b)
	if err != nil || p.text(optHostname) != "hi" || p.text(optClass) != "ClientPXE" || p.File != "" {
		t.Errorf("%+v %v", p, err)
	}
}

func TestBrokenMessagesAreRefused(t *testing.T) {
	good, _ := message(discover, macA).Marshal(300)
	for name, b := range map[string][]byte{
		"nothing":                        nil,
		"too short":                      good[:239],
		"no cookie":                      append(bytes.Clone(good[:236]), 1, 2, 3, 4),
		"an option reaches beyond":       append(bytes.Clone(good[:240]), 55, 9, 1),
		"an option without its length":   append(bytes.Clone(good[:240]), 55),
		"a hardware address of 17 bytes": append([]byte{1, 1, 17}, good[3:]...),
	} {
		if p, err := Parse(b); err == nil {
			t.Errorf("%s is taken: %+v", name, p)
		}
	}
	if _, err := Parse(append(bytes.Clone(good[:240]), 53, 1, 1)); err != nil {
		t.Errorf("no end option: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range []*Packet{message(discover, macA, pxe0, "82=0104abcdef01", "relay=10.2.0.1", "52=03"), message(request, macB, "50=10.1.0.7", "54=10.1.0.1", "61=ff00112233"),
		message(inform, macA, "ciaddr=10.1.0.9", "97=0044454c4c3500104a8051b4c04f4a3132", "77=0469505845")} {
		b, _ := p.Marshal(maxPacket)
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, full bool) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		if other, err := dhcpv4.FromBytes(b); err == nil && !p.Options.Has(optOverload) {
			if other.TransactionID != dhcpv4.TransactionID(b[4:8]) || len(other.Options) != len(p.Options) || byte(other.MessageType()) != p.Type() {
				t.Fatalf("%v is read as %v", other.Summary(), p)
			}
		}
		w := newWorld(t, func(c *Config) {
			if !full {
				c.Mode, c.Subnets = Proxy, nil
			}
		}, known("A", "10.1.0.110", macA))
		for _, number := range []uint16{portServer, portPXE} {
			a := w.s.answer(query{packet: p, link: w.link, from: netip.MustParseAddrPort("10.1.0.9:68"), to: ip("10.1.0.1"), port: number}, noon)
			if a.why == "" {
				t.Fatal("no reason is given")
			}
			if a.reply == nil {
				continue
			}
			if y := a.reply.YIAddr; y == ip("10.1.0.110") && p.MAC() != macA || y.IsValid() && !full || y == ip("10.1.0.1") {
				t.Fatalf("%s is given %s", p.MAC(), y)
			}
			out, _ := a.reply.Marshal(a.limit)
			back, err := Parse(out)
			if err != nil || len(out) > max(a.limit, 300) || back.XID != p.XID || back.Type() != a.reply.Type() || back.CHAddr != p.CHAddr {
				t.Fatalf("what we write is read as %+v, %v", back, err)
			}
			if r := p.Options.Get(optRelay); r != nil && len(r) < 200 && !bytes.Equal(back.Options.Get(optRelay), r) {
				t.Fatal("option 82 is not given back")
			}
		}
	})
}

func TestDatagramsAreWhatTheKernelMakes(t *testing.T) {
	src, dst := netip.MustParseAddrPort("10.1.0.1:67"), netip.MustParseAddrPort("10.1.0.7:68")
	for _, payload := range [][]byte{nil, {1}, {1, 2, 3}, bytes.Repeat([]byte{0xff, 0xfe}, 300)} {
		b := datagram(src, dst, payload)
		s, d, p, ok := unwrap(b)
		if !ok || s != src || d != dst || !bytes.Equal(p, payload) {
			t.Errorf("%v %v %x %v", s, d, p, ok)
		}
		if fold(sum(0, b[:20])) != 0xffff || fold(sum(sum(17+uint32(8+len(payload)), b[12:20]), b[20:])) != 0xffff {
			t.Errorf("a checksum of %x is wrong", b)
		}
	}
	b := datagram(src, dst, []byte{1, 2, 3})
	for i := range b {
		unwrap(b[:i]) // does not panic
	}
}

func FuzzUnwrap(f *testing.F) {
	f.Add(datagram(netip.MustParseAddrPort("10.1.0.1:67"), netip.MustParseAddrPort("10.1.0.7:68"), []byte("hello")))
	f.Add(arpProbe(hw(macA), ip("10.1.0.7")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, p, ok := unwrap(b); ok && len(p) > len(b)-28 {
			t.Fatalf("%d bytes of payload out of %d", len(p), len(b))
		}
		if a, mac, ok := arpSender(b); ok && (!a.IsValid() || len(mac) != 6) {
			t.Fatal(a, mac)
		}
		sub(b)
		userClasses(b)
	})
}
