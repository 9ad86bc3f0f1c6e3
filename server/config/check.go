package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgbuild/profiles/strict"
)

// checker looks for what is missing and for contradictions between values that are right by themselves.
type checker struct {
	*strict.Collector
	tree *strict.Node
	c    *Config
}

// at reports a mistake at path, whose elements are keys and indexes.
func (x *checker) at(path []string, format string, args ...any) {
	at, _ := x.tree.Find(path...)
	key := ""
	for _, p := range path {
		if _, err := strconv.Atoi(p); err == nil {
			key += "[" + p + "]"
		} else {
			key = strict.Join(key, p)
		}
	}
	x.Add(at, key, "%s", key+" "+fmt.Sprintf(format, args...))
}

// has says whether anything, right or wrong, was written at path.
func (x *checker) has(path ...string) bool {
	_, ok := x.tree.Find(path...)
	return ok
}

func (x *checker) images() {
	if !x.has("images") {
		x.at([]string{"images"}, "is missing: the directory of releases, where imgbuild writes them (--images DIR)")
	}
}

func (x *checker) all() {
	x.dhcp()
	x.times()
	x.tls()
	x.torrent()
	x.loaders()
	for i, p := range x.c.LegacyClients {
		for j, other := range x.c.LegacyClients[:i] {
			if p == other && p.IsValid() {
				x.at([]string{"legacy_clients", strconv.Itoa(i)}, "is %s, which legacy_clients[%d] is too", p, j)
			}
		}
	}
}

func (x *checker) times() {
	if d := time.Duration(x.c.OrderExpiry); d < time.Minute || d > 90*24*time.Hour {
		x.at([]string{"order_expiry"}, "is %s; it can be 1m to 90d", text(x.c.OrderExpiry))
	}
	if d := time.Duration(x.c.KeepProgress); d < 24*time.Hour || d > 3650*24*time.Hour {
		x.at([]string{"keep_progress"}, "is %s; it can be 1d to 3650d", text(x.c.KeepProgress))
	}
	for i, s := range x.c.DHCP.Subnets {
		if d := time.Duration(s.Lease); d < time.Minute || d > 30*24*time.Hour {
			x.at([]string{"dhcp", "subnets", strconv.Itoa(i), "lease"}, "is %s; it can be 1m to 30d", text(s.Lease))
		}
	}
}

func text(d Duration) string {
	b, err := d.MarshalText()
	if err != nil {
		return time.Duration(d).String()
	}
	return string(b)
}

func (x *checker) dhcp() {
	d := x.c.DHCP
	mode := []string{"dhcp", "mode"}
	switch {
	case d.Mode == "server" && len(d.Subnets) == 0 && !x.has("dhcp", "subnets"):
		x.at(mode, "is server, and there are no addresses to give out: add dhcp.subnets")
	case d.Mode != "server" && len(d.Subnets) > 0:
		x.at(mode, "is %s, and dhcp.subnets are for mode: server alone", d.Mode)
	}
	if d.Mode != "off" && x.c.Interface == "" && !x.has("interface") && len(d.Interfaces) == 0 {
		x.at([]string{"interface"}, "is missing: DHCP in mode %s is served on one network interface (--interface NAME, or dhcp.mode: off)", d.Mode)
	}
	x.reservations()
	for i, s := range d.Subnets {
		x.subnet(i, s)
		for j, other := range d.Subnets[:i] {
			if s.Subnet.IsValid() && other.Subnet.IsValid() && s.Subnet.Overlaps(other.Subnet) {
				x.at(subnetPath(i, "subnet"), "is %s, which overlaps with %s of dhcp.subnets[%d]", s.Subnet, other.Subnet, j)
			}
		}
	}
}

func subnetPath(i int, key string) []string {
	return []string{"dhcp", "subnets", strconv.Itoa(i), key}
}

func (x *checker) subnet(i int, s Subnet) {
	if !s.Subnet.IsValid() {
		if !x.has(subnetPath(i, "subnet")...) {
			x.at(subnetPath(i, "subnet"), "is missing: the network, as 10.1.0.0/24")
		}
		return
	}
	if s.Subnet.Bits() < 8 || s.Subnet.Bits() > 30 {
		x.at(subnetPath(i, "subnet"), "is %s; a network of machines is a /8 to a /30", s.Subnet)
		return
	}
	inside := func(key string, a netip.Addr) {
		switch {
		case !a.IsValid():
		case !s.Subnet.Contains(a):
			x.at(subnetPath(i, key), "has %s, which is not in %s", a, s.Subnet)
		case a == s.Subnet.Addr() || a == broadcast(s.Subnet):
			x.at(subnetPath(i, key), "has %s, the network's own or its broadcast address", a)
		}
	}
	inside("gateway", s.Gateway)
	inside("range", s.Range.From)
	if s.Range.To != s.Range.From {
		inside("range", s.Range.To)
	}
	r := s.Range
	if g := s.Gateway; g.IsValid() && r.From.IsValid() && !g.Less(r.From) && !r.To.Less(g) {
		x.at(subnetPath(i, "range"), "contains the gateway %s, which would be given to a machine", g)
	}
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

func (x *checker) tls() {
	t := x.c.TLS
	switch {
	case t.Self && (t.Cert != "" || t.Key != ""):
		x.at([]string{"tls", "self"}, "is true, and there is a certificate already: give either self, or cert and key")
	case t.Cert != "" && t.Key == "" && !x.has("tls", "key"):
		x.at([]string{"tls", "key"}, "is missing: the private key of tls.cert")
	case t.Key != "" && t.Cert == "" && !x.has("tls", "cert"):
		x.at([]string{"tls", "cert"}, "is missing: the certificate of tls.key")
	case !t.On() && t.Listen != "":
		x.at([]string{"tls", "listen"}, "is given, and there is no certificate: add self: true, or cert and key")
	case len(t.Names) > 0 && !t.Self:
		x.at([]string{"tls", "names"}, "are for the server's own certificate: add self: true, or take them out")
	case t.On() && samePort(t.Listen, x.c.Listen):
		x.at([]string{"tls", "listen"}, "is %s, where HTTP is (listen)", t.Listen)
	}
}

// samePort says whether two addresses to listen at cannot both be had.
func samePort(a, b string) bool {
	ha, pa, errA := net.SplitHostPort(a)
	hb, pb, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && pa == pb && (ha == hb || ha == "" || hb == "")
}

// loaders finds files for Secure Boot without it. Which are missing depends on the machine: imgserve check says it.
func (x *checker) loaders() {
	for _, name := range loaderNames() {
		signed := strings.HasPrefix(name, "shim") || strings.HasPrefix(name, "grub")
		if _, ok := x.c.Loaders.Files[name]; ok && signed && !x.c.Loaders.SecureBoot {
			x.at([]string{"loaders", "files", name}, "is for Secure Boot: add secure_boot: true to loaders")
		}
	}
}

func (x *checker) reservations() {
	seen := map[netip.Addr]int{}
	for i, r := range x.c.DHCP.Reservations {
		here := []string{"dhcp", "reservations", strconv.Itoa(i)}
		if n := given(r.SN) + given(r.MAC) + given(r.ClientID); n != 1 {
			x.at(here, "names %d clients; it has exactly one of sn, mac and client_id", n)
		}
		address := append(here, "address")
		switch j, twice := seen[r.Address]; {
		case !r.Address.IsValid():
			if !x.has(address...) {
				x.at(address, "is missing: the address that is kept")
			}
			continue
		case twice:
			x.at(address, "is %s, which dhcp.reservations[%d] keeps already", r.Address, j)
		case !slices.ContainsFunc(x.c.DHCP.Subnets, func(s Subnet) bool { return s.Subnet.IsValid() && s.Subnet.Contains(r.Address) }):
			x.at(address, "is %s, which is in none of dhcp.subnets", r.Address)
		}
		seen[r.Address] = i
	}
}

func given(s string) int {
	if s == "" {
		return 0
	}
	return 1
}
