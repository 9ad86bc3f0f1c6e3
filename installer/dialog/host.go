package dialog

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"imgbuild/image/plan"
	"imgbuild/installer/answers"
)

// The lines of the list of kinds of networks.
const (
	networkAny = iota // the image's own: DHCP on every card
	networkDHCP
	networkStatic
)

// linkName is what the network calls the card that was chosen.
const linkName = "lan"

func (m *model) initHost() {
	m.hostname = field{label: "Host name"}
	why := ""
	if len(m.o.Cards) == 0 {
		why = "this machine has no network card"
	}
	m.mode = list{label: "Network", window: 3, marked: []int{networkAny}, rows: []row{
		{text: "DHCP on every card with a cable"},
		{text: "DHCP on one card, the others stay down", why: why},
		{text: "A static address on one card, the others stay down", why: why},
	}}
	m.cards = list{label: "Network card", window: 4}
	for _, c := range m.o.Cards {
		link := "no link"
		if c.Link {
			link = "link"
		}
		if c.Link && c.SpeedMbit > 0 {
			link = fmt.Sprintf("link, %d Mbit/s", c.SpeedMbit)
		}
		if n := c.Neighbour; n != nil && n.Port != "" {
			link += ", " + strings.TrimSpace(n.System+" "+n.Port)
		}
		m.cards.rows = append(m.cards.rows, row{text: fmt.Sprintf("%-15s %-17s  %s", clip(c.Name, 15), c.MAC, link)})
	}
	if len(m.o.Cards) > 0 {
		first := max(slices.IndexFunc(m.o.Cards, func(c plan.NIC) bool { return c.Link }), 0)
		m.cards.marked, m.cards.at = []int{first}, first
	}
	m.address = field{label: "Address/prefix length"}
	m.gateway = field{label: "Gateway"}
	m.dns = field{label: "DNS servers"}
}

// hostElements are those of the screen for name and network. What the kind of network does not need is not there.
func (m *model) hostElements() []element {
	es := []element{&m.hostname, &m.mode}
	switch m.mode.choice() {
	case networkDHCP:
		es = append(es, &m.cards)
	case networkStatic:
		es = append(es, &m.cards, &m.address, &m.gateway, &m.dns)
	}
	return es
}

// hostFault is what is wrong with name and network, and the element where it is.
func (m *model) hostFault() (note string, at int) {
	if name := m.hostname.text(); name != "" {
		if problem := answers.CheckHostname(name); problem != "" {
			return "The host name is " + problem + ".", 0
		}
	}
	n, at := m.network()
	if at >= 0 {
		return []string{
			3: "The address is written with its prefix length, as 192.0.2.5/24 or 2001:db8::5/64.",
			4: "The gateway is an address, as 192.0.2.1; leave it empty where there is none.",
			5: "DNS servers are addresses, as 192.0.2.1 192.0.2.2; leave it empty where there are none.",
		}[at], at
	}
	if n == nil {
		return "", 0
	}
	problems := answers.NetworkProblems(*n)
	if len(problems) == 0 {
		return "", 0
	}
	switch first := problems[0]; {
	case m.mode.choice() == networkDHCP:
		at = 2
	case strings.Contains(first, "gateway"):
		at = 4
	case strings.Contains(first, "DNS"):
		at = 5
	default:
		at = 3
	}
	return "This cannot be: " + strings.TrimPrefix(problems[0], linkName+": ") + ".", at
}

// network is what was chosen; nil for the image's own. fault is the element with what cannot be read, -1 if there is none.
func (m *model) network() (n *plan.Network, fault int) {
	mode := m.mode.choice()
	if mode == networkAny || m.cards.choice() < 0 {
		return nil, -1
	}
	e := plan.Ethernet{Name: linkName, Match: plan.Match{MAC: m.o.Cards[m.cards.choice()].MAC}}
	n = &plan.Network{}
	if mode == networkDHCP {
		yes := true // NetworkManager's own default has both too
		e.DHCP4, e.AcceptRA = true, &yes
		n.Ethernets = []plan.Ethernet{e}
		return n, -1
	}
	address, err := netip.ParsePrefix(m.address.text())
	if err != nil {
		return nil, 3
	}
	e.Addresses = []netip.Prefix{address}
	if text := m.gateway.text(); text != "" {
		gateway, err := netip.ParseAddr(text)
		if err != nil {
			return nil, 4
		}
		if gateway.Is4() {
			e.Gateway4 = gateway
		} else {
			e.Gateway6 = gateway
		}
	}
	for _, text := range strings.FieldsFunc(m.dns.text(), func(r rune) bool { return r == ' ' || r == ',' || r == ';' }) {
		server, err := netip.ParseAddr(text)
		if err != nil {
			return nil, 5
		}
		n.DNS = append(n.DNS, server)
	}
	n.Ethernets = []plan.Ethernet{e}
	return n, -1
}

// users are root with what was given for it.
func (m *model) users() []plan.User {
	root := plan.User{Name: "root", Password: m.hashed}
	if k := m.sshKey.text(); k != "" {
		root.SSHKeys = []string{k}
	}
	if root.Password == "" && root.SSHKeys == nil {
		return nil
	}
	return []plan.User{root}
}
