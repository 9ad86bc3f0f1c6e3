//go:build integration

package dhcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"imgbuild/server/registry"
)

// neighbour is dnsmasq as an ordinary DHCP server at 10.1.0.2.
func neighbour(t *testing.T, more ...string) *node {
	t.Helper()
	n := newNode(t, "dnsmasq")
	plug(t, "br0", n, "eth0", "")
	n.become(spec{Links: map[string]string{"eth0": "10.1.0.2/24"}, Argv: append([]string{"dnsmasq", "--keep-in-foreground", "--port=0", "--no-resolv", "--conf-file=/dev/null", "--user=root",
		"--pid-file=", "--log-facility=-", "--log-dhcp", "--no-ping", "--dhcp-authoritative", "--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases"),
		"--dhcp-range=10.1.0.50,10.1.0.60,255.255.255.0,1h"}, more...)})
	n.wait("DHCP, IP range")
	return n
}

func TestAProxyTellsTheBootLoaderBesideARealServerThatGivesTheAddress(t *testing.T) {
	if !inside(t, "busybox", "dnsmasq") {
		return
	}
	bridge(t, "br0", "10.1.0.1/24")
	other := neighbour(t)
	cfg := Config{Mode: Proxy, Interfaces: []string{"br0"}, Boot: Boot{URL: "http://:8080"}}
	s, _, log := serve(t, cfg)

	n := newNode(t, "client")
	plug(t, "br0", n, "eth0", macA)
	n.become(spec{Links: map[string]string{"eth0": ""}, Argv: udhcpc(t)})
	n.wait("script: bound 10.1.0.5")
	log.wait(t, "does not boot from the network")
	if c := s.Counters(); c.Offers+c.Acks+c.Naks != 0 || c.Discovers == 0 {
		t.Errorf("a client that does not boot from the network: %+v", c)
	}

	// The firmware's question is asked from another machine, as its own link would not carry it to us.
	finder := newNode(t, "finder")
	plug(t, "br0", finder, "eth0", macB)
	finder.become(spec{Links: map[string]string{"eth0": "10.1.0.77/24"}, Argv: []string{self(t), "-test.run=^TestPartDiscovers$", "-test.v"}})
	said := finder.wait("answered")
	if !strings.Contains(said, "10.1.0.2 (") || !regexp.MustCompile(`10\.1\.0\.2 \([0-9a-f:]+\) offers 10\.1\.0\.5\d`).MatchString(said) ||
		!regexp.MustCompile(`10\.1\.0\.1 \([0-9a-f:]+\) is a proxyDHCP and the boot file "ipxe.efi"`).MatchString(said) || !strings.Contains(said, "2 answered") {
		t.Errorf("%s\n%s", said, other.text())
	}

	// BINL: UEFI firmware asks on port 4011 from the address that it has got.
	asker := newNode(t, "asker")
	plug(t, "br0", asker, "eth0", "52:54:00:00:00:0d")
	asker.become(spec{Links: map[string]string{"eth0": "10.1.0.78/24"}, Argv: []string{self(t), "-test.run=^TestPartAsks4011$", "-test.v"}})
	if said := asker.wait("told"); !strings.Contains(said, "told ACK undionly.kpxe from 10.1.0.1 as PXEClient") {
		t.Error(said)
	}
}

// TestPartDiscovers is what a machine does in the test above.
func TestPartDiscovers(t *testing.T) {
	if os.Getenv(role) != "part" {
		t.Skip("it is a part of another test")
	}
	list, err := Discover(t.Context(), "eth0")
	for _, o := range list {
		fmt.Fprintln(os.Stderr, o)
	}
	fmt.Fprintln(os.Stderr, len(list), "answered", err)
}

// TestPartAsks4011 is what a machine does in the test above.
func TestPartAsks4011(t *testing.T) {
	if os.Getenv(role) != "part" {
		t.Skip("it is a part of another test")
	}
	c, err := net.ListenPacket("udp4", "10.1.0.78:68")
	if err != nil {
		t.Fatal(err)
	}
	d, err := dhcpv4.New(dhcpv4.WithHwAddr(hw("52:54:00:00:00:0d")), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(net.IPv4(10, 1, 0, 78)),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo(d.ToBytes(), &net.UDPAddr{IP: net.IPv4(10, 1, 0, 1), Port: 4011}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1500)
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, _, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	r, err := dhcpv4.FromBytes(b[:n])
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(os.Stderr, "told", r.MessageType(), r.BootFileName, "from", r.ServerIPAddr, "as", r.ClassIdentifier())
}

func TestAnotherServerOnTheSamePortIsNamed(t *testing.T) {
	if !inside(t, "dnsmasq") {
		return
	}
	// dnsmasq and the server share this namespace, as they would share a host.
	bridge(t, "br0", "10.1.0.1/24")
	bridge(t, "br1", "10.9.0.1/24")
	argv := []string{"--keep-in-foreground", "--port=0", "--no-resolv", "--conf-file=/dev/null", "--user=root", "--pid-file=", "--log-facility=-", "--no-ping",
		"--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases")}
	here := sameNamespace(t, "dnsmasq", append(argv, "--interface=br0", "--bind-interfaces", "--dhcp-range=10.1.0.50,10.1.0.60,1h")...)
	here.wait("DHCP, IP range")
	list := Taken(t.Context(), []string{"br0"})
	if len(list) == 0 || list[0].Port != 67 || !strings.HasPrefix(list[0].Program, "dnsmasq[") || !errors.Is(list[0].Err, unix.EADDRINUSE) {
		t.Errorf("got %v", list)
	}
	if u := TakenAddress(t.Context(), "udp4", ":67"); u == nil || !strings.HasPrefix(u.Program, "dnsmasq[") {
		t.Errorf("got %v", u)
	}
	s, err := New(Config{Mode: Proxy, Interfaces: []string{"br0"}}, nil, nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen on UDP port 67 of br0: another program has it (dnsmasq[") {
		t.Errorf("got %v", err)
	}
}

// broken is a registry whose disk is full.
type broken struct {
	*registry.Store
	err error
}

func (b *broken) PutLease(ctx context.Context, l registry.Lease, now time.Time) error {
	if b.err != nil {
		return b.err
	}
	return b.Store.PutLease(ctx, l, now)
}

func TestWhatCannotBeStoredIsNotAcknowledged(t *testing.T) {
	if !inside(t, "busybox") {
		return
	}
	bridge(t, "br0", "10.1.0.1/24")
	store, err := registry.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log := &logbook{more: make(chan struct{}, 1)}
	s, err := New(lan(), &broken{store, errors.New("the disk is full")}, store, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	log.wait(t, "DHCP is served")
	n := newNode(t, "client")
	plug(t, "br0", n, "eth0", macA)
	n.become(spec{Links: map[string]string{"eth0": ""}, Argv: udhcpc(t, "-n")})
	log.wait(t, "DHCP lease cannot be stored, and the client is not answered")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if c := s.Counters(); c.Acks != 0 || c.Offers == 0 || c.Failed == 0 || strings.Contains(n.text(), "script: bound") {
		t.Errorf("%+v\n%s", c, n.text())
	}
}

// TestLoadOfManyClients prints how many clients a second the server serves, each with DISCOVER, OFFER, REQUEST and ACK and a
// lease on the disk, measured by Kea's perfdhcp. It fails only if nobody is served: figures depend on the machine.
func TestLoadOfManyClients(t *testing.T) {
	if !inside(t, "perfdhcp") {
		return
	}
	bridge(t, "br0", "10.1.0.1/16")
	for _, probe := range []time.Duration{-1, 0} {
		cfg := Config{Mode: Full, Interfaces: []string{"br0"}, Probe: probe,
			Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Ranges: []Range{span("10.1.16.0-10.1.239.255")}, Gateway: ip("10.1.0.1")}}}
		t.Run(fmt.Sprintf("probe %v", probe >= 0), func(t *testing.T) {
			store, err := registry.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			log := &logbook{more: make(chan struct{}, 1)}
			s, err := New(cfg, store, store, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo})))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			log.wait(t, "DHCP is served")
			n := newNode(t, "perfdhcp")
			plug(t, "br0", n, "eth0", "")
			n.become(spec{Links: map[string]string{"eth0": "10.1.0.9/16"}, Argv: []string{"perfdhcp", "-4", "-R", "20000", "-r", "4000", "-p", "8", "-l", "eth0", "all"}})
			<-n.done
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			list, err := store.Leases(t.Context())
			c := s.Counters()
			t.Logf("%s\n%s\ncounters %+v\n%d leases stored, %v", n.text(), grep(log.String(), "level=WARN"), c, len(list), err)
			if c.Acks == 0 || uint64(len(list)) < c.Acks/2 {
				t.Error("nothing was served")
			}
		})
	}
}

// grep gives the first lines that have a text.
func grep(s, text string) string {
	var found []string
	for l := range strings.SplitSeq(s, "\n") {
		if strings.Contains(l, text) && len(found) < 5 {
			found = append(found, l)
		}
	}
	return strings.Join(found, "\n")
}
