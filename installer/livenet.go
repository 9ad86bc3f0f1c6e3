package installer

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"imgbuild/image/plan"
	"imgbuild/installer/live"
	"imgbuild/installer/netconf"
	"imgbuild/installer/target"
)

// mountNFS mounts the exported tree.
func (l *liveRun) mountNFS(ctx context.Context, from plan.NFSRoot) error {
	card, err := net.InterfaceByName(l.Network.Link)
	if err != nil {
		return fmt.Errorf("find the card that the NFS server is reached by: %w", err)
	}
	if _, err := l.connection(card); err != nil {
		return err
	}
	client := machineID(l.Machine.Serial)
	if client == "" {
		client = strings.ReplaceAll(card.HardwareAddr.String(), ":", "")
	}
	return l.root.MountNFS(ctx, live.NFS{From: from, Addresses: net.DefaultResolver.LookupHost, Manifest: l.raw, Client: client, Sys: l.System.Sys})
}

// connection is the host's own for a card. Without one the system gets one that goes on with what the card has.
func (l *liveRun) connection(card *net.Interface) (netconf.Connection, error) {
	if l.Host == nil || l.Host.Network == nil {
		return netconf.Connection{}, nil
	}
	return netconf.ConnectionOf(l.Host.Network, l.Host.NICs, l.Host.Serial, card.HardwareAddr, l.Network.Addr.Addr().Is4())
}

// keepNetwork has the system go on with the network that its root file system comes over, as it is now: what is taken down, if only for a
// moment, may need a file to come up again.
func (l *liveRun) keepNetwork(root *os.Root) error {
	card, err := net.InterfaceByName(l.Network.Link)
	if err != nil {
		return fmt.Errorf("find the card that the root file system comes over: %w", err)
	}
	c, err := l.connection(card)
	if err != nil {
		return err
	}
	k := target.Link{Name: card.Name, Index: card.Index, MAC: card.HardwareAddr, Addr: l.Network.Addr, Router: l.Network.Router, DNS: l.Network.DNS, Connection: c.UUID}
	if err := target.KeepLink(root, l.System.Manager, l.manifest.NetworkFormat, k); err != nil {
		return err
	}
	if c.UUID == "" || c.DHCP {
		return nil
	}
	return l.Network.Lapse() // nobody renews it: the host has an address of its own
}
