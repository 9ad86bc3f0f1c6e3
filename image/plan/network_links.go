package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// oneOf checks a word; the empty one leaves it to the driver.
func (c *checker) oneOf(of, option, value string, words ...string) {
	if value != "" && !slices.Contains(words, value) {
		c.bad("%s: %s is %q; it can be %s", of, option, value, strings.Join(words, ", "))
	}
}

// only checks that an option is given with these modes only.
func (c *checker) only(of, mode, option string, given bool, modes ...string) {
	if given && !slices.Contains(modes, mode) {
		c.bad("%s: %s belongs to %s and not to %s", of, option, strings.Join(modes, ", "), mode)
	}
}

func (c *checker) limits(of, option string, value, most int) {
	if value < 0 || value > most {
		c.bad("%s: %s is %d; it can be 0 to %d", of, option, value, most)
	}
}

func (c *checker) bond(b Bond) {
	const ad, ab, xor, tlb, alb = "802.3ad", "active-backup", "balance-xor", "balance-tlb", "balance-alb"
	n := b.Name
	modes := []string{ad, ab, "balance-rr", xor, "broadcast", tlb, alb}
	if !slices.Contains(modes, b.Mode) {
		c.bad("%s: its mode is %q; it can be %s", n, b.Mode, strings.Join(modes, ", "))
		return
	}
	c.oneOf(n, "lacp_rate", b.LACPRate, "slow", "fast")
	c.only(n, b.Mode, "lacp_rate", b.LACPRate != "", ad)
	c.oneOf(n, "ad_select", b.ADSelect, "stable", "bandwidth", "count")
	c.only(n, b.Mode, "ad_select", b.ADSelect != "", ad)
	c.limits(n, "min_links", b.MinLinks, len(b.Members))
	c.only(n, b.Mode, "min_links", b.MinLinks != 0, ad)
	c.oneOf(n, "hash_policy", b.HashPolicy, "layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4", "vlan+srcmac")
	c.only(n, b.Mode, "hash_policy", b.HashPolicy != "", ad, xor, tlb)
	c.only(n, b.Mode, "primary", b.Primary != "", ab, tlb, alb)
	if b.Primary != "" && !slices.Contains(b.Members, b.Primary) {
		c.bad("%s: its primary %s is not one of its members", n, b.Primary)
	}
	c.oneOf(n, "primary_reselect", b.Reselect, "always", "better", "failure")
	if b.Reselect != "" && b.Primary == "" {
		c.bad("%s: primary_reselect says nothing without a primary", n)
	}
	c.oneOf(n, "fail_over_mac", b.FailOverMAC, "none", "active", "follow")
	c.only(n, b.Mode, "fail_over_mac", b.FailOverMAC != "", ab)
	c.monitoring(b)
}

// monitoring checks how the bond finds out that a port has failed.
func (c *checker) monitoring(b Bond) {
	n := b.Name
	const minute = 60_000
	c.limits(n, "miimon", b.MIIMon, minute)
	c.limits(n, "arp_interval", b.ARPInterval, minute)
	arpModes := []string{"active-backup", "balance-rr", "balance-xor", "broadcast"}
	c.only(n, b.Mode, "arp_interval", b.ARPInterval != 0, arpModes...)
	if b.MIIMon != 0 && b.ARPInterval != 0 {
		c.bad("%s: it can have miimon or arp_interval and not both", n)
	}
	if b.ARPInterval != 0 && len(b.ARPTargets) == 0 {
		c.bad("%s: arp_interval needs arp_targets", n)
	}
	if b.ARPInterval == 0 && (len(b.ARPTargets) > 0 || b.ARPValidate != "") {
		c.bad("%s: arp_targets and arp_validate need arp_interval", n)
	}
	if len(b.ARPTargets) > 16 {
		c.bad("%s: it has %d ARP targets; the driver takes 16", n, len(b.ARPTargets))
	}
	for i, a := range b.ARPTargets {
		if !a.Is4() || !a.IsGlobalUnicast() {
			c.bad("%s: the ARP target %s is not an IPv4 address", n, text(a))
		}
		if slices.Contains(b.ARPTargets[:i], a) {
			c.bad("%s: the ARP target %s is there twice", n, a)
		}
	}
	c.oneOf(n, "arp_validate", b.ARPValidate, "none", "active", "backup", "all", "filter", "filter_active", "filter_backup")
	for _, d := range []struct {
		option string
		value  int
	}{{"updelay", b.UpDelay}, {"downdelay", b.DownDelay}} {
		c.limits(n, d.option, d.value, 10*minute)
		switch mon := cmp.Or(b.MIIMon, 100); {
		case d.value <= 0 || mon < 0:
		case b.ARPInterval != 0:
			c.bad("%s: %s needs miimon, and has no meaning with arp_interval", n, d.option)
		case d.value%mon != 0:
			c.bad("%s: %s is %d ms, which is not a multiple of miimon's %d ms", n, d.option, d.value, mon)
		}
	}
}

func (c *checker) team(t Team) {
	n := t.Name
	runners := []string{"lacp", "activebackup", "roundrobin", "loadbalance", "broadcast"}
	if !slices.Contains(runners, t.Runner) {
		c.bad("%s: its runner is %q; it can be %s", n, t.Runner, strings.Join(runners, ", "))
		return
	}
	c.oneOf(n, "lacp_rate", t.LACPRate, "slow", "fast")
	c.only(n, t.Runner, "lacp_rate", t.LACPRate != "", "lacp")
	c.limits(n, "min_ports", t.MinPorts, len(t.Members))
	c.only(n, t.Runner, "min_ports", t.MinPorts != 0, "lacp")
	c.only(n, t.Runner, "primary", t.Primary != "", "activebackup")
	if t.Primary != "" && !slices.Contains(t.Members, t.Primary) {
		c.bad("%s: its primary %s is not one of its members", n, t.Primary)
	}
	c.only(n, t.Runner, "tx_hash", len(t.TxHash) > 0, "lacp", "loadbalance")
	for i, h := range t.TxHash {
		if h == "" {
			c.bad("%s: tx_hash has an empty word", n)
		}
		c.oneOf(n, "tx_hash", h, "eth", "vlan", "ipv4", "ipv6", "ip", "l3", "tcp", "udp", "sctp", "l4")
		if slices.Contains(t.TxHash[:i], h) {
			c.bad("%s: tx_hash has %s twice", n, h)
		}
	}
	c.limits(n, "updelay", t.UpDelay, 600_000)
	c.limits(n, "downdelay", t.DownDelay, 600_000)
}

// ip checks the network layer of a link that may have one.
func (c *checker) ip(n string, ip IP) {
	c.has4, c.has6 = c.has4 || ip.Has4(), c.has6 || ip.Has6()
	if ip.MTU != 0 && (ip.MTU < 68 || ip.MTU > 65535) {
		c.bad("%s: its MTU is %d; it can be 68 to 65535", n, ip.MTU)
	} else if ip.MTU != 0 && ip.MTU < 1280 && ip.Has6() {
		c.bad("%s: its MTU is %d; IPv6 needs 1280 (RFC 8200, section 5)", n, ip.MTU)
	}
	for _, p := range ip.Addresses {
		c.address(n, p)
	}
	c.gateway(n, ip, ip.Gateway4, "gateway4", ip.DHCP4, &c.gateway4)
	c.gateway(n, ip, ip.Gateway6, "gateway6", false, &c.gateway6)
	for i, r := range ip.Routes {
		c.route(n, ip, r)
		for _, o := range ip.Routes[:i] {
			if o.To == r.To && o.Metric == r.Metric {
				c.bad("%s: the route to %s is there twice", n, r.To)
			}
		}
	}
}

func (c *checker) address(n string, p netip.Prefix) {
	a := p.Addr()
	switch {
	case !p.IsValid() || a.Is4In6() || !a.IsGlobalUnicast() || p.Bits() == 0:
		c.bad("%s: %s is not an address that a machine can have, as 192.0.2.5/24 or 2001:db8::5/64", n, p)
		return
	case a.Is4() && p.Bits() < 31 && a == p.Masked().Addr():
		c.bad("%s: %s is the address of the network itself", n, p)
	case a.Is4() && p.Bits() < 31 && a == broadcast(p):
		c.bad("%s: %s is the broadcast address of its network", n, p)
	case a.Is6() && p.Bits() < 127 && a == p.Masked().Addr():
		c.bad("%s: %s is the anycast address of the network's routers (RFC 4291, section 2.6.1)", n, p)
	}
	if other, ok := c.addrs[a]; ok {
		c.bad("%s: %s has the address %s already", n, other, a)
	}
	c.addrs[a] = n
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func (c *checker) gateway(n string, ip IP, gw netip.Addr, option string, dhcp bool, whose *string) {
	if !gw.IsValid() {
		return
	}
	if *whose != "" {
		c.bad("%s: %s has a %s already, and a machine has one; give the other networks routes", n, *whose, option)
	}
	*whose = n
	switch own := c.next(ip, gw); {
	case gw.Is4() != (option == "gateway4") || gw.Is4In6() || gw.Zone() != "":
		c.bad("%s: %s is not an address for %s", n, gw, option)
	case dhcp && len(ip.Addresses4()) == 0:
		c.bad("%s: with dhcp4 the gateway comes from the DHCP server; take away %s", n, option)
	case own != "":
		c.bad("%s: its %s %s %s", n, option, gw, own)
	}
}

// next says what is wrong with a next hop on a link with static addresses; "" if nothing.
func (c *checker) next(ip IP, hop netip.Addr) string {
	if hop.Is6() && hop.IsLinkLocalUnicast() {
		return ""
	}
	var nets []string
	for _, p := range ip.Addresses {
		switch {
		case p.Addr().Is4() != hop.Is4():
			continue
		case p.Addr() == hop:
			return "is the machine's own address"
		case p.Contains(hop) && hop.Is4() && p.Bits() < 31 && (hop == p.Masked().Addr() || hop == broadcast(p)):
			return "is the address of the network " + p.Masked().String() + " itself or of its broadcasts"
		case p.Contains(hop):
			return ""
		}
		nets = append(nets, p.Masked().String())
	}
	if len(nets) == 0 {
		return "needs an address of the same kind on the link"
	}
	return "is not inside " + strings.Join(nets, " or ")
}

func (c *checker) route(n string, ip IP, r Route) {
	switch {
	case !r.To.IsValid() || r.To.Addr().Is4In6():
		c.bad("%s: a route goes to no network; write it as 10.0.0.0/8", n)
	case r.To != r.To.Masked():
		c.bad("%s: the route to %s has bits after its prefix length; the network is %s", n, r.To, r.To.Masked())
	case !r.Via.IsValid() || r.Via.Is4() != r.To.Addr().Is4() || r.Via.Is4In6() || r.Via.Zone() != "":
		c.bad("%s: the route to %s goes via %s, which is not an address of the same kind", n, r.To, text(r.Via))
	case r.Via.Is4() && ip.DHCP4 || r.Via.Is6() && (ip.DHCP6 || ip.TakesRA()):
		// What the next hop must be inside of is not known before the machine runs.
	default:
		if fault := c.next(ip, r.Via); fault != "" {
			c.bad("%s: the next hop %s of the route to %s %s", n, r.Via, r.To, fault)
		}
	}
	if r.Metric < 0 || r.Metric > 1<<31-1 {
		c.bad("%s: the route to %s has the metric %d; it can be 0 to %d", n, r.To, r.Metric, 1<<31-1)
	}
}
