package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/boot"
	"imgbuild/server/registry"
)

// breakable is a registry that can be made to fail.
type breakable struct {
	Registry
	err error
}

func (b *breakable) Offered(ctx context.Context, digest string, now time.Time) (*registry.Offer, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.Registry.Offered(ctx, digest, now)
}

func (b *breakable) OrderByToken(ctx context.Context, digest string) (*registry.Order, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.Registry.OrderByToken(ctx, digest)
}

func (b *breakable) ExpireOrders(ctx context.Context, now time.Time) ([]registry.Order, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.Registry.ExpireOrders(ctx, now)
}

func TestAFailingRegistryIsAskedAgainAndShowsNothing(t *testing.T) {
	broken := &breakable{}
	s := newSite(t, options{registry: func(st *registry.Store) Registry { broken.Registry = st; return broken }})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	s.order(t, "SN-WEB1")
	c := s.computer("SN-WEB1")
	c.start(t)
	broken.err = fmt.Errorf("disk I/O error at 0x17")
	_, err := c.claim()
	c.token = "x"
	_, err2 := c.report()
	for _, err := range []error{err, err2, c.booted()} {
		if !refusedWith(err, 503) || strings.Contains(err.Error(), "0x17") {
			t.Error(err)
		}
	}
	broken.err = nil
	c.mustClaim(t, plan.Install)
}

func TestRequestsThatAreWrongAreRefused(t *testing.T) {
	s := newSite(t, options{})
	s.host(t, registry.Host{SN: "SN-WEB1"})
	s.order(t, "SN-WEB1")
	c := s.computer("SN-WEB1")
	c.start(t)
	c.mustClaim(t, plan.Install)
	claim := func(change func(*plan.Claim)) plan.Claim {
		v := plan.Claim{Schema: plan.Schema, Boot: c.boot, Inventory: c.inv}
		change(&v)
		return v
	}
	report := func(events ...plan.Event) plan.Report { return plan.Report{Schema: plan.Schema, Events: events} }
	for _, tt := range []struct {
		name, path, token string
		body              any
		code              int
	}{
		{"no JSON", plan.ClaimPath, "", []byte("hello"), 400},
		{"nothing", plan.ClaimPath, "", []byte(""), 400},
		{"something after it", plan.ClaimPath, "", []byte("{} {}"), 400},
		{"an unknown field", plan.ClaimPath, "", []byte(`{"schema":1,"wipe":true}`), 400},
		{"another schema", plan.ClaimPath, "", claim(func(c *plan.Claim) { c.Schema = 2 }), 400},
		{"a nonce that is none", plan.ClaimPath, "", claim(func(c *plan.Claim) { c.Boot = "abc" }), 400},
		{"a claim that is too large", plan.ClaimPath, "", claim(func(c *plan.Claim) { c.Inventory.Vendor = strings.Repeat("x", maxClaim) }), 413},
		{"a report without a token", plan.EventsPath, "", report(), 401},
		{"a report with a wrong token", plan.EventsPath, "abc", report(), 401},
		{"a report with a long token", plan.EventsPath, strings.Repeat("a", 1000), report(), 401},
		{"a report with the nonce", plan.EventsPath, c.boot, report(), 401},
		{"a report of another schema", plan.EventsPath, c.token, plan.Report{Schema: 3}, 400},
		{"events out of order", plan.EventsPath, c.token, report(plan.Event{Seq: 2, Kind: plan.KindInfo}, plan.Event{Seq: 1, Kind: plan.KindInfo}), 400},
		{"events from 0", plan.EventsPath, c.token, report(plan.Event{Seq: 0, Kind: plan.KindInfo}), 400},
		{"an unknown kind", plan.EventsPath, c.token, report(plan.Event{Seq: 1, Kind: "booted"}), 400},
		{"too many events", plan.EventsPath, c.token, plan.Report{Schema: plan.Schema, Events: make([]plan.Event, maxEvents+1)}, 413},
		{"a report that is too large", plan.EventsPath, c.token, []byte(`{"schema":1,"events":[{"text":"` + strings.Repeat("x", plan.MaxBytes) + `"}]}`), 413},
		{"a first boot without a token", plan.BootedPath, "", plan.Booted{Schema: 1, Serial: "SN-WEB1"}, 401},
		{"a first boot of another machine", plan.BootedPath, c.token, plan.Booted{Schema: 1, Serial: "SN-WEB2"}, 409},
		{"a first boot of another schema", plan.BootedPath, c.token, plan.Booted{Schema: 0, Serial: "SN-WEB1"}, 400},
	} {
		m := *c
		m.token = tt.token
		if err := m.post(tt.path, tt.body, nil); !refusedWith(err, tt.code) {
			t.Errorf("%s: %.200v, want %d", tt.name, err, tt.code)
		}
	}
	for _, p := range []string{plan.ClaimPath, plan.EventsPath, plan.BootedPath} {
		r, err := s.http.Client().Get(s.http.URL + p)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != 405 {
			t.Errorf("GET %s: %s", p, r.Status)
		}
	}
	h, err := s.store.Host(t.Context(), "SN-WEB1")
	if err != nil || h.State != registry.Installing {
		t.Errorf("%+v, %v", h, err)
	}
	if n := count(s.diary(t, "SN-WEB1"), "refused: a machine that says it has the serial number \"SN-WEB2\" has booted"); n != 1 {
		t.Errorf("%q", s.diary(t, "SN-WEB1"))
	}
}

func TestAnAddressThatAsksTooFastHasToWait(t *testing.T) {
	s := newSite(t, options{})
	s.pace = boot.NewPace(0.5)
	c := s.computer("SN-WEB1")
	c.boot = "AAAAAAAAAAAAAAAAAAAAAA"
	var err error
	for i := 0; err == nil && i < 50; i++ {
		_, err = c.claim()
	}
	if !refusedWith(err, 429) || s.Counts().Slowed != 1 {
		t.Error(err)
	}
}

func TestTheKeyIsMadeOnce(t *testing.T) {
	s := newSite(t, options{})
	want := s.key.Public().Text()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if k, err := LoadKey(t.Context(), s.store); err != nil || k.Public().Text() != want {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if _, err := LoadKey(t.Context(), settings("not a key")); err == nil || !strings.Contains(err.Error(), "plan-key") {
		t.Error(err)
	}
}

type settings string

func (s settings) Setting(context.Context, string) ([]byte, bool, error) { return []byte(s), true, nil }

func (s settings) SetSettingOnce(context.Context, string, []byte) ([]byte, error) {
	return nil, errors.New("unused")
}

func TestTheNetworkIsThatOfTheHost(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	yes, no := true, false
	inv := plan.Inventory{NICs: []plan.NIC{{MAC: "52:54:00:00:00:01"}, {MAC: "52:54:00:00:00:02", Link: true}}}
	bond := &plan.Network{Ethernets: []plan.Ethernet{{Name: "a", Match: plan.Match{Order: 1}}, {Name: "b", Match: plan.Match{Order: 2}}},
		Bonds: []plan.Bond{{Name: "bond0", Mode: "802.3ad", Members: []string{"a", "b"}, IP: plan.IP{Addresses: []netip.Prefix{prefix("10.0.0.5/24")}}}}}
	for _, tt := range []struct {
		name  string
		host  registry.Host
		want  *plan.Network
		check bool
		err   string
	}{
		{"nothing is the image's", registry.Host{}, nil, false, ""},
		{"an address", registry.Host{IP: "10.0.0.5", Netmask: "255.255.255.0", GW: "10.0.0.1"}, one(plan.Match{Link: 1}, plan.IP{Addresses: []netip.Prefix{prefix("10.0.0.5/24")}, Gateway4: addr("10.0.0.1")}), true, ""},
		{"a prefix length", registry.Host{IP: "10.0.0.5", Netmask: "20"}, one(plan.Match{Link: 1}, plan.IP{Addresses: []netip.Prefix{prefix("10.0.0.5/20")}}), true, ""},
		{"IPv6", registry.Host{IP: "fd00::5", Netmask: "64", GW: "fd00::1"}, one(plan.Match{Link: 1}, plan.IP{Addresses: []netip.Prefix{prefix("fd00::5/64")}, Gateway6: addr("fd00::1")}), true, ""},
		{"not tried where the host says so", registry.Host{IP: "10.0.0.5", Netmask: "24", CheckNetwork: &no}, one(plan.Match{Link: 1}, plan.IP{Addresses: []netip.Prefix{prefix("10.0.0.5/24")}}), false, ""},
		{"DHCP is tried where the host says so", registry.Host{CheckNetwork: &yes}, nil, true, ""},
		{"the MAC with a cable", registry.Host{IP: "10.0.0.5", Netmask: "24", MACs: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"}}, one(plan.Match{MAC: "52:54:00:00:00:02"}, plan.IP{Addresses: []netip.Prefix{prefix("10.0.0.5/24")}}), true, ""},
		{"a MAC without a cable if there is no other", registry.Host{IP: "10.0.0.5", Netmask: "24", MACs: []string{"52:54:00:00:00:01"}}, one(plan.Match{MAC: "52:54:00:00:00:01"}, plan.IP{Addresses: []netip.Prefix{prefix("10.0.0.5/24")}}), true, ""},
		{"name servers only", registry.Host{DNS: []netip.Addr{addr("10.0.0.2")}, Search: []string{"example.org"}}, func() *plan.Network {
			n := one(plan.Match{Link: 1}, plan.IP{DHCP4: true})
			n.DNS, n.Search = []netip.Addr{addr("10.0.0.2")}, []string{"example.org"}
			return n
		}(), false, ""},
		{"a bond", registry.Host{IP: "10.9.9.9", Netmask: "24", Network: bond}, bond, true, ""},
		{"no netmask", registry.Host{IP: "10.0.0.5"}, nil, false, "its netmask"},
		{"a netmask with holes", registry.Host{IP: "10.0.0.5", Netmask: "255.0.255.0"}, nil, false, "its netmask"},
		{"a netmask of IPv6 for IPv4", registry.Host{IP: "10.0.0.5", Netmask: "64"}, nil, false, "its netmask"},
		{"an address that is none", registry.Host{IP: "10.0.0", Netmask: "24"}, nil, false, "is not an address"},
		{"a gateway of another kind", registry.Host{IP: "10.0.0.5", Netmask: "24", GW: "fd00::1"}, nil, false, "its gw"},
		{"a network that contradicts itself", registry.Host{Network: &plan.Network{Bonds: []plan.Bond{{Name: "bond0", Mode: "802.3ad"}}}}, nil, false, "bond0"},
	} {
		got, err := networkOf(&tt.host, inv)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		a, err1 := json.Marshal(got)
		b, err2 := json.Marshal(tt.want)
		if err := errors.Join(err, err1, err2); err != nil || !slices.Equal(a, b) {
			t.Errorf("%s: %s, want %s; %v", tt.name, a, b, err)
		}
		if got := checkNetwork(&tt.host, got); got != tt.check {
			t.Errorf("%s: tried before the installation: %v", tt.name, got)
		}
	}
}

func one(m plan.Match, ip plan.IP) *plan.Network {
	return &plan.Network{Ethernets: []plan.Ethernet{{Name: "lan", Match: m, IP: ip}}}
}
