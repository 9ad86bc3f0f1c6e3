package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// port is one interface and the sockets on it.
type port struct {
	link     atomic.Pointer[link]
	dhcp     *net.UDPConn // port 67
	pxe      *net.UDPConn // port 4011
	raw, arp *os.File
}

// readLink looks at an interface and its IPv4 addresses.
func readLink(name string) (*link, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("look at interface %s: %w", name, err)
	}
	list, err := i.Addrs()
	if err != nil {
		return nil, fmt.Errorf("look at the addresses of interface %s: %w", name, err)
	}
	l := &link{name: name, index: i.Index, mac: i.HardwareAddr}
	if len(l.mac) == 0 && i.Flags&(net.FlagLoopback|net.FlagPointToPoint) == 0 {
		l.mac = make([]byte, 6) // a bridge that has no ports yet: package net shows no address for one that is all zeros
	}
	for _, a := range list {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.To4() == nil {
			continue
		}
		ip, _ := netip.AddrFromSlice(n.IP.To4())
		bits, _ := n.Mask.Size()
		l.addrs = append(l.addrs, netip.PrefixFrom(ip, bits))
	}
	return l, nil
}

// openPort opens an interface's sockets. They are bound to it, so servers on other interfaces are no trouble, and not
// shared, so a second server on this one is found.
func openPort(ctx context.Context, name string) (_ *port, err error) {
	l, err := readLink(name)
	if err != nil {
		return nil, err
	}
	p := &port{}
	p.link.Store(l)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.dhcp, err = listen(ctx, name, portServer); err != nil {
		return nil, err
	}
	if p.pxe, err = listen(ctx, name, portPXE); err != nil {
		return nil, err
	}
	if p.raw, err = packetSocket(l.index, 0); err != nil {
		return nil, fmt.Errorf("DHCP on %s: %w", name, err)
	}
	if len(l.mac) == 6 {
		if p.arp, err = packetSocket(l.index, unix.ETH_P_ARP); err != nil {
			return nil, fmt.Errorf("DHCP on %s: %w", name, err)
		}
	}
	return p, nil
}

func (p *port) close() {
	for _, c := range []*net.UDPConn{p.dhcp, p.pxe} {
		if c != nil {
			_ = c.Close()
		}
	}
	for _, f := range []*os.File{p.raw, p.arp} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// listen binds a UDP port on one interface.
func listen(ctx context.Context, name string, number uint16) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			set = errors.Join(
				unix.BindToDevice(int(fd), name),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
			// A rack that gets its power back asks all at once. The kernel bounds this by net.core.rmem_max.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		})
		return errors.Join(err, set)
	}}
	c, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", number))
	switch {
	case err == nil:
		return c.(*net.UDPConn), nil
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("listen on UDP port %d of %s: another program has it%s; stop that, or let it leave %s alone: %w", number, name, by(owner("udp", number)), name, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("listen on UDP port %d of %s: %w; it needs the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW", number, name, err)
	}
	return nil, fmt.Errorf("listen on UDP port %d of %s: %w", number, name, err)
}

func by(program string) string {
	if program == "" {
		return ""
	}
	return " (" + program + ")"
}

// read gives each message of a socket to a function, until the socket is closed.
func (p *port) read(c *net.UDPConn, number uint16, f func(b []byte, from netip.AddrPort, to netip.Addr)) error {
	b := make([]byte, 2048)
	oob := make([]byte, 128)
	for failed := 0; ; {
		n, m, _, from, err := c.ReadMsgUDPAddrPort(b, oob)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// An ICMP error of a client, or an interface that is down for a moment: neither ends the service.
			if failed++; failed > 100 {
				return fmt.Errorf("read UDP port %d of %s: %w", number, p.link.Load().name, err)
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		failed = 0
		f(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), destination(oob[:m]))
	}
}

// destination reads IP_PKTINFO: the address that a datagram was sent to.
func destination(oob []byte) netip.Addr {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range list {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12 {
			return netip.AddrFrom4([4]byte(m.Data[8:12]))
		}
	}
	return netip.Addr{}
}

// send sends an answer.
func (p *port) send(a *answer, number uint16) error {
	l := p.link.Load()
	b, _ := a.reply.Marshal(a.limit)
	src := a.reply.addr(optServer)
	if !l.has(src) {
		if src = (netip.Addr{}); len(l.addrs) > 0 {
			src = l.addrs[0].Addr()
		}
	}
	if a.way == unicast {
		var oob []byte
		if src.IsValid() {
			from := src.As4()
			oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from})
		}
		c := p.dhcp
		if number == portPXE {
			c = p.pxe
		}
		if _, _, err := c.WriteMsgUDPAddrPort(b, oob, a.to); err != nil {
			return fmt.Errorf("send to %s: %w", a.to, err)
		}
		return nil
	}
	if !src.IsValid() {
		return fmt.Errorf("send to %s: interface %s has no IPv4 address", a.to, l.name)
	}
	to := bytes.Repeat([]byte{0xff}, len(l.mac))
	if a.way == raw && len(l.mac) == 6 {
		to = a.reply.CHAddr[:6]
	}
	if err := sendPacket(p.raw, l.index, unix.ETH_P_IP, to, datagram(netip.AddrPortFrom(src, number), a.to, b)); err != nil {
		return fmt.Errorf("send to %s at %s: %w", a.to, net.HardwareAddr(to), err)
	}
	return nil
}

// watch follows an interface's addresses until it is gone, made anew, or the context ends.
func (p *port) watch(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		old := p.link.Load()
		l, err := readLink(old.name)
		if err != nil || l.index != old.index {
			return
		}
		p.link.Store(l)
	}
}
