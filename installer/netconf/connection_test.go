package netconf

import (
	"net"
	"strings"
	"testing"
)

func TestTheConnectionOfACardIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		network string
		v6      bool
		found   string // the connection's name; empty for none
		dhcp    bool
		err     string
	}{
		"static":            {network: "ethernets: [{name: lan, match: {mac: '52:54:00:00:00:01'}, addresses: [10.0.0.5/24]}]", found: "lan"},
		"DHCP":              {network: "ethernets: [{name: lan, match: {order: 1}, dhcp4: true}]", found: "lan", dhcp: true},
		"another card":      {network: "ethernets: [{name: lan, match: {mac: '52:54:00:00:00:03'}, dhcp4: true}]"},
		"a port of a bond":  {network: "ethernets: [{name: a, match: {order: 1}}, {name: b, match: {order: 2}}]\nbonds: [{name: bond0, mode: active-backup, members: [a, b], dhcp4: true}]", err: "a port of bond0"},
		"below a VLAN":      {network: "ethernets: [{name: lan, match: {order: 1}}]\nvlans: [{name: lan.7, id: 7, link: lan, dhcp4: true}]", err: "no IPv4 address"},
		"of the other kind": {network: "ethernets: [{name: lan, match: {order: 1}, addresses: ['2001:db8::5/64']}]", err: "no IPv4 address"},
		"IPv6":              {network: "ethernets: [{name: lan, match: {order: 1}, addresses: ['2001:db8::5/64']}]", v6: true, found: "lan"},
	} {
		t.Run(name, func(t *testing.T) {
			mac := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
			got, err := ConnectionOf(read(t, c.network), cards, "S1", mac, !c.v6)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v", err)
				}
				return
			}
			want := ""
			if c.found != "" {
				want = uuid("S1", c.found)
			}
			if err != nil || got.UUID != want || got.DHCP != c.dhcp {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}
