package netconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Types of ICMPv6 messages and of their options (RFC 4861, section 4).
const (
	routerSolicitation    = 133
	neighborSolicitation  = 135
	neighborAdvertisement = 136
	routerAdvertisement   = 134
	sourceLinkLayer       = 1
	targetLinkLayer       = 2
)

// nd is a socket for neighbour discovery on one link.
type nd struct {
	conn *ipv6.PacketConn
	ifi  *net.Interface
}

func openND(ctx context.Context, name string) (*nd, error) {
	fail := func(err error) error { return fmt.Errorf("open a neighbour discovery socket on %s: %w", name, err) }
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fail(err)
	}
	bind := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), name) }); cerr != nil {
			return cerr
		}
		return err
	}}
	c, err := bind.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fail(err)
	}
	p := ipv6.NewPacketConn(c)
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeNeighborAdvertisement)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	// Whoever is not on the link cannot send 255 hops: section 6.1.1 and 7.1.1 want it checked, and the checksum is the kernel's.
	err = errors.Join(p.SetMulticastHopLimit(255), p.SetHopLimit(255), p.SetMulticastInterface(ifi), p.SetICMPFilter(&filter), p.SetControlMessage(ipv6.FlagHopLimit, true))
	if err != nil {
		_ = c.Close()
		return nil, fail(err)
	}
	return &nd{p, ifi}, nil
}

func (d *nd) close() { _ = d.conn.Close() }

// solicitation is a router's or, with a target, a neighbour's.
func solicitation(kind byte, target netip.Addr, mac net.HardwareAddr) []byte {
	b := []byte{kind, 0, 0, 0, 0, 0, 0, 0}
	if target.IsValid() {
		b = append(b, target.AsSlice()...)
	}
	return append(append(b, sourceLinkLayer, 1), mac...)
}

// parseNA reads a neighbour advertisement: the address that is advertised and its MAC address, nil if it has none.
func parseNA(b []byte) (netip.Addr, net.HardwareAddr, error) {
	if len(b) < 24 || b[0] != neighborAdvertisement || b[1] != 0 {
		return netip.Addr{}, nil, errors.New("not a neighbour advertisement")
	}
	target := netip.AddrFrom16([16]byte(b[8:24]))
	for o := b[24:]; len(o) > 0; {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
			return netip.Addr{}, nil, errors.New("the options of a neighbour advertisement are cut off")
		}
		if o[0] == targetLinkLayer {
			return target, slices.Clone(o[2:8]), nil
		}
		o = o[int(o[1])*8:]
	}
	return target, nil, nil
}

// parseRA reads the managed flag of a router advertisement: addresses come from DHCPv6.
func parseRA(b []byte) (managed bool, err error) {
	if len(b) < 16 || b[0] != routerAdvertisement || b[1] != 0 {
		return false, errors.New("not a router advertisement")
	}
	return b[5]&0x80 != 0, nil
}

// router asks for routers until one answers or wait is over; the address is not valid then.
func (d *nd) router(ctx context.Context, wait time.Duration) (router netip.Addr, managed bool, err error) {
	to := &net.IPAddr{IP: net.IPv6linklocalallrouters, Zone: d.ifi.Name}
	_, err = d.exchange(ctx, solicitation(routerSolicitation, netip.Addr{}, d.ifi.HardwareAddr), to, 4*time.Second, wait, func(b []byte, from net.Addr) bool {
		m, err := parseRA(b)
		ip, ok := from.(*net.IPAddr)
		if err != nil || !ok {
			return false
		}
		router, ok = netip.AddrFromSlice(ip.IP)
		managed = m
		return ok
	})
	return router, managed, err
}

// resolve asks for target's MAC address once a second until there is an answer or wait is over; ok says whether there was
// one. It also returns how often it asked.
func (d *nd) resolve(ctx context.Context, target netip.Addr, wait time.Duration) (mac net.HardwareAddr, ok bool, tries int, err error) {
	t := target.As16()
	group := net.IP{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, t[13], t[14], t[15]} // RFC 4291, section 2.7.1
	to := &net.IPAddr{IP: group, Zone: d.ifi.Name}
	tries, err = d.exchange(ctx, solicitation(neighborSolicitation, target, d.ifi.HardwareAddr), to, time.Second, wait, func(b []byte, _ net.Addr) bool {
		who, m, err := parseNA(b)
		if err != nil || who != target || bytes.Equal(m, d.ifi.HardwareAddr) {
			return false
		}
		mac, ok = m, true
		return true
	})
	return mac, ok, tries, err
}

// exchange sends a question again and again until heard says that it has been answered or wait is over, and returns how
// often it was sent.
func (d *nd) exchange(ctx context.Context, question []byte, to net.Addr, every, wait time.Duration, heard func(b []byte, from net.Addr) bool) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = d.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1500)
	tries := 0
	for end := time.Now().Add(wait); time.Now().Before(end) && ctx.Err() == nil; {
		tries++
		until := time.Now().Add(every)
		if until.After(end) {
			until = end
		}
		if err := d.conn.SetReadDeadline(until); err != nil {
			return tries, err
		}
		_, err := d.conn.WriteTo(question, nil, to)
		// Right after the link came up it has no address yet that is ready to send from.
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.ENETDOWN) {
			return tries, err
		}
		for ctx.Err() == nil {
			n, cm, from, err := d.conn.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return tries, err
			}
			if cm != nil && cm.HopLimit == 255 && heard(buf[:n], from) {
				return tries, nil
			}
		}
	}
	return tries, context.Cause(ctx)
}
