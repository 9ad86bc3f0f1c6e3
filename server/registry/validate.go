package registry

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"imgbuild/image/identity"
	"imgbuild/image/plan"
)

// FieldError is what is wrong with one field. Field is its path, as network.bonds[0].mode; empty for all of it.
type FieldError struct {
	Field   string `json:"field,omitempty"`
	Message string `json:"error"`
}

// Invalid is all that is wrong with what somebody wrote. It is ErrInvalid.
type Invalid struct{ Fields []FieldError }

func (e *Invalid) Error() string {
	var list []string
	for _, f := range e.Fields {
		if f.Field == "" {
			list = append(list, f.Message)
		} else {
			list = append(list, f.Field+": "+f.Message)
		}
	}
	return strings.Join(list, "; ")
}

// Unwrap makes every Invalid an ErrInvalid.
func (e *Invalid) Unwrap() error { return ErrInvalid }

func (e *Invalid) add(field, format string, a ...any) {
	e.Fields = append(e.Fields, FieldError{field, fmt.Sprintf(format, a...)})
}

func (e *Invalid) orNil() error {
	if len(e.Fields) == 0 {
		return nil
	}
	return e
}

// invalid is an Invalid with one field.
func invalid(field, message string) *Invalid { return &Invalid{Fields: []FieldError{{field, message}}} }

const (
	maxLine     = 255     // of a field of one line
	maxHost     = 1 << 20 // bytes of all that people write of a host
	maxHostname = 64      // Linux's HOST_NAME_MAX
)

var (
	uuidText    = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	labelText   = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)
	imageText   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._+~-]{0,127}(/[a-zA-Z0-9][a-zA-Z0-9._+~-]{0,127})?$`)
	consoleText = regexp.MustCompile(`^tty[A-Z]{1,5}[0-9]{1,3}(,[0-9]{2,7}([noe]([78]r?)?)?)?$`)
	wordText    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,31}$`)
)

// ValidateHost checks what people write of a host and brings it to one form: MACs and UUID in small letters, an IPv4 netmask
// dotted, an IPv6 one as its prefix length. All that is wrong is in the one error, an Invalid.
func ValidateHost(h *Host) error {
	var e Invalid
	h.SN = identity.Serial(h.SN)
	if problem := checkSN(h.SN); problem != "" {
		e.add("sn", "%s", problem)
	}
	h.Hostname = strings.TrimSuffix(strings.TrimSpace(h.Hostname), ".")
	if h.Hostname != "" {
		if problem := checkHostname(h.Hostname); problem != "" {
			e.add("hostname", "%s", problem)
		}
	}
	checkAddresses(&e, h)
	for i, a := range h.DNS {
		if !a.IsValid() || a.IsUnspecified() {
			e.add(fmt.Sprintf("dns[%d]", i), "it is not the address of a server")
		}
	}
	for i, d := range h.Search {
		if problem := checkDomain(d); problem != "" {
			e.add(fmt.Sprintf("search[%d]", i), "%s", problem)
		}
	}
	var macs []string
	for i, m := range h.MACs {
		mac, err := normalMAC(m)
		if err != nil {
			e.add(fmt.Sprintf("macs[%d]", i), "%s", err)
			continue
		}
		if !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	if len(macs) == len(h.MACs) || len(e.Fields) == 0 {
		h.MACs = macs
	}
	h.UUID = strings.ToLower(strings.TrimSpace(h.UUID))
	if problem := checkUUID(h.UUID); problem != "" {
		e.add("uuid", "%s", problem)
	}
	for _, f := range []struct {
		name  string
		value *string
	}{{"model", &h.Model}, {"owner", &h.Owner}, {"rack", &h.Rack}, {"position", &h.Position}} {
		*f.value = strings.TrimSpace(*f.value)
		if problem := checkLine(*f.value); problem != "" {
			e.add(f.name, "%s", problem)
		}
	}
	if h.Image != "" && !imageText.MatchString(h.Image) {
		e.add("image", "%q is not the name of a release, as web or web/1.2", h.Image)
	}
	if h.SerialConsole != "" && !consoleText.MatchString(h.SerialConsole) {
		e.add("serial_console", "%q is not a console, as ttyS1 or ttyS1,115200n8", h.SerialConsole)
	}
	checkOOB(&e, h.OOB)
	checkNetwork(&e, h.Network)
	checkUsers(&e, h.Users)
	checkFiles(&e, h.Files)
	checkLayout(&e, h.Layout)
	checkLive(&e, h.Live)
	if len(h.Metadata) > 0 {
		if _, err := parseObject(h.Metadata); err != nil {
			e.add("metadata", "%s", err)
		}
	}
	if len(e.Fields) > 0 {
		return &e
	}
	if doc, err := json.Marshal(h); err != nil {
		e.add("", "it cannot be written as JSON: %s", err)
	} else if len(doc) > maxHost {
		e.add("", "it has %d bytes, and %d is the most: keep large files elsewhere", len(doc), maxHost)
	}
	return e.orNil()
}

// checkSN refuses what no machine can be known by: it would be a host that never comes.
func checkSN(sn string) string {
	switch {
	case sn == "":
		return "a serial number is wanted"
	case sn != identity.Serial(sn):
		return "it has blanks around it"
	}
	return identity.Junk(sn)
}

// checkLine says what is wrong with a text of one line; it is shown on consoles and in boot scripts.
func checkLine(s string) string {
	if len(s) > maxLine {
		return fmt.Sprintf("it has %d bytes, and %d is the most", len(s), maxLine)
	}
	if !utf8.ValidString(s) {
		return "it is not UTF-8"
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("it has the character %q, which does not print", r)
		}
	}
	return ""
}

func checkHostname(name string) string {
	if len(name) > maxHostname {
		return fmt.Sprintf("it has %d characters, and Linux takes %d at most", len(name), maxHostname)
	}
	return checkDomain(name)
}

// checkDomain follows RFC 1123, 2.1.
func checkDomain(name string) string {
	if len(name) > 253 {
		return fmt.Sprintf("it has %d characters, and 253 is the most", len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if !labelText.MatchString(label) {
			return fmt.Sprintf("%q is not a host name: between dots are 1 to 63 letters, digits and dashes, and no dash first or last", name)
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Sprintf("%q is an address, not a name", name)
	}
	return ""
}

func checkUUID(uuid string) string {
	if uuid != "" && !uuidText.MatchString(uuid) {
		return fmt.Sprintf("%q is not a UUID", uuid)
	}
	return ""
}

// normalMAC brings a MAC-48 address (or EUI-64) to small letters with colons.
func normalMAC(mac string) (string, error) {
	hw, err := net.ParseMAC(strings.TrimSpace(mac))
	if err != nil {
		return "", fmt.Errorf("%q is not a MAC address", mac)
	}
	if len(hw) != 6 && len(hw) != 8 {
		return "", fmt.Errorf("%q is not the MAC address of an Ethernet port", mac)
	}
	if strings.Trim(hw.String(), "0:") == "" || hw[0]&1 == 1 {
		return "", fmt.Errorf("%q is no port's own address", mac)
	}
	return hw.String(), nil
}

// checkAddresses checks ip, netmask and gw together.
func checkAddresses(e *Invalid, h *Host) {
	h.IP, h.Netmask, h.GW = strings.TrimSpace(h.IP), strings.TrimSpace(h.Netmask), strings.TrimSpace(h.GW)
	if h.IP == "" {
		if h.Netmask != "" {
			e.add("netmask", "there is no ip that it belongs to")
		}
		if h.GW != "" {
			e.add("gw", "there is no ip that it belongs to")
		}
		return
	}
	ip, err := netip.ParseAddr(h.IP)
	switch {
	case err != nil && strings.Contains(h.IP, "/"):
		e.add("ip", "%q: the prefix length belongs in netmask", h.IP)
		return
	case err != nil:
		e.add("ip", "%q is not an IPv4 or IPv6 address", h.IP)
		return
	case ip.Zone() != "" || ip.Is4In6() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		e.add("ip", "%s is not an address that a machine can have", h.IP)
		return
	}
	h.IP = ip.String()
	if h.Netmask == "" {
		e.add("netmask", "it is wanted with an ip")
		return
	}
	bits, problem := prefixLength(h.Netmask, ip)
	if problem != "" {
		e.add("netmask", "%s", problem)
		return
	}
	network := netip.PrefixFrom(ip, bits).Masked()
	if ip.Is4() {
		h.Netmask = net.IP(net.CIDRMask(bits, 32)).String()
		if bits < 31 && (ip == network.Addr() || ip == broadcast(network)) { // RFC 3021: /31 has neither
			e.add("ip", "%s is the network's own address or its broadcast address in %s", ip, network)
		}
	} else {
		h.Netmask = strconv.Itoa(bits)
	}
	if h.GW != "" {
		checkGateway(e, h, ip, network)
	}
}

func checkGateway(e *Invalid, h *Host, ip netip.Addr, network netip.Prefix) {
	gw, err := netip.ParseAddr(h.GW)
	switch {
	case err != nil || gw.Zone() != "" || gw.IsUnspecified() || gw.IsMulticast():
		e.add("gw", "%q is not the address of a gateway", h.GW)
	case gw.Is4() != ip.Is4():
		e.add("gw", "%s and the ip %s are of different families", gw, ip)
	case gw == ip:
		e.add("gw", "it is the host's own address")
	case !network.Contains(gw) && !(gw.Is6() && gw.IsLinkLocalUnicast()):
		e.add("gw", "%s is not in the host's network %s", gw, network)
	case gw.Is4() && network.Bits() < 31 && (gw == network.Addr() || gw == broadcast(network)):
		e.add("gw", "%s is the network's own address or its broadcast address in %s", gw, network)
	default:
		h.GW = gw.String()
	}
}

// prefixLength reads 255.255.255.0, 24 or /24.
func prefixLength(mask string, ip netip.Addr) (bits int, problem string) {
	if n, err := strconv.Atoi(strings.TrimPrefix(mask, "/")); err == nil {
		if n < 1 || n > ip.BitLen() {
			return 0, fmt.Sprintf("%s is not a prefix length of %s: 1 to %d", mask, ip, ip.BitLen())
		}
		return n, ""
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || !m.Is4() || !ip.Is4() {
		return 0, fmt.Sprintf("%q is not a netmask of %s", mask, ip)
	}
	n, size := net.IPMask(m.AsSlice()).Size()
	if size == 0 || n == 0 {
		return 0, fmt.Sprintf("%s is not a netmask: its ones are not all in front", mask)
	}
	return n, ""
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

func checkOOB(e *Invalid, o *OOB) {
	if o == nil {
		return
	}
	if o.Type != "" && !wordText.MatchString(o.Type) {
		e.add("oob.type", "%q is not one word, as ipmi or redfish", o.Type)
	}
	if o.Address != "" {
		if _, err := netip.ParseAddr(o.Address); err != nil && checkDomain(o.Address) != "" {
			e.add("oob.address", "%q is neither an address nor a host name", o.Address)
		}
	}
	if o.Netmask != "" {
		if a, err := netip.ParseAddr(o.Address); err != nil {
			e.add("oob.netmask", "it belongs to an address, and oob.address is none")
		} else if _, problem := prefixLength(o.Netmask, a); problem != "" {
			e.add("oob.netmask", "%s", problem)
		}
	}
	if o.Gateway != "" {
		if _, err := netip.ParseAddr(o.Gateway); err != nil {
			e.add("oob.gateway", "%q is not an address", o.Gateway)
		}
	}
	if problem := checkLine(o.User); problem != "" {
		e.add("oob.user", "%s", problem)
	}
	if problem := checkLine(o.Password); problem != "" {
		e.add("oob.password", "it is not one line of at most %d bytes that print", maxLine)
	}
}

func checkNetwork(e *Invalid, n *plan.Network) {
	if n == nil {
		return
	}
	err := n.Validate()
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range many.Unwrap() {
			e.add("network", "%s", strings.TrimPrefix(one.Error(), "network: "))
		}
		return
	}
	e.add("network", "%s", strings.TrimPrefix(err.Error(), "network: "))
}
