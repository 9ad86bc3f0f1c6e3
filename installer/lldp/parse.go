package lldp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unicode"

	"imgbuild/image/plan"
)

// Types of TLVs (IEEE 802.1AB-2016, 8.4).
const (
	tlvEnd         = 0
	tlvChassisID   = 1
	tlvPortID      = 2
	tlvTTL         = 3
	tlvPortText    = 4
	tlvSystemName  = 5
	tlvOrganised   = 127
	maxText        = 255 // octets of any text (8.5)
	subtypePVID    = 1   // of the organisation 00-80-C2 (802.1Q-2018, D.2.1)
	subtypeMAC     = 4   // of a chassis ID; 3 of a port ID
	subtypeAddress = 5   // of a chassis ID; 4 of a port ID
)

// Parse reads an LLDPDU: what follows the Ethernet header of a frame of type 0x88cc. gone is true when the neighbour says
// that it is going away (a time to live of 0).
func Parse(b []byte) (n plan.Neighbour, gone bool, err error) {
	for i := 0; ; i++ {
		if len(b) < 2 {
			if i >= 3 { // an end that is missing harms nobody
				return n, gone, nil
			}
			return plan.Neighbour{}, false, errors.New("read LLDP: it ends before its third element")
		}
		header := binary.BigEndian.Uint16(b)
		kind, size := int(header>>9), int(header&0x1ff)
		if len(b) < 2+size {
			return plan.Neighbour{}, false, fmt.Errorf("read LLDP: element %d has %d octets and %d are left", i, size, len(b)-2)
		}
		value := b[2 : 2+size]
		b = b[2+size:]
		// The first three have a fixed order (8.2), by which junk is known.
		if want := []int{tlvChassisID, tlvPortID, tlvTTL}; i < 3 && kind != want[i] {
			return plan.Neighbour{}, false, fmt.Errorf("read LLDP: element %d has the type %d and not %d", i, kind, want[i])
		}
		switch kind {
		case tlvEnd:
			return n, gone, nil
		case tlvChassisID:
			if n.Chassis, err = identifier(value, subtypeMAC, subtypeAddress); err != nil {
				return plan.Neighbour{}, false, fmt.Errorf("read LLDP: chassis: %w", err)
			}
		case tlvPortID:
			if n.Port, err = identifier(value, subtypeMAC-1, subtypeAddress-1); err != nil {
				return plan.Neighbour{}, false, fmt.Errorf("read LLDP: port: %w", err)
			}
		case tlvTTL:
			if size < 2 {
				return plan.Neighbour{}, false, errors.New("read LLDP: its time to live is missing")
			}
			gone = binary.BigEndian.Uint16(value) == 0
		case tlvPortText:
			n.Description = text(value)
		case tlvSystemName:
			n.System = text(value)
		case tlvOrganised:
			if size == 6 && value[0] == 0x00 && value[1] == 0x80 && value[2] == 0xc2 && value[3] == subtypePVID {
				n.VLAN = int(binary.BigEndian.Uint16(value[4:]))
			}
		}
	}
}

// identifier reads a chassis ID or port ID: an octet with its subtype, then a MAC address, a network address or a text.
func identifier(v []byte, mac, address byte) (string, error) {
	if len(v) < 2 {
		return "", errors.New("it is empty")
	}
	id := v[1:]
	switch {
	case v[0] == mac && len(id) == 6:
		return net.HardwareAddr(id).String(), nil
	case v[0] == address && (id[0] == 1 || id[0] == 2): // IPv4, IPv6 (IANA address family numbers)
		if a, ok := netip.AddrFromSlice(id[1:]); ok {
			return a.String(), nil
		}
	}
	if s := text(id); s != "" {
		return s, nil
	}
	return fmt.Sprintf("%x", id[:min(len(id), maxText/2)]), nil
}

// text is what consoles can show of what somebody on the wire wrote.
func text(v []byte) string {
	s := strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(v[:min(len(v), maxText)]), " "))
	return strings.Join(strings.Fields(s), " ")
}
