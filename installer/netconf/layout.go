package netconf

import (
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/netup"
)

// layout is a network whose ports are cards of this machine.
type layout struct {
	links  []*link // ports first, then bonds, teams, VLANs, each in the plan's order
	byName map[string]*link
	unused []plan.NIC // in the order of PCI addresses
	dns    []netip.Addr
}

// link is one link of the installed system. Exactly one of nic, bond, team and vlan is there.
type link struct {
	name string // the plan's
	uuid string
	// iface is the interface's name in the installed system; empty where nobody knows it and nobody must.
	iface  string
	ip     plan.IP
	nic    *plan.NIC
	bond   *plan.Bond
	team   *plan.Team
	vlan   *plan.VLAN
	master *link // of a port of a bond or team
	below  *link // of a VLAN

	// dns and search are those that stand in this link's files.
	dns    []netip.Addr
	search []string
	// ownDNS is set where the plan names the DNS servers: those that DHCP names are passed over.
	ownDNS bool
	// noDefault4 and noDefault6 are set where another link has the machine's gateway.
	noDefault4, noDefault6 bool

	lease *netup.Network // while the network is tried
}

func newLayout(n *plan.Network, nics []plan.NIC, serial string) (*layout, error) {
	chosen, unused, err := choose(n.Ethernets, nics)
	if err != nil {
		return nil, err
	}
	l := &layout{byName: map[string]*link{}, unused: unused, dns: n.DNS}
	add := func(k *link) {
		k.uuid = uuid(serial, k.name)
		l.links = append(l.links, k)
		l.byName[k.name] = k
	}
	for i, e := range n.Ethernets {
		add(&link{name: e.Name, ip: e.IP, nic: &chosen[i]})
	}
	for _, b := range n.Bonds {
		add(&link{name: b.Name, iface: b.Name, ip: b.IP, bond: &b})
		l.enslave(b.Name, b.Members)
	}
	for _, t := range n.Teams {
		add(&link{name: t.Name, iface: t.Name, ip: t.IP, team: &t})
		l.enslave(t.Name, t.Members)
	}
	for _, v := range n.VLANs {
		add(&link{name: v.Name, iface: v.Name, ip: v.IP, vlan: &v, below: l.byName[v.Link]})
	}
	l.spread(n)
	return l, nil
}

func (l *layout) enslave(master string, members []string) {
	for _, m := range members {
		l.byName[m].master = l.byName[master]
	}
}

// members are the ports of a bond or team, in the plan's order of ports.
func (l *layout) members(master *link) []*link {
	var list []*link
	for _, k := range l.links {
		if k.master == master {
			list = append(list, k)
		}
	}
	return list
}

// spread gives what belongs to the machine to the links that it is written with: the DNS servers to the link that has
// the gateway of their kind, and the default route to no other link.
func (l *layout) spread(n *plan.Network) {
	first := func(is ...func(k *link) bool) *link {
		for _, f := range is {
			for _, k := range l.links {
				if k.master == nil && f(k) {
					return k
				}
			}
		}
		return nil
	}
	gateway4 := first(func(k *link) bool { return hasDefault(&k.ip, true) })
	gateway6 := first(func(k *link) bool { return hasDefault(&k.ip, false) })
	main4 := cmp.Or(gateway4, first(func(k *link) bool { return k.ip.DHCP4 }, func(k *link) bool { return k.ip.Has4() }))
	main6 := cmp.Or(gateway6, first(func(k *link) bool { return k.ip.TakesRA() }, func(k *link) bool { return k.ip.Has6() }))
	for _, a := range n.DNS {
		k := main4
		if a.Is6() && main6 != nil || k == nil {
			k = main6
		}
		k.dns = append(k.dns, a)
	}
	if k := cmp.Or(main4, main6); k != nil {
		k.search = n.Search
	}
	for _, k := range l.links {
		k.ownDNS = len(n.DNS) > 0
		k.noDefault4 = gateway4 != nil && gateway4 != k
		k.noDefault6 = gateway6 != nil && gateway6 != k
	}
}

// hasDefault says whether the link has the machine's default route of its kind, as a gateway or as a route.
func hasDefault(ip *plan.IP, v4 bool) bool {
	gateway := ip.Gateway6
	if v4 {
		gateway = ip.Gateway4
	}
	return gateway.IsValid() || slices.ContainsFunc(ip.Routes, func(r plan.Route) bool { return r.To.Bits() == 0 && r.To.Addr().Is4() == v4 })
}

// nameInterfaces fixes the names of ports that something must find by its name: a bond's primary, and with EL7's network
// scripts also ports of bonds and teams, those below VLANs, and those that a link-local next hop is on. Others are found by
// their MAC addresses alone, and keep the name that the system gives them.
func (l *layout) nameInterfaces(o Options) error {
	names := map[string]string{}
	for _, k := range l.links {
		names[k.name] = k.name
	}
	scripts := o.Format == image.Ifcfg && o.Major < 8
	for _, k := range l.links {
		primary := k.master != nil && k.master.bond != nil && k.master.bond.Primary == k.name
		if k.nic == nil || !primary && !(scripts && l.namedInScripts(k)) {
			continue
		}
		if k.iface = k.name; plan.CardName(k.name) {
			// Two cards that swap such names could each find the other's taken: a name that the kernel never gives is free.
			if k.iface = "nic-" + k.name; names[k.iface] != "" || len(k.iface) > 15 {
				return fmt.Errorf("write the network configuration: the interface of %s needs a fixed name, and %s may be another card's; call it lan0 or the like", k.name, k.name)
			}
		}
		names[k.iface] = k.name
	}
	return nil
}

func (l *layout) namedInScripts(k *link) bool {
	if k.master != nil || k.ip.Gateway6.IsLinkLocalUnicast() {
		return true
	}
	for _, r := range k.ip.Routes {
		if r.Via.IsLinkLocalUnicast() {
			return true
		}
	}
	return slices.ContainsFunc(l.links, func(v *link) bool { return v.below == k })
}

// udevRules fix interface names where network scripts do not: EL7's own rules take them from the ifcfg files.
func (l *layout) udevRules(o Options) []File {
	if l == nil || o.Format == image.Ifcfg && o.Major < 8 {
		return nil
	}
	var b strings.Builder
	for _, k := range l.links {
		if k.nic != nil && k.iface != "" {
			// DRIVERS keeps VLANs and bonds, which have the same address, out of it.
			fmt.Fprintf(&b, "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{type}==\"1\", ATTR{address}==\"%s\", NAME=\"%s\"\n", mac(k.nic), k.iface)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	return []File{{"etc/udev/rules.d/70-imgbuild-net.rules", header + "# A bond's primary port is found by its name.\n" + b.String(), 0o644}}
}

// choose finds the card of each ethernet, and those that are left.
func choose(ethernets []plan.Ethernet, nics []plan.NIC) ([]plan.NIC, []plan.NIC, error) {
	nics = slices.Clone(nics)
	slices.SortStableFunc(nics, compareNICs)
	macs, taken := map[string]int{}, map[int]string{}
	for _, n := range nics {
		macs[mac(&n)]++
	}
	var errs []error
	chosen := make([]plan.NIC, len(ethernets))
	for i, e := range ethernets {
		found := candidates(e.Match, nics)
		switch {
		case len(found) == 0:
			errs = append(errs, fmt.Errorf("%s: no card is %s; the machine has %s", e.Name, describe(e.Match), list(nics)))
			continue
		case len(found) > 1:
			var several []plan.NIC
			for _, f := range found {
				several = append(several, nics[f])
			}
			errs = append(errs, fmt.Errorf("%s: several cards are %s: %s; name one of them", e.Name, describe(e.Match), list(several)))
			continue
		}
		at := found[0]
		if other, ok := taken[at]; ok {
			errs = append(errs, fmt.Errorf("%s: its card %s is that of %s already", e.Name, card(&nics[at]), other))
		}
		if macs[mac(&nics[at])] > 1 {
			errs = append(errs, fmt.Errorf("%s: the machine has %d cards with the MAC address %s, by which the installed system would know it; give the card its own in its firmware", e.Name, macs[mac(&nics[at])], mac(&nics[at])))
		}
		taken[at], chosen[i] = e.Name, nics[at]
	}
	if len(errs) > 0 {
		return nil, nil, fmt.Errorf("find the host's network cards: %w", errors.Join(errs...))
	}
	var unused []plan.NIC
	for i, n := range nics {
		if taken[i] == "" {
			unused = append(unused, n)
		}
	}
	return chosen, unused, nil
}

// candidates are the indices of the cards that a match means.
func candidates(m plan.Match, nics []plan.NIC) []int {
	want := strings.ToLower(m.PCI)
	if strings.Count(want, ":") == 1 {
		want = "0000:" + want // as lspci writes it
	}
	wantMAC, err := net.ParseMAC(m.MAC)
	var found []int
	nth := 0
	for i, n := range nics {
		ok := false
		switch {
		case m.MAC != "":
			ok = err == nil && mac(&n) == wantMAC.String()
		case m.PCI != "":
			ok, _ = path.Match(want, strings.ToLower(n.PCI)) // Validate has tried the pattern
			ok = ok && n.PCI != ""
		case m.Link > 0:
			if n.Link {
				nth++
			}
			ok = n.Link && nth == m.Link
		default:
			ok = i+1 == m.Order
		}
		if ok {
			found = append(found, i)
		}
	}
	return found
}

func describe(m plan.Match) string {
	switch {
	case m.MAC != "":
		return "the one with the MAC address " + m.MAC
	case m.PCI != "":
		return "at the PCI address " + m.PCI
	case m.Link > 0:
		return fmt.Sprintf("number %d of those with a link", m.Link)
	}
	return fmt.Sprintf("number %d", m.Order)
}

func list(nics []plan.NIC) string {
	if len(nics) == 0 {
		return "none"
	}
	var texts []string
	for _, n := range nics {
		s := card(&n)
		if n.PCI != "" {
			s += " at " + n.PCI
		}
		if !n.Link {
			s += " without a link"
		}
		texts = append(texts, s)
	}
	return strings.Join(texts, ", ")
}

// card names a card for people: "eth0 (52:54:00:12:34:56)".
func card(n *plan.NIC) string { return n.Name + " (" + mac(n) + ")" }

// mac is a card's address in the one form that all here is compared and written in.
func mac(n *plan.NIC) string {
	m, err := net.ParseMAC(n.MAC)
	if err != nil {
		return strings.ToLower(n.MAC)
	}
	return m.String()
}

// compareNICs orders by PCI address; cards that are on no PCI bus come last, by name.
func compareNICs(a, b plan.NIC) int {
	if (a.PCI == "") != (b.PCI == "") {
		if a.PCI == "" {
			return 1
		}
		return -1
	}
	if c := slices.Compare(numbers(a.PCI), numbers(b.PCI)); c != 0 {
		return c
	}
	// The ports of one PCI function, and cards without one, in the order of their names: eth2 before eth10.
	if c := cmp.Compare(len(a.Name), len(b.Name)); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// numbers are the fields of a PCI address, domain first; the domain may have more than four digits.
func numbers(pci string) []uint64 {
	var list []uint64
	for _, s := range strings.FieldsFunc(pci, func(r rune) bool { return r == ':' || r == '.' }) {
		n, err := strconv.ParseUint(s, 16, 64)
		if err != nil {
			return nil
		}
		list = append(list, n)
	}
	return list
}

// namespace is what this package's UUIDs are made in (RFC 9562, section 5.5).
var namespace = [16]byte{0x6a, 0x0d, 0x8e, 0x5b, 0x35, 0xc1, 0x4f, 0x27, 0x9b, 0x7e, 0x51, 0x0e, 0x1f, 0x6c, 0xd2, 0x44}

// uuid is a version 5 UUID.
func uuid(serial, name string) string {
	h := sha1.Sum(slices.Concat(namespace[:], []byte(serial+"/"+name)))
	u := h[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	s := hex.EncodeToString(u)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
