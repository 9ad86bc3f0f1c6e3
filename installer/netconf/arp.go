package netconf

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// arpPacket is a request or reply for IPv4 over Ethernet (RFC 826).
type arpPacket struct {
	reply          bool
	senderMAC      net.HardwareAddr
	sender, target netip.Addr
}

var everyone = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// marshal is the packet of a request, without the frame's header.
func (p arpPacket) marshal() []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, lengths, request
	b = append(b, p.senderMAC...)
	b = append(b, p.sender.AsSlice()...)
	b = append(b, make([]byte, 6)...)
	return append(b, p.target.AsSlice()...)
}

func parseARP(b []byte) (arpPacket, error) {
	if len(b) < 28 || !bytes.Equal(b[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return arpPacket{}, errors.New("not ARP for IPv4 over Ethernet")
	}
	op := binary.BigEndian.Uint16(b[6:])
	if op != 1 && op != 2 {
		return arpPacket{}, errors.New("neither a request nor a reply")
	}
	return arpPacket{reply: op == 2, senderMAC: slices.Clone(b[8:14]), sender: netip.AddrFrom4([4]byte(b[14:18])), target: netip.AddrFrom4([4]byte(b[24:28]))}, nil
}

// arp is a socket for ARP on one link.
type arp struct {
	conn *packet.Conn
	mac  net.HardwareAddr
}

func openARP(name string) (*arp, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("open an ARP socket on %s: %w", name, err)
	}
	c, err := packet.Listen(ifi, packet.Datagram, unix.ETH_P_ARP, nil)
	if err != nil {
		return nil, fmt.Errorf("open an ARP socket on %s: %w", name, err)
	}
	return &arp{c, ifi.HardwareAddr}, nil
}

func (a *arp) close() { _ = a.conn.Close() }

func (a *arp) ask(sender, target netip.Addr) error {
	_, err := a.conn.WriteTo(arpPacket{senderMAC: a.mac, sender: sender, target: target}.marshal(), &packet.Addr{HardwareAddr: everyone})
	return err
}

// hear gives all ARP packets to f until f has heard enough, the time comes or ctx ends.
func (a *arp) hear(ctx context.Context, until time.Time, f func(p arpPacket) bool) error {
	if err := a.conn.SetReadDeadline(until); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = a.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1500)
	for {
		n, _, err := a.conn.ReadFrom(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ctx.Err()
		case err != nil:
			return err
		}
		if p, err := parseARP(buf[:n]); err == nil && f(p) {
			return nil
		}
	}
}

// probe asks whether anybody has these addresses, as RFC 5227, section 2.1.1, has it: three probes, a second apart, and
// two seconds to hear of others. own are the machine's MAC addresses, of which one may hear the other.
func (a *arp) probe(ctx context.Context, addrs []netip.Addr, own []net.HardwareAddr) (map[netip.Addr]net.HardwareAddr, error) {
	taken := map[netip.Addr]net.HardwareAddr{}
	mine := func(mac net.HardwareAddr) bool {
		return slices.ContainsFunc(own, func(m net.HardwareAddr) bool { return bytes.Equal(m, mac) })
	}
	for i := range 3 {
		for _, t := range addrs {
			if taken[t] != nil {
				continue
			}
			if err := a.ask(netip.IPv4Unspecified(), t); err != nil {
				return taken, err
			}
		}
		wait := time.Second
		if i == 2 {
			wait = 2 * time.Second
		}
		err := a.hear(ctx, time.Now().Add(wait), func(p arpPacket) bool {
			if mine(p.senderMAC) {
				return false
			}
			// Somebody has the address, or asks at the same time whether he may have it.
			if slices.Contains(addrs, p.sender) {
				taken[p.sender] = p.senderMAC
			} else if p.sender.IsUnspecified() && !p.reply && slices.Contains(addrs, p.target) {
				taken[p.target] = p.senderMAC
			}
			return len(taken) == len(addrs)
		})
		if err != nil {
			return taken, err
		}
		if len(taken) == len(addrs) {
			break
		}
	}
	return taken, nil
}

// resolve asks for target's MAC address once a second until there is an answer or wait is over; nil is no answer. It also
// returns how often it asked.
func (a *arp) resolve(ctx context.Context, sender, target netip.Addr, wait time.Duration) (net.HardwareAddr, int, error) {
	var found net.HardwareAddr
	tries := 0
	for end := time.Now().Add(wait); found == nil && time.Now().Before(end); {
		tries++
		if err := a.ask(sender, target); err != nil && !errors.Is(err, unix.ENETDOWN) {
			return nil, tries, err
		}
		until := time.Now().Add(time.Second)
		if until.After(end) {
			until = end
		}
		err := a.hear(ctx, until, func(p arpPacket) bool {
			if p.sender == target && !bytes.Equal(p.senderMAC, a.mac) {
				found = p.senderMAC
			}
			return found != nil
		})
		if err != nil && !errors.Is(err, unix.ENETDOWN) {
			return nil, tries, err
		}
	}
	return found, tries, nil
}
