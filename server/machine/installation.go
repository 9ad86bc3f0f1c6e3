package machine

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/image/seal"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// installation is the plan of an order for a host, or of its preview, without its token.
func installation(q *claim, r *releases.Release, action plan.Action, transport plan.Transport, mirrors []string, key image.PrivateKey) (plan.Plan, error) {
	h, o := q.host, q.order
	declared := o.LayoutFor(h)
	if err := r.CanMake(declared, layout.Firmware(q.Inventory.Firmware)); err != nil {
		return plan.Plan{}, err
	}
	network, err := networkOf(h, q.Inventory)
	if err != nil {
		return plan.Plan{}, fmt.Errorf("make the network of %s: %w", h.SN, err)
	}
	done := o.Done
	if done == "" {
		done = "reboot"
	}
	p := plan.Plan{
		Action: action, Order: o.ID, Manifest: q.base + releases.Prefix + r.Ref() + "/" + image.ManifestFile,
		Disks: o.Disks, Wipe: o.Wipe, Layout: declared, Unseal: o.Unseal, Fresh: o.Fresh, Done: done, Mirrors: mirrorsOf(r, mirrors),
		Host: identityOf(h, network), Transport: cmp.Or(o.Transport, transport), CheckNetwork: checkNetwork(h, network),
	}
	if action == plan.Preview {
		p.Done, p.CheckNetwork = "", false // it touches nothing, and boots the disk
		return p, nil
	}
	p.Seal, err = seal.Sign(seal.Record{Serial: h.SN, Order: o.ID, Image: r.Ref(), Time: q.now, Protect: h.Protect}, key)
	return p, err
}

// identityOf is what the host's system becomes besides what its image is.
func identityOf(h *registry.Host, network *plan.Network) plan.Host {
	return plan.Host{Hostname: h.Hostname, Network: network, SerialConsole: h.SerialConsole, Users: h.Users, Files: h.Files, Metadata: h.Metadata}
}

// mirrorsOf are the directories of a release elsewhere.
func mirrorsOf(r *releases.Release, mirrors []string) []string {
	var list []string
	for _, m := range mirrors {
		list = append(list, m+r.Ref()+"/")
	}
	return list
}

// checkNetwork is the host's wish, else true where it has addresses of its own: what DHCP gives has been tried by then.
func checkNetwork(h *registry.Host, n *plan.Network) bool {
	if h.CheckNetwork != nil {
		return *h.CheckNetwork
	}
	return n != nil && slices.ContainsFunc(links(n), func(ip plan.IP) bool { return len(ip.Addresses) > 0 })
}

func links(n *plan.Network) []plan.IP {
	var all []plan.IP
	for _, l := range n.Ethernets {
		all = append(all, l.IP)
	}
	for _, l := range n.Bonds {
		all = append(all, l.IP)
	}
	for _, l := range n.Teams {
		all = append(all, l.IP)
	}
	for _, l := range n.VLANs {
		all = append(all, l.IP)
	}
	return all
}

// networkOf is the host's own network or, where it has none, one link with its ip, netmask and gw. Without these too it is
// nil, which keeps the image's: DHCP.
func networkOf(h *registry.Host, inv plan.Inventory) (*plan.Network, error) {
	n := &plan.Network{}
	switch {
	case h.Network != nil:
		*n = *h.Network
	case h.IP == "" && len(h.DNS) == 0 && len(h.Search) == 0:
		return nil, nil
	case h.IP == "":
		n.Ethernets = []plan.Ethernet{{Name: linkName, Match: matchOf(h, inv), IP: plan.IP{DHCP4: true}}}
	default:
		ip, err := static(h)
		if err != nil {
			return nil, err
		}
		n.Ethernets = []plan.Ethernet{{Name: linkName, Match: matchOf(h, inv), IP: ip}}
	}
	if len(n.DNS) == 0 {
		n.DNS = h.DNS
	}
	if len(n.Search) == 0 {
		n.Search = h.Search
	}
	if err := n.Validate(); err != nil {
		return nil, err
	}
	return n, nil
}

// linkName is what the link of a host is called that has only one.
const linkName = "lan"

// matchOf chooses the link of a host that has only one: the first of its MACs that the machine has, one with a cable rather
// than one without; of a host without MACs the first that has a cable.
func matchOf(h *registry.Host, inv plan.Inventory) plan.Match {
	has := func(mac string, link bool) bool {
		return slices.ContainsFunc(inv.NICs, func(n plan.NIC) bool { return strings.EqualFold(n.MAC, mac) && (n.Link || !link) })
	}
	for _, link := range []bool{true, false} {
		for _, mac := range h.MACs {
			if has(mac, link) {
				return plan.Match{MAC: strings.ToLower(mac)}
			}
		}
	}
	return plan.Match{Link: 1}
}

// static is the host's ip, netmask and gw.
func static(h *registry.Host) (plan.IP, error) {
	addr, err := netip.ParseAddr(h.IP)
	if err != nil || addr.Zone() != "" {
		return plan.IP{}, fmt.Errorf("its ip %q is not an address", h.IP)
	}
	bits, err := prefixLength(h.Netmask, addr)
	if err != nil {
		return plan.IP{}, err
	}
	ip := plan.IP{Addresses: []netip.Prefix{netip.PrefixFrom(addr, bits)}}
	if h.GW == "" {
		return ip, nil
	}
	gw, err := netip.ParseAddr(h.GW)
	if err != nil || gw.Is4() != addr.Is4() || gw.Zone() != "" {
		return plan.IP{}, fmt.Errorf("its gw %q is not an address of the kind of its ip %s", h.GW, h.IP)
	}
	if addr.Is4() {
		ip.Gateway4 = gw
	} else {
		ip.Gateway6 = gw
	}
	return ip, nil
}

// prefixLength reads 255.255.255.0 or 24.
func prefixLength(netmask string, addr netip.Addr) (int, error) {
	if n, err := strconv.Atoi(strings.TrimPrefix(netmask, "/")); err == nil && n > 0 && n <= addr.BitLen() {
		return n, nil
	}
	if mask := net.ParseIP(netmask).To4(); mask != nil && addr.Is4() {
		if ones, bits := net.IPMask(mask).Size(); bits == 32 && ones > 0 {
			return ones, nil
		}
	}
	return 0, fmt.Errorf("its netmask %q is neither a netmask nor a prefix length for %s", netmask, addr)
}
