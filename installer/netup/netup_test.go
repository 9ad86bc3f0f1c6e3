package netup

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
)

// ack makes a server's answer.
func ack(t *testing.T, ip string, options ...dhcpv4.Option) *nclient4.Lease {
	t.Helper()
	d, err := dhcpv4.New(dhcpv4.WithYourIP(net.ParseIP(ip)), dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 9, 0, 1))))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		d.UpdateOption(o)
	}
	// Over the wire and back, as it would come.
	if d, err = dhcpv4.FromBytes(d.ToBytes()); err != nil {
		t.Fatal(err)
	}
	return &nclient4.Lease{Offer: d, ACK: d, CreationTime: time.Now()}
}

func TestALeaseIsWhatTheServerSaid(t *testing.T) {
	l, err := newLease(ack(t, "10.9.0.50", dhcpv4.OptSubnetMask(net.CIDRMask(22, 32)), dhcpv4.OptRouter(net.IPv4(10, 9, 0, 1), net.IPv4(10, 9, 0, 2)),
		dhcpv4.OptDNS(net.IPv4(10, 9, 0, 3), net.IPv4zero), dhcpv4.OptNTPServers(net.IPv4(10, 9, 0, 4)), dhcpv4.OptDomainName("example.org\x00"),
		dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x23, 0x28}), dhcpv4.OptIPAddressLeaseTime(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	if l.addr.String() != "10.9.0.50/22" || l.router().String() != "10.9.0.1" || len(l.dns) != 1 || l.ntp[0].String() != "10.9.0.4" ||
		l.domain != "example.org" || l.mtu != 9000 || l.time != time.Hour || l.t1 != 30*time.Minute || l.t2 != 52*time.Minute+30*time.Second {
		t.Errorf("%+v", l)
	}
	if got := (&Network{Link: "eth0", Addr: l.addr, Router: l.router(), DNS: l.dns}).String(); got != "eth0 has 10.9.0.50/22, router 10.9.0.1, name servers 10.9.0.3" {
		t.Error(got)
	}
}

func TestClasslessRoutesMakeTheRouterVoid(t *testing.T) {
	_, to, _ := net.ParseCIDR("192.168.0.0/16")
	_, onLink, _ := net.ParseCIDR("10.50.0.0/16")
	l, err := newLease(ack(t, "10.9.0.50", dhcpv4.OptSubnetMask(net.CIDRMask(24, 32)), dhcpv4.OptRouter(net.IPv4(10, 9, 0, 1)),
		dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: to, Router: net.IPv4(10, 9, 0, 7)}, &dhcpv4.Route{Dest: onLink, Router: net.IPv4zero})))
	if err != nil || len(l.routes) != 2 || l.routes[0].via.String() != "10.9.0.7" || l.routes[1].via.IsValid() || l.router().IsValid() || !l.hasRoute() {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestNonsenseFromAServerIsRefusedOrPassedOver(t *testing.T) {
	for ip, options := range map[string][]dhcpv4.Option{
		"0.0.0.0":   nil,
		"127.0.0.1": nil,
		"224.0.0.1": nil,
		"10.0.0.1":  {dhcpv4.OptSubnetMask(net.IPv4Mask(255, 0, 255, 0))},
		"10.0.0.2":  {dhcpv4.OptSubnetMask(net.IPv4Mask(0, 0, 0, 0))},
	} {
		if l, err := newLease(ack(t, ip, options...)); err == nil {
			t.Errorf("%s became %+v", ip, l)
		}
	}
	l, err := newLease(ack(t, "10.0.0.1", dhcpv4.OptDomainName("evil\nnameserver 1.2.3.4"), dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0, 68}),
		dhcpv4.OptIPAddressLeaseTime(100*time.Second), dhcpv4.OptRenewTimeValue(time.Hour)))
	if err != nil || l.domain != "" || l.mtu != 0 || l.t1 != 50*time.Second || l.addr.Bits() != 8 || l.hasRoute() {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestTheNameServersAreWritten(t *testing.T) {
	p := filepath.Join(t.TempDir(), "etc/resolv.conf")
	a := netip.MustParseAddr
	l := &lease{domain: "x.org", search: []string{"a.org", "b.org"}, dns: []netip.Addr{a("1.1.1.1"), a("2.2.2.2"), a("3.3.3.3"), a("4.4.4.4")}}
	if err := writeResolvConf(p, l); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(p); string(b) != "search a.org b.org\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\n" {
		t.Errorf("%s", b)
	}
	if err := writeResolvConf("/proc/nowhere/resolv.conf", l); err == nil {
		t.Error("a directory that cannot be made was no error")
	}
}

func TestTheBestLeaseIsThatOfTheLinkThatWasBootedFrom(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	boot, other := &link{name: "eth1", mac: mac, carrier: true}, &link{name: "eth0", mac: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	with, without := &lease{routes: []route{{}}}, &lease{}
	u := &up{Options: Options{BootIF: mac}, links: map[int]*link{1: boot, 2: other}, begun: time.Now()}
	order := []*result{{link: boot, lease: with}, {link: other, lease: with}, {link: boot, lease: without}, {link: other, lease: without}}
	for i := 1; i < len(order); i++ {
		if u.rank(order[i-1]) <= u.rank(order[i]) {
			t.Errorf("%d is not better than %d", i-1, i)
		}
	}
	if u.bestRank() != u.rank(order[0]) {
		t.Error("the best is not known as such")
	}
	u.BootIF = nil
	if u.bestRank() != u.rank(order[1]) {
		t.Error("without a preference, any lease with a route is the best")
	}
}

func TestAFailureSaysWhatWasSeenOfEveryLink(t *testing.T) {
	u := &up{begun: time.Now(), links: map[int]*link{
		1: {name: "eth0"},
		2: {name: "eth1", carrier: true, tries: 7, since: time.Now().Add(-59500 * time.Millisecond)},
		3: {name: "eth2", fault: "it cannot be brought up: no firmware"},
	}}
	if got := u.failure().Error(); got != "bring the network up: no link came up: eth0: link is down; eth1: no DHCP answer after 1 min 0 s, 7 tries; eth2: it cannot be brought up: no firmware" {
		t.Error(got)
	}
	u.links = nil
	if got := u.failure().Error(); !strings.Contains(got, "no network card that the kernel has a driver for") {
		t.Error(got)
	}
}

var floor = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// ntpAnswer makes a server's packet for a request.
func ntpAnswer(req []byte, at time.Time) []byte {
	b := make([]byte, 48)
	b[0], b[1] = 4<<3|4, 2
	copy(b[24:32], req[40:48])
	binary.BigEndian.PutUint32(b[40:], uint32(at.Unix()+ntpEpoch))
	binary.BigEndian.PutUint32(b[44:], 1<<31)
	return b
}

func TestNTPAnswersAreChecked(t *testing.T) {
	req := make([]byte, 48)
	copy(req[40:], "12345678")
	want := time.Date(2027, 1, 2, 3, 4, 5, 500_000_000, time.UTC)
	if got, err := parseSNTP(ntpAnswer(req, want), req[40:48], floor); err != nil || !got.Equal(want) {
		t.Errorf("%s, %v", got, err)
	}
	// The 32 bits of seconds run over in 2036.
	later := time.Date(2037, 1, 1, 0, 0, 0, 500_000_000, time.UTC)
	if got, err := parseSNTP(ntpAnswer(req, later), req[40:48], later.AddDate(-1, 0, 0)); err != nil || !got.Equal(later) {
		t.Errorf("after the epoch's end: %s, %v", got, err)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"short":              func(b []byte) []byte { return b[:47] },
		"a client's":         func(b []byte) []byte { b[0] = 4<<3 | 3; return b },
		"to another request": func(b []byte) []byte { b[24] ^= 1; return b },
		"not synchronised":   func(b []byte) []byte { b[0] |= 3 << 6; return b },
		"a kiss of death":    func(b []byte) []byte { b[1] = 0; return b },
		"without a time":     func(b []byte) []byte { clear(b[40:]); return b },
	} {
		if got, err := parseSNTP(change(ntpAnswer(req, want)), req[40:48], floor); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestAnNTPServerIsAsked(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := time.Date(2027, 1, 2, 3, 4, 5, 500_000_000, time.UTC)
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(ntpAnswer(buf[:n], want), from)
		}
	}()
	got, err := sntp(t.Context(), conn.LocalAddr().(*net.UDPAddr).AddrPort(), floor)
	if err != nil || got.Sub(want).Abs() > time.Second {
		t.Errorf("%s, %v", got, err)
	}
}

func TestAClockThatIsPlainlyWrongIsSet(t *testing.T) {
	right := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	date := right
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.URL.RawQuery != "" {
			t.Error("a secret was sent to a server that was not checked")
		}
		w.Header().Set("Date", date.Format(http.TimeFormat))
	}))
	defer web.Close()
	url := strings.Replace(web.URL, "//", "//user:secret@", 1) + "/manifest.json?token=1"
	correct := func(c Clock, now time.Time) (set time.Time, said string) {
		l := &reporttest.Lines{}
		c.Report, c.Floor = report.New(l), floor
		c.Set = func(at time.Time) error { set = at; return nil }
		if err := c.Correct(t.Context(), now); err != nil {
			t.Error(err)
		}
		return set, l.String()
	}
	if set, said := correct(Clock{URL: url}, floor.AddDate(0, 3, 0)); !set.IsZero() || said != "" {
		t.Errorf("a clock that may be right: %s, %s", set, said)
	}
	for name, now := range map[string]time.Time{"never set": time.Unix(0, 0), "in a far future": floor.AddDate(30, 0, 0)} {
		if set, said := correct(Clock{URL: url}, now); !set.Equal(right) || !strings.Contains(said, "set to 2027-01-02 03:04:05 by the web server") {
			t.Errorf("%s: %s, %s", name, set, said)
		}
	}
	date = time.Unix(0, 0)
	if set, said := correct(Clock{URL: url}, time.Unix(9, 0)); !set.Equal(floor) || !strings.Contains(said, "nobody knows better") {
		t.Errorf("a server that is wrong itself: %s, %s", set, said)
	}
	if set, _ := correct(Clock{}, time.Unix(9, 0)); !set.Equal(floor) {
		t.Errorf("nobody to ask: %s", set)
	}
	c := Clock{Report: report.New(&reporttest.Lines{}), Floor: floor, Set: func(time.Time) error { return errors.New("no clock") }}
	if err := c.Correct(context.Background(), time.Unix(0, 0)); err == nil {
		t.Error("a clock that cannot be set was no error")
	}
}

func FuzzSNTP(f *testing.F) {
	f.Add(ntpAnswer(make([]byte, 48), floor))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseSNTP(b, make([]byte, 8), floor) })
}

func FuzzLease(f *testing.F) {
	d, _ := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 1)), dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(10, 0, 0, 1))))
	f.Add(d.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		l, err := newLease(&nclient4.Lease{ACK: d, Offer: d})
		if err == nil && (!l.addr.IsValid() || l.t1 > l.t2 || l.t2 > l.time || strings.ContainsAny(l.domain, " \n")) {
			t.Errorf("%+v", l)
		}
	})
}
