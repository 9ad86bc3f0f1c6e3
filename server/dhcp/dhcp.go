// Package dhcp gives machines addresses and tells them where their boot loader is: as a full DHCP server (RFC 2131) or as
// a proxyDHCP beside one that is there already (PXE 2.1). Packets, leases and the registry's hosts come in; replies and
// lease changes go out. What is answered is decided by pure functions; sockets are in files of their own.
//
// It never decides whether a machine is installed: every client that boots from the network is given the same boot
// loader, and every iPXE the same script's address. It never believes that a MAC or a serial number in a packet proves
// anything.
package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// Mode is what kind of server this is.
type Mode string

// The modes.
const (
	Full  Mode = "server" // gives addresses
	Proxy Mode = "proxy"  // tells PXE clients their boot loader; another server gives addresses
)

// Defaults.
const (
	DefaultLease  = 12 * time.Hour
	DefaultProbe  = 300 * time.Millisecond
	DefaultScript = "/boot/ipxe"
	DefaultLoader = "/boot/loader/"
	minLease      = time.Minute // what a client may ask for at least
)

// Config is what a server is told.
type Config struct {
	Mode Mode
	// Interfaces are the interfaces that are listened on; at least one.
	Interfaces []string
	// Subnets are those that a full server gives addresses of.
	Subnets []Subnet
	// Reservations are addresses kept for one client, beside those that the registry's hosts have.
	Reservations []Reservation
	Boot         Boot
	// Probe is how long somebody else may take to say that an address is his before it is offered: 0 is DefaultProbe, less
	// than 0 asks nobody.
	Probe time.Duration
}

// Subnet is one network that addresses are given in.
type Subnet struct {
	Prefix netip.Prefix
	// Ranges are the addresses for everybody. Without any, only reservations and the registry's hosts get addresses.
	Ranges  []Range
	Gateway netip.Addr
	DNS     []netip.Addr
	Domain  string
	Search  []string
	NTP     []netip.Addr
	MTU     int           // 0: the option is not sent
	Lease   time.Duration // 0: DefaultLease
	// RelayOnly keeps the subnet from clients that are on the same link as the server: only relays lead to it.
	RelayOnly bool
}

// Range is a run of addresses, both ends in it.
type Range struct{ First, Last netip.Addr }

// Reservation keeps an address for one client. Exactly one of SN, MAC and ClientID is given.
type Reservation struct {
	Address netip.Addr
	SN      string
	MAC     string
	// ClientID is option 61: as hex bytes with colons (01:52:54:00:12:34:56), or as text.
	ClientID string
	Hostname string
}

// Platform is a kind of firmware, as far as boot loaders differ.
type Platform string

// The platforms.
const (
	BIOS     Platform = "bios"
	EFI32    Platform = "efi-ia32"
	EFI64    Platform = "efi-x86_64"
	EFIARM64 Platform = "efi-arm64"
)

// Boot says where boot loaders and the script are.
type Boot struct {
	// URL is the HTTP server, as http://boot.example.org:8080. Without a host name (http://:8080), or empty, it is the address by
	// which the client reaches this server.
	URL string
	// Script is the path of the iPXE script, and Loader of the folder of boot loaders for UEFI HTTP boot, on that server.
	Script, Loader string
	// Loaders are the boot loaders' names in TFTP and under Loader. A platform without one is told nothing about booting.
	Loaders map[Platform]string
	// Shims, for platforms that are in it, take the place of Loaders: a signed shim, which loads a signed GRUB from the same
	// folder. DHCP does not tell whether Secure Boot is on, so this is for all machines of the platform.
	Shims map[Platform]string
	// TFTP is the TFTP server; zero is this server.
	TFTP netip.Addr
}

// DefaultLoaders are the boot loaders' names as tftp.FindLoaders gives them.
func DefaultLoaders() map[Platform]string {
	return map[Platform]string{BIOS: "undionly.kpxe", EFI32: "ipxe-ia32.efi", EFI64: "ipxe.efi", EFIARM64: "ipxe-arm64.efi"}
}

// withDefaults fills in what is not given and normalises what is.
func (c Config) withDefaults() (Config, error) {
	if c.Mode == "" {
		c.Mode = Proxy
	}
	if c.Probe == 0 {
		c.Probe = DefaultProbe
	}
	if c.Boot.Script == "" {
		c.Boot.Script = DefaultScript
	}
	if c.Boot.Loader == "" {
		c.Boot.Loader = DefaultLoader
	}
	if c.Boot.Loaders == nil {
		c.Boot.Loaders = DefaultLoaders()
	}
	c.Subnets = slices.Clone(c.Subnets)
	for i := range c.Subnets {
		s := &c.Subnets[i]
		s.Prefix = s.Prefix.Masked()
		if s.Lease == 0 {
			s.Lease = DefaultLease
		}
	}
	c.Reservations = slices.Clone(c.Reservations)
	for i := range c.Reservations {
		r := &c.Reservations[i]
		if r.MAC != "" {
			m, err := parseMAC(r.MAC)
			if err != nil {
				return c, fmt.Errorf("reservation of %s: %w", r.Address, err)
			}
			r.MAC = m
		}
	}
	return c, c.Validate()
}

// Validate says everything that is wrong with the configuration, each in one sentence.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	switch c.Mode {
	case Full:
		if len(c.Subnets) == 0 {
			bad("DHCP server: no subnet is given; name one, or use the mode %q beside a server that gives addresses", Proxy)
		}
	case Proxy, "":
		if len(c.Subnets) > 0 {
			bad("proxyDHCP gives no addresses, and subnets are given; remove them, or use the mode %q", Full)
		}
	default:
		bad("DHCP mode %q: there are %q and %q", c.Mode, Full, Proxy)
	}
	if len(c.Interfaces) == 0 {
		bad("DHCP: no interface is given to listen on")
	}
	for i := range c.Subnets {
		c.Subnets[i].validate(bad)
		for _, o := range c.Subnets[:i] {
			if o.Prefix.Overlaps(c.Subnets[i].Prefix) {
				bad("subnet %s overlaps %s", c.Subnets[i].Prefix, o.Prefix)
			}
		}
	}
	seen := map[netip.Addr]bool{}
	for _, r := range c.Reservations {
		switch n := given(r.SN) + given(r.MAC) + given(r.ClientID); {
		case n != 1:
			bad("reservation of %s: give exactly one of sn, mac and client-id; %d are given", r.Address, n)
		case !slices.ContainsFunc(c.Subnets, func(s Subnet) bool { return s.Prefix.Contains(r.Address) }):
			bad("reservation of %s: no subnet has this address", r.Address)
		case seen[r.Address]:
			bad("reservation of %s: it is there twice", r.Address)
		}
		seen[r.Address] = true
		if r.MAC != "" {
			if _, err := parseMAC(r.MAC); err != nil {
				bad("reservation of %s: %w", r.Address, err)
			}
		}
	}
	c.Boot.validate(bad)
	return errors.Join(errs...)
}

func (s *Subnet) validate(bad func(string, ...any)) {
	p := s.Prefix
	if !p.IsValid() || !p.Addr().Is4() || p.Bits() > 31 || p.Bits() < 8 {
		bad("subnet %s: it is to be an IPv4 network between /8 and /31", p)
		return
	}
	p = p.Masked()
	for i, r := range s.Ranges {
		switch {
		case !r.First.IsValid() || !r.Last.IsValid() || r.Last.Less(r.First):
			bad("subnet %s: the range %s-%s is none", p, r.First, r.Last)
		case !p.Contains(r.First) || !p.Contains(r.Last):
			bad("subnet %s: the range %s-%s reaches outside it", p, r.First, r.Last)
		}
		for _, o := range s.Ranges[:i] {
			if !r.Last.Less(o.First) && !o.Last.Less(r.First) {
				bad("subnet %s: the ranges %s-%s and %s-%s overlap", p, o.First, o.Last, r.First, r.Last)
			}
		}
	}
	if s.Gateway.IsValid() && !p.Contains(s.Gateway) {
		bad("subnet %s: its gateway %s is outside it", p, s.Gateway)
	}
	for _, a := range append(slices.Clone(s.DNS), s.NTP...) {
		if !a.Is4() {
			bad("subnet %s: %s is no IPv4 address, and DHCPv4 carries no other", p, a)
		}
	}
	if s.Lease != 0 && s.Lease < minLease {
		bad("subnet %s: a lease of %s is too short; give at least %s", p, s.Lease, minLease)
	}
	if s.MTU != 0 && (s.MTU < 576 || s.MTU > 65535) {
		bad("subnet %s: an MTU of %d; it is to be between 576 and 65535", p, s.MTU)
	}
}

func (b *Boot) validate(bad func(string, ...any)) {
	if b.URL != "" {
		u, err := url.Parse(b.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			bad("boot server %q: it is to be a URL as http://boot.example.org:8080, or http://:8080 for this server's own address", b.URL)
		}
	}
	for _, m := range []map[Platform]string{b.Loaders, b.Shims} {
		for p, name := range m {
			switch {
			case p != BIOS && p != EFI32 && p != EFI64 && p != EFIARM64:
				bad("boot loader of platform %q: there are %s, %s, %s and %s", p, BIOS, EFI32, EFI64, EFIARM64)
			case name == "" || len(name) > 127 || !filepath.IsLocal(name) || path.Clean(name) != name || !printable(name):
				bad("boot loader %q of platform %s: it is to be a name as undionly.kpxe, of at most 127 characters", name, p)
			}
		}
	}
	if _, ok := b.Shims[BIOS]; ok {
		bad("a shim is for UEFI; BIOS has no Secure Boot")
	}
	if b.TFTP.IsValid() && !b.TFTP.Is4() {
		bad("TFTP server %s: it is to be an IPv4 address", b.TFTP)
	}
}

func given(s string) int {
	if s == "" {
		return 0
	}
	return 1
}
