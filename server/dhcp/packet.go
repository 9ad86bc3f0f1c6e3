package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Sizes in bytes. A reply of less than minPacket is dropped by relays and clients that come from BOOTP (RFC 1542, 2.1);
// every client takes defaultSize, which is an IP datagram of 576 bytes without its headers (RFC 2131, 2).
const (
	headerSize  = 236
	minPacket   = 300
	defaultSize = 548
	maxPacket   = 1472 // an Ethernet frame's worth
)

// Message types, option 53 (RFC 2132, 9.6).
const (
	discover byte = iota + 1
	offer
	request
	decline
	ack
	nak
	release
	inform
)

const (
	opRequest byte = 1
	opReply   byte = 2

	flagBroadcast uint16 = 0x8000
)

const cookie = 0x63825363 // RFC 2131, 3

// Packet is a DHCPv4 message (RFC 2131, 2). Addresses that are 0.0.0.0 are the zero netip.Addr.
type Packet struct {
	Op, HType, HLen, Hops byte
	XID                   uint32
	Secs, Flags           uint16
	// CIAddr is the client's address, YIAddr what it is given, SIAddr the next server (TFTP), GIAddr the relay's.
	CIAddr, YIAddr, SIAddr, GIAddr netip.Addr
	CHAddr                         [16]byte
	SName, File                    string
	Options                        Options
}

// Option is one option (RFC 2132), and its data whole, however many pieces it came in (RFC 3396).
type Option struct {
	Code byte
	Data []byte
}

// Options are options in the order in which they are sent.
type Options []Option

// Get gives an option's data; nil if there is none, not nil if it is there and empty.
func (o Options) Get(code byte) []byte {
	for i := range o {
		if o[i].Code == code {
			return o[i].Data
		}
	}
	return nil
}

// Has reports whether the option is there.
func (o Options) Has(code byte) bool { return o.Get(code) != nil }

// Set adds an option, or replaces it in its place.
func (o *Options) Set(code byte, data []byte) {
	if data == nil {
		data = []byte{}
	}
	for i := range *o {
		if (*o)[i].Code == code {
			(*o)[i].Data = data
			return
		}
	}
	*o = append(*o, Option{code, data})
}

// add appends to an option, as the pieces of a long option are to be joined.
func (o *Options) add(code byte, data []byte) {
	for i := range *o {
		if (*o)[i].Code == code {
			(*o)[i].Data = append((*o)[i].Data, data...)
			return
		}
	}
	*o = append(*o, Option{code, append([]byte{}, data...)})
}

var errShort = errors.New("it is too short")

// Parse reads a message. What it gives shares no memory with b. A message without the end option is taken, since there
// are clients that forget it; one whose options reach beyond its end is not.
func Parse(b []byte) (*Packet, error) {
	if len(b) < headerSize+4 {
		return nil, fmt.Errorf("read DHCP message of %d bytes: %w", len(b), errShort)
	}
	if binary.BigEndian.Uint32(b[headerSize:]) != cookie {
		return nil, fmt.Errorf("read DHCP message: it starts with %x instead of DHCP's magic cookie (BOOTP without DHCP is not served)", b[headerSize:headerSize+4])
	}
	p := &Packet{Op: b[0], HType: b[1], HLen: b[2], Hops: b[3], XID: binary.BigEndian.Uint32(b[4:]),
		Secs: binary.BigEndian.Uint16(b[8:]), Flags: binary.BigEndian.Uint16(b[10:]),
		CIAddr: addr4(b[12:]), YIAddr: addr4(b[16:]), SIAddr: addr4(b[20:]), GIAddr: addr4(b[24:])}
	if p.HLen > 16 {
		return nil, fmt.Errorf("read DHCP message: it says that its hardware address has %d bytes; there is room for 16", p.HLen)
	}
	copy(p.CHAddr[:], b[28:44])
	sname, file := b[44:108], b[108:headerSize]
	if err := p.Options.parse(b[headerSize+4:]); err != nil {
		return nil, err
	}
	// The two fields carry options when option 52 says so (RFC 2132, 9.3); file comes first (RFC 2131, 4.1).
	overload := byte(0)
	if o := p.Options.Get(optOverload); len(o) == 1 {
		overload = o[0]
	}
	if overload&1 != 0 {
		if err := p.Options.parse(file); err != nil {
			return nil, err
		}
	} else {
		p.File = cstring(file)
	}
	if overload&2 != 0 {
		if err := p.Options.parse(sname); err != nil {
			return nil, err
		}
	} else {
		p.SName = cstring(sname)
	}
	return p, nil
}

func (o *Options) parse(b []byte) error {
	for len(b) > 0 {
		switch code := b[0]; {
		case code == optPad:
			b = b[1:]
		case code == optEnd:
			return nil
		case len(b) < 2 || len(b) < 2+int(b[1]):
			return fmt.Errorf("read DHCP option %d: %w", code, errShort)
		default:
			o.add(code, b[2:2+int(b[1])])
			b = b[2+int(b[1]):]
		}
	}
	return nil
}

// Marshal writes the message in at most limit bytes (at least 300 are taken). Options are written in their order, option 82
// at the end (RFC 3046, 2.2); what does not fit any more is left out, so the most needed come first. It gives the codes
// of what was left out.
func (p *Packet) Marshal(limit int) ([]byte, []byte) {
	limit = min(maxPacket, max(limit, minPacket))
	b := make([]byte, headerSize+4, limit)
	b[0], b[1], b[2], b[3] = p.Op, p.HType, p.HLen, p.Hops
	binary.BigEndian.PutUint32(b[4:], p.XID)
	binary.BigEndian.PutUint16(b[8:], p.Secs)
	binary.BigEndian.PutUint16(b[10:], p.Flags)
	for i, a := range []netip.Addr{p.CIAddr, p.YIAddr, p.SIAddr, p.GIAddr} {
		if a.Is4() {
			a4 := a.As4()
			copy(b[12+4*i:], a4[:])
		}
	}
	copy(b[28:44], p.CHAddr[:])
	copy(b[44:107], p.SName) // the last byte stays 0: firmware reads a C string
	copy(b[108:headerSize-1], p.File)
	binary.BigEndian.PutUint32(b[headerSize:], cookie)
	last := p.Options.Get(optRelay)
	room := limit - len(b) - 1 // the end option
	if last != nil {
		room -= wireSize(last)
	}
	var left []byte
	for _, o := range p.Options {
		switch {
		case o.Code == optRelay || o.Code == optPad || o.Code == optEnd:
		case wireSize(o.Data) > room:
			left = append(left, o.Code)
		default:
			room -= wireSize(o.Data)
			b = appendOption(b, o.Code, o.Data)
		}
	}
	if last != nil && room >= 0 {
		b = appendOption(b, optRelay, last)
	}
	b = append(b, optEnd)
	if n := minPacket - len(b); n > 0 {
		b = append(b, make([]byte, n)...)
	}
	return b, left
}

// wireSize is what an option takes, split into pieces of 255 bytes (RFC 3396).
func wireSize(data []byte) int {
	pieces := max(1, (len(data)+254)/255)
	return 2*pieces + len(data)
}

func appendOption(b []byte, code byte, data []byte) []byte {
	for {
		n := min(len(data), 255)
		b = append(b, code, byte(n))
		b = append(b, data[:n]...)
		if data = data[n:]; len(data) == 0 {
			return b
		}
	}
}

// Type is the message's type, option 53; 0 for one that has none.
func (p *Packet) Type() byte {
	if t := p.Options.Get(optType); len(t) == 1 {
		return t[0]
	}
	return 0
}

// MAC is the hardware address; empty for links that put none into the header, as InfiniBand (RFC 4390).
func (p *Packet) MAC() string {
	if p.HLen == 0 {
		return ""
	}
	return net.HardwareAddr(p.CHAddr[:p.HLen]).String()
}

// addr reads an option that is one address.
func (p *Packet) addr(code byte) netip.Addr {
	if b := p.Options.Get(code); len(b) == 4 {
		return addr4(b)
	}
	return netip.Addr{}
}

// text reads an option that is text, without the zero bytes that some clients end it with.
func (p *Packet) text(code byte) string {
	return strings.TrimRight(string(p.Options.Get(code)), "\x00")
}

// maxSize is the longest message that the client takes, in bytes without the IP and UDP headers (option 57).
func (p *Packet) maxSize() int {
	if b := p.Options.Get(optMaxSize); len(b) == 2 {
		return max(int(binary.BigEndian.Uint16(b))-28, defaultSize)
	}
	return defaultSize
}

// wants reports whether the client asks for an option by option 55, and true if it gives no list.
func (p *Packet) wants(code byte) bool {
	l := p.Options.Get(optParameters)
	return l == nil || slices.Contains(l, code)
}

func addr4(b []byte) netip.Addr {
	a := netip.AddrFrom4([4]byte(b[:4]))
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func cstring(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func typeName(t byte) string {
	names := [...]string{"BOOTP", "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type %d", t)
}
