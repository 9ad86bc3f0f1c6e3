package machine

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// installing is a computer that has its plan.
func (s *site) installing(t testing.TB, h registry.Host, o registry.Order) (*computer, plan.Plan) {
	t.Helper()
	s.host(t, h)
	o.SN, o.Image, o.By, o.Reason = h.SN, "web/1", "anna", "new disks"
	if _, err := s.store.CreateOrder(t.Context(), o, 1); err != nil {
		t.Fatal(err)
	}
	c := s.computer(h.SN)
	if told := c.start(t); told != "install" {
		t.Fatal(told)
	}
	return c, c.mustClaim(t, plan.Install)
}

// transfers says how the transfer goes.
func (c *computer) transfers(r plan.Swarm) (plan.Upstreams, error) {
	if r.Schema == 0 {
		r.Schema = plan.Schema
	}
	if r.Sources == nil {
		r.Sources = []plan.SwarmSource{}
	}
	var u plan.Upstreams
	err := c.post(plan.SwarmPath, r, &u)
	if err == nil {
		err = u.Validate()
	}
	return u, err
}

func TestMachinesThatInstallTogetherReadFromEachOther(t *testing.T) {
	s := newSite(t, options{})
	one, p := s.installing(t, registry.Host{SN: "SN-WEB1", Rack: "r1"}, registry.Order{})
	two, _ := s.installing(t, registry.Host{SN: "SN-WEB2", Rack: "r1"}, registry.Order{})
	alone, other := s.installing(t, registry.Host{SN: "SN-WEB3", Rack: "r1"}, registry.Order{Transport: plan.TransportHTTP})
	if p.Transport != plan.TransportRelay || other.Transport != plan.TransportHTTP || !slices.Equal(p.Mirrors, []string{"http://mirror.example.org/images/web/1/"}) {
		t.Errorf("%+v, %+v", p, other)
	}
	a, err := one.transfers(plan.Swarm{Total: 100, Port: 9001})
	if err != nil {
		t.Fatal(err)
	}
	b, err := two.transfers(plan.Swarm{Total: 100, Port: 9002})
	if err != nil {
		t.Fatal(err)
	}
	c, err := alone.transfers(plan.Swarm{Total: 100, Port: 9003})
	if err != nil {
		t.Fatal(err)
	}
	text := func(u plan.Upstreams) string {
		var list []string
		for _, x := range u.Upstreams {
			list = append(list, fmt.Sprintf("%s %s", x.Kind, x.URL))
		}
		return strings.Join(list, "\n")
	}
	far := "origin http://mirror.example.org/images/web/1/rootfs.squashfs\norigin " + s.http.URL + "/images/web/1/rootfs.squashfs"
	if text(a) != far || text(b) != "relay http://127.0.0.1:9001/chunks\n"+far || text(c) != far {
		t.Errorf("%s\n\n%s\n\n%s", text(a), text(b), text(c))
	}
	if !plan.CheckTicket(a.Secret, b.Upstreams[0].Ticket, s.clock()) || len(c.Secret) != 0 {
		t.Error("the ticket does not open the machine that it is for")
	}
	if n := s.Counts().Swarm; n != 3 {
		t.Errorf("%d reports were counted", n)
	}
}

func TestWhatIsSaidOfATransferIsAHeartbeat(t *testing.T) {
	s := newSite(t, options{})
	c, p := s.installing(t, registry.Host{SN: "SN-WEB1"}, registry.Order{})
	for range 10 { // three minutes of nothing but this
		s.pass(20 * time.Second)
		if _, err := c.transfers(plan.Swarm{Total: 100}); err != nil {
			t.Fatal(err)
		}
	}
	o, err := s.store.Order(t.Context(), p.Order)
	if err != nil || !o.Heard.Equal(s.clock()) {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestATransferIsRefusedWithoutATokenAndWithNonsense(t *testing.T) {
	s := newSite(t, options{})
	c, _ := s.installing(t, registry.Host{SN: "SN-WEB1"}, registry.Order{})
	if _, err := c.transfers(plan.Swarm{Total: 100}); err != nil {
		t.Fatal(err)
	}
	stranger := *c
	stranger.token = "x"
	if _, err := stranger.transfers(plan.Swarm{Total: 100}); !refusedWith(err, 401) {
		t.Error(err)
	}
	for _, tt := range []struct {
		name string
		r    plan.Swarm
		code int
	}{
		{"another schema", plan.Swarm{Schema: 9, Total: 100}, 400},
		{"more than all", plan.Swarm{Total: 100, Got: 101}, 400},
		{"no size", plan.Swarm{}, 400},
		{"another size than before", plan.Swarm{Total: 101}, 409},
		{"too many sources", plan.Swarm{Total: 100, Sources: make([]plan.SwarmSource, 100)}, 400},
		{"a report that is too large", plan.Swarm{Total: 100, Sources: []plan.SwarmSource{{ID: strings.Repeat("x", maxSwarm)}}}, 413},
	} {
		if _, err := c.transfers(tt.r); !refusedWith(err, tt.code) {
			t.Errorf("%s: %v, want %d", tt.name, err, tt.code)
		}
	}
}

func TestTheGroupOfAMachine(t *testing.T) {
	lldp := func(link bool, n plan.Neighbour) *plan.Inventory {
		return &plan.Inventory{NICs: []plan.NIC{{Name: "eth0", Link: link, Neighbour: &n}}}
	}
	v4, v6 := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::5")
	for _, tt := range []struct {
		name string
		host registry.Host
		addr netip.Addr
		want string
	}{
		{"its rack", registry.Host{Rack: "r12", Inventory: lldp(true, plan.Neighbour{Chassis: "aa"})}, v4, "rack r12"},
		{"its switch by name", registry.Host{Inventory: lldp(true, plan.Neighbour{Chassis: "aa", System: "leaf3"})}, v4, "switch leaf3"},
		{"its switch by chassis", registry.Host{Inventory: lldp(true, plan.Neighbour{Chassis: "aa"})}, v4, "switch aa"},
		{"no switch of a card without a cable", registry.Host{Inventory: lldp(false, plan.Neighbour{Chassis: "aa"})}, v4, "subnet 10.1.2.0/24"},
		{"its subnet", registry.Host{}, v4, "subnet 10.1.2.0/24"},
		{"its subnet as it is configured", registry.Host{}, netip.MustParseAddr("10.4.2.3"), "subnet 10.4.0.0/16"},
		{"its subnet of IPv6", registry.Host{}, v6, "subnet 2001:db8::/64"},
		{"nothing", registry.Host{}, netip.Addr{}, ""},
	} {
		if got := groupOf(&tt.host, tt.addr, []netip.Prefix{netip.MustParsePrefix("10.4.0.0/16")}); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
