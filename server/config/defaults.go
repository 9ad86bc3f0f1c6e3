package config

import (
	"path/filepath"
	"time"
)

// defaultState is where the database and certificates are without systemd.
const defaultState = "/var/lib/imgserve"

// ReleaseKey is where imgbuild keeps the public half of the key that it signs with.
const ReleaseKey = "/etc/imgbuild/release.key.pub"

// fillDefaults gives every key that was not written its value. URL is left to the server, which knows the interface's
// address.
func (c *Config) fillDefaults(s Surroundings) {
	fill(&c.Listen, ":8080")
	if c.State == "" {
		c.State = defaultState
		if s.State != "" {
			c.State = s.State
		}
	}
	fill(&c.Database, filepath.Join(c.State, "imgserve.db"))
	if len(c.Trust) == 0 {
		c.Trust = []string{ReleaseKey}
	}
	fill(&c.Unknown, "inspect")
	fillDuration(&c.OrderExpiry, 24*time.Hour)
	fillInt(&c.Limits.Global, 50)
	fillInt(&c.Limits.PerRack, 0)
	fillInt(&c.Limits.PerImage, 0)
	switch {
	case c.DHCP.Mode != "":
	case len(c.DHCP.Subnets) > 0:
		c.DHCP.Mode = "server"
	case c.Interface != "":
		c.DHCP.Mode = "proxy"
	default:
		c.DHCP.Mode = "off"
	}
	fillBool(&c.DHCP.Probe, true)
	for i := range c.DHCP.Subnets {
		fillDuration(&c.DHCP.Subnets[i].Lease, time.Hour)
	}
	fillBool(&c.TFTP.Enabled, c.DHCP.Mode != "off")
	fill(&c.TFTP.Listen, ":69")
	if c.TLS.On() {
		fill(&c.TLS.Listen, ":8443")
	}
	c.Loaders.fillDefaults(s.Exists)
	fill(&c.Log, "info")
}

// LoaderPlaces are where distributions put a boot loader, the first choice first, and the packages that do.
type LoaderPlaces struct {
	Key, What  string
	Paths      []string
	Debian     string // the Debian package
	EL         string // the package of CentOS Stream, Rocky, AlmaLinux, RHEL and Fedora
	SecureBoot bool   // it is for Secure Boot alone
}

// Places returns where each boot loader is looked for, in the order of Loaders' fields.
func Places() []LoaderPlaces {
	return []LoaderPlaces{
		{"bios", "iPXE for BIOS", []string{"/usr/lib/ipxe/undionly.kpxe", "/usr/share/ipxe/undionly.kpxe"}, "ipxe", "ipxe-bootimgs-x86", false},
		{"uefi", "iPXE for UEFI on x86-64", []string{"/usr/lib/ipxe/snponly.efi", "/usr/lib/ipxe/ipxe.efi", "/usr/share/ipxe/ipxe-snponly-x86_64.efi", "/usr/share/ipxe/ipxe-x86_64.efi"}, "ipxe", "ipxe-bootimgs-x86", false},
		{"arm64", "iPXE for UEFI on arm64", []string{"/usr/lib/ipxe/ipxe-arm64.efi", "/usr/share/ipxe/arm64-efi/snponly.efi", "/usr/share/ipxe/arm64-efi/ipxe.efi"}, "ipxe", "ipxe-bootimgs-aarch64", false},
		{"shim", "shim for Secure Boot", []string{"/usr/lib/shim/shimx64.efi.signed", "/boot/efi/EFI/centos/shimx64.efi", "/boot/efi/EFI/redhat/shimx64.efi"}, "shim-signed", "shim-x64", true},
		{"grub", "signed GRUB for Secure Boot", []string{"/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "/boot/efi/EFI/centos/grubx64.efi", "/boot/efi/EFI/redhat/grubx64.efi"}, "grub-efi-amd64-signed", "grub2-efi-x64", true},
	}
}

// Fields returns the loaders by the keys of the file, in the order of Places.
func (l *Loaders) Fields() []*string { return []*string{&l.BIOS, &l.UEFI, &l.ARM64, &l.Shim, &l.GRUB} }

// fillDefaults takes the first file that is there. One that is nowhere stays empty.
func (l *Loaders) fillDefaults(exists func(string) bool) {
	if exists == nil {
		return
	}
	for i, p := range Places() {
		if p.SecureBoot && !l.SecureBoot {
			continue
		}
		field := l.Fields()[i]
		for _, path := range p.Paths {
			if *field == "" && exists(path) {
				*field = path
			}
		}
	}
}

func fill(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

func fillInt(p **int, value int) {
	if *p == nil {
		*p = &value
	}
}

func fillBool(p **bool, value bool) {
	if *p == nil {
		*p = &value
	}
}

func fillDuration(d *Duration, value time.Duration) {
	if *d == 0 {
		*d = Duration(value)
	}
}
