//go:build integration

package dhcp

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"imgbuild/server/registry"
)

// logbook is the server's log, in which lines can be waited for.
type logbook struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{}
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logbook) wait(t *testing.T, text string) {
	t.Helper()
	end := time.After(60 * time.Second)
	for !strings.Contains(l.String(), text) {
		select {
		case <-l.more:
		case <-end:
			t.Fatalf("the server did not say %q:\n%s", text, l)
		}
	}
}

// serve runs a server in this namespace, on a real registry, until the test ends.
func serve(t *testing.T, cfg Config, hosts ...registry.Host) (*Server, *registry.Store, *logbook) {
	t.Helper()
	store, err := registry.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if _, _, err := store.PutHost(t.Context(), h, "test", 0); err != nil {
			t.Fatal(err)
		}
	}
	log := &logbook{more: make(chan struct{}, 1)}
	s, err := New(cfg, store, store, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		store.Close()
		if t.Failed() {
			t.Logf("the server said:\n%s", log)
		}
	})
	for _, i := range cfg.Interfaces {
		log.wait(t, "interface="+i+" mode=")
	}
	return s, store, log
}

// lan is a served subnet on br0 and one that only relays lead to.
func lan() Config {
	return Config{Mode: Full, Interfaces: []string{"br0"}, Subnets: []Subnet{
		{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Ranges: []Range{span("10.1.0.100-10.1.0.199")}, Gateway: ip("10.1.0.1"), DNS: []netip.Addr{ip("10.1.0.53")}, Domain: "example.org"},
		{Prefix: netip.MustParsePrefix("10.2.0.0/24"), Ranges: []Range{span("10.2.0.100-10.2.0.199")}, Gateway: ip("10.2.0.1"), RelayOnly: true},
	}, Boot: Boot{URL: "http://:8080"}}
}

func self(t *testing.T) string {
	t.Helper()
	p, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// udhcpc is busybox's client, which runs our script.
func udhcpc(t *testing.T, more ...string) []string {
	return append([]string{"busybox", "udhcpc", "-f", "-i", "eth0", "-s", self(t), "-t", "10", "-T", "1"}, more...)
}

// dhclient is ISC's client, which runs our script; leases is a file with the leases that it has from before.
func dhclient(t *testing.T, config, leases string, more ...string) []string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"conf": config, "leases": leases} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return append([]string{"dhclient", "-4", "-d", "-v", "-cf", dir + "/conf", "-lf", dir + "/leases", "-pf", dir + "/pid", "-sf", self(t), "-e", role + "=script"}, append(more, "eth0")...)
}

func lookup(t *testing.T, store *registry.Store, addr string) *registry.Lease {
	t.Helper()
	list, err := store.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if list[i].Address == ip(addr) {
			return &list[i]
		}
	}
	return nil
}

func TestRealClientsGetRenewAndReleaseTheirHostsAddress(t *testing.T) {
	if !inside(t, "busybox", "dhclient") {
		return
	}
	bridge(t, "br0", "10.1.0.1/24")
	_, store, log := serve(t, lan(), registry.Host{SN: "SN-A", Hostname: "web1", IP: "10.1.0.7", Netmask: "24", GW: "10.1.0.1", MACs: []string{macA}},
		registry.Host{SN: "SN-B", Hostname: "web2", IP: "10.1.0.8", Netmask: "24", GW: "10.1.0.1"})

	a := newNode(t, "udhcpc")
	plug(t, "br0", a, "eth0", macA)
	a.become(spec{Links: map[string]string{"eth0": ""}, Argv: udhcpc(t, "-O", "hostname", "-R")})
	a.wait("script: bound 10.1.0.7 mask 255.255.255.0 router 10.1.0.1 host web1")
	if l := lookup(t, store, "10.1.0.7"); l == nil || l.MAC != macA || l.SN != "SN-A" || l.State != string(Bound) {
		t.Errorf("the lease is %+v", l)
	}
	a.signal(syscall.SIGUSR1) // renew, by unicast
	a.wait("script: renew 10.1.0.7")
	a.signal(syscall.SIGUSR2) // release
	a.wait("script: deconfig")
	log.wait(t, "released 10.1.0.7")

	b := newNode(t, "dhclient")
	plug(t, "br0", b, "eth0", macB)
	b.become(spec{Links: map[string]string{"eth0": ""}, Argv: dhclient(t, "send dhcp-client-identifier \"SN-B\";\nrequest subnet-mask, routers, host-name;\n", "")})
	b.wait("script: bound 10.1.0.8 mask 255.255.255.0 router 10.1.0.1 host web2")
	if l := lookup(t, store, "10.1.0.8"); l == nil || l.SN != "SN-B" {
		t.Errorf("the lease is %+v", l)
	}

	// Somebody without a record gets an address of the range.
	c := newNode(t, "another")
	plug(t, "br0", c, "eth0", "52:54:00:00:00:0c")
	c.become(spec{Links: map[string]string{"eth0": ""}, Argv: udhcpc(t)})
	c.wait("script: bound 10.1.0.1")

	// A person writes an address down for him while he has a lease: with the next renewal he has it.
	if _, _, err := store.PutHost(t.Context(), registry.Host{SN: "SN-C", Hostname: "web3", IP: "10.1.0.9", Netmask: "24", GW: "10.1.0.1", MACs: []string{"52:54:00:00:00:0c"}}, "test", 0); err != nil {
		t.Fatal(err)
	}
	for range 20 { // the news is on its way
		c.forget()
		c.signal(syscall.SIGUSR1)
		if s := c.wait("script: "); strings.Contains(s, "deconfig") || strings.Contains(s, "nak") {
			break
		}
	}
	c.wait("script: bound 10.1.0.9")
}

func TestAClientThatComesFromAnotherNetworkIsToldSo(t *testing.T) {
	if !inside(t, "dhclient") {
		return
	}
	bridge(t, "br0", "10.1.0.1/24")
	_, _, log := serve(t, lan())
	n := newNode(t, "dhclient")
	plug(t, "br0", n, "eth0", macA)
	n.become(spec{Links: map[string]string{"eth0": ""}, Argv: dhclient(t, "", `lease { interface "eth0"; fixed-address 192.168.7.7; option subnet-mask 255.255.255.0; option dhcp-lease-time 86400;
  option dhcp-server-identifier 192.168.7.1; renew 2 2037/01/01 00:00:00; rebind 2 2037/01/01 00:00:00; expire 2 2037/01/01 00:00:00; }`)})
	n.wait("DHCPNAK from 10.1.0.1")
	n.wait("script: bound 10.1.0.1")
	log.wait(t, "192.168.7.7 is not in 10.1.0.0/24")
}

func TestAnAddressThatSomebodyUsesIsNotOffered(t *testing.T) {
	if !inside(t, "busybox") {
		return
	}
	bridge(t, "br0", "10.1.0.1/24")
	squatter := newNode(t, "squatter")
	plug(t, "br0", squatter, "eth0", "")
	squatter.become(spec{Links: map[string]string{"eth0": "10.1.0.100/24"}, Argv: []string{"busybox", "sleep", "1000"}})
	squatter.wait("machine: ready")
	cfg := lan()
	cfg.Subnets[0].Ranges = []Range{span("10.1.0.100-10.1.0.101")}
	s, store, log := serve(t, cfg)
	n := newNode(t, "client")
	plug(t, "br0", n, "eth0", macA)
	n.become(spec{Links: map[string]string{"eth0": ""}, Argv: udhcpc(t, "-r", "10.1.0.100")})
	n.wait("script: bound 10.1.0.101")
	log.wait(t, "is used by somebody who has no lease for it")
	if l := lookup(t, store, "10.1.0.100"); l == nil || l.State != string(Declined) {
		t.Errorf("the lease is %+v", l)
	}
	if c := s.Counters(); c.Conflicts != 1 || c.Acks != 1 {
		t.Errorf("counters: %+v", c)
	}
}

// relayed sets up a client in 10.2.0.0/24 behind a relay at 10.1.0.2 and 10.2.0.1.
func relayed(t *testing.T, argv []string) (client *node, relay *node) {
	t.Helper()
	bridge(t, "br0", "10.1.0.1/24")
	_, dst, _ := net.ParseCIDR("10.2.0.0/24")
	if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.IPv4(10, 1, 0, 2)}); err != nil {
		t.Fatal(err)
	}
	relay, client = newNode(t, "relay"), newNode(t, "client")
	plug(t, "br0", relay, "eth0", "")
	join(t, relay, "eth1", client, "eth0", macA)
	relay.become(spec{Links: map[string]string{"eth0": "10.1.0.2/24", "eth1": "10.2.0.1/24"}, Forward: true, Argv: argv})
	relay.wait("machine: ready")
	client.become(spec{Links: map[string]string{"eth0": ""}, Argv: udhcpc(t)})
	return client, relay
}

func TestAClientBehindDnsmasqsRelayGetsItsOwnSubnet(t *testing.T) {
	if !inside(t, "busybox", "dnsmasq") {
		return
	}
	c, _ := relayed(t, []string{"dnsmasq", "--keep-in-foreground", "--port=0", "--no-resolv", "--conf-file=/dev/null", "--user=root", "--pid-file=", "--log-facility=-", "--log-dhcp",
		"--dhcp-relay=10.2.0.1,10.1.0.1"})
	_, store, _ := serve(t, lan(), registry.Host{SN: "SN-A", Hostname: "far1", IP: "10.2.0.7", Netmask: "24", GW: "10.2.0.1", MACs: []string{macA}})
	c.wait("script: bound 10.2.0.7 mask 255.255.255.0 router 10.2.0.1")
	c.signal(syscall.SIGUSR1) // renews by unicast, through the router and past the relay
	c.wait("script: renew 10.2.0.7")
	if l := lookup(t, store, "10.2.0.7"); l == nil || l.Subnet.String() != "10.2.0.0/24" {
		t.Errorf("the lease is %+v", l)
	}
}

func TestAClientBehindISCsRelayWithOption82GetsItsOwnSubnet(t *testing.T) {
	if !inside(t, "busybox", "dhcrelay") {
		return
	}
	c, relay := relayed(t, []string{"dhcrelay", "-4", "-d", "-a", "-m", "discard", "-id", "eth1", "-iu", "eth0", "10.1.0.1"})
	_, _, log := serve(t, lan())
	c.wait("script: bound 10.2.0.1")
	log.wait(t, "relay=10.2.0.1")
	if strings.Contains(relay.text(), "discard") && strings.Contains(relay.text(), "agent") {
		t.Errorf("the relay misses its option 82:\n%s", relay.text())
	}
}

func TestAnInterfaceThatGoesAwayAndComesBackIsServedAgain(t *testing.T) {
	if !inside(t, "busybox") {
		return
	}
	bridge(t, "br0", "10.1.0.1/24")
	_, _, log := serve(t, lan())
	l, err := netlink.LinkByName("br0")
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	log.wait(t, "waits for an interface that has gone away")
	before := strings.Count(log.String(), "DHCP is served")
	bridge(t, "br0", "10.1.0.1/24")
	for strings.Count(log.String(), "DHCP is served") == before {
		select {
		case <-log.more:
		case <-time.After(60 * time.Second):
			t.Fatal("the interface is not served again")
		}
	}
	n := newNode(t, "client")
	plug(t, "br0", n, "eth0", macA)
	n.become(spec{Links: map[string]string{"eth0": ""}, Argv: udhcpc(t)})
	n.wait("script: bound 10.1.0.1")
}

func TestLeasesSurviveARestart(t *testing.T) {
	if !inside(t, "busybox") {
		return
	}
	bridge(t, "br0", "10.1.0.1/24")
	store, err := registry.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	n := newNode(t, "client")
	plug(t, "br0", n, "eth0", macA)
	first := ""
	for round := range 2 {
		log := &logbook{more: make(chan struct{}, 1)}
		s, err := New(lan(), store, store, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		log.wait(t, "DHCP is served")
		if round == 0 {
			n.become(spec{Links: map[string]string{"eth0": ""}, Argv: udhcpc(t, "-r", "10.1.0.142")})
			first = n.wait("script: bound 10.1.0.142")
		} else {
			if s.Pools()[0].Active != 1 {
				t.Errorf("after the restart: %+v", s.Pools())
			}
			n.signal(syscall.SIGUSR1)
			n.wait("script: renew 10.1.0.142")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	if strings.Count(first, "bound") != 1 {
		t.Error(first)
	}
}
