package testvm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
)

// The addresses of every test network: each has a namespace of its own, so they never meet.
const (
	networkPrefix = "10.77.0.1/24"
	networkFirst  = "10.77.0.100"
	networkLast   = "10.77.0.199"
	bridgeName    = "br0"
)

// Names under which the web server answers what the DHCP server points to.
const bootScript = "boot.ipxe"

// NetworkConfig says what is served on a network.
type NetworkConfig struct {
	// Dir is served over HTTP: a release. Empty serves only what is put there by WebServer.Put.
	Dir string
	// NoDHCP leaves the network without DHCP and TFTP.
	NoDHCP bool
	// Log gets what the network's servers say, line by line; nil for nobody.
	Log func(line string)
}

// Network is a bridge in a network namespace with a DHCP, a TFTP and a web server beside it.
type Network struct {
	host *Host
	ns   *Namespace
	dir  string // temporary files, removed by Close
	web  *WebServer
	dhcp *Process
	// other is where OtherDHCP's server is; nil without one.
	other *Namespace
	log   func(string)
	stop  func() bool

	mu       sync.Mutex
	machines map[*Machine]bool
	taps     int
	closed   bool
	once     sync.Once
	err      error
}

// NewNetwork makes a network that is there until Close is called or ctx ends.
func (h *Host) NewNetwork(ctx context.Context, c NetworkConfig) (*Network, error) {
	n := &Network{host: h, machines: map[*Machine]bool{}, log: c.Log, stop: func() bool { return true }}
	if n.log == nil {
		n.log = func(string) {}
	}
	if err := n.setUp(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("make test network: %w", err), n.Close())
	}
	n.stop = context.AfterFunc(ctx, func() { _ = n.Close() }) // whoever ended ctx calls Close for its error
	return n, nil
}

func (n *Network) setUp(ctx context.Context, c NetworkConfig) (err error) {
	if n.dir, err = os.MkdirTemp("", "testvm-net-"); err != nil {
		return err
	}
	if n.ns, err = NewNamespace(); err != nil {
		return err
	}
	if err := n.ns.Do(makeBridge); err != nil {
		return err
	}
	var l net.Listener
	addr := netip.AddrPortFrom(netip.MustParsePrefix(networkPrefix).Addr(), 80)
	// A socket belongs to the namespace of the thread that makes it, and what it accepts does too.
	if err := n.ns.Do(func() (err error) { l, err = net.Listen("tcp4", addr.String()); return err }); err != nil {
		return fmt.Errorf("open web server: %w", err)
	}
	if n.web, err = newWebServer(l, c.Dir); err != nil {
		l.Close()
		return err
	}
	if c.NoDHCP {
		return nil
	}
	return n.startDHCP(ctx)
}

// makeBridge makes the bridge with its address. A new bridge has STP off, and then forwards at once whatever its delay
// is. Snooping would lose multicast until queries are answered, which nobody here does.
func makeBridge() error {
	snooping := false
	la := netlink.NewLinkAttrs()
	la.Name = bridgeName
	br := &netlink.Bridge{LinkAttrs: la, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	addr, err := netlink.ParseAddr(networkPrefix)
	if err != nil {
		return fmt.Errorf("read the bridge's address: %w", err)
	}
	if err := netlink.AddrAdd(br, addr); err != nil {
		return fmt.Errorf("give the bridge an address: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	for _, l := range []netlink.Link{br, lo} {
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

func (n *Network) startDHCP(ctx context.Context) error {
	if n.host.Tools.Dnsmasq == "" {
		_, err := FindTools(HostFinder(), NeedDnsmasq)
		return err
	}
	c := dnsmasqConfig{
		iface: bridgeName, first: netip.MustParseAddr(networkFirst), last: netip.MustParseAddr(networkLast), mask: "255.255.255.0",
		leaseFile: filepath.Join(n.dir, "leases"), tftpRoot: filepath.Join(n.dir, "tftp"), bootURL: n.URL(bootScript),
	}
	if err := os.Mkdir(c.tftpRoot, 0o755); err != nil {
		return fmt.Errorf("make TFTP directory: %w", err)
	}
	for _, l := range []struct {
		from, to string
		set      *string
	}{{n.host.Tools.IPXEEFI, "ipxe.efi", &c.efiLoader}, {n.host.Tools.IPXEBIOS, "undionly.kpxe", &c.biosLoader}} {
		if l.from == "" {
			continue
		}
		b, err := os.ReadFile(l.from)
		if err == nil {
			err = os.WriteFile(filepath.Join(c.tftpRoot, l.to), b, 0o644)
		}
		if err != nil {
			return fmt.Errorf("offer %s over TFTP: %w", l.to, err)
		}
		*l.set = l.to
	}
	var err error
	n.dhcp, err = startDnsmasq(ctx, n.ns, n.host.Tools.Dnsmasq, dnsmasqArgs(c), dhcpListens, n.log)
	return err
}

// Dnsmasq starts a DHCP and TFTP server that does what a dnsmasq.conf says, on a network that was made with NoDHCP. The file's interface has
// to be Interface, and it has to serve TFTP. The server runs until StopDHCP or Close.
func (n *Network) Dnsmasq(ctx context.Context, conf string) (err error) {
	if n.host.Tools.Dnsmasq == "" {
		_, err := FindTools(HostFinder(), NeedDnsmasq)
		return err
	}
	if n.dhcp != nil {
		return errors.New("start DHCP server: the network has one")
	}
	n.dhcp, err = startDnsmasq(ctx, n.ns, n.host.Tools.Dnsmasq, dnsmasqFileArgs(conf, filepath.Join(n.dir, "leases")), tftpListens, n.log)
	return err
}

// Interface is the network's own end: where its servers are.
func (n *Network) Interface() string { return bridgeName }

// URL returns the URL under which a machine on this network finds the file at name of the served directory.
func (n *Network) URL(name string) string {
	return "http://" + netip.MustParsePrefix(networkPrefix).Addr().String() + "/" + strings.TrimPrefix(name, "/")
}

// Web is the network's web server.
func (n *Network) Web() *WebServer { return n.web }

// Namespace is where the network is: Do and Start run things beside the servers.
func (n *Network) Namespace() *Namespace { return n.ns }

// StopDHCP stops the DHCP and TFTP server, for good.
func (n *Network) StopDHCP() {
	if n.dhcp != nil {
		n.dhcp.Kill()
	}
}

// Leases returns the addresses that the DHCP server has given so far.
func (n *Network) Leases() ([]Lease, error) {
	b, err := os.ReadFile(filepath.Join(n.dir, "leases"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read DHCP leases: %w", err)
	}
	return parseLeases(string(b)), nil
}

// addTap makes a tap on the bridge and returns its name and a hardware address for the card behind it. 52:54:00 is
// QEMU's.
func (n *Network) addTap() (name, mac string, err error) {
	n.mu.Lock()
	n.taps++
	i := n.taps
	n.mu.Unlock()
	name = fmt.Sprintf("tap%d", i)
	mac = fmt.Sprintf("52:54:00:77:%02x:%02x", i>>8, i&0xff)
	err = n.ns.Do(func() error {
		br, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		la := netlink.NewLinkAttrs()
		la.Name, la.MasterIndex = name, br.Attrs().Index
		tap := &netlink.Tuntap{LinkAttrs: la, Mode: netlink.TUNTAP_MODE_TAP}
		if err := netlink.LinkAdd(tap); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(tap); err != nil {
			return errors.Join(err, netlink.LinkDel(tap))
		}
		return nil
	})
	if err != nil {
		return "", "", fmt.Errorf("add %s to the test network: %w", name, err)
	}
	return name, mac, nil
}

func (n *Network) removeTap(name string) error {
	err := n.ns.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	if err != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("remove %s from the test network: %w", name, err)
	}
	return nil
}

// Close kills the network's machines and servers and takes the network away. It can be called again.
func (n *Network) Close() error {
	n.once.Do(func() { n.err = n.close() })
	return n.err
}

func (n *Network) close() error {
	n.mu.Lock()
	n.closed = true
	machines := make([]*Machine, 0, len(n.machines))
	for m := range n.machines {
		machines = append(machines, m)
	}
	n.mu.Unlock()
	n.stop()
	var errs []error
	for _, m := range machines {
		errs = append(errs, m.Close())
	}
	if n.dhcp != nil {
		n.dhcp.Kill()
	}
	if n.other != nil {
		n.other.Close()
	}
	if n.web != nil {
		errs = append(errs, n.web.Close())
	}
	if n.ns != nil {
		n.ns.Close()
	}
	if n.dir != "" {
		errs = append(errs, os.RemoveAll(n.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take test network away: %w", err)
	}
	return nil
}

func (n *Network) adopt(m *Machine) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return fmt.Errorf("start machine %s on its network: %w", m.config.Name, ErrClosed)
	}
	n.machines[m] = true
	return nil
}

func (n *Network) disown(m *Machine) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.machines, m)
}

// Sent is how many bytes the network's own end, where its servers are, has sent to its machines since it was made.
func (n *Network) Sent() (int64, error) {
	var sent int64
	err := n.ns.Do(func() error {
		br, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		sent = int64(br.Attrs().Statistics.TxBytes)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read the bridge's counters: %w", err)
	}
	return sent, nil
}

// Command starts a program where the network's servers are.
func (n *Network) Command(cmd *exec.Cmd) (*Process, error) { return n.ns.Start(cmd) }
