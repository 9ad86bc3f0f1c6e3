package plan

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// whole has everything that a network can have.
const whole = `
ethernets:
  - name: lan0
    match: {mac: "52:54:00:12:34:56"}
  - name: lan1
    match: {pci: "0000:3b:00.1"}
  - name: lan2
    match: {link: 2}
  - name: mgmt
    match: {order: 4}
    dhcp4: true
    mtu: 1400
bonds:
  - name: bond0
    members: [lan0, lan1]
    mode: 802.3ad
    miimon: 100
    updelay: 200
    downdelay: 300
    lacp_rate: fast
    ad_select: bandwidth
    hash_policy: layer3+4
    min_links: 1
    mtu: 9000
    addresses: [192.0.2.5/24, "2001:db8::5/64"]
    gateway4: 192.0.2.1
    gateway6: fe80::1
    routes:
      - {to: 10.0.0.0/8, via: 192.0.2.254, metric: 50}
      - {to: "2001:db8:1::/48", via: "2001:db8::fe"}
  - name: bond1
    members: [lan2]
    mode: active-backup
    primary: lan2
    primary_reselect: better
    fail_over_mac: active
    arp_interval: 1000
    arp_targets: [198.51.100.1]
    arp_validate: all
    dhcp6: true
    accept_ra: true
vlans:
  - name: bond0.100
    id: 100
    link: bond0
    mtu: 8000
    addresses: [198.51.100.5/24]
dns: [192.0.2.53, "2001:db8::53"]
search: [example.org, lab.example.org]
`

func read(t *testing.T, text string) Network {
	t.Helper()
	var n Network
	if err := yaml.UnmarshalWithOptions([]byte(text), &n, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestANetworkIsTheSameInYAMLAndJSON(t *testing.T) {
	n := read(t, whole)
	if err := n.Validate(); err != nil {
		t.Error(err)
	}
	if n.Bonds[0].Gateway6 != netip.MustParseAddr("fe80::1") || n.Bonds[0].Routes[0].Metric != 50 || !n.Ethernets[3].DHCP4 || !*n.Bonds[1].AcceptRA || n.VLANs[0].MTU != 8000 {
		t.Errorf("%+v", n)
	}
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var back Network
	if err := Decode(strings.NewReader(string(data)), &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(n, back) {
		t.Errorf("JSON: %s", data)
	}
	for _, empty := range []string{`""`, "gateway4\":\"\"", "null"} {
		if strings.Contains(string(data), empty) {
			t.Errorf("JSON has %s: %s", empty, data)
		}
	}
	data, err = yaml.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	if back := read(t, string(data)); !reflect.DeepEqual(n, back) {
		t.Errorf("YAML: %s", data)
	}
}

const (
	one  = "ethernets: [{name: lan0, match: {order: 1}, addresses: [192.0.2.5/24]%s}]"
	two  = "ethernets: [{name: lan0, match: {order: 1}}, {name: lan1, match: {order: 2}}]\n"
	bond = two + "bonds: [{name: bond0, members: [lan0, lan1], addresses: [192.0.2.5/24], mode: %s}]\n"
	team = two + "teams: [{name: team0, members: [lan0, lan1], dhcp4: true, runner: %s}]\n"
)

func TestWhatANetworkCanSay(t *testing.T) {
	for name, text := range map[string]string{
		"one port":                           strings.ReplaceAll(one, "%s", ""),
		"a gateway":                          strings.ReplaceAll(one, "%s", ", gateway4: 192.0.2.1"),
		"a point-to-point network":           "ethernets: [{name: a, match: {pci: '0000:3b:*.1'}, addresses: [192.0.2.0/31], gateway4: 192.0.2.1}]",
		"one address":                        "ethernets: [{name: a, match: {order: 1}, addresses: [192.0.2.0/32]}]",
		"a port that knows only IPv6":        "ethernets: [{name: a, match: {order: 1}, accept_ra: true}]\ndns: ['2001:db8::1']",
		"a port that takes its IPv6 gateway": "ethernets: [{name: a, match: {order: 1}, addresses: ['2001:db8::5/64'], gateway6: '2001:db8::1'}]",
		"a route beside DHCP":                "ethernets: [{name: a, match: {order: 1}, dhcp4: true, routes: [{to: 10.0.0.0/8, via: 192.0.2.1}]}]",
		"a bond with defaults":               strings.ReplaceAll(bond, "%s", "balance-rr"),
		"a bond with a primary":              strings.ReplaceAll(bond, "%s", "active-backup, primary: lan1, primary_reselect: always"),
		"a team":                             strings.ReplaceAll(team, "%s", "lacp, lacp_rate: fast, tx_hash: [eth, ip, l4], min_ports: 1"),
		"a team with a primary":              strings.ReplaceAll(team, "%s", "activebackup, primary: lan0, updelay: 300"),
		"a member with the bond's MTU":       "ethernets: [{name: a, match: {order: 1}, mtu: 9000}]\nbonds: [{name: bond0, mode: 802.3ad, members: [a], mtu: 9000, dhcp4: true}]",
		"a vlan of any name":                 strings.ReplaceAll(one, "%s", "") + "\nvlans: [{name: storage, id: 7, link: lan0, addresses: [198.51.100.5/24]}]",
	} {
		t.Run(name, func(t *testing.T) {
			n := read(t, text)
			if err := n.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestANetworkThatContradictsItselfIsRefused(t *testing.T) {
	in := func(form, s string) string { return strings.ReplaceAll(form, "%s", s) }
	for _, c := range []struct{ text, want string }{
		{"{}", "there are no ethernets"},
		{two, "no link has an address"},
		{"ethernets: [{name: '0a', match: {order: 1}, dhcp4: true}]", "a name has 1 to 15"},
		{"ethernets: [{name: abcdefghijklmnop, match: {order: 1}, dhcp4: true}]", "a name has 1 to 15"},
		{"ethernets: [{name: default, match: {order: 1}, dhcp4: true}]", "the kernel uses this name itself"},
		{two + "bonds: [{name: eth0, members: [lan0], mode: 802.3ad, dhcp4: true}]", "take a name like bond0"},
		{two + "bonds: [{name: enp3s0f1, members: [lan0], mode: 802.3ad, dhcp4: true}]", "what a network card may be called"},
		{two + "bonds: [{name: lan0, members: [lan0], mode: 802.3ad, dhcp4: true}]", "there is already a ethernet of this name"},
		{two + "bonds: [{name: bond0, members: [], mode: 802.3ad, dhcp4: true}]", "has no members"},
		{two + "bonds: [{name: bond0, members: [bond0], mode: 802.3ad, dhcp4: true}]", "not one of the ethernets"},
		{two + "bonds: [{name: bond0, members: [lan0, lan0], mode: 802.3ad, dhcp4: true}]", "belongs to bond0 already"},
		{in(bond, "802.3ad") + "teams: [{name: team0, members: [lan1], runner: lacp}]", "belongs to bond0 already"},

		{"ethernets: [{name: a, match: {}, dhcp4: true}]", "exactly one of mac, pci, link and order, and 0 are given"},
		{"ethernets: [{name: a, match: {order: 1, link: 1}, dhcp4: true}]", "and 2 are given"},
		{"ethernets: [{name: a, match: {order: -1}, dhcp4: true}]", "counted from 1"},
		{"ethernets: [{name: a, match: {mac: '01:00:5e:00:00:01'}, dhcp4: true}]", "not a card's MAC address"},
		{"ethernets: [{name: a, match: {mac: '00:00:00:00:00:00'}, dhcp4: true}]", "not a card's MAC address"},
		{"ethernets: [{name: a, match: {mac: '52:54:00'}, dhcp4: true}]", "not a card's MAC address"},
		{"ethernets: [{name: a, match: {pci: '0000:[3'}, dhcp4: true}]", "neither a PCI address"},
		{"ethernets: [{name: a, match: {pci: 'pci 3'}, dhcp4: true}]", "neither a PCI address"},
		{"ethernets: [{name: a, match: {mac: '52:54:00:12:34:5A'}, dhcp4: true}, {name: b, match: {mac: '52-54-00-12-34-5a'}}]", "b: it is chosen in the same way as a"},

		{in(bond, "lacp"), "its mode is"},
		{in(bond, "''"), "its mode is"},
		{in(bond, "active-backup, lacp_rate: fast"), "lacp_rate belongs to 802.3ad and not to active-backup"},
		{in(bond, "802.3ad, lacp_rate: quick"), "lacp_rate is \"quick\"; it can be slow, fast"},
		{in(bond, "active-backup, hash_policy: layer2"), "hash_policy belongs to"},
		{in(bond, "802.3ad, hash_policy: layer7"), "hash_policy is"},
		{in(bond, "802.3ad, min_links: 3"), "min_links is 3; it can be 0 to 2"},
		{in(bond, "802.3ad, primary: lan0"), "primary belongs to"},
		{in(bond, "active-backup, primary: lan7"), "its primary lan7 is not one of its members"},
		{in(bond, "active-backup, primary_reselect: always"), "says nothing without a primary"},
		{in(bond, "802.3ad, fail_over_mac: active"), "fail_over_mac belongs to"},
		{in(bond, "802.3ad, arp_interval: 100, arp_targets: [192.0.2.1]"), "arp_interval belongs to"},
		{in(bond, "active-backup, arp_interval: 100"), "needs arp_targets"},
		{in(bond, "active-backup, arp_targets: [192.0.2.1]"), "need arp_interval"},
		{in(bond, "active-backup, miimon: 100, arp_interval: 100, arp_targets: [192.0.2.1]"), "and not both"},
		{in(bond, "active-backup, arp_interval: 100, arp_targets: ['2001:db8::1']"), "not an IPv4 address"},
		{in(bond, "active-backup, arp_interval: 100, updelay: 100, arp_targets: [192.0.2.1]"), "updelay needs miimon"},
		{in(bond, "802.3ad, miimon: 80, updelay: 100"), "not a multiple of miimon's 80 ms"},
		{in(bond, "802.3ad, miimon: -1, updelay: 100"), "miimon is -1"},
		{in(team, "lacpd"), "its runner is"},
		{in(team, "activebackup, lacp_rate: fast"), "lacp_rate belongs to lacp"},
		{in(team, "lacp, tx_hash: [mac]"), "tx_hash is"},
		{in(team, "lacp, primary: lan0"), "primary belongs to activebackup"},
		{in(team, "activebackup, primary: lan9"), "is not one of its members"},

		{"ethernets: [{name: a, match: {order: 1}, dhcp4: true}]\nbonds: [{name: bond0, mode: 802.3ad, members: [a]}]", "can have no addresses, routes or DHCP of its own"},
		{"ethernets: [{name: a, match: {order: 1}, mtu: 9000}]\nbonds: [{name: bond0, mode: 802.3ad, members: [a], dhcp4: true}]", "has the MTU 9000 of its own"},

		{in(one, "") + "\nvlans: [{name: v, id: 0, link: lan0}]", "IDs are 1 to 4094"},
		{in(one, "") + "\nvlans: [{name: v, id: 4095, link: lan0}]", "IDs are 1 to 4094"},
		{in(one, "") + "\nvlans: [{name: lan0.5, id: 6, link: lan0}]", "its name says VLAN 5 and its ID is 6"},
		{in(one, "") + "\nvlans: [{name: v, id: 6, link: lan7}]", "\"lan7\", is not here"},
		{in(one, "") + "\nvlans: [{name: v, id: 6, link: v}]", "a vlan is on top of an ethernet, bond or team"},
		{in(one, "") + "\nvlans: [{name: v, id: 6, link: w}, {name: w, id: 6, link: v}]", "it is on top of the vlan w"},
		{in(one, "") + "\nvlans: [{name: v, id: 6, link: lan0}, {name: w, id: 6, link: lan0}]", "v is the same VLAN 6 on lan0"},
		{in(one, "") + "\nvlans: [{name: v, id: 6, link: lan0, mtu: 9000}]", "its MTU is 9000 and that of lan0 below it 1500"},
		{in(bond, "802.3ad") + "vlans: [{name: v, id: 6, link: lan0}]", "a member of bond0; put it on top of bond0"},
		{in(bond, "802.3ad") + "vlans: [{name: lan0.6, id: 6, link: bond0}]", "its name says that it is on top of lan0"},

		{in(one, ", mtu: 60"), "its MTU is 60"},
		{in(one, ", mtu: 1000, accept_ra: true"), "IPv6 needs 1280"},
		{"ethernets: [{name: a, match: {order: 1}, addresses: [192.0.2.0/24]}]", "address of the network itself"},
		{"ethernets: [{name: a, match: {order: 1}, addresses: [192.0.2.255/24]}]", "broadcast address"},
		{"ethernets: [{name: a, match: {order: 1}, addresses: [192.0.2.191/26]}]", "broadcast address"},
		{"ethernets: [{name: a, match: {order: 1}, addresses: ['2001:db8::/64']}]", "anycast address"},
		{"ethernets: [{name: a, match: {order: 1}, addresses: [127.0.0.1/8]}]", "not an address that a machine can have"},
		{"ethernets: [{name: a, match: {order: 1}, addresses: ['fe80::1/64']}]", "not an address that a machine can have"},
		{"ethernets: [{name: a, match: {order: 1}, addresses: ['::ffff:192.0.2.5/120']}]", "not an address that a machine can have"},
		{"ethernets: [{name: a, match: {order: 1}, addresses: [192.0.2.5/0]}]", "not an address that a machine can have"},
		{in(one, "") + "\nvlans: [{name: v, id: 6, link: lan0, addresses: [192.0.2.5/32]}]", "lan0 has the address 192.0.2.5 already"},
		{in(one, ", gateway4: 192.0.3.1"), "its gateway4 192.0.3.1 is not inside 192.0.2.0/24"},
		{in(one, ", gateway4: 192.0.2.5"), "is the machine's own address"},
		{in(one, ", gateway4: 192.0.2.255"), "the network 192.0.2.0/24 itself or of its broadcasts"},
		{in(one, ", gateway4: 'fe80::1'"), "is not an address for gateway4"},
		{in(one, ", gateway6: '2001:db8::1'"), "needs an address of the same kind"},
		{"ethernets: [{name: a, match: {order: 1}, dhcp4: true, gateway4: 192.0.2.1}]", "the gateway comes from the DHCP server"},
		{in(one, ", gateway4: 192.0.2.1") + "\nvlans: [{name: v, id: 6, link: lan0, addresses: [198.51.100.5/24], gateway4: 198.51.100.1}]", "lan0 has a gateway4 already"},
		{in(one, ", routes: [{to: 10.1.0.0/8, via: 192.0.2.1}]"), "the network is 10.0.0.0/8"},
		{in(one, ", routes: [{to: 10.0.0.0/8, via: 192.0.3.1}]"), "the next hop 192.0.3.1 of the route to 10.0.0.0/8 is not inside 192.0.2.0/24"},
		{in(one, ", routes: [{to: 10.0.0.0/8, via: 'fe80::1'}]"), "not an address of the same kind"},
		{in(one, ", routes: [{to: 10.0.0.0/8, via: 192.0.2.1}, {to: 10.0.0.0/8, via: 192.0.2.2}]"), "is there twice"},
		{in(one, ", routes: [{to: 10.0.0.0/8, via: 192.0.2.1, metric: -1}]"), "has the metric -1"},

		{in(one, "") + "\ndns: [0.0.0.0]", "0.0.0.0 is not the address of a DNS server"},
		{in(one, "") + "\ndns: [192.0.2.53, 192.0.2.53]", "is there twice"},
		{in(one, "") + "\ndns: ['2001:db8::53']", "has an IPv6 address, and no link has one"},
		{in(one, "") + "\nsearch: ['a b']", "not a domain name"},
		{in(one, "") + "\nsearch: [a.org, a.org]", "is there twice"},
	} {
		n := read(t, c.text)
		err := n.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestAllThatIsWrongIsSaidAtOnce(t *testing.T) {
	n := read(t, "ethernets: [{name: a, match: {}, mtu: 3}]\nvlans: [{name: v, id: 0, link: b}]")
	if err := n.Validate(); err == nil || strings.Count(err.Error(), "\n") < 4 {
		t.Errorf("%v", err)
	}
}

func FuzzNetwork(f *testing.F) {
	data, err := yaml.YAMLToJSON([]byte(whole))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var n Network
		if json.Unmarshal(data, &n) == nil {
			_ = n.Validate() // whatever comes, it returns
		}
	})
}
