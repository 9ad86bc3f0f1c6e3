package netup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/installer/report"
)

// rtprotDHCP marks routes as ours for whoever looks (linux/rtnetlink.h).
const rtprotDHCP = 16

// start configures the link that won, and begins to renew its lease.
func (r *result) start(ctx context.Context, o Options) (*Network, error) {
	renew, stop := context.WithCancel(ctx)
	n := &Network{Link: r.link.name, stop: stop, done: make(chan struct{})}
	if r.lease == nil {
		n.Addr = r.v6
		close(n.done)
		return n, nil
	}
	l := r.lease
	n.Addr, n.Router, n.DNS, n.NTP, n.Domain, n.Server, n.Lease = l.addr, l.router(), l.dns, l.ntp, l.domain, l.server, l.time
	if err := apply(r.link, l, o.Report); err != nil {
		stop()
		return nil, err
	}
	if err := writeResolvConf(o.ResolvConf, l); err != nil {
		stop()
		return nil, err
	}
	go func() { // ends with renew, that is with ctx or Close
		defer close(n.done)
		r.link.renew(renew, l, o)
	}()
	return n, nil
}

// apply gives the link its address, MTU and routes. What is there already stays or is replaced.
func apply(l *link, got *lease, rep report.Reporter) error {
	dev, err := netlink.LinkByIndex(l.index)
	if err != nil {
		return fmt.Errorf("configure %s: %w", l.name, err)
	}
	if got.mtu > 0 && got.mtu != dev.Attrs().MTU {
		if err := netlink.LinkSetMTU(dev, got.mtu); err != nil {
			rep.Warn("%s: the DHCP server asks for an MTU of %d bytes, which the card refuses: %v", l.name, got.mtu, err)
		}
	}
	if err := netlink.AddrReplace(dev, &netlink.Addr{IPNet: ipNet(got.addr)}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", l.name, got.addr, err)
	}
	if err := removeOthers(dev, got.addr); err != nil {
		return err
	}
	for _, r := range got.routes {
		if err := addRoute(l, got.addr, r); err != nil {
			return fmt.Errorf("set the route to %s via %s on %s: %w", r.to, r.via, l.name, err)
		}
	}
	return nil
}

// removeOthers takes away the link's other IPv4 addresses: those of a lease that is no more.
func removeOthers(dev netlink.Link, keep netip.Prefix) error {
	old, err := netlink.AddrList(dev, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", dev.Attrs().Name, err)
	}
	for _, a := range old {
		ip, _ := netip.AddrFromSlice(a.IP.To4())
		if ones, _ := a.Mask.Size(); netip.PrefixFrom(ip, ones) == keep {
			continue
		}
		if err := netlink.AddrDel(dev, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take the old address %s off %s: %w", a.IPNet, dev.Attrs().Name, err)
		}
	}
	return nil
}

func addRoute(l *link, addr netip.Prefix, r route) error {
	to := netlink.Route{LinkIndex: l.index, Dst: ipNet(r.to), Protocol: rtprotDHCP, Src: addr.Addr().AsSlice()}
	if !r.via.IsValid() {
		to.Scope = netlink.SCOPE_LINK
		return netlink.RouteReplace(&to)
	}
	if !addr.Contains(r.via) {
		// A router outside the subnet, as clouds with /32 addresses have it, is on the link all the same.
		hop := netlink.Route{LinkIndex: l.index, Dst: ipNet(netip.PrefixFrom(r.via, 32)), Protocol: rtprotDHCP, Scope: netlink.SCOPE_LINK}
		if err := netlink.RouteReplace(&hop); err != nil {
			return err
		}
	}
	to.Gw = r.via.AsSlice()
	return netlink.RouteReplace(&to)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// writeResolvConf replaces the file in one step, because the resolver may read it at any time.
func writeResolvConf(path string, l *lease) error {
	var b strings.Builder
	search := l.search
	if len(search) == 0 && l.domain != "" {
		search = []string{l.domain}
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	for i, a := range l.dns {
		if i < 3 { // resolv.conf(5) takes no more
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write the name servers: %w", err)
	}
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write the name servers: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the name servers: %w", err)
	}
	return nil
}

// Lapse lets the address go when its lease ends, where whoever is to renew it has another address instead. The routes go with it.
func (n *Network) Lapse() error {
	if n.Lease <= 0 || n.Lease >= infinite || !n.Addr.Addr().Is4() {
		return nil
	}
	dev, err := netlink.LinkByName(n.Link)
	if err == nil {
		seconds := int(n.Lease / time.Second)
		err = netlink.AddrReplace(dev, &netlink.Addr{IPNet: ipNet(n.Addr), ValidLft: seconds, PreferedLft: seconds})
	}
	if err != nil {
		return fmt.Errorf("let the address %s of %s end with its lease: %w", n.Addr, n.Link, err)
	}
	return nil
}
