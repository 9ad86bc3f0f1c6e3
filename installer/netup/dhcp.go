package netup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"imgbuild/installer/report"
)

// link is one network card.
type link struct {
	name      string
	index     int
	mac       net.HardwareAddr
	carrier   bool
	searching bool
	stop      context.CancelFunc

	mu    sync.Mutex
	tries int
	since time.Time
	fault string
}

func (l *link) note(fault string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = fault
}

// seen is what happened on the link, for an error.
func (l *link) seen() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.tries > 0:
		s := fmt.Sprintf("no DHCP answer after %s, %d tries", report.Duration(time.Since(l.since)), l.tries)
		if l.fault != "" {
			s += " (" + l.fault + ")"
		}
		if !l.carrier {
			s += ", and the link is down now"
		}
		return s
	case l.fault != "":
		return l.fault
	case !l.carrier:
		return "link is down"
	default:
		return "nothing was tried"
	}
}

// search asks for a lease until there is one or ctx ends; then it returns nil.
func (l *link) search(ctx context.Context) *lease {
	l.mu.Lock()
	l.since = time.Now()
	l.mu.Unlock()
	for try := 1; ctx.Err() == nil; try++ {
		l.mu.Lock()
		l.tries = try
		l.mu.Unlock()
		got, err := l.request(ctx, tryTime(try))
		if err == nil {
			return got
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, nclient4.ErrNoResponse) || errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		l.note(err.Error())
		if sleep(ctx, time.Second) != nil {
			return nil
		}
	}
	return nil
}

// tryTime is how long a try waits for its answers: soon again at first, for a switch that needs a moment to forward.
func tryTime(try int) time.Duration {
	return min(time.Duration(try+1)*time.Second, 10*time.Second)
}

// request does DISCOVER, OFFER, REQUEST, ACK once.
func (l *link) request(ctx context.Context, wait time.Duration) (*lease, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*wait)
	defer cancel()
	c, err := nclient4.New(l.name, nclient4.WithTimeout(wait), nclient4.WithRetry(1), nclient4.WithHWAddr(l.mac))
	if err != nil {
		return nil, fmt.Errorf("open a DHCP socket: %w", err)
	}
	defer c.Close()
	got, err := c.Request(ctx, l.options()...)
	if err != nil {
		return nil, plain(err)
	}
	return newLease(got)
}

// options are what each of our messages has.
func (l *link) options() []dhcpv4.Modifier {
	seconds := func(d *dhcpv4.DHCPv4) {
		l.mu.Lock()
		defer l.mu.Unlock()
		d.NumSeconds = uint16(min(time.Since(l.since)/time.Second, 0xffff))
	}
	return []dhcpv4.Modifier{
		seconds,
		// The same client identifier as iPXE's and most firmwares', so that a server gives the same address to all.
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, l.mac...))),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("imgbuild")),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName,
			dhcpv4.OptionInterfaceMTU, dhcpv4.OptionNTPServers, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionClasslessStaticRoute,
			dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue),
	}
}

// plain takes the library's layers off an error.
func plain(err error) error {
	var nak *nclient4.ErrNak
	if errors.As(err, &nak) {
		return fmt.Errorf("DHCP server %s refuses: %q: %w", nak.Nak.ServerIdentifier(), nak.Nak.Message(), err)
	}
	for _, known := range []error{nclient4.ErrNoResponse, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, known) {
			return known
		}
	}
	return err
}

// lease is what a server gave, checked.
type lease struct {
	raw    *nclient4.Lease
	addr   netip.Prefix
	server netip.Addr
	routes []route
	dns    []netip.Addr
	ntp    []netip.Addr
	domain string
	search []string
	mtu    int // 0 if the server does not say

	time, t1, t2 time.Duration
}

type route struct {
	to  netip.Prefix
	via netip.Addr // invalid for what is on the link
}

// infinite is the lease time that means for ever (RFC 2131, section 3.3).
const infinite = 0xffffffff * time.Second

func newLease(raw *nclient4.Lease) (*lease, error) {
	ack := raw.ACK
	ip, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || !ip.IsGlobalUnicast() {
		return nil, fmt.Errorf("DHCP server %s gave the address %s, which no machine can have", ack.ServerIdentifier(), ack.YourIPAddr)
	}
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	ones, bits := mask.Size()
	if bits != 32 || ones == 0 {
		return nil, fmt.Errorf("DHCP server %s gave the subnet mask %s, which is none", ack.ServerIdentifier(), mask)
	}
	l := &lease{raw: raw, addr: netip.PrefixFrom(ip, ones), dns: addrs(ack.DNS()), ntp: addrs(ack.NTPServers())}
	l.server, _ = netip.AddrFromSlice(ack.ServerIdentifier().To4())
	l.domain = domain(ack.DomainName())
	if labels := ack.DomainSearch(); labels != nil {
		for _, s := range labels.Labels {
			if d := domain(s); d != "" && len(l.search) < 6 {
				l.search = append(l.search, d)
			}
		}
	}
	if b := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(b) == 2 {
		if n := int(b[0])<<8 | int(b[1]); n >= 576 {
			l.mtu = n
		}
	}
	l.routes = routes(ack)
	l.time = ack.IPAddressLeaseTime(time.Hour)
	l.t1 = ack.IPAddressRenewalTime(l.time / 2)
	l.t2 = ack.IPAddressRebindingTime(l.time / 8 * 7)
	if l.t1 <= 0 || l.t1 > l.t2 || l.t2 > l.time {
		l.t1, l.t2 = l.time/2, l.time/8*7
	}
	return l, nil
}

// routes are the classless routes (option 121), which make the router option void (RFC 3442), else the default route.
func routes(ack *dhcpv4.DHCPv4) []route {
	var found []route
	for _, r := range ack.ClasslessStaticRoute() {
		to, ok := netip.AddrFromSlice(r.Dest.IP.To4())
		ones, bits := r.Dest.Mask.Size()
		if !ok || bits != 32 {
			continue
		}
		via, _ := netip.AddrFromSlice(r.Router.To4())
		if via.IsUnspecified() {
			via = netip.Addr{}
		}
		found = append(found, route{netip.PrefixFrom(to, ones).Masked(), via})
	}
	if len(found) > 0 {
		return found
	}
	for _, via := range addrs(ack.Router()) {
		return []route{{netip.PrefixFrom(netip.IPv4Unspecified(), 0), via}}
	}
	return nil
}

func (l *lease) hasRoute() bool { return len(l.routes) > 0 }

// router is the next hop of the default route.
func (l *lease) router() netip.Addr {
	for _, r := range l.routes {
		if r.to.Bits() == 0 {
			return r.via
		}
	}
	return netip.Addr{}
}

// addrs are the addresses that can be those of a host.
func addrs(ips []net.IP) []netip.Addr {
	var found []netip.Addr
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			found = append(found, a)
		}
	}
	return found
}

// domain is a domain name that may stand in resolv.conf, or "". Some servers end theirs with a NUL.
func domain(s string) string {
	s = strings.TrimRight(strings.TrimSpace(s), "\x00")
	if len(s) > 253 {
		return ""
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_' {
			return ""
		}
	}
	return s
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
