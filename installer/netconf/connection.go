package netconf

import (
	"fmt"
	"net"

	"imgbuild/image/plan"
)

// Connection is one of those that Files writes.
type Connection struct {
	UUID string // empty for none
	DHCP bool   // it asks for an IPv4 address
}

// ConnectionOf finds the connection of the card with a MAC address; one without a UUID where the network leaves the card alone. A card whose
// addresses are another link's, which would be taken down to come up, is an error, and so is one without addresses of the kind in use.
func ConnectionOf(n *plan.Network, nics []plan.NIC, serial string, address net.HardwareAddr, v4 bool) (Connection, error) {
	l, err := newLayout(n, nics, serial)
	if err != nil {
		return Connection{}, err
	}
	for _, k := range l.links {
		if k.nic == nil || mac(k.nic) != address.String() {
			continue
		}
		switch {
		case k.master != nil:
			return Connection{}, fmt.Errorf("keep the network that the root file system comes over: the host makes its card %s a port of %s, which takes it down; give the card addresses of its own, or run the image from memory", k.name, k.master.name)
		case v4 && !k.ip.Has4(), !v4 && !k.ip.Has6():
			return Connection{}, fmt.Errorf("keep the network that the root file system comes over: the host gives its card %s no %s address; give it one, or run the image from memory", k.name, map[bool]string{true: "IPv4", false: "IPv6"}[v4])
		}
		return Connection{UUID: k.uuid, DHCP: k.ip.DHCP4}, nil
	}
	return Connection{}, nil
}
