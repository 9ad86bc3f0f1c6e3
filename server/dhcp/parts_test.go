package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/server/registry"
)

func TestConfigurationsThatCannotWorkAreRefusedWithAllTheirFaults(t *testing.T) {
	good := Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Ranges: []Range{span("10.1.0.10-10.1.0.20")}}
	change := func(f func(*Subnet)) []Subnet { s := good; f(&s); return []Subnet{s} }
	for want, c := range map[string]Config{
		"no subnet is given":           {Mode: Full},
		"proxyDHCP gives no addresses": {Mode: Proxy, Subnets: []Subnet{good}},
		`DHCP mode "both"`:             {Mode: "both"},
		"no interface is given":        {Mode: Full, Subnets: []Subnet{good}},
		"overlaps 10.1.0.0/24":         {Mode: Full, Subnets: []Subnet{good, good}},
		"between /8 and /31":           {Mode: Full, Subnets: []Subnet{{Prefix: netip.MustParsePrefix("fe80::/64")}}},
		"reaches outside it":           {Mode: Full, Subnets: change(func(s *Subnet) { s.Ranges = []Range{span("10.1.0.10-10.1.1.20")} })},
		"is none":                      {Mode: Full, Subnets: change(func(s *Subnet) { s.Ranges = []Range{span("10.1.0.20-10.1.0.10")} })},
		"ranges 10.1.0.10-10.1.0.20":   {Mode: Full, Subnets: change(func(s *Subnet) { s.Ranges = append(s.Ranges, span("10.1.0.20-10.1.0.30")) })},
		"gateway 10.2.0.1 is outside":  {Mode: Full, Subnets: change(func(s *Subnet) { s.Gateway = ip("10.2.0.1") })},
		"::1 is no IPv4 address":       {Mode: Full, Subnets: change(func(s *Subnet) { s.DNS = []netip.Addr{ip("::1")} })},
		"a lease of 1s is too short":   {Mode: Full, Subnets: change(func(s *Subnet) { s.Lease = time.Second })},
		"an MTU of 100":                {Mode: Full, Subnets: change(func(s *Subnet) { s.MTU = 100 })},
		"exactly one of sn":            {Mode: Full, Subnets: []Subnet{good}, Reservations: []Reservation{{Address: ip("10.1.0.9"), SN: "A", MAC: macA}}},
		"no subnet has this address":   {Mode: Full, Subnets: []Subnet{good}, Reservations: []Reservation{{Address: ip("10.9.0.9"), SN: "A"}}},
		"it is there twice":            {Mode: Full, Subnets: []Subnet{good}, Reservations: []Reservation{{Address: ip("10.1.0.9"), SN: "A"}, {Address: ip("10.1.0.9"), SN: "B"}}},
		`"xyz" is no hardware address`: {Mode: Full, Subnets: []Subnet{good}, Reservations: []Reservation{{Address: ip("10.1.0.9"), MAC: "xyz"}}},
		`boot server "boot"`:           {Boot: Boot{URL: "boot"}},
		`boot loader "../etc/passwd"`:  {Boot: Boot{Loaders: map[Platform]string{BIOS: "../etc/passwd"}}},
		`platform "vax"`:               {Boot: Boot{Loaders: map[Platform]string{"vax": "x"}}},
		"BIOS has no Secure Boot":      {Boot: Boot{Shims: map[Platform]string{BIOS: "x"}}},
		"TFTP server ::1":              {Boot: Boot{TFTP: ip("::1")}},
	} {
		if want != "no interface is given" {
			c.Interfaces = []string{"br0"}
		}
		if _, err := New(c, nil, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestAClientThatLoopsIsNotAnsweredAndOthersAre(t *testing.T) {
	l, now, told := newLimiter(), noon, 0
	allowed := 0
	for range 1000 {
		ok, first := l.allow("mac "+macA, now)
		if ok {
			allowed++
		}
		if first {
			told++
		}
		now = now.Add(10 * time.Millisecond)
	}
	if allowed < burst || allowed > burst+11 || told != 1 {
		t.Errorf("%d of 1000 messages in 10 s were allowed, and it was said %d times", allowed, told)
	}
	if ok, _ := l.allow("mac "+macB, now); !ok {
		t.Error("another client is refused")
	}
	if ok, _ := l.allow("mac "+macA, now.Add(time.Minute)); !ok {
		t.Error("after a minute of quiet the client is refused still")
	}
}

func TestAFloodOfForgedClientsTakesBoundedMemory(t *testing.T) {
	l, now := newLimiter(), noon
	for i := range 3 * maxBucket {
		l.allow(fmt.Sprint(i), now)
		now = now.Add(time.Microsecond)
	}
	if len(l.buckets) > maxBucket {
		t.Errorf("%d clients are remembered", len(l.buckets))
	}
	if ok, _ := l.allow("somebody", now.Add(time.Minute)); !ok || len(l.buckets) > maxBucket/2 {
		t.Errorf("after the flood: %v, %d clients are remembered", ok, len(l.buckets))
	}
}

func TestSocketsOfAPortAreFoundInTheKernelsTable(t *testing.T) {
	const udp = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  101: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0
  102: 0100007F:0043 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
  103: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4713 2 0000000000000000 0
`
	if got := socketInodes([]byte(udp), 67); len(got) != 1 || !got["4711"] {
		t.Errorf("got %v", got)
	}
	socketInodes([]byte("x"), 1)
}

func TestATakenPortIsSaidToBeTaken(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u := TakenAddress(t.Context(), "udp4", c.LocalAddr().String())
	if u == nil || !errors.Is(u.Err, unix.EADDRINUSE) || !strings.HasPrefix(u.String(), "UDP port ") {
		t.Errorf("got %v", u)
	}
	if u := TakenAddress(t.Context(), "tcp", "127.0.0.1:0"); u != nil {
		t.Errorf("got %v", u)
	}
}

func TestLeasesSurviveTheRegistry(t *testing.T) {
	ctx := t.Context()
	store, err := registry.Open(ctx, filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	w := newWorld(t, nil)
	w.lease(macA)
	w.lease(macB, "61=ff00112233")
	w.lease("52:54:00:00:00:0c", pxe0)
	d := w.send(message(discover, "52:54:00:00:00:0d"))
	now := time.Now()
	var want []lease
	for _, l := range w.s.leases.byAddr {
		l := *l
		l.expires = now.Add(time.Hour).Truncate(time.Microsecond).UTC()
		if l.addr == d.reply.YIAddr {
			l.state = Declined
		}
		want = append(want, l)
		if err := store.PutLease(ctx, toRegistry(&l), now); err != nil {
			t.Fatal(err)
		}
	}
	list, err := store.Leases(ctx)
	if err != nil || len(list) != len(want) {
		t.Fatal(list, err)
	}
	for i := range list {
		if got := fromRegistry(&list[i]); !slices.Contains(want, got) {
			t.Errorf("%+v is none of %+v", got, want)
		}
	}
}

func TestAddressesOfAnotherServerAreLearntAndNotForgotten(t *testing.T) {
	s, err := New(Config{Mode: Full, Interfaces: []string{"lo"}, Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Ranges: []Range{span("10.1.0.10-10.1.0.12")}}}}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return noon }
	one := registry.Lease{Address: ip("10.1.0.10"), ClientID: "mac " + macA, MAC: macA, State: string(Bound), Expires: noon.Add(time.Hour)}
	s.state.leases.put(lease{addr: ip("10.1.0.10"), mac: macB, state: Offered, expires: noon.Add(offerLife)})
	s.state.leases.put(lease{addr: ip("10.1.0.11"), mac: macB, state: Bound, expires: noon.Add(2 * time.Hour)})
	s.merge([]registry.Lease{one, {Address: ip("10.1.0.11"), ClientID: "mac " + macA, MAC: macA, State: string(Bound), Expires: noon.Add(time.Hour)}})
	if l := s.state.leases.byAddr[ip("10.1.0.10")]; l.mac != macA {
		t.Errorf("an offer goes before another server's lease: %+v", l)
	}
	if l := s.state.leases.byAddr[ip("10.1.0.11")]; l.mac != macB {
		t.Errorf("a newer lease was overwritten by an older one: %+v", l)
	}
	if p := s.Pools(); p[0].Size != 3 || p[0].Active != 2 {
		t.Errorf("pools: %+v", p)
	}
	if gone := s.forget(noon.Add(keepLife + 90*time.Minute)); !slices.Equal(gone, []netip.Addr{ip("10.1.0.10")}) {
		t.Errorf("forgotten: %v", gone)
	}
}

func TestRunSaysWhatItNeeds(t *testing.T) {
	s, err := New(Config{Mode: Proxy, Interfaces: []string{"nosuchlink0"}}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "interface nosuchlink0") {
		t.Errorf("got %v", err)
	}
	if _, err := Discover(t.Context(), "nosuchlink0"); err == nil || !strings.Contains(err.Error(), "interface nosuchlink0") {
		t.Errorf("got %v", err)
	}
	if os.Getuid() == 0 {
		t.Skip("root may listen where it likes")
	}
	s, _ = New(Config{Mode: Proxy, Interfaces: []string{"lo"}}, nil, nil, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Run(ctx); err == nil || !strings.Contains(err.Error(), "CAP_NET") {
		t.Errorf("got %v", err)
	}
}
