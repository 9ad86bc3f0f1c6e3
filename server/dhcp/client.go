package dhcp

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"imgbuild/image/identity"
)

// stage is how far a machine is on its way when it asks. All but running mean that the machine has been reset: whatever
// held an address with this hardware address before is gone.
type stage byte

const (
	running   stage = iota // an operating system, or something unknown
	installer              // our initramfs
	firmware               // PXE, UEFI HTTP boot, iPXE
)

// client is what a packet says of who sent it.
type client struct {
	mac string // with colons, small letters; empty if the link has none in the header
	id  string // option 61 in hex with colons; empty if it only repeats the hardware address
	raw string // option 61 in hex with colons, as it came
	// serials are texts in the packet that may be a serial number, and uuids option 97 in both byte orders that firmware uses.
	serials, uuids []string
	hostname       string
	class          string // option 60
	stage          stage
	platform       Platform // empty: not known
	pxe, http      bool     // option 60 is PXEClient or HTTPClient
	ipxe           bool     // iPXE or gPXE
}

// newClient reads a packet's options 12, 60, 61, 77, 93, 97 and 175.
func newClient(p *Packet) client {
	c := client{mac: p.MAC(), class: p.text(optClass), hostname: hostname(p.text(optHostname))}
	c.pxe, c.http = strings.HasPrefix(c.class, "PXEClient"), strings.HasPrefix(c.class, "HTTPClient")
	if id := p.Options.Get(optClientID); len(id) > 1 { // RFC 2132, 9.14: at least 2 bytes
		c.raw = colons(id)
		c.id = c.raw
		if p.HLen > 0 && c.id == colons(append([]byte{p.HType}, p.CHAddr[:p.HLen]...)) {
			c.id = ""
		}
		c.serial(string(id))
		if id[0] == 0 {
			c.serial(string(id[1:]))
		}
	}
	classes := userClasses(p.Options.Get(optUserClass))
	for _, k := range classes {
		if k == "iPXE" || k == "gPXE" {
			c.ipxe = true
		}
		// An iPXE script says `set user-class serial=${serial}` before it asks again.
		if sn, ok := strings.CutPrefix(k, "serial="); ok {
			c.serial(sn)
		}
	}
	c.ipxe = c.ipxe || p.Options.Has(optIPXE)
	c.uuid(p.Options.Get(optUUID))
	switch {
	case c.ipxe || c.pxe || c.http:
		c.stage = firmware
		c.platform, c.http = platform(p, c)
	case c.class == "imgbuild":
		c.stage = installer
	}
	return c
}

func (c *client) serial(s string) {
	s = identity.Serial(strings.TrimRight(s, "\x00"))
	if s != "" && printable(s) && identity.Junk(s) == "" && !slices.Contains(c.serials, s) {
		c.serials = append(c.serials, s)
	}
}

// uuid reads option 97: a type byte, 0, and 16 bytes. Firmware sends SMBIOS's bytes, whose first three fields are
// little-endian (DSP0134, 7.2.1), iPXE and others what people read; both are looked up.
func (c *client) uuid(b []byte) {
	if len(b) != 17 || b[0] != 0 {
		return
	}
	g := [16]byte(b[1:])
	swapped := g
	slices.Reverse(swapped[0:4])
	slices.Reverse(swapped[4:6])
	slices.Reverse(swapped[6:8])
	for _, u := range [][16]byte{swapped, g} {
		if s := identity.UUID(fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])); s != "" && !slices.Contains(c.uuids, s) {
			c.uuids = append(c.uuids, s)
		}
	}
}

// key is what a client's leases are found by (RFC 2131, 4.2): its identifier, or else its hardware address.
func (c *client) key() string { return leaseKey(c.id, c.mac) }

func leaseKey(id, mac string) string {
	if id != "" {
		return "id " + id
	}
	return "mac " + mac
}

// String names the client in logs.
func (c *client) String() string {
	if c.mac != "" {
		return c.mac
	}
	return "client-id " + c.id
}

// platform reads option 93 (RFC 4578 and IANA's list of processor architecture types), or what the class says in its
// place (PXEClient:Arch:00007:UNDI:003016), and whether the firmware loads by HTTP.
func platform(p *Packet, c client) (Platform, bool) {
	arch := -1
	if b := p.Options.Get(optArch); len(b) >= 2 {
		arch = int(binary.BigEndian.Uint16(b))
	} else if _, rest, ok := strings.Cut(c.class, ":Arch:"); ok {
		n, _, _ := strings.Cut(rest, ":")
		if v, err := strconv.ParseUint(n, 10, 16); err == nil {
			arch = int(v)
		}
	}
	switch arch {
	case 0:
		return BIOS, c.http
	case -1:
		if c.pxe { // only old BIOS firmware does not say
			return BIOS, false
		}
		return "", c.http
	case 6:
		return EFI32, c.http
	case 7, 9: // 7 is EFI BC by the standard, and what x64 firmware sends
		return EFI64, c.http
	case 11:
		return EFIARM64, c.http
	case 15:
		return EFI32, true
	case 16:
		return EFI64, true
	case 19:
		return EFIARM64, true
	case 20:
		return BIOS, true
	}
	return "", c.http
}

// userClasses reads option 77: a list of texts, each after its length (RFC 3004), or, as iPXE and most others send it, one
// bare text.
func userClasses(b []byte) []string {
	var list []string
	for rest := b; len(rest) > 0; {
		n := int(rest[0])
		if n == 0 || n >= len(rest) {
			return []string{strings.TrimRight(string(b), "\x00")}
		}
		list = append(list, string(rest[1:1+n]))
		rest = rest[1+n:]
	}
	return list
}

// hostname takes a client's name for itself if it could be one, and its first label only.
func hostname(s string) string {
	s, _, _ = strings.Cut(s, ".")
	if len(s) > 63 || !printable(s) {
		return ""
	}
	return s
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func colons(b []byte) string {
	s := hex.EncodeToString(b)
	out := make([]byte, 0, len(b)*3)
	for i := 0; i < len(s); i += 2 {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, s[i], s[i+1])
	}
	return string(out)
}

// parseMAC reads a hardware address as people write it.
func parseMAC(s string) (string, error) {
	m, err := net.ParseMAC(s)
	if err != nil || len(m) > 16 {
		return "", fmt.Errorf("%q is no hardware address as 52:54:00:12:34:56", s)
	}
	return m.String(), nil
}

// clientIDs are the forms in which option 61 may carry what a reservation says.
func clientIDs(s string) []string {
	if b, err := hex.DecodeString(strings.ReplaceAll(s, ":", "")); err == nil && strings.Contains(s, ":") {
		return []string{colons(b)}
	}
	return []string{colons([]byte(s)), colons(append([]byte{0}, s...))}
}
