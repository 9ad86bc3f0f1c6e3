package netconf

import (
	"strconv"
	"strings"

	"imgbuild/image/plan"
)

// The files here are for EL7's initscripts (sysconfig.txt in their documentation) and for NetworkManager's ifcfg-rh plugin
// (nm-settings-ifcfg-rh(5)), which both are at work on an EL7 machine: each passes over the other's keys.

const scriptsDir = "etc/sysconfig/network-scripts/"

// ifcfgs are the links' files, those of ports that stay down, and /etc/sysconfig/network.
func ifcfgs(l *layout, hostname string) []File {
	var files []File
	for _, k := range l.links {
		files = append(files, File{scriptsDir + "ifcfg-" + k.name, l.ifcfg(k, hostname), 0o644})
		for _, v4 := range []bool{true, false} {
			if routes := k.routeFile(v4); routes != "" {
				name := "route6-"
				if v4 {
					name = "route-"
				}
				files = append(files, File{scriptsDir + name + k.name, routes, 0o644})
			}
		}
	}
	for _, n := range l.unused {
		name := "unused-" + strings.ReplaceAll(mac(&n), ":", "") // longer than a link's may be
		files = append(files, File{scriptsDir + "ifcfg-" + name, unusedIfcfg(name, &n), 0o644})
	}
	// Without IPV6_AUTOCONF=no here the scripts let links that are not configured take router advertisements.
	network := header + "NETWORKING=yes\nIPV6_AUTOCONF=no\n"
	if hostname != "" {
		network += "NO_DHCP_HOSTNAME=yes\n"
	}
	return append(files, File{"etc/sysconfig/network", network, 0o644})
}

// assignments writes lines of shell variables.
type assignments struct{ strings.Builder }

func (a *assignments) set(key, value string) {
	if value != "" {
		a.WriteString(key + "=" + quote(value) + "\n")
	}
}

func (a *assignments) yes(key string, is bool) {
	word := "no"
	if is {
		word = "yes"
	}
	a.set(key, word)
}

// quote makes one word of a value. Values are checked words, numbers, addresses and JSON of these: none has a quote.
func quote(s string) string {
	plain := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.:/+,-%", r))
	}
	if !strings.ContainsFunc(s, plain) {
		return s
	}
	return "'" + s + "'"
}

func (l *layout) ifcfg(k *link, hostname string) string {
	var a assignments
	a.WriteString(header)
	a.set("NAME", k.name)
	a.set("UUID", k.uuid)
	a.set("DEVICE", k.iface) // of a port, EL7's udev rules give it to the card with the address below
	if k.nic != nil {
		a.set("HWADDR", strings.ToUpper(mac(k.nic)))
	}
	a.set("ONBOOT", "yes")
	a.set("MTU", number(k.ip.MTU))
	switch {
	case k.bond != nil:
		a.set("TYPE", "Bond")
		a.set("BONDING_MASTER", "yes")
		var options []string
		for _, o := range bondOptions(k.bond, l.primaryOf(k)) {
			options = append(options, o.key+"="+o.value)
		}
		a.set("BONDING_OPTS", strings.Join(options, " "))
	case k.team != nil:
		a.set("DEVICETYPE", "Team")
		a.set("TEAM_CONFIG", teamJSON(k.team))
	case k.vlan != nil:
		a.set("TYPE", "Vlan")
		a.yes("VLAN", true)
		parent := k.below.iface
		if parent == "" {
			parent = k.below.uuid // which NetworkManager takes too, and EL8's and EL9's have no scripts
		}
		a.set("PHYSDEV", parent)
		a.set("VID", number(k.vlan.ID))     // for the scripts
		a.set("VLAN_ID", number(k.vlan.ID)) // for NetworkManager
		a.yes("REORDER_HDR", true)
	case k.master != nil && k.master.team != nil:
		a.set("DEVICETYPE", "TeamPort")
		a.set("TEAM_MASTER", k.master.iface)
		a.set("TEAM_PORT_CONFIG", portJSON(k.master.team, k.name))
	default:
		a.set("TYPE", "Ethernet")
		if k.master != nil {
			a.set("MASTER", k.master.iface)
			a.yes("SLAVE", true)
		}
	}
	if k.master != nil {
		a.set("BOOTPROTO", "none")
		return a.String()
	}
	k.ifcfg4(&a, hostname)
	k.ifcfg6(&a)
	k.ifcfgDNS(&a)
	return a.String()
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func (k *link) ifcfg4(a *assignments, hostname string) {
	if k.ip.DHCP4 {
		a.set("BOOTPROTO", "dhcp")
		a.yes("PERSISTENT_DHCLIENT", true) // goes on asking when the server is away as the machine boots
	} else {
		a.set("BOOTPROTO", "none")
	}
	if k.ip.DHCP4 || k.ip.DHCP6 {
		a.set("DHCP_HOSTNAME", hostname) // what the server is told, not what it says
	}
	for i, p := range k.ip.Addresses4() {
		suffix := ""
		if i > 0 {
			suffix = strconv.Itoa(i)
		}
		a.set("IPADDR"+suffix, p.Addr().String())
		a.set("PREFIX"+suffix, strconv.Itoa(p.Bits()))
	}
	if k.ip.Gateway4.IsValid() {
		a.set("GATEWAY", k.ip.Gateway4.String())
	}
	if k.ip.Has4() {
		a.yes("DEFROUTE", !k.noDefault4)
	}
}

func (k *link) ifcfg6(a *assignments) {
	// With neither addresses nor advertisements this is a link with its link-local address only: NetworkManager of EL7
	// cannot switch IPv6 off, and IPV6INIT=no leaves it to the kernel, which takes advertisements.
	a.yes("IPV6INIT", true)
	a.yes("IPV6_AUTOCONF", k.ip.TakesRA())
	if k.ip.DHCP6 {
		a.yes("DHCPV6C", true)
	}
	list := k.ip.Addresses6()
	if len(list) > 0 {
		a.set("IPV6ADDR", list[0].String())
		var more []string
		for _, p := range list[1:] {
			more = append(more, p.String())
		}
		a.set("IPV6ADDR_SECONDARIES", strings.Join(more, " "))
	}
	if g := k.ip.Gateway6; g.IsValid() {
		gateway := g.String()
		if g.IsLinkLocalUnicast() && k.iface != "" {
			gateway += "%" + k.iface
		}
		a.set("IPV6_DEFAULTGW", gateway)
	}
	if k.ip.Has6() {
		a.yes("IPV6_DEFROUTE", !k.noDefault6)
		a.set("IPV6_ADDR_GEN_MODE", "eui64")
	}
}

func (k *link) ifcfgDNS(a *assignments) {
	dynamic := k.ip.DHCP4 || k.ip.DHCP6 || k.ip.TakesRA()
	if dynamic && k.ownDNS {
		a.yes("PEERDNS", false)
		a.yes("IPV6_PEERDNS", false)
		// To the scripts PEERDNS=no would mean these servers too.
		if len(k.dns) > 0 {
			a.yes("RESOLV_MODS", true)
		}
	}
	for i, d := range k.dns {
		a.set("DNS"+strconv.Itoa(i+1), d.String())
	}
	a.set("DOMAIN", strings.Join(k.search, " "))
}

// routeFile has the link's routes of one kind, as arguments of ip-route(8).
func (k *link) routeFile(v4 bool) string {
	var b strings.Builder
	for _, r := range k.ip.Routes {
		if r.To.Addr().Is4() == v4 {
			b.WriteString(routeLine(r, k.iface))
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return header + b.String()
}

func routeLine(r plan.Route, iface string) string {
	words := []string{r.To.String(), "via", r.Via.String()}
	if iface != "" {
		words = append(words, "dev", iface)
	}
	if r.Metric != 0 {
		words = append(words, "metric", strconv.Itoa(r.Metric))
	}
	return strings.Join(words, " ") + "\n"
}

func unusedIfcfg(name string, n *plan.NIC) string {
	var a assignments
	a.WriteString(header + "# A port that was not named: it stays down.\n")
	a.set("NAME", name)
	a.set("HWADDR", strings.ToUpper(mac(n)))
	a.set("TYPE", "Ethernet")
	a.set("ONBOOT", "no")
	a.set("BOOTPROTO", "none")
	a.yes("NM_CONTROLLED", false)
	return a.String()
}
