package netconf

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"imgbuild/image/plan"
)

type option struct{ key, value string }

// bondOptions are the driver's options in the order in which the driver takes them: the mode first. primary is the name
// of the primary port's interface.
func bondOptions(b *plan.Bond, primary string) []option {
	list := []option{{"mode", b.Mode}}
	word := func(key, value string) {
		if value != "" {
			list = append(list, option{key, value})
		}
	}
	number := func(key string, value int) {
		if value != 0 {
			word(key, strconv.Itoa(value))
		}
	}
	number("miimon", miimon(b))
	number("updelay", b.UpDelay)
	number("downdelay", b.DownDelay)
	number("arp_interval", b.ARPInterval)
	var targets []string
	for _, a := range b.ARPTargets {
		targets = append(targets, a.String())
	}
	word("arp_ip_target", strings.Join(targets, ","))
	word("arp_validate", b.ARPValidate)
	word("lacp_rate", b.LACPRate)
	word("ad_select", b.ADSelect)
	word("xmit_hash_policy", b.HashPolicy)
	number("min_links", b.MinLinks)
	word("primary", primary)
	word("primary_reselect", b.Reselect)
	word("fail_over_mac", b.FailOverMAC)
	return list
}

// miimon is the bond's link monitoring in milliseconds; 0 with ARP monitoring. Without either a bond would never see a port
// fail: the driver's own default is not to look.
func miimon(b *plan.Bond) int {
	if b.MIIMon == 0 && b.ARPInterval == 0 {
		return 100
	}
	return b.MIIMon
}

// primaryOf is the interface name of a bond's primary port.
func (l *layout) primaryOf(k *link) string {
	if k.bond.Primary == "" {
		return ""
	}
	return l.byName[k.bond.Primary].iface
}

// TeamBond is the bond that does what a team does, without the network layer: for systems without teams, and for trying a
// team's ports where there is no teamd.
func TeamBond(t plan.Team) plan.Bond {
	modes := map[string]string{"lacp": "802.3ad", "activebackup": "active-backup", "roundrobin": "balance-rr", "loadbalance": "balance-xor", "broadcast": "broadcast"}
	b := plan.Bond{Name: t.Name, Members: t.Members, Mode: modes[t.Runner], LACPRate: t.LACPRate, MinLinks: t.MinPorts, Primary: t.Primary}
	has := func(words ...string) bool {
		return slices.ContainsFunc(t.TxHash, func(h string) bool { return slices.Contains(words, h) })
	}
	switch {
	case has("l4", "tcp", "udp", "sctp"):
		b.HashPolicy = "layer3+4"
	case has("ip", "l3", "ipv4", "ipv6"):
		b.HashPolicy = "layer2+3"
	case has("eth"):
		b.HashPolicy = "layer2"
	}
	if b.UpDelay, b.DownDelay = t.UpDelay, t.DownDelay; b.UpDelay != 0 || b.DownDelay != 0 {
		// The driver counts delays in its monitoring intervals.
		b.MIIMon = gcd(gcd(100, b.UpDelay), b.DownDelay)
	}
	return b
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// bondText is a bond as a host's record has it: JSON, which is YAML too.
func bondText(b plan.Bond) string {
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Sprintf("%+v", b) // nothing in a bond fails to encode
	}
	return string(data)
}

// What follows is teamd.conf(5).

type teamConfig struct {
	Runner    teamRunner `json:"runner"`
	LinkWatch linkWatch  `json:"link_watch"`
}

type teamRunner struct {
	Name     string   `json:"name"`
	Active   bool     `json:"active,omitempty"`
	FastRate bool     `json:"fast_rate,omitempty"`
	MinPorts int      `json:"min_ports,omitempty"`
	TxHash   []string `json:"tx_hash,omitempty"`
}

type linkWatch struct {
	Name      string `json:"name"`
	DelayUp   int    `json:"delay_up,omitempty"`
	DelayDown int    `json:"delay_down,omitempty"`
}

func teamJSON(t *plan.Team) string {
	c := teamConfig{
		Runner:    teamRunner{Name: t.Runner, Active: t.Runner == "lacp", FastRate: t.LACPRate == "fast", MinPorts: t.MinPorts, TxHash: t.TxHash},
		LinkWatch: linkWatch{Name: "ethtool", DelayUp: t.UpDelay, DelayDown: t.DownDelay},
	}
	if hashes := t.Runner == "lacp" || t.Runner == "loadbalance"; hashes && len(c.Runner.TxHash) == 0 {
		// teamd's own default is to hash nothing, which would send all on one port.
		c.Runner.TxHash = []string{"eth", "ip"}
	}
	data, err := json.Marshal(c)
	if err != nil {
		return "" // nothing in it fails to encode
	}
	return string(data)
}

// portJSON is the configuration of one port of a team; empty where it has none.
func portJSON(t *plan.Team, port string) string {
	if t.Primary == port {
		return `{"prio":100,"sticky":true}`
	}
	return ""
}
