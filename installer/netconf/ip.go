package netconf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/image/plan"
	"imgbuild/installer/netup"
)

// each runs f for every link that has a network layer and can carry packets, at the same time, and waits for all.
func (l *trial) each(f func(k *link) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(l.layout.links))
	for i, k := range l.layout.links {
		if k.master == nil && !l.dead[k] {
			wg.Go(func() { // ends with f, which ends with its context
				if err := f(k); err != nil {
					errs[i] = fmt.Errorf("try %s: %w", l.title(k), err)
				}
			})
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// lease asks for leases. It comes before static routes, which a lease's routes would replace.
func (l *trial) lease(ctx context.Context) error {
	var mu sync.Mutex
	err := l.each(func(k *link) error {
		if !k.ip.DHCP4 {
			return nil
		}
		n, err := netup.Up(ctx, netup.Options{Report: l.o.Report, Links: []string{k.current()}, CarrierWait: l.o.CarrierWait, DHCPWait: l.o.AnswerWait,
			Grace: time.Second, ResolvConf: l.resolvConf(k)})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			l.seen(k, false, "no DHCP server gives an address: %v", err)
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		l.leases = append(l.leases, n)
		l.seen(k, true, "DHCP server %s gives %s", n.Server, n.Addr)
		if k.lease = n; k.noDefault4 {
			return dropDefault(k.current())
		}
		return nil
	})
	return err
}

// dropDefault takes a lease's default routes away where another link has the host's.
func dropDefault(name string) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	list, err := netlink.RouteList(dev, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list the routes: %w", err)
	}
	for _, r := range list {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("take the default route of the lease away: %w", err)
			}
		}
	}
	return nil
}

// configure gives the links their addresses and routes, and asks whether others have them, and whether next hops answer.
func (l *trial) configure(ctx context.Context) error {
	own, err := ownMACs()
	if err != nil {
		return err
	}
	return l.each(func(k *link) error {
		dev, err := netlink.LinkByName(k.current())
		if err != nil {
			return err
		}
		good, err := l.configure4(ctx, k, dev, own)
		if err != nil {
			return err
		}
		good6, err := l.configure6(ctx, k, dev)
		if err != nil {
			return err
		}
		return l.hops(ctx, k, dev, append(good, good6...), own)
	})
}

func ownMACs() ([]net.HardwareAddr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network links: %w", err)
	}
	var list []net.HardwareAddr
	for _, l := range links {
		if a := l.Attrs(); len(a.HardwareAddr) == 6 {
			list = append(list, slices.Clone(a.HardwareAddr))
		}
	}
	return list, nil
}

// configure4 adds the IPv4 addresses that nobody else has, and returns them.
func (l *trial) configure4(ctx context.Context, k *link, dev netlink.Link, own []net.HardwareAddr) ([]netip.Prefix, error) {
	free, err := k.ip.Addresses4(), error(nil)
	if !k.monitored() {
		free, err = l.probe(ctx, k, free, own)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range free {
		if err := netlink.AddrAdd(dev, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("add the address %s: %w", p, err)
		}
	}
	if k.monitored() {
		if len(waitCarrier(ctx, []string{k.current()}, l.o.AnswerWait)) > 0 && ctx.Err() == nil {
			l.seen(k, false, "no carrier after %s: none of its arp_targets answers", seconds(l.o.AnswerWait))
			return nil, nil
		}
		if free, err = l.probe(ctx, k, free, own); err != nil {
			return nil, err
		}
	}
	if k.lease != nil {
		free = append(free, k.lease.Addr)
	}
	return free, nil
}

// probe asks whether others have the addresses, and returns those that are free.
func (l *trial) probe(ctx context.Context, k *link, list []netip.Prefix, own []net.HardwareAddr) ([]netip.Prefix, error) {
	if len(list) == 0 {
		return nil, nil
	}
	a, err := openARP(k.current())
	if err != nil {
		return nil, err
	}
	defer a.close()
	var addrs []netip.Addr
	for _, p := range list {
		addrs = append(addrs, p.Addr())
	}
	taken, err := a.probe(ctx, addrs, own)
	if err != nil {
		return nil, fmt.Errorf("ask whether others have its addresses: %w", err)
	}
	var free []netip.Prefix
	for _, p := range list {
		if other := taken[p.Addr()]; other != nil {
			l.seen(k, false, "the address %s is in use by %s", p.Addr(), other)
		} else {
			free = append(free, p)
		}
	}
	return free, nil
}

// configure6 adds the IPv6 addresses and waits until the kernel has found out whether others have them (RFC 4862, section
// 5.4); with advertisements, also for a router.
func (l *trial) configure6(ctx context.Context, k *link, dev netlink.Link) ([]netip.Prefix, error) {
	list := k.ip.Addresses6()
	if k.ip.DHCP6 {
		l.seen(k, true, "DHCPv6 is not tried")
	}
	if len(list) == 0 && !k.ip.TakesRA() {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := make(chan netlink.AddrUpdate, 64)
	if err := netlink.AddrSubscribeWithOptions(updates, ctx.Done(), netlink.AddrSubscribeOptions{ListExisting: true}); err != nil {
		return nil, fmt.Errorf("listen to the network addresses: %w", err)
	}
	for _, p := range list {
		if err := netlink.AddrAdd(dev, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("add the address %s: %w", p, err)
		}
	}
	good, err := l.waitAddresses(ctx, k, dev.Attrs().Index, list, updates)
	if err != nil || !k.ip.TakesRA() {
		return good, err
	}
	return good, l.routers(ctx, k, dev.Attrs().Index, updates)
}

// dadWait is how long the kernel may take: it waits a second at random, asks, and waits another, after its carrier.
const dadWait = 10 * time.Second

// waitAddresses waits for what the kernel says of the addresses, and returns those that are ready.
func (l *trial) waitAddresses(ctx context.Context, k *link, index int, list []netip.Prefix, updates <-chan netlink.AddrUpdate) ([]netip.Prefix, error) {
	var good []netip.Prefix
	waiting := slices.Clone(list)
	end := time.After(dadWait)
	for len(waiting) > 0 {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-end:
			for _, p := range waiting {
				l.seen(k, false, "the kernel did not find out in %s whether the address %s is free", seconds(dadWait), p.Addr())
			}
			return good, nil
		case u, ok := <-updates:
			if !ok {
				return nil, errors.New("listen to the network addresses: the kernel ended it")
			}
			a, isAddr := netip.AddrFromSlice(u.LinkAddress.IP)
			i := slices.IndexFunc(waiting, func(p netip.Prefix) bool { return p.Addr() == a })
			if u.LinkIndex != index || !isAddr || !u.NewAddr || i < 0 {
				continue
			}
			switch {
			case u.Flags&unix.IFA_F_DADFAILED != 0:
				l.seen(k, false, "the address %s is in use by another machine", a)
			case u.Flags&unix.IFA_F_TENTATIVE != 0:
				continue
			default:
				good = append(good, waiting[i])
			}
			waiting = slices.Delete(waiting, i, i+1)
		}
	}
	return good, nil
}

// routers asks for advertisements, and waits for the address that the kernel makes of one where the link has none.
func (l *trial) routers(ctx context.Context, k *link, index int, updates <-chan netlink.AddrUpdate) error {
	d, err := openND(ctx, k.current())
	if err != nil {
		return err
	}
	defer d.close()
	// A link that has addresses of its own may take advertisements, and need none.
	needed, wait := k.ip.AcceptRA != nil || k.ip.DHCP6 || len(k.ip.Addresses6()) == 0, l.o.AnswerWait
	if !needed {
		wait = min(wait, 5*time.Second)
	}
	router, managed, err := d.router(ctx, wait)
	switch {
	case err != nil:
		return fmt.Errorf("ask for routers: %w", err)
	case !router.IsValid():
		l.seen(k, !needed, "no router advertises itself in %s", seconds(wait))
		return nil
	case len(k.ip.Addresses6()) > 0:
		l.seen(k, true, "router %s advertises itself", router)
		return nil
	}
	end := time.After(dadWait)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case u, ok := <-updates:
			a, isAddr := netip.AddrFromSlice(u.LinkAddress.IP)
			if ok && u.LinkIndex == index && isAddr && u.NewAddr && a.Is6() && a.IsGlobalUnicast() && u.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
				l.seen(k, true, "router %s gives %s", router, u.LinkAddress.String())
				return nil
			}
		case <-end:
			if managed {
				l.seen(k, true, "router %s says that addresses come from DHCPv6, which is not tried", router)
			} else {
				l.seen(k, false, "router %s advertises itself and no network to make an address in", router)
			}
			return nil
		}
	}
}

// hops adds the routes and asks each next hop for its MAC address.
func (l *trial) hops(ctx context.Context, k *link, dev netlink.Link, good []netip.Prefix, own []net.HardwareAddr) error {
	inside := func(hop netip.Addr) (netip.Prefix, bool) {
		contains := func(p netip.Prefix) bool { return p.Contains(hop) }
		if i := slices.IndexFunc(good, contains); i >= 0 {
			return good[i], true
		}
		// via a link-local address, or inside a network that a router advertises
		return netip.Prefix{}, hop.Is6() && !slices.ContainsFunc(k.ip.Addresses6(), contains)
	}
	list := slices.Clone(k.ip.Routes)
	if g := k.ip.Gateway4; g.IsValid() {
		list = append(list, plan.Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: g})
	}
	if g := k.ip.Gateway6; g.IsValid() {
		list = append(list, plan.Route{To: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: g})
	}
	for _, r := range list {
		if _, ok := inside(r.Via); !ok {
			if r.Via.Is4() && k.lease != nil {
				l.seen(k, false, "the next hop %s of the route to %s is not inside the network that DHCP gives", r.Via, r.To)
			}
			continue // its address is in use: that has been said
		}
		err := netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: ipNet(r.To), Gw: r.Via.AsSlice(), Priority: r.Metric, Protocol: unix.RTPROT_STATIC})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			l.seen(k, false, "the kernel takes no route to %s via %s: %v", r.To, r.Via, err)
		}
	}
	next := gatewaysOf(&k.ip)
	if k.lease != nil && k.lease.Router.IsValid() && !k.noDefault4 {
		next = append(next, plan.Route{Via: k.lease.Router})
	}
	for _, r := range next {
		from, ok := inside(r.Via)
		if !ok {
			continue
		}
		if err := l.hop(ctx, k, from, r, own); err != nil {
			return err
		}
	}
	return nil
}

// hop asks one next hop.
func (l *trial) hop(ctx context.Context, k *link, from netip.Prefix, r plan.Route, own []net.HardwareAddr) error {
	what := "gateway " + r.Via.String()
	if r.To.IsValid() && r.To.Bits() > 0 {
		what = fmt.Sprintf("next hop %s of the route to %s", r.Via, r.To)
	}
	if r.Via.Is6() {
		d, err := openND(ctx, k.current())
		if err != nil {
			return err
		}
		defer d.close()
		mac, ok, tries, err := d.resolve(ctx, r.Via, l.o.AnswerWait)
		if err != nil {
			return fmt.Errorf("ask %s: %w", what, err)
		}
		l.answered(k, ok, what, mac, tries, "neighbour solicitations")
		return nil
	}
	a, err := openARP(k.current())
	if err != nil {
		return err
	}
	defer a.close()
	mac, tries, err := a.resolve(ctx, from.Addr(), r.Via, l.o.AnswerWait)
	if err != nil {
		return fmt.Errorf("ask %s: %w", what, err)
	}
	l.answered(k, mac != nil, what, mac, tries, "ARP requests")
	if mac != nil && tries > 1 {
		// The switch forwarded nothing at first: perhaps not when others were asked for our addresses either.
		_, err = l.probe(ctx, k, k.ip.Addresses4(), own)
	}
	return err
}

func (l *trial) answered(k *link, ok bool, what string, mac net.HardwareAddr, tries int, kind string) {
	switch {
	case !ok && tries == 1:
		l.seen(k, false, "%s does not answer in %s", what, seconds(l.o.AnswerWait))
	case !ok:
		l.seen(k, false, "%s does not answer %d %s in %s", what, tries, kind, seconds(l.o.AnswerWait))
	case mac == nil:
		l.seen(k, true, "%s answers", what)
	default:
		l.seen(k, true, "%s answers, at %s", what, mac)
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// seconds is a duration for people: "40 s", "2.5 s".
func seconds(d time.Duration) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
}
