package plan

import "net/netip"

// Network is a machine's own network configuration. Its words are netplan's where netplan has one. Ports that are not
// named here stay down.
type Network struct {
	Ethernets []Ethernet `json:"ethernets,omitempty" yaml:"ethernets,omitempty"`
	Bonds     []Bond     `json:"bonds,omitempty" yaml:"bonds,omitempty"`
	Teams     []Team     `json:"teams,omitempty" yaml:"teams,omitempty"`
	VLANs     []VLAN     `json:"vlans,omitempty" yaml:"vlans,omitempty"`
	// DNS and Search are the machine's, whatever links have of their own.
	DNS    []netip.Addr `json:"dns,omitempty" yaml:"dns,omitempty"`
	Search []string     `json:"search,omitempty" yaml:"search,omitempty"`
}

// Ethernet is one port.
type Ethernet struct {
	// Name is what bonds, teams and VLANs call it, and the connection's name: at most 15 characters.
	Name  string `json:"name" yaml:"name"`
	Match Match  `json:"match" yaml:"match"`
	IP    `yaml:",inline"`
}

// Match chooses one port. Exactly one field is given.
type Match struct {
	MAC string `json:"mac,omitempty" yaml:"mac,omitempty"`
	PCI string `json:"pci,omitempty" yaml:"pci,omitempty"` // 0000:00:03.0, or a glob
	// Link is the nth port, from 1, of those with a link, by PCI address; Order of all of them.
	Link  int `json:"link,omitempty" yaml:"link,omitempty"`
	Order int `json:"order,omitempty" yaml:"order,omitempty"`
}

// Bond joins ports by the kernel's bonding driver. Zero values are left to the driver.
type Bond struct {
	Name    string   `json:"name" yaml:"name"` // the interface, as bond0
	Members []string `json:"members" yaml:"members"`
	Mode    string   `json:"mode" yaml:"mode"` // 802.3ad, active-backup, balance-rr, balance-xor, broadcast, balance-tlb, balance-alb
	// MIIMon is in milliseconds; 100 when neither it nor ARPInterval is given.
	MIIMon      int          `json:"miimon,omitempty" yaml:"miimon,omitempty"`
	UpDelay     int          `json:"updelay,omitempty" yaml:"updelay,omitempty"`
	DownDelay   int          `json:"downdelay,omitempty" yaml:"downdelay,omitempty"`
	LACPRate    string       `json:"lacp_rate,omitempty" yaml:"lacp_rate,omitempty"`     // slow, fast
	HashPolicy  string       `json:"hash_policy,omitempty" yaml:"hash_policy,omitempty"` // xmit_hash_policy
	MinLinks    int          `json:"min_links,omitempty" yaml:"min_links,omitempty"`
	Primary     string       `json:"primary,omitempty" yaml:"primary,omitempty"` // a member, with active-backup
	ARPInterval int          `json:"arp_interval,omitempty" yaml:"arp_interval,omitempty"`
	ARPTargets  []netip.Addr `json:"arp_targets,omitempty" yaml:"arp_targets,omitempty"`
	IP          `yaml:",inline"`
}

// Team joins ports by teamd. EL7 and EL8 have it; EL9 and later do not, and a bond takes its place.
type Team struct {
	Name    string   `json:"name" yaml:"name"`
	Members []string `json:"members" yaml:"members"`
	// Runner is teamd's: lacp, activebackup, roundrobin, loadbalance, broadcast.
	Runner string `json:"runner" yaml:"runner"`
	IP     `yaml:",inline"`
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
	// AcceptRA takes IPv6 router advertisements. Default: on a link with IPv6 addresses or DHCPv6, yes; else no.
	AcceptRA  *bool          `json:"accept_ra,omitempty" yaml:"accept_ra,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty" yaml:"addresses,omitempty"`
	Gateway4  netip.Addr     `json:"gateway4,omitzero" yaml:"gateway4,omitempty"`
	Gateway6  netip.Addr     `json:"gateway6,omitzero" yaml:"gateway6,omitempty"`
	Routes    []Route        `json:"routes,omitempty" yaml:"routes,omitempty"`
	MTU       int            `json:"mtu,omitempty" yaml:"mtu,omitempty"`
}

// Route is one static route.
type Route struct {
	To     netip.Prefix `json:"to" yaml:"to"`
	Via    netip.Addr   `json:"via" yaml:"via"`
	Metric int          `json:"metric,omitempty" yaml:"metric,omitempty"`
}
