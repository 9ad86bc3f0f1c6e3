package dhcp

import (
	"net/netip"
	"slices"
	"strings"

	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// host is what DHCP needs of a host of the registry or of a reservation.
type host struct {
	sn, hostname string
	addr         netip.Addr                // its static address; zero if it has none
	byMAC        map[string][]netip.Prefix // static addresses of single ports
	macs         []string                  // written down, or of single ports
	seen         []string                  // of its inventory only, with its management controller's
	uuid         string
	bmc          string     // hardware address of its management controller
	oob          netip.Addr // and its address
	gateway      netip.Addr
	dns          []netip.Addr
	search       []string
	taken        []netip.Addr // all of its addresses, its management controller's too
}

// hosts is the registry as DHCP looks at it. It is not safe for concurrent use.
type hosts struct {
	bySN   map[string]*host
	byMAC  map[string][]*host // written down
	bySeen map[string][]*host // only in inventories
	byUUID map[string][]*host
	taken  map[netip.Addr][]*host
}

func newHosts() *hosts {
	return &hosts{bySN: map[string]*host{}, byMAC: map[string][]*host{}, bySeen: map[string][]*host{}, byUUID: map[string][]*host{}, taken: map[netip.Addr][]*host{}}
}

// put adds a host, or takes its new record.
func (h *hosts) put(r *registry.Host) {
	h.remove(r.SN)
	x := newHost(r)
	h.bySN[x.sn] = x
	for _, m := range x.macs {
		h.byMAC[m] = append(h.byMAC[m], x)
	}
	for _, m := range x.seen {
		h.bySeen[m] = append(h.bySeen[m], x)
	}
	if x.uuid != "" {
		h.byUUID[x.uuid] = append(h.byUUID[x.uuid], x)
	}
	for _, a := range x.taken {
		h.taken[a] = append(h.taken[a], x)
	}
}

func (h *hosts) remove(sn string) {
	x := h.bySN[sn]
	if x == nil {
		return
	}
	delete(h.bySN, sn)
	for _, m := range x.macs {
		dropHost(h.byMAC, m, x)
	}
	for _, m := range x.seen {
		dropHost(h.bySeen, m, x)
	}
	if x.uuid != "" {
		dropHost(h.byUUID, x.uuid, x)
	}
	for _, a := range x.taken {
		dropHost(h.taken, a, x)
	}
}

func dropHost[K comparable](m map[K][]*host, k K, x *host) {
	list := slices.DeleteFunc(m[k], func(o *host) bool { return o == x })
	if len(list) == 0 {
		delete(m, k)
		return
	}
	m[k] = list
}

// find identifies a client: by a serial number that it sends, by its hardware address (one that a person wrote down goes
// before one of an inventory), by its UUID. What two hosts have identifies neither, and a UUID only a host of which no
// hardware address is known.
func (h *hosts) find(c *client) *host {
	for _, sn := range c.serials {
		if x := h.bySN[sn]; x != nil {
			return x
		}
	}
	for _, m := range []map[string][]*host{h.byMAC, h.bySeen} {
		if l := m[c.mac]; c.mac != "" && len(l) == 1 {
			return l[0]
		} else if len(l) > 1 {
			return nil
		}
	}
	for _, u := range c.uuids {
		if l := h.byUUID[u]; len(l) == 1 && len(l[0].macs)+len(l[0].seen) == 0 {
			return l[0]
		}
	}
	return nil
}

// newHost takes from a record what is IPv4. The record has been validated when it was written.
func newHost(r *registry.Host) *host {
	x := &host{sn: r.SN, hostname: r.Hostname, uuid: strings.ToLower(r.UUID), dns: r.DNS, search: r.Search}
	mac := func(s string) string {
		m, err := parseMAC(s)
		if err == nil && !slices.Contains(x.macs, m) {
			x.macs = append(x.macs, m)
		}
		return m
	}
	for _, m := range r.MACs {
		mac(m)
	}
	if r.Inventory != nil {
		see := func(s string) string {
			m, err := parseMAC(s)
			if err != nil || slices.Contains(x.macs, m) || slices.Contains(x.seen, m) {
				return ""
			}
			x.seen = append(x.seen, m)
			return m
		}
		for _, n := range r.Inventory.NICs {
			see(n.MAC)
		}
		if b := r.Inventory.BMC; b != nil {
			x.take(b.Address)
			x.bmc = see(b.MAC)
		}
	}
	if r.OOB != nil {
		x.oob = x.take(r.OOB.Address)
	}
	if r.Network == nil {
		if x.addr = x.take(r.IP); x.addr.IsValid() {
			x.gateway, _ = netip.ParseAddr(r.GW)
		}
		return x
	}
	x.network(r.Network, mac)
	return x
}

// network takes the addresses of a whole configuration. One of a port that is named by its hardware address is that
// port's; the others are only barred from everybody else, since nothing says which port asks for them.
func (x *host) network(n *plan.Network, mac func(string) string) {
	x.dns, x.search = append(slices.Clone(x.dns), n.DNS...), append(slices.Clone(x.search), n.Search...)
	all := func(ip plan.IP) (v4 []netip.Prefix) {
		for _, p := range ip.Addresses {
			if x.take(p.Addr().String()).IsValid() {
				v4 = append(v4, p)
			}
		}
		return v4
	}
	for _, e := range n.Ethernets {
		list := all(e.IP)
		if m := mac(e.Match.MAC); m != "" && len(list) > 0 {
			if x.byMAC == nil {
				x.byMAC = map[string][]netip.Prefix{}
			}
			x.byMAC[m] = append(x.byMAC[m], list...)
		}
	}
	for _, b := range n.Bonds {
		all(b.IP)
	}
	for _, t := range n.Teams {
		all(t.IP)
	}
	for _, v := range n.VLANs {
		all(v.IP)
	}
}

func (x *host) take(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	if !slices.Contains(x.taken, a) {
		x.taken = append(x.taken, a)
	}
	return a
}

// static are the host's addresses in a subnet for a port with this hardware address.
func (x *host) static(mac string, in netip.Prefix) []netip.Addr {
	var list []netip.Addr
	if x.bmc != "" && mac == x.bmc {
		if x.oob.IsValid() && in.Contains(x.oob) {
			list = append(list, x.oob)
		}
		return list
	}
	for _, p := range x.byMAC[mac] {
		if in.Contains(p.Addr()) {
			list = append(list, p.Addr())
		}
	}
	if x.addr.IsValid() && in.Contains(x.addr) {
		list = append(list, x.addr)
	}
	return list
}
