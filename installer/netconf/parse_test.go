package netconf

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/image/plan"
)

func TestARPPacketsAreReadAsTheyAreWritten(t *testing.T) {
	p := arpPacket{senderMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, sender: netip.MustParseAddr("192.0.2.5"), target: netip.MustParseAddr("192.0.2.1")}
	b := p.marshal()
	// RFC 826, by hand.
	want := []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 5, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1}
	if !bytes.Equal(b, want) {
		t.Errorf("%x", b)
	}
	got, err := parseARP(append(b, make([]byte, 18)...)) // the padding of a short frame
	if err != nil || got.reply || got.sender != p.sender || got.target != p.target || !bytes.Equal(got.senderMAC, p.senderMAC) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, b := range map[string][]byte{"short": want[:27], "IPv6": append([]byte{0, 1, 0x86, 0xdd}, want[4:]...), "RARP": append([]byte{0, 1, 8, 0, 6, 4, 0, 3}, want[8:]...), "nothing": nil} {
		if got, err := parseARP(b); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzARP(f *testing.F) {
	f.Add(arpPacket{senderMAC: everyone, sender: netip.MustParseAddr("192.0.2.5"), target: netip.MustParseAddr("192.0.2.1")}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseARP(b); err == nil && (!p.sender.Is4() || !p.target.Is4() || len(p.senderMAC) != 6) {
			t.Errorf("%+v", p)
		}
	})
}

func advertisement(options ...byte) []byte {
	a := netip.MustParseAddr("2001:db8::1").As16()
	return append(append([]byte{136, 0, 0, 0, 0xe0, 0, 0, 0}, a[:]...), options...)
}

func TestNeighbourAdvertisementsAreRead(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	who, got, err := parseNA(advertisement(14, 1, 1, 2, 3, 4, 5, 6, 2, 1, 2, 0, 0, 0, 0, 1)) // a nonce before it
	if err != nil || who.String() != "2001:db8::1" || !bytes.Equal(got, mac) {
		t.Errorf("%s, %s, %v", who, got, err)
	}
	if who, got, err = parseNA(advertisement()); err != nil || got != nil || who.String() != "2001:db8::1" {
		t.Errorf("without a MAC address: %s, %s, %v", who, got, err)
	}
	for name, b := range map[string][]byte{"short": advertisement()[:23], "an option of no length": advertisement(2, 0, 0, 0, 0, 0, 0, 0), "an option that is cut off": advertisement(2, 2, 0, 0, 0, 0, 0, 0),
		"a solicitation": append([]byte{135}, advertisement()[1:]...)} {
		if who, _, err := parseNA(b); err == nil {
			t.Errorf("%s: %s", name, who)
		}
	}
}

func TestRouterAdvertisementsAreRead(t *testing.T) {
	ra := []byte{134, 0, 0, 0, 64, 0x80, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}
	if managed, err := parseRA(ra); err != nil || !managed {
		t.Error(managed, err)
	}
	ra[5] = 0x40 // other configuration only
	if managed, err := parseRA(ra); err != nil || managed {
		t.Error(managed, err)
	}
	if _, err := parseRA(ra[:15]); err == nil {
		t.Error("short")
	}
}

func TestSolicitationsAreThoseOfTheRFC(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	if b := solicitation(routerSolicitation, netip.Addr{}, mac); !bytes.Equal(b, []byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1}) {
		t.Errorf("%x", b)
	}
	if b := solicitation(neighborSolicitation, netip.MustParseAddr("fe80::1"), mac); len(b) != 32 || b[0] != 135 || b[8] != 0xfe || b[23] != 1 || b[24] != 1 {
		t.Errorf("%x", b)
	}
}

func FuzzAdvertisement(f *testing.F) {
	f.Add(advertisement(2, 1, 2, 0, 0, 0, 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseRA(b)
		if who, mac, err := parseNA(b); err == nil && (!who.Is6() || mac != nil && len(mac) != 6) {
			t.Errorf("%s %s", who, mac)
		}
	})
}

// bonding is a file in the form that the bonding driver of Linux 6.1 or 3.10 writes.
func bonding(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/bonding/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLACPIsReadFromTheDriver(t *testing.T) {
	good, old := bonding(t, "6.1"), bonding(t, "3.10")
	for _, c := range []struct{ name, text, port, want string }{
		{"a good port", good, "eth0", ""},
		{"a second good port", good, "eth1", ""},
		{"a good port of an old kernel", old, "eth1", ""},
		{"a port that is not in it", good, "eth2", "the bond does not have the port"},
		{"a port that is down", strings.Replace(good, "Slave Interface: eth1\nMII Status: up", "Slave Interface: eth1\nMII Status: down", 1), "eth1", "the port is down"},
		{"no partner on one port", replaceLast(good, "12:34:56:78:9a:bc", noPartner), "eth1", "no LACP partner"},
		{"no partner of an old kernel", strings.ReplaceAll(old, "12:34:56:78:9a:bc", noPartner), "eth0", "no LACP partner"},
		{"two switches", replaceLast(good, "12:34:56:78:9a:bc", "12:34:56:78:9a:ff"), "eth1", "its LACP partner is 12:34:56:78:9a:ff and the other ports' is 12:34:56:78:9a:bc"},
		{"two groups", replaceLast(good, "Aggregator ID: 1", "Aggregator ID: 2"), "eth1", "another link aggregation group than the other ports (aggregator 2 and not 1)"},
		{"two groups of an old kernel", replaceLast(old, "Aggregator ID: 1", "Aggregator ID: 2"), "eth1", "aggregator 2 and not 1"},
		{"a partner that does not use the port", replaceLast(good, "port state: 61", "port state: 5"), "eth1", "does not use the port (its state is 0x5)"},
		{"nothing", "", "eth0", "the bond does not have the port"},
	} {
		got := parseBonding(c.text).fault(c.port)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	if b := parseBonding(good); b.partner != "12:34:56:78:9a:bc" || b.aggregator != "1" || len(b.ports) != 2 {
		t.Errorf("%+v", b)
	}
}

func replaceLast(s, old, with string) string {
	i := strings.LastIndex(s, old)
	return s[:i] + with + s[i+len(old):]
}

func FuzzBonding(f *testing.F) {
	for _, name := range []string{"6.1", "3.10"} {
		b, err := os.ReadFile("testdata/bonding/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := parseBonding(text)
		for name := range b.ports {
			_ = b.fault(name)
		}
	})
}

func TestABondsOptionsAreTheKernelsNumbers(t *testing.T) {
	device := func(change func(b *plan.Bond)) *netlink.Bond {
		b := plan.Bond{Name: "bond0", Mode: "active-backup"}
		change(&b)
		return bondDevice(&link{name: "bond0", bond: &b}, 0)
	}
	for word, want := range netlink.StringToBondModeMap {
		if got := device(func(b *plan.Bond) { b.Mode = word }).Mode; got != want {
			t.Errorf("%s: %d", word, got)
		}
	}
	for word, want := range netlink.StringToBondArpValidateMap {
		if got := device(func(b *plan.Bond) { b.ARPValidate = word }).ArpValidate; got != want {
			t.Errorf("%s: %d", word, got)
		}
	}
	for word, want := range netlink.StringToBondPrimaryReselectMap {
		if got := device(func(b *plan.Bond) { b.Reselect = word }).PrimaryReselect; got != want {
			t.Errorf("%s: %d", word, got)
		}
	}
	for word, want := range netlink.StringToBondFailOverMacMap {
		if got := device(func(b *plan.Bond) { b.FailOverMAC = word }).FailOverMac; got != want {
			t.Errorf("%s: %d", word, got)
		}
	}
	for word, want := range netlink.StringToBondXmitHashPolicyMap {
		if got := device(func(b *plan.Bond) { b.HashPolicy = word }).XmitHashPolicy; got != want {
			t.Errorf("%s: %d", word, got)
		}
	}
	for word, want := range netlink.StringToBondLacpRateMap {
		if got := device(func(b *plan.Bond) { b.LACPRate = word }).LacpRate; got != want {
			t.Errorf("%s: %d", word, got)
		}
	}
	for word, want := range netlink.StringToBondAdSelectMap {
		if got := device(func(b *plan.Bond) { b.ADSelect = word }).AdSelect; got != want {
			t.Errorf("%s: %d", word, got)
		}
	}
	if d := device(func(*plan.Bond) {}); d.Miimon != 100 || d.LacpRate != -1 || d.XmitHashPolicy != -1 || d.Primary != -1 || d.MinLinks != -1 || d.ArpValidate != -1 {
		t.Errorf("what the plan leaves open is not left to the driver: %+v", d)
	}
}

// addressMessage is an RTM_NEWADDR of an IPv6 address with lifetimes.
func addressMessage(preferred, valid uint32) []byte {
	b := []byte{unix.AF_INET6, 64, 0, 0, 7, 0, 0, 0}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		b[4], b[7] = 0, 7
	}
	add := func(kind uint16, value []byte) {
		b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, value...)
	}
	ip := netip.MustParseAddr("2001:db8::5").As16()
	add(unix.IFA_ADDRESS, ip[:])
	var info []byte
	for _, v := range []uint32{preferred, valid, 1234, 5678} {
		info = binary.NativeEndian.AppendUint32(info, v)
	}
	add(unix.IFA_CACHEINFO, info)
	return b
}

func TestTheKernelsMessagesAreTheSameButForTime(t *testing.T) {
	now := time.Now()
	read := func(b []byte) *message {
		m, ok := parse(b, unix.SizeofIfAddrmsg, now)
		if !ok {
			t.Fatal("not understood")
		}
		return &m
	}
	a := read(addressMessage(100, 200))
	if a.text() != "2001:db8::5/64" || !a.isAddress() || a.linkLocal() {
		t.Errorf("%+v", a)
	}
	if !a.same(read(addressMessage(50, 150))) || a.same(read(addressMessage(infinity, infinity))) {
		t.Error("lifetimes are for ever or they are not")
	}
	a.taken = now.Add(-60 * time.Second)
	if left := a.aged(a.get(unix.IFA_CACHEINFO)); binary.NativeEndian.Uint32(left) != 40 || binary.NativeEndian.Uint32(left[4:]) != 140 {
		t.Errorf("%v", left)
	}
	if a.over() {
		t.Error("over with 140 s left")
	}
	a.taken = now.Add(-150 * time.Second)
	if left := a.aged(a.get(unix.IFA_CACHEINFO)); binary.NativeEndian.Uint32(left) != 0 || binary.NativeEndian.Uint32(left[4:]) != 50 || a.over() {
		t.Errorf("no longer preferred: %v", left)
	}
	if a.taken = now.Add(-200 * time.Second); !a.over() {
		t.Error("not over at its end")
	}
	ever := read(addressMessage(infinity, infinity))
	if ever.taken = now.Add(-time.Hour); ever.over() {
		t.Error("what has no end is over")
	}
	for _, b := range [][]byte{nil, {1, 2}, append(addressMessage(1, 1), 200, 0, 1, 0, 1), append(addressMessage(1, 1)[:8], 8, 0, unix.IFA_CACHEINFO, 0, 1, 2, 3, 4)} {
		if m, ok := parse(b, unix.SizeofIfAddrmsg, now); ok {
			t.Errorf("%x became %+v", b, m)
		}
	}
}

func TestRoutesOfRoutersAreToldFromOurs(t *testing.T) {
	net := netip.MustParseAddr("2001:db8::").As16()
	route := func(protocol byte, link int, bits byte) message {
		return message{link: link, fixed: []byte{unix.AF_INET6, bits, 0, 0, unix.RT_TABLE_MAIN, protocol, 0, unix.RTN_UNICAST, 0, 0, 0, 0}, attrs: []attr{{unix.RTA_DST, net[:]}}}
	}
	address, ok := parse(addressMessage(100, 200), unix.SizeofIfAddrmsg, time.Now()) // 2001:db8::5/64
	if !ok {
		t.Fatal("not understood")
	}
	address.link = 2
	auto := address
	auto.learned = true
	for _, x := range []struct {
		name    string
		addrs   []message
		route   message
		learned bool
	}{
		{"a router's own route is", nil, route(unix.RTPROT_RA, 2, 64), true},
		{"the network of an address is not", []message{address}, route(unix.RTPROT_KERNEL, 2, 64), false},
		{"the network of an address on another link is", []message{address}, route(unix.RTPROT_KERNEL, 3, 64), true},
		{"the network of an address that was learned is", []message{auto}, route(unix.RTPROT_KERNEL, 2, 64), true},
		{"the network of an address that was learned and of one that was not is not", []message{auto, address}, route(unix.RTPROT_KERNEL, 2, 64), false},
		{"another network is", []message{address}, route(unix.RTPROT_KERNEL, 2, 48), true},
		{"what somebody added is not", nil, route(unix.RTPROT_BOOT, 2, 64), false},
	} {
		list := []message{x.route}
		if markLearned(x.addrs, list); list[0].learned != x.learned {
			t.Errorf("%s: %v", x.name, list[0].learned)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(addressMessage(100, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, fixed := range []int{unix.SizeofIfAddrmsg, unix.SizeofRtMsg} {
			m, ok := parse(b, fixed, time.Now())
			if !ok {
				continue
			}
			_, _, _, _ = m.text(), m.linkLocal(), m.key(), m.over()
			if m.isAddress() {
				_ = m.autoconfigured()
			} else {
				markLearned(nil, []message{m})
			}
			for _, a := range m.attrs {
				clearHopFlags(a.value)
			}
		}
	})
}

func TestAFailureSaysAllThatIsWrong(t *testing.T) {
	f := &Failure{Findings{{"a", true, "a: link is up"}, {"a", false, "a: one"}, {"", false, "two"}}}
	if f.Error() != "try the host's own network: a: one; two" {
		t.Error(f)
	}
	if m := Modules(&plan.Network{Teams: []plan.Team{{}}, VLANs: []plan.VLAN{{}}}); strings.Join(m, " ") != "bonding 8021q" {
		t.Error(m)
	}
}
