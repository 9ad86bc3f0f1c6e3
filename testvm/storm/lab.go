package storm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/testvm"
)

// The machines are in a network of their own, behind a router that relays DHCP: this process plays the router and all of
// them. The server's addresses are those of every testvm.Network.
const (
	routerAddr  = "10.77.0.2/24" // the router's port in the server's network
	machinesNet = "10.80.0.0/16"
	relayAddr   = "10.80.0.1" // the router's port in the machines' network: giaddr
	bridgeName  = "br0"
)

// lab is the networks, and what is measured in them.
type lab struct {
	o       Options
	dir     string
	network *testvm.Network
	relay   *relay
	readers *sync.Pool // see conn
	// fileSize is the size of smallFile, in bytes.
	fileSize int64
	table    *table
	ours     ours
}

func newLab(ctx context.Context, o Options) (_ *lab, err error) {
	l := &lab{o: o, readers: newReaders()}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := o.ready(); err != nil {
		return nil, err
	}
	info, err := os.Stat(filepath.Join(o.Release, smallFile))
	if err != nil {
		return nil, err
	}
	l.fileSize = info.Size()
	if l.dir, err = os.MkdirTemp(o.Dir, "imgbuild-storm-"); err != nil {
		return nil, fmt.Errorf("make work directory: %w", err)
	}
	if l.network, err = (&testvm.Host{}).NewNetwork(ctx, testvm.NetworkConfig{NoDHCP: true}); err != nil {
		return nil, err
	}
	if err := l.connect(); err != nil {
		return nil, fmt.Errorf("make the machines' network: %w", err)
	}
	if l.relay, err = newRelay(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// ready says what is missing.
func (o *Options) ready() error {
	var errs []error
	for _, f := range []string{o.Imgserve, o.Imgctl, filepath.Join(o.Release, smallFile)} {
		if _, err := os.Stat(f); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w; make build makes the programs, and imgbuild a release", errors.Join(errs...))
	}
	return nil
}

// connect puts a cable between this namespace and the server's bridge, and makes all machines' addresses this one's own.
func (l *lab) connect() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	if len(links) != 1 {
		return fmt.Errorf("there are %d interfaces where a namespace of its own has one", len(links))
	}
	var tid int
	if err := l.network.Namespace().Do(func() error { tid = unix.Gettid(); return nil }); err != nil {
		return err
	}
	la := netlink.NewLinkAttrs()
	la.Name = "uplink"
	veth := &netlink.Veth{LinkAttrs: la, PeerName: "machines", PeerNamespace: netlink.NsPid(tid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add cable: %w", err)
	}
	_, machines, err := net.ParseCIDR(machinesNet)
	if err != nil {
		return err
	}
	router := netip.MustParsePrefix(routerAddr).Addr().AsSlice()
	if err := l.network.Namespace().Do(func() error { return plugIn(machines, router) }); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(routerAddr)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(veth, addr); err != nil {
		return fmt.Errorf("give the cable an address: %w", err)
	}
	for _, i := range []netlink.Link{links[0], veth} {
		if err := netlink.LinkSetUp(i); err != nil {
			return fmt.Errorf("set %s up: %w", i.Attrs().Name, err)
		}
	}
	// Every address of a local route is this host's: 60,000 machines without 60,000 addresses.
	local := &netlink.Route{LinkIndex: links[0].Attrs().Index, Dst: machines, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
	if err := netlink.RouteAdd(local); err != nil {
		return fmt.Errorf("take the machines' addresses: %w", err)
	}
	return nil
}

// plugIn connects the cable's other end to the bridge. It runs in the server's namespace.
func plugIn(machines *net.IPNet, router net.IP) error {
	br, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find the bridge: %w", err)
	}
	end, err := netlink.LinkByName("machines")
	if err != nil {
		return fmt.Errorf("find the cable's end: %w", err)
	}
	if err := netlink.LinkSetMaster(end, br); err != nil {
		return fmt.Errorf("put the cable into the bridge: %w", err)
	}
	if err := netlink.LinkSetUp(end); err != nil {
		return fmt.Errorf("set the cable's end up: %w", err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: br.Attrs().Index, Dst: machines, Gw: router}); err != nil {
		return fmt.Errorf("add the way to the machines: %w", err)
	}
	return nil
}

func (l *lab) close() error {
	var errs []error
	if l.relay != nil {
		errs = append(errs, l.relay.close())
	}
	if l.network != nil {
		errs = append(errs, l.network.Close())
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}
