package dhcp

import (
	"encoding/binary"
	"net/netip"
)

// datagram wraps a message into IPv4 and UDP headers, for clients that ARP cannot find since they have no address yet.
func datagram(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, 28, 28+len(payload))
	b[0] = 0x45 // version 4, header of 5 words
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	b[6] = 0x40 // do not fragment
	b[8] = 64   // time to live
	b[9] = 17   // UDP
	s, d := src.Addr().As4(), dst.Addr().As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(0, b[:20])))
	binary.BigEndian.PutUint16(b[20:], src.Port())
	binary.BigEndian.PutUint16(b[22:], dst.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload)))
	b = append(b, payload...)
	// The pseudo header: addresses, protocol, length (RFC 768).
	c := ^fold(sum(sum(17+uint32(8+len(payload)), b[12:20]), b[20:]))
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[26:], c)
	return b
}

// unwrap is what datagram makes, the other way round: the message of an IPv4 UDP datagram, and where it came from and
// went. Checksums were the kernel's or the card's to check.
func unwrap(b []byte) (src, dst netip.AddrPort, payload []byte, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	n := int(b[0]&15) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if n < 20 || total < n+8 || total > len(b) || b[9] != 17 || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return
	}
	u := b[n:total]
	l := int(binary.BigEndian.Uint16(u[4:]))
	if l < 8 || l > len(u) {
		return
	}
	src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), binary.BigEndian.Uint16(u))
	dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), binary.BigEndian.Uint16(u[2:]))
	return src, dst, u[8:l], true
}

// sum and fold are the Internet checksum (RFC 1071).
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// arpProbe asks who has an address, in the name of nobody, so that no neighbour's table learns anything (RFC 5227, 2.1.1).
func arpProbe(mac []byte, target netip.Addr) []byte {
	b := make([]byte, 28)
	binary.BigEndian.PutUint16(b[0:], 1)      // Ethernet
	binary.BigEndian.PutUint16(b[2:], 0x0800) // IPv4
	b[4], b[5] = 6, 4
	binary.BigEndian.PutUint16(b[6:], 1) // request
	copy(b[8:14], mac)
	t := target.As4()
	copy(b[24:], t[:])
	return b
}

// arpSender reads who says in an ARP packet that an address is his.
func arpSender(b []byte) (a netip.Addr, mac []byte, ok bool) {
	if len(b) < 28 || binary.BigEndian.Uint16(b[2:]) != 0x0800 || b[4] != 6 || b[5] != 4 {
		return
	}
	a = addr4(b[14:])
	return a, b[8:14], a.IsValid()
}

// echoRequest is an ICMP echo request (RFC 792).
func echoRequest(id, seq uint16) []byte {
	b := make([]byte, 16)
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	binary.BigEndian.PutUint16(b[2:], ^fold(sum(0, b)))
	return b
}
