// Package config is what a server is told by its one file: the types of that file, their defaults, and the strict loading
// that finds every mistake at once with its place.
//
// A file's bytes and the flags of a command line come in; one checked Config, or strict.Errors, goes out. It reads no file
// but the one it is given and the keys, opens no socket, and asks neither the network nor the database.
package config

import "net/netip"

// The comments of these types and fields are the descriptions in docs/imgserve-reference.md. The tags are those of package
// strict. defaults.go fills in what the tag default shows.

// Config is the file's root. Every key has a default but images and, where DHCP is served, interface.
type Config struct {
	// Interface is the network interface that DHCP is served on.
	Interface string `yaml:"interface,omitempty" check:"interface"`
	// Listen is the address and port of HTTP: machines boot from it, and without tls people use it too.
	Listen string `yaml:"listen,omitempty" check:"listen" default:":8080"`
	// URL is how machines reach the server. Several servers behind one name all have the same. Default: the address at which
	// the machine itself has reached it.
	URL string `yaml:"url,omitempty" check:"url"`
	// Images is the directory of releases that imgbuild writes, as NAME/VERSION/ in it.
	Images string `yaml:"images" check:"path"`
	// Trust are files with the public keys of releases. A release that none of them has signed is not served. Default:
	// /etc/imgbuild/release.key.pub where it is there. Without any key a release has to be signed too, and whose signature it
	// is, is left to the machines, whose initramfs has the key.
	Trust []string `yaml:"trust,omitempty" check:"path"`
	// State is the directory of the database and of the server's own certificates. Default: what systemd's
	// StateDirectory= says, else /var/lib/imgserve.
	State string `yaml:"state,omitempty" check:"path"`
	// Database is a file (SQLite) or the address of a PostgreSQL database, which several servers can share. Default:
	// imgserve.db in state.
	Database string `yaml:"database,omitempty" check:"database"`
	// Unknown says what becomes of machines that nobody has written down: inspect boots them once to take their inventory,
	// localboot lets them boot their disk. Neither ever installs them.
	Unknown string `yaml:"unknown,omitempty" check:"unknown" default:"inspect"`
	// OrderExpiry is how long an order waits for its machine when the order itself does not say.
	OrderExpiry Duration `yaml:"order_expiry,omitempty" check:"duration" default:"24h"`
	// KeepProgress is how long the progress of installations that have ended is kept, byte by byte, with their tokens. Their steps,
	// warnings and ends stay in the diary for ever.
	KeepProgress Duration `yaml:"keep_progress,omitempty" check:"duration" default:"30d"`
	// Limits are how many machines install at a time. The others wait and go on by themselves.
	Limits Limits `yaml:"limits,omitempty"`
	// Transport is the way that root file systems come to the machines: relay has each machine read from another one that installs
	// too, as the server plans, so that the image leaves the server once; http has each read from the server and its mirrors;
	// torrent is BitTorrent between the machines. Whatever it is, the server itself is the last resort.
	Transport string `yaml:"transport,omitempty" check:"transport" default:"relay"`
	// Mirrors are addresses of directories that hold NAME/VERSION/ of releases too, on any web server.
	Mirrors []string `yaml:"mirrors,omitempty" check:"mirror"`
	// Rates are how fast machines may read, until imgctl rates says otherwise.
	Rates Rates `yaml:"rates,omitempty"`
	// Torrent is BitTorrent's side of the server. Its tracker, at /announce, and /torrent/NAME/VERSION.torrent, for people who
	// start a client of their own, are there whatever is said here, for the releases in images alone.
	Torrent Torrent `yaml:"torrent,omitempty"`
	// DHCP says what is done with the questions of machines that start.
	DHCP DHCP `yaml:"dhcp,omitempty"`
	// TFTP hands out boot loaders, and nothing else.
	TFTP TFTP `yaml:"tftp,omitempty"`
	// Loaders are the boot loaders' files. Default: where the distribution's packages put them.
	Loaders Loaders `yaml:"loaders,omitempty"`
	// TLS serves people's side, the API, over HTTPS. API tokens are then refused over HTTP.
	TLS TLS `yaml:"tls,omitempty"`
	// LegacyClients are networks from which old scripts, which have no token, may list, read, write and delete the five
	// fields sn, hostname, ip, netmask and gw.
	LegacyClients []netip.Prefix `yaml:"legacy_clients,omitempty" check:"prefix"`
	// Log is the least serious kind of message that is logged.
	Log string `yaml:"log,omitempty" check:"log" default:"info"`
}

// Limits are how many machines install at a time; 0 is no limit.
type Limits struct {
	// Global is the limit over all machines.
	Global *int `yaml:"global,omitempty" check:"limit" default:"50"`
	// PerRack is the limit for the machines of one rack, by the hosts' field rack.
	PerRack *int `yaml:"per_rack,omitempty" check:"limit" default:"0"`
	// PerImage is the limit for one release.
	PerImage *int `yaml:"per_image,omitempty" check:"limit" default:"0"`
}

// Rates are how fast machines may read: bytes a second as 200MB or 190MiB, bits a second as 1Gbit, or none. They hold for machines
// that ask this server how to transfer, which is everything that it installs.
type Rates struct {
	// Global is what leaves the server in all.
	Global Rate `yaml:"global,omitempty" check:"rate" default:"none"`
	// PerSubnet is what enters a rack, or a subnet where hosts have no rack, from outside.
	PerSubnet Rate `yaml:"per_subnet,omitempty" check:"rate" default:"none"`
	// PerMachine is what one machine reads.
	PerMachine Rate `yaml:"per_machine,omitempty" check:"rate" default:"none"`
}

// DHCP says what is done with the questions of machines that start.
type DHCP struct {
	// Mode is server (addresses and boot loaders), proxy (boot loaders only, beside the DHCP server that is there already)
	// or off. Default: server where subnets are given, proxy where only interface is, else off.
	Mode string `yaml:"mode,omitempty" check:"dhcp-mode"`
	// Interfaces are further network interfaces that DHCP is served on.
	Interfaces []string `yaml:"interfaces,omitempty" check:"interface"`
	// Subnets are the networks whose addresses this server gives out.
	Subnets []Subnet `yaml:"subnets,omitempty"`
	// Reservations are addresses that are kept for one client each, besides those of the registry's hosts.
	Reservations []Reservation `yaml:"reservations,omitempty"`
	// Probe asks the network whether an address is in use before it is given out (ICMP echo, as RFC 2131, 2.2 wants).
	Probe *bool `yaml:"probe,omitempty" default:"true"`
}

// Subnet is one network whose addresses this server gives out.
type Subnet struct {
	// Subnet is the network, as 10.1.0.0/24.
	Subnet netip.Prefix `yaml:"subnet" check:"prefix4"`
	// Range are the addresses for machines that the registry has no address for, as 10.1.0.100-10.1.0.199. Without it only
	// machines of the registry get one.
	Range Range `yaml:"range,omitempty" check:"range"`
	// Gateway is the router.
	Gateway netip.Addr `yaml:"gateway,omitempty" check:"address4"`
	// DNS are name servers.
	DNS []netip.Addr `yaml:"dns,omitempty" check:"address4"`
	// Domain is the domain name.
	Domain string `yaml:"domain,omitempty" check:"domain"`
	// Search are the domains that short names are looked up in.
	Search []string `yaml:"search,omitempty" check:"domain"`
	// NTP are time servers.
	NTP []netip.Addr `yaml:"ntp,omitempty" check:"address4"`
	// MTU is the network's, in bytes. Default: machines are told none.
	MTU int `yaml:"mtu,omitempty" check:"mtu"`
	// Lease is how long an address is lent.
	Lease Duration `yaml:"lease,omitempty" check:"duration" default:"12h"`
	// RelayOnly answers only what a relay has passed on (giaddr), for networks that are not on interface.
	RelayOnly bool `yaml:"relay_only,omitempty" default:"false"`
}

// Reservation keeps an address for one client. Exactly one of sn, mac and client_id says for which.
type Reservation struct {
	// Address is an address of one of the subnets.
	Address netip.Addr `yaml:"address" check:"address4"`
	// SN is the machine's serial number, which the boot loaders send.
	SN string `yaml:"sn,omitempty" check:"text" only:"client"`
	// MAC is the hardware address.
	MAC string `yaml:"mac,omitempty" check:"mac" only:"client"`
	// ClientID is DHCP's option 61: as hex bytes with colons, or as text.
	ClientID string `yaml:"client_id,omitempty" check:"text" only:"client"`
	// Hostname is the name that the client is told.
	Hostname string `yaml:"hostname,omitempty" check:"domain"`
}

// TFTP hands out boot loaders, and nothing else.
type TFTP struct {
	// Enabled says whether TFTP is served. Default: true unless dhcp.mode is off.
	Enabled *bool `yaml:"enabled,omitempty"`
	// Listen is TFTP's address and port.
	Listen string `yaml:"listen,omitempty" check:"listen" default:":69"`
}

// Loaders are the boot loaders' files. A kind of machine whose file is missing cannot boot from this server; imgserve check
// says which, and the package that has it.
type Loaders struct {
	// SecureBoot gives machines with UEFI shim and GRUB, which are signed, and not iPXE, which is not. Both have to be of the
	// distribution whose kernel they start.
	SecureBoot bool `yaml:"secure_boot,omitempty" default:"false"`
	// Files are boot loaders by the names that they have over TFTP, in place of those that packages have: undionly.kpxe is
	// iPXE for BIOS, ipxe.efi for UEFI on x86-64, ipxe-arm64.efi on arm64; shimx64.efi and grubx64.efi are for Secure Boot.
	Files map[string]string `yaml:"files,omitempty" keys:"loader" check:"path"`
}

// TLS serves people's side over HTTPS. Either self, or cert and key.
type TLS struct {
	// Listen is the address and port of HTTPS.
	Listen string `yaml:"listen,omitempty" check:"listen" default:":8443"`
	// Self makes a certificate authority, keeps it in state (ca.pem is for clients), and a certificate for the server from it.
	Self bool `yaml:"self,omitempty" default:"false"`
	// Cert is a file with the server's certificate and those between it and its authority, as PEM.
	Cert string `yaml:"cert,omitempty" check:"path"`
	// Key is the file with the certificate's private key, as PEM.
	Key string `yaml:"key,omitempty" check:"path"`
	// Names are further host names and addresses that the own certificate is for, besides the machine's name and url's.
	Names []string `yaml:"names,omitempty" check:"name"`
}

// On reports whether HTTPS is served.
func (t TLS) On() bool { return t.Self || t.Cert != "" }
