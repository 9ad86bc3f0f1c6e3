package dhcp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Other is a DHCP or proxyDHCP server that answers on a link.
type Other struct {
	Server  netip.Addr // what it calls itself
	MAC     string     // of who sent the reply: the server's, or a relay's
	Address netip.Addr // what it offers; zero for a proxyDHCP
	// BootFile and Next are what it tells a PXE client to load, and from where; empty if it says nothing about that.
	BootFile string
	Next     netip.Addr
	Own      bool // it is on this machine
}

// Proxy reports whether it gives boot loaders and no addresses.
func (o *Other) Proxy() bool { return !o.Address.IsValid() }

func (o Other) String() string {
	s := fmt.Sprintf("%s (%s)", o.Server, o.MAC)
	if o.Proxy() {
		s += " is a proxyDHCP"
	} else {
		s += " offers " + o.Address.String()
	}
	if o.BootFile != "" {
		s += fmt.Sprintf(" and the boot file %q", o.BootFile)
	}
	return s
}

// DiscoverWait is how long Discover waits for answers if the context does not say.
const DiscoverWait = 3 * time.Second

// Discover asks on an interface, as a PXE client does, who answers, and takes no address. It waits until the context's
// deadline, and gives what has answered by then.
func Discover(ctx context.Context, name string) ([]Other, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DiscoverWait)
		defer cancel()
	}
	l, err := readLink(name)
	if err != nil {
		return nil, err
	}
	if len(l.mac) != 6 {
		return nil, fmt.Errorf("look for DHCP servers on %s: it is no Ethernet interface", name)
	}
	f, err := packetSocket(l.index, unix.ETH_P_IP)
	if err != nil {
		return nil, fmt.Errorf("look for DHCP servers on %s: %w", name, err)
	}
	end := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer end()
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	xid := binary.BigEndian.Uint32(random[:])
	heard := make(chan []Other, 1)
	go func() { heard <- hear(f, xid) }()
	for range 3 { // a switch may be slow to forward from a port that was quiet
		if err = ask(f, l, xid); err != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
			continue
		}
		break
	}
	if err == nil {
		<-ctx.Done()
	}
	_ = f.Close()
	list := <-heard
	if err != nil {
		return nil, fmt.Errorf("look for DHCP servers on %s: %w", name, err)
	}
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return nil, fmt.Errorf("look for DHCP servers on %s: %w", name, context.Cause(ctx))
	}
	own, _ := net.InterfaceAddrs()
	for i := range list {
		list[i].Own = slices.ContainsFunc(own, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.Equal(list[i].Server.AsSlice())
		})
	}
	slices.SortFunc(list, func(a, b Other) int { return cmp.Or(a.Server.Compare(b.Server), cmp.Compare(a.MAC, b.MAC)) })
	return list, nil
}

func ask(f *os.File, l *link, xid uint32) error {
	p := &Packet{Op: opRequest, HType: 1, HLen: 6, XID: xid, Flags: flagBroadcast}
	copy(p.CHAddr[:], l.mac)
	p.Options.Set(optType, []byte{discover})
	p.Options.Set(optParameters, []byte{optMask, optRouter, optDNS, optTFTPServer, optBootFile, optVendor, optClass})
	p.Options.Set(optMaxSize, binary.BigEndian.AppendUint16(nil, 1500))
	p.Options.Set(optClass, []byte("PXEClient:Arch:00007:UNDI:003016"))
	p.Options.Set(optArch, []byte{0, 7})
	p.Options.Set(94, []byte{1, 3, 16})      // network interface: UNDI 3.16 (RFC 4578, 2.2)
	p.Options.Set(optUUID, make([]byte, 17)) // PXE servers want one
	b, _ := p.Marshal(maxPacket)
	src := netip.AddrPortFrom(netip.IPv4Unspecified(), portClient)
	return sendPacket(f, l.index, unix.ETH_P_IP, bytes.Repeat([]byte{0xff}, 6), datagram(src, netip.AddrPortFrom(everybody.Addr(), portServer), b))
}

// hear collects offers until the socket is closed or its deadline has come.
func hear(f *os.File, xid uint32) []Other {
	var list []Other
	b := make([]byte, 65536)
	for {
		n, from, err := receivePacket(f, b)
		if errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return list
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // the interface is down for a moment
			continue
		}
		src, dst, payload, ok := unwrap(b[:n])
		if !ok || dst.Port() != portClient {
			continue
		}
		p, err := Parse(payload)
		if err != nil || p.Op != opReply || p.XID != xid || p.Type() != offer {
			continue
		}
		o := Other{Server: p.addr(optServer), MAC: net.HardwareAddr(from.Addr[:min(int(from.Halen), 8)]).String(), Address: p.YIAddr, BootFile: p.bootFile(), Next: p.SIAddr}
		if !o.Server.IsValid() {
			o.Server = src.Addr()
		}
		if !slices.ContainsFunc(list, func(h Other) bool { return h.Server == o.Server && h.MAC == o.MAC && h.Proxy() == o.Proxy() }) {
			list = append(list, o)
		}
	}
}
