package testvm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// Where a network's other DHCP server is.
const (
	otherPrefix    = "10.77.0.2/24"
	otherInterface = "eth0"
	otherPort      = "other0" // its port on the bridge
)

// OtherDHCP starts a DHCP server that gives addresses and says nothing about booting, on a machine of its own beside a network that was made with
// NoDHCP: the server of somebody who may not be asked to change it. It runs until Close.
func (n *Network) OtherDHCP(ctx context.Context) error {
	if n.host.Tools.Dnsmasq == "" {
		_, err := FindTools(HostFinder(), NeedDnsmasq)
		return err
	}
	if n.other != nil {
		return errors.New("start another DHCP server: the network has one")
	}
	ns, err := NewNamespace()
	if err != nil {
		return err
	}
	n.other = ns // its end takes the cable and the server away
	if err := n.ns.Do(func() error { return plugIn(ns) }); err != nil {
		return fmt.Errorf("connect another DHCP server: %w", err)
	}
	if err := ns.Do(func() error { return setUp(otherInterface, otherPrefix) }); err != nil {
		return fmt.Errorf("connect another DHCP server: %w", err)
	}
	args := dnsmasqArgs(dnsmasqConfig{
		iface: otherInterface, first: netip.MustParseAddr(networkFirst), last: netip.MustParseAddr(networkLast), mask: "255.255.255.0",
		leaseFile: filepath.Join(n.dir, "other-leases"),
	})
	_, err = startDnsmasq(ctx, ns, n.host.Tools.Dnsmasq, args, dhcpListens, n.log)
	return err
}

// plugIn lays a cable from the bridge, in whose namespace it runs, to another namespace.
func plugIn(to *Namespace) error {
	br, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	la := netlink.NewLinkAttrs()
	la.Name, la.MasterIndex = otherPort, br.Attrs().Index
	cable := &netlink.Veth{LinkAttrs: la, PeerName: otherInterface, PeerNamespace: netlink.NsPid(to.tid)}
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("add a cable: %w", err)
	}
	return netlink.LinkSetUp(cable)
}

// setUp gives an interface its address.
func setUp(name, prefix string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("give %s an address: %w", name, err)
	}
	return netlink.LinkSetUp(l)
}
