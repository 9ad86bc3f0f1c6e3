package netconf

import (
	"fmt"
	"net/netip"
	"strings"

	"imgbuild/image/plan"
)

// keyfiles are NetworkManager's connections, one a link: nm-settings-keyfile(5). The keys are those that all versions
// from EL8's to EL10's know.
func keyfiles(l *layout) []File {
	var files []File
	for _, k := range l.links {
		// NetworkManager passes over connections that others than root can read.
		files = append(files, File{"etc/NetworkManager/system-connections/" + k.name + ".nmconnection", l.keyfile(k), 0o600})
	}
	return files
}

// sections writes a keyfile. Values are checked words, numbers and addresses, so that nothing needs escaping but in JSON.
type sections struct{ strings.Builder }

func (s *sections) section(name string) {
	if s.Len() > 0 {
		s.WriteString("\n")
	}
	s.WriteString("[" + name + "]\n")
}

func (s *sections) set(key, value string) {
	if value != "" {
		s.WriteString(key + "=" + value + "\n")
	}
}

func (s *sections) number(key string, value int) {
	if value != 0 {
		s.set(key, fmt.Sprint(value))
	}
}

func (l *layout) keyfile(k *link) string {
	var s sections
	s.WriteString(header)
	s.section("connection")
	s.set("id", k.name)
	s.set("uuid", k.uuid)
	s.set("type", k.kind())
	if k.nic == nil {
		s.set("interface-name", k.iface)
	}
	if k.master != nil {
		s.set("master", k.master.uuid)
		s.set("slave-type", k.master.kind())
	}
	if k.bond != nil || k.team != nil {
		s.set("autoconnect-slaves", "1") // the ports come up with it, whoever starts it
	}
	if k.nic != nil || k.ip.MTU != 0 {
		s.section("ethernet")
		if k.nic != nil {
			s.set("mac-address", strings.ToUpper(mac(k.nic))) // compared with the permanent address
		}
		s.number("mtu", k.ip.MTU)
	}
	switch {
	case k.bond != nil:
		s.section("bond")
		for _, o := range bondOptions(k.bond, l.primaryOf(k)) {
			s.set(o.key, o.value)
		}
	case k.team != nil:
		s.section("team")
		s.set("config", teamJSON(k.team))
	case k.vlan != nil:
		s.section("vlan")
		s.set("flags", "1") // REORDER_HEADERS, as the kernel does by itself
		s.number("id", k.vlan.ID)
		parent := k.below.iface
		if k.below.nic != nil {
			parent = k.below.uuid
		}
		s.set("parent", parent)
	case k.master != nil && k.master.team != nil:
		s.section("team-port")
		s.set("config", portJSON(k.master.team, k.name))
	}
	if k.master == nil {
		l.keyfile4(&s, k)
		l.keyfile6(&s, k)
	}
	return s.String()
}

func (k *link) kind() string {
	switch {
	case k.bond != nil:
		return "bond"
	case k.team != nil:
		return "team"
	case k.vlan != nil:
		return "vlan"
	}
	return "ethernet"
}

func (l *layout) keyfile4(s *sections, k *link) {
	s.section("ipv4")
	switch {
	case k.ip.DHCP4:
		s.set("method", "auto")
	case k.ip.Has4():
		s.set("method", "manual")
	default:
		s.set("method", "disabled")
		return
	}
	keyfileAddresses(s, k.ip.Addresses4(), k.ip.Gateway4)
	keyfileRoutes(s, k.ip.Routes, true)
	k.keyfileDNS(s, true, k.ip.DHCP4, k.noDefault4)
}

func (l *layout) keyfile6(s *sections, k *link) {
	s.section("ipv6")
	switch {
	case k.ip.TakesRA():
		s.set("method", "auto") // with DHCPv6 where the router says so
	case k.ip.DHCP6:
		s.set("method", "dhcp")
	case k.ip.Has6():
		s.set("method", "manual")
	default:
		s.set("method", "disabled")
		return
	}
	s.set("addr-gen-mode", "eui64") // the addresses that the installer had: made of the MAC address
	keyfileAddresses(s, k.ip.Addresses6(), k.ip.Gateway6)
	keyfileRoutes(s, k.ip.Routes, false)
	k.keyfileDNS(s, false, k.ip.TakesRA() || k.ip.DHCP6, k.noDefault6)
}

func keyfileAddresses(s *sections, addresses []netip.Prefix, gateway netip.Addr) {
	for i, a := range addresses {
		s.set(fmt.Sprintf("address%d", i+1), a.String())
	}
	if gateway.IsValid() {
		s.set("gateway", gateway.String())
	}
}

func keyfileRoutes(s *sections, routes []plan.Route, v4 bool) {
	n := 0
	for _, r := range routes {
		if r.To.Addr().Is4() != v4 {
			continue
		}
		n++
		value := r.To.String() + "," + r.Via.String()
		if r.Metric != 0 {
			value += fmt.Sprintf(",%d", r.Metric)
		}
		s.set(fmt.Sprintf("route%d", n), value)
	}
}

// keyfileDNS writes the link's DNS servers of one kind. dynamic links also hear of DNS servers and default routes.
func (k *link) keyfileDNS(s *sections, v4, dynamic, noDefault bool) {
	var servers strings.Builder
	for _, a := range k.dns {
		if a.Is4() == v4 {
			servers.WriteString(a.String() + ";")
		}
	}
	s.set("dns", servers.String())
	if v4 == k.searchIn4() {
		var search strings.Builder
		for _, d := range k.search {
			search.WriteString(d + ";")
		}
		s.set("dns-search", search.String())
	}
	if dynamic && k.ownDNS {
		s.set("ignore-auto-dns", "true")
	}
	if noDefault {
		s.set("never-default", "true")
	}
}

// searchIn4 says whether the search domains stand with IPv4: NetworkManager refuses them where the method is disabled.
func (k *link) searchIn4() bool { return k.ip.Has4() }
