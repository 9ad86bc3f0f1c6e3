package plan

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	linkName   = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$`)
	cardName   = regexp.MustCompile(`^(eth[0-9]+|en[opsxPv][a-zA-Z0-9]+|em[0-9]+|p[0-9]+p[0-9]+(_[0-9]+)?|wlan[0-9]+|wl[opsx][a-zA-Z0-9]+|ib[0-9]+)$`)
	pciPattern = regexp.MustCompile(`^[0-9a-fA-F:.*?\[\]-]+$`)
	vlanNumber = regexp.MustCompile(`^(?:.*\.|vlan)([0-9]+)$`)
	domainName = regexp.MustCompile(`^([a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?\.)*[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?\.?$`)
)

// CardName says whether a name is one that the kernel, udev or biosdevname gives to network cards by itself.
func CardName(name string) bool { return cardName.MatchString(name) }

// Validate checks that the network does not contradict itself; all that is wrong is in the one error.
func (n *Network) Validate() error {
	c := checker{kinds: map[string]string{}, used: map[string]string{}, mtu: map[string]int{}, addrs: map[netip.Addr]string{}}
	for _, e := range n.Ethernets {
		c.name(e.Name, "ethernet", e.MTU)
	}
	for _, b := range n.Bonds {
		c.name(b.Name, "bond", b.MTU)
	}
	for _, t := range n.Teams {
		c.name(t.Name, "team", t.MTU)
	}
	for _, v := range n.VLANs {
		c.name(v.Name, "vlan", v.MTU)
	}
	for _, b := range n.Bonds {
		c.members(b.Name, b.Members)
		c.bond(b)
	}
	for _, t := range n.Teams {
		c.members(t.Name, t.Members)
		c.team(t)
	}
	matches := map[Match]string{}
	for _, e := range n.Ethernets {
		c.match(e, matches)
		if of, ok := c.used[e.Name]; ok {
			c.member(e, of)
		} else {
			c.ip(e.Name, e.IP)
		}
	}
	for _, b := range n.Bonds {
		c.ip(b.Name, b.IP)
	}
	for _, t := range n.Teams {
		c.ip(t.Name, t.IP)
	}
	tags := map[string]string{}
	for _, v := range n.VLANs {
		c.vlan(v, tags)
		c.ip(v.Name, v.IP)
	}
	c.machine(n)
	return errors.Join(c.errs...)
}

type checker struct {
	kinds map[string]string // by name
	used  map[string]string // the bond or team of a member
	mtu   map[string]int
	addrs map[netip.Addr]string // the link that has the address
	// the links that have the machine's gateways
	gateway4, gateway6 string
	has4, has6         bool
	errs               []error
}

func (c *checker) bad(format string, a ...any) {
	c.errs = append(c.errs, fmt.Errorf("network: "+format, a...))
}

func (c *checker) name(name, kind string, mtu int) {
	switch {
	case !linkName.MatchString(name):
		c.bad("%s %q: a name has 1 to 15 letters, digits, dots, dashes and underscores, and begins with a letter", kind, name)
	case slices.Contains([]string{"lo", "all", "default", "bonding_masters"}, name):
		c.bad("%s %s: the kernel uses this name itself; take another", kind, name)
	case kind != "ethernet" && CardName(name):
		c.bad("%s %s: this is what a network card may be called; take a name like %s", kind, name, map[string]string{"bond": "bond0", "team": "team0", "vlan": "vlan100"}[kind])
	}
	if other, ok := c.kinds[name]; ok {
		c.bad("%s %s: there is already a %s of this name", kind, name, other)
	}
	c.kinds[name], c.mtu[name] = kind, mtu
}

func (c *checker) members(of string, members []string) {
	if len(members) == 0 {
		c.bad("%s has no members", of)
	}
	for _, m := range members {
		if c.kinds[m] != "ethernet" {
			c.bad("%s: its member %s is not one of the ethernets", of, m)
		}
		if other, ok := c.used[m]; ok {
			c.bad("%s: its member %s belongs to %s already", of, m, other)
		}
		c.used[m] = of
	}
}

// member checks that a port of a bond or team has nothing of its own.
func (c *checker) member(e Ethernet, of string) {
	ip := e.IP
	if ip.MTU != 0 && ip.MTU != c.mtu[of] {
		c.bad("%s: it is a member of %s and has the MTU %d of its own; the MTU is that of %s", e.Name, of, ip.MTU, of)
	}
	if ip.DHCP4 || ip.DHCP6 || ip.AcceptRA != nil && *ip.AcceptRA || len(ip.Addresses) > 0 || ip.Gateway4.IsValid() || ip.Gateway6.IsValid() || len(ip.Routes) > 0 {
		c.bad("%s: it is a member of %s and can have no addresses, routes or DHCP of its own; give them to %s", e.Name, of, of)
	}
}

func (c *checker) match(e Ethernet, seen map[Match]string) {
	m := e.Match
	n := 0
	for _, given := range []bool{m.MAC != "", m.PCI != "", m.Link != 0, m.Order != 0} {
		if given {
			n++
		}
	}
	if n != 1 {
		c.bad("%s: its port is chosen by exactly one of mac, pci, link and order, and %d are given", e.Name, n)
		return
	}
	if m.MAC != "" {
		mac, err := net.ParseMAC(m.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || slices.Equal(mac, make(net.HardwareAddr, 6)) {
			c.bad("%s: %q is not a card's MAC address, as 52:54:00:12:34:56", e.Name, m.MAC)
		}
		m.MAC = mac.String()
	}
	if m.PCI != "" {
		if _, err := path.Match(m.PCI, ""); err != nil || !pciPattern.MatchString(m.PCI) {
			c.bad("%s: %q is neither a PCI address, as 0000:3b:00.1, nor a glob of one, as 0000:3b:*.1", e.Name, m.PCI)
		}
		m.PCI = strings.ToLower(m.PCI)
	}
	if m.Link < 0 || m.Order < 0 {
		c.bad("%s: ports are counted from 1", e.Name)
	}
	if other, ok := seen[m]; ok {
		c.bad("%s: it is chosen in the same way as %s", e.Name, other)
	}
	seen[m] = e.Name
}

func (c *checker) vlan(v VLAN, tags map[string]string) {
	if v.ID < 1 || v.ID > 4094 {
		c.bad("vlan %s: its ID is %d; IDs are 1 to 4094", v.Name, v.ID)
	}
	if m := vlanNumber.FindStringSubmatch(v.Name); m != nil {
		if id, err := strconv.Atoi(m[1]); err != nil || id != v.ID {
			c.bad("vlan %s: its name says VLAN %s and its ID is %d", v.Name, m[1], v.ID)
		}
	}
	if i := strings.LastIndexByte(v.Name, '.'); i > 0 && v.Name[:i] != v.Link && c.kinds[v.Name[:i]] != "" {
		c.bad("vlan %s: its name says that it is on top of %s, and it is on top of %s", v.Name, v.Name[:i], v.Link)
	}
	switch kind := c.kinds[v.Link]; {
	case kind == "":
		c.bad("vlan %s: what it is on top of, %q, is not here", v.Name, v.Link)
	case kind == "vlan":
		c.bad("vlan %s: it is on top of the vlan %s; a vlan is on top of an ethernet, bond or team", v.Name, v.Link)
	case c.used[v.Link] != "":
		c.bad("vlan %s: it is on top of %s, a member of %s; put it on top of %[3]s", v.Name, v.Link, c.used[v.Link])
	}
	if below := cmp.Or(c.mtu[v.Link], 1500); v.MTU > below {
		c.bad("vlan %s: its MTU is %d and that of %s below it %d", v.Name, v.MTU, v.Link, below)
	}
	tag := fmt.Sprintf("%s %d", v.Link, v.ID)
	if other, ok := tags[tag]; ok {
		c.bad("vlan %s: %s is the same VLAN %d on %s", v.Name, other, v.ID, v.Link)
	}
	tags[tag] = v.Name
}

// machine checks what belongs to no link.
func (c *checker) machine(n *Network) {
	if len(n.Ethernets) == 0 {
		c.bad("there are no ethernets: name at least one port")
	} else if !c.has4 && !c.has6 {
		c.bad("no link has an address, DHCP or router advertisements: nobody could reach the machine")
	}
	seen := map[netip.Addr]bool{}
	for _, a := range n.DNS {
		switch {
		case !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast():
			c.bad("%s is not the address of a DNS server", text(a))
		case seen[a]:
			c.bad("the DNS server %s is there twice", a)
		case a.Is4() && !c.has4 && c.has6:
			c.bad("the DNS server %s has an IPv4 address, and no link has one", a)
		case a.Is6() && !c.has6 && c.has4:
			c.bad("the DNS server %s has an IPv6 address, and no link has one", a)
		}
		seen[a] = true
	}
	for i, s := range n.Search {
		if !ValidDomain(s) {
			c.bad("the search domain %q is not a domain name", s)
		}
		if slices.Contains(n.Search[:i], s) {
			c.bad("the search domain %s is there twice", s)
		}
	}
}

// ValidDomain says whether s is a domain name (RFC 1123, section 2.1, and underscores, which are in use).
func ValidDomain(s string) bool { return len(s) <= 253 && domainName.MatchString(s) }

func text(a netip.Addr) string {
	if !a.IsValid() {
		return `""`
	}
	return a.String()
}
