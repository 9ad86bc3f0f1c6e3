package plan

import "net/netip"

// Network is a machine's own network configuration. Its words are netplan's where netplan has one. Ports that are not
// named here stay down.
type Network struct {
	Ethernets []Ethernet `json:"ethernets,omitempty" yaml:"ethernets,omitempty"`
	Bonds     []Bond     `json:"bonds,omitempty" yaml:"bonds,omitempty"`
	Teams     []Team     `json:"teams,omitempty" yaml:"teams,omitempty"`
	VLANs     []VLAN     `json:"vlans,omitempty" yaml:"vlans,omitempty"`
	// DNS and Search are the machine's. DNS takes the place of what DHCP and router advertisements say.
	DNS    []netip.Addr `json:"dns,omitempty" yaml:"dns,omitempty"`
	Search []string     `json:"search,omitempty" yaml:"search,omitempty"`
}

// Ethernet is one port.
type Ethernet struct {
	// Name is what bonds, teams and VLANs call it, and the connection's name: at most 15 characters. The interface keeps the
	// name that the system gives it, unless a program must find it by name.
	Name  string `json:"name" yaml:"name"`
	Match Match  `json:"match" yaml:"match"`
	IP    `yaml:",inline"`
}

// Match chooses one port. Exactly one field is given.
type Match struct {
	MAC string `json:"mac,omitempty" yaml:"mac,omitempty"`
	PCI string `json:"pci,omitempty" yaml:"pci,omitempty"` // 0000:00:03.0, or a glob that matches one port
	// Link is the nth port, from 1, of those with a link, by PCI address; Order of all of them.
	Link  int `json:"link,omitempty" yaml:"link,omitempty"`
	Order int `json:"order,omitempty" yaml:"order,omitempty"`
}

// Bond joins ports by the kernel's bonding driver. Zero values are left to the driver.
type Bond struct {
	Name    string   `json:"name" yaml:"name"` // the interface, as bond0
	Members []string `json:"members" yaml:"members"`
	Mode    string   `json:"mode" yaml:"mode"` // 802.3ad, active-backup, balance-rr, balance-xor, broadcast, balance-tlb, balance-alb
	// MIIMon is in milliseconds; 100 when neither it nor ARPInterval is given. The delays are multiples of it.
	MIIMon      int          `json:"miimon,omitempty" yaml:"miimon,omitempty"`
	UpDelay     int          `json:"updelay,omitempty" yaml:"updelay,omitempty"`
	DownDelay   int          `json:"downdelay,omitempty" yaml:"downdelay,omitempty"`
	LACPRate    string       `json:"lacp_rate,omitempty" yaml:"lacp_rate,omitempty"`     // slow, fast
	ADSelect    string       `json:"ad_select,omitempty" yaml:"ad_select,omitempty"`     // stable, bandwidth, count
	HashPolicy  string       `json:"hash_policy,omitempty" yaml:"hash_policy,omitempty"` // xmit_hash_policy
	MinLinks    int          `json:"min_links,omitempty" yaml:"min_links,omitempty"`
	Primary     string       `json:"primary,omitempty" yaml:"primary,omitempty"` // a member, with active-backup
	Reselect    string       `json:"primary_reselect,omitempty" yaml:"primary_reselect,omitempty"`
	FailOverMAC string       `json:"fail_over_mac,omitempty" yaml:"fail_over_mac,omitempty"` // none, active, follow
	ARPInterval int          `json:"arp_interval,omitempty" yaml:"arp_interval,omitempty"`
	ARPTargets  []netip.Addr `json:"arp_targets,omitempty" yaml:"arp_targets,omitempty"`
	ARPValidate string       `json:"arp_validate,omitempty" yaml:"arp_validate,omitempty"`
	IP          `yaml:",inline"`
}

// Team joins ports by teamd. EL7 and EL8 have it; EL9 and later do not, and a bond takes its place.
type Team struct {
	Name    string   `json:"name" yaml:"name"`
	Members []string `json:"members" yaml:"members"`
	// Runner is teamd's: lacp, activebackup, roundrobin, loadbalance, broadcast.
	Runner   string   `json:"runner" yaml:"runner"`
	LACPRate string   `json:"lacp_rate,omitempty" yaml:"lacp_rate,omitempty"` // slow, fast
	TxHash   []string `json:"tx_hash,omitempty" yaml:"tx_hash,omitempty"`     // eth, vlan, ipv4, ipv6, ip, l3, tcp, udp, sctp, l4
	MinPorts int      `json:"min_ports,omitempty" yaml:"min_ports,omitempty"` // with lacp
	Primary  string   `json:"primary,omitempty" yaml:"primary,omitempty"`     // a member, with activebackup
	// UpDelay and DownDelay, in milliseconds, are those of the ethtool link watcher.
	UpDelay   int `json:"updelay,omitempty" yaml:"updelay,omitempty"`
	DownDelay int `json:"downdelay,omitempty" yaml:"downdelay,omitempty"`
	IP        `yaml:",inline"`
}

// VLAN is a tagged network (IEEE 802.1Q) on top of a port, bond or team.
type VLAN struct {
	Name string `json:"name" yaml:"name"` // the interface, as bond0.100
	ID   int    `json:"id" yaml:"id"`     // 1 to 4094
	Link string `json:"link" yaml:"link"` // what it is on top of
	IP   `yaml:",inline"`
}

// IP is what a link has on the network layer. The zero value is a link without addresses.
type IP struct {
	DHCP4 bool `json:"dhcp4,omitempty" yaml:"dhcp4,omitempty"`
	DHCP6 bool `json:"dhcp6,omitempty" yaml:"dhcp6,omitempty"`
	// AcceptRA takes IPv6 router advertisements, and the addresses and routes in them. Default: see TakesRA.
	AcceptRA  *bool          `json:"accept_ra,omitempty" yaml:"accept_ra,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty" yaml:"addresses,omitempty"`
	// In YAML these are always written: goccy/go-yaml takes every netip.Addr for empty and would leave a gateway out.
	Gateway4 netip.Addr `json:"gateway4,omitzero" yaml:"gateway4"`
	Gateway6 netip.Addr `json:"gateway6,omitzero" yaml:"gateway6"`
	Routes   []Route    `json:"routes,omitempty" yaml:"routes,omitempty"`
	MTU      int        `json:"mtu,omitempty" yaml:"mtu,omitempty"` // bytes; 0 leaves it to the card
}

// Route is one static route.
type Route struct {
	To     netip.Prefix `json:"to" yaml:"to"`
	Via    netip.Addr   `json:"via" yaml:"via"`
	Metric int          `json:"metric,omitempty" yaml:"metric,omitempty"`
}

// TakesRA says whether the link takes router advertisements: as AcceptRA says; else with DHCPv6, and with IPv6 addresses
// that have no gateway of their own.
func (ip *IP) TakesRA() bool {
	if ip.AcceptRA != nil {
		return *ip.AcceptRA
	}
	return ip.DHCP6 || len(ip.Addresses6()) > 0 && !ip.Gateway6.IsValid()
}

// Addresses4 are the IPv4 addresses.
func (ip *IP) Addresses4() []netip.Prefix { return ip.family(true) }

// Addresses6 are the IPv6 addresses.
func (ip *IP) Addresses6() []netip.Prefix { return ip.family(false) }

func (ip *IP) family(v4 bool) []netip.Prefix {
	var list []netip.Prefix
	for _, a := range ip.Addresses {
		if a.Addr().Is4() == v4 {
			list = append(list, a)
		}
	}
	return list
}

// Has4 says whether the link gets an IPv4 address.
func (ip *IP) Has4() bool { return ip.DHCP4 || len(ip.Addresses4()) > 0 }

// Has6 says whether the link gets an IPv6 address that is not link-local.
func (ip *IP) Has6() bool { return ip.DHCP6 || len(ip.Addresses6()) > 0 || ip.TakesRA() }
