// Package netup brings the network up: every link, DHCPv4 on all that have a carrier, the first usable lease wins. Links
// come in through netlink; addresses, routes, a resolv.conf and a lease that is kept renewed go out. It also sets a clock
// that is plainly wrong.
//
// It never configures a link that is not a network card, and leaves IPv6 to the kernel, which takes router
// advertisements by itself.
package netup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/installer/report"
)

// Options say how to bring the network up. A zero field takes the default in its comment.
type Options struct {
	Report report.Reporter // required
	// BootIF is the MAC address that the firmware booted from: its lease is preferred, and waited for a while.
	BootIF net.HardwareAddr
	// Links restricts the links to these names, of whatever kind; otherwise all network cards.
	Links []string
	// CarrierWait is how long to wait for the first link to come up; 60 s.
	CarrierWait time.Duration
	// DHCPWait is how long to wait for a lease after that; 90 s.
	DHCPWait time.Duration
	// Grace is how long a lease of another link, or one without a route, waits for a better one; 8 s.
	Grace time.Duration
	// ResolvConf is the file that gets the name servers; /etc/resolv.conf.
	ResolvConf string
	// V6 is true when the servers have IPv6 addresses only: then a global IPv6 address is what counts.
	V6 bool
}

// Network is a network that is up.
type Network struct {
	Link   string
	Addr   netip.Prefix
	Router netip.Addr // of the default route; invalid if there is none
	DNS    []netip.Addr
	NTP    []netip.Addr
	Domain string
	Server netip.Addr // the DHCP server
	Lease  time.Duration

	stop context.CancelFunc
	done chan struct{} // closed when the renewal has ended
}

// Close stops the renewal of the lease. The address stays.
func (n *Network) Close() {
	n.stop()
	<-n.done
}

// String is the network in one line: "eth0 has 10.0.2.15/24, router 10.0.2.2, name servers 10.0.2.3".
func (n *Network) String() string {
	s := fmt.Sprintf("%s has %s", n.Link, n.Addr)
	if n.Router.IsValid() {
		s += ", router " + n.Router.String()
	}
	if len(n.DNS) > 0 {
		s += ", name servers " + join(n.DNS)
	}
	return s
}

func join(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// Up brings all links up and returns the first network that is usable. Its lease is renewed until ctx ends or the network
// is closed. The error says what was seen of every link.
func Up(ctx context.Context, o Options) (*Network, error) {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.CarrierWait, 60*time.Second)
	def(&o.DHCPWait, 90*time.Second)
	def(&o.Grace, 8*time.Second)
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	search, stop := context.WithCancel(ctx)
	defer stop()
	u := &up{Options: o, links: map[int]*link{}, results: make(chan result)}
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo) // nothing of ours needs it
	}
	updates := make(chan netlink.LinkUpdate, 64)
	if err := netlink.LinkSubscribeWithOptions(updates, search.Done(), netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		return nil, fmt.Errorf("listen to the network links: %w", err)
	}
	addrs := make(chan netlink.AddrUpdate, 64)
	if err := netlink.AddrSubscribeWithOptions(addrs, search.Done(), netlink.AddrSubscribeOptions{ListExisting: true}); err != nil {
		return nil, fmt.Errorf("listen to the network addresses: %w", err)
	}
	won, err := u.choose(search, updates, addrs)
	stop()
	u.drain()
	if err != nil {
		return nil, err
	}
	return won.start(ctx, o)
}

// result is what one link's search for a lease ended with.
type result struct {
	link  *link
	lease *lease
	v6    netip.Prefix
}

type up struct {
	Options
	links   map[int]*link
	results chan result
	running int // searches that have not ended

	begun        time.Time
	firstCarrier time.Time
}

// choose waits for the best result. What is best: a lease with a route from the link that was booted from; a lease with
// a route from any; a lease without.
func (u *up) choose(ctx context.Context, updates <-chan netlink.LinkUpdate, addrs <-chan netlink.AddrUpdate) (*result, error) {
	u.begun = time.Now()
	tick := time.NewTicker(250 * time.Millisecond) // for the limits of time only; what happens comes as events
	defer tick.Stop()
	var best *result
	var bestSince time.Time
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case n, ok := <-updates:
			if !ok {
				return nil, errors.New("listen to the network links: the kernel ended it")
			}
			u.link(ctx, n)
		case a, ok := <-addrs:
			if ok && u.V6 {
				if r := u.addr(a); r != nil {
					return r, nil
				}
			}
		case r := <-u.results:
			u.running--
			if r.lease == nil {
				break
			}
			u.Report.Info("%s: DHCP server %s offers %s", r.link.name, r.lease.server, r.lease.addr)
			if best == nil || u.rank(&r) > u.rank(best) {
				if best == nil {
					bestSince = time.Now()
				}
				best = &r
			}
		case <-tick.C:
		}
		if best != nil && !u.V6 && (u.rank(best) == u.bestRank() || time.Since(bestSince) > u.Grace || u.running == 0) {
			return best, nil
		}
		if u.timeUp() {
			if best != nil && !u.V6 {
				return best, nil
			}
			return nil, u.failure()
		}
	}
}

func (u *up) rank(r *result) int {
	n := 0
	if r.lease.hasRoute() {
		n += 2
	}
	if u.isBoot(r.link) {
		n++
	}
	return n
}

// bestRank is the rank that cannot be bettered.
func (u *up) bestRank() int {
	for _, l := range u.links {
		if u.isBoot(l) && (l.carrier || time.Since(u.begun) < u.Grace) {
			return 3
		}
	}
	return 2
}

func (u *up) isBoot(l *link) bool { return len(u.BootIF) > 0 && slices.Equal(l.mac, u.BootIF) }

func (u *up) timeUp() bool {
	if !u.firstCarrier.IsZero() {
		return time.Since(u.firstCarrier) > u.DHCPWait
	}
	return time.Since(u.begun) > u.CarrierWait
}

// link takes in what the kernel says about a link: it brings new ones up and starts looking for a lease where there is a
// carrier.
func (u *up) link(ctx context.Context, n netlink.LinkUpdate) {
	a := n.Link.Attrs()
	if n.Header.Type == unix.RTM_DELLINK {
		if l := u.links[a.Index]; l != nil {
			l.stop()
			delete(u.links, a.Index)
		}
		return
	}
	if !u.ours(n.Link) {
		return
	}
	l := u.links[a.Index]
	if l == nil {
		l = &link{name: a.Name, index: a.Index, mac: slices.Clone(a.HardwareAddr), stop: func() {}}
		u.links[a.Index] = l
		if err := netlink.LinkSetUp(n.Link); err != nil {
			l.note("it cannot be brought up: " + err.Error())
			u.Report.Warn("%s: bring the link up: %v", l.name, err)
		}
	}
	l.name = a.Name
	// RUNNING is the carrier; UP alone is only our wish for one.
	carrier := n.IfInfomsg.Flags&unix.IFF_RUNNING != 0 && n.IfInfomsg.Flags&unix.IFF_UP != 0
	if carrier && !l.carrier {
		if u.firstCarrier.IsZero() {
			u.firstCarrier = time.Now()
		}
		u.Report.Info("%s: link is up (%s)", l.name, l.mac)
		if !l.searching {
			var search context.Context
			search, l.stop = context.WithCancel(ctx)
			l.searching = true
			u.running++
			go func() { // ends with search; its result is always received
				u.results <- result{link: l, lease: l.search(search)}
			}()
		}
	}
	l.carrier = carrier
}

// ours says whether a link is a network card, or one that was named.
func (u *up) ours(l netlink.Link) bool {
	a := l.Attrs()
	if len(u.Links) > 0 {
		return slices.Contains(u.Links, a.Name)
	}
	return a.EncapType == "ether" && l.Type() == "device" && a.Flags&net.FlagLoopback == 0 && len(a.HardwareAddr) == 6 && a.MasterIndex == 0
}

// addr returns a result when a link of ours got a global IPv6 address that is ready for use.
func (u *up) addr(a netlink.AddrUpdate) *result {
	l := u.links[a.LinkIndex]
	ip, ok := netip.AddrFromSlice(a.LinkAddress.IP)
	if l == nil || !ok || !a.NewAddr || !ip.Is6() || !ip.IsGlobalUnicast() || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
		return nil
	}
	ones, _ := a.LinkAddress.Mask.Size()
	return &result{link: l, v6: netip.PrefixFrom(ip, ones)}
}

// drain receives what is still on its way, so that no goroutine is left behind.
func (u *up) drain() {
	for ; u.running > 0; u.running-- {
		<-u.results
	}
}

// failure says what was seen of every link.
func (u *up) failure() error {
	if len(u.links) == 0 {
		return fmt.Errorf("bring the network up: after %s there is no network card that the kernel has a driver for; add its module to the image's initramfs", report.Duration(time.Since(u.begun)))
	}
	var texts []string
	for _, l := range u.links {
		texts = append(texts, l.name+": "+l.seen())
	}
	slices.Sort(texts)
	what := "no DHCP server gave an address"
	if u.V6 {
		what = "no router announced an IPv6 prefix"
	}
	if u.firstCarrier.IsZero() {
		what = "no link came up"
	}
	return fmt.Errorf("bring the network up: %s: %s", what, strings.Join(texts, "; "))
}
