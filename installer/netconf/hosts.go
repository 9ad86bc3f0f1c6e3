package netconf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"imgbuild/image"
	"imgbuild/image/plan"
)

const header = "# Written by imgbuild when this machine was installed.\n"

func checkHostname(name string) error {
	short, _, _ := strings.Cut(name, ".")
	switch {
	case len(name) > 64:
		return fmt.Errorf("write the host name: %q has %d characters, and Linux takes 64", name, len(name)) // HOST_NAME_MAX
	case !plan.ValidDomain(name) || strings.HasSuffix(name, ".") || strings.Contains(name, "_"):
		return fmt.Errorf("write the host name: %q is not made of letters, digits, dashes and dots (RFC 1123)", name)
	case short == "localhost":
		return errors.New("write the host name: localhost is every machine's, and is replaced by what DHCP says; give the machine a name of its own")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("write the host name: %s is an address", name)
	}
	return nil
}

// hostFiles are /etc/hostname and /etc/hosts.
func hostFiles(l *layout, hostname string, o Options) []File {
	if hostname == "" {
		return nil
	}
	// systemd reads it before the network is up, and takes no other name while it has one (hostname(5)).
	files := []File{{"etc/hostname", hostname + "\n", 0o644}}
	if hosts := hostsFile(l, hostname, o.Hosts); hosts != "" {
		files = append(files, File{"etc/hosts", hosts, 0o644})
	}
	return files
}

// hostsFile adds a line for each of the machine's main static addresses, so that its own names resolve without DNS. A
// machine whose addresses come from elsewhere has none: they may change, and nss-myhostname knows them.
func hostsFile(l *layout, hostname, old string) string {
	names := hostname
	if short, _, ok := strings.Cut(hostname, "."); ok {
		names += " " + short
	}
	var lines []string
	for _, a := range l.mainAddresses() {
		lines = append(lines, a.String()+" "+names)
	}
	if len(lines) == 0 {
		return ""
	}
	if strings.TrimSpace(old) == "" {
		old = "127.0.0.1 localhost localhost.localdomain\n::1 localhost localhost.localdomain\n"
	}
	var b strings.Builder
	for line := range strings.Lines(old) {
		text, _, _ := strings.Cut(line, "#")
		if fields := strings.Fields(text); len(fields) > 1 && slices.Contains(fields[1:], hostname) {
			continue // the image's idea of this name
		}
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	return b.String() + strings.Join(lines, "\n") + "\n"
}

// mainAddresses are the first IPv4 and the first IPv6 address of the links that have the gateway, or else of any.
func (l *layout) mainAddresses() []netip.Addr {
	if l == nil {
		return nil
	}
	var found []netip.Addr
	for _, family := range []struct {
		gateway   func(k *link) netip.Addr
		addresses func(k *link) []netip.Prefix
	}{
		{func(k *link) netip.Addr { return k.ip.Gateway4 }, func(k *link) []netip.Prefix { return k.ip.Addresses4() }},
		{func(k *link) netip.Addr { return k.ip.Gateway6 }, func(k *link) []netip.Prefix { return k.ip.Addresses6() }},
	} {
		var first netip.Addr
		for _, k := range l.links {
			list := family.addresses(k)
			if len(list) > 0 && (!first.IsValid() || family.gateway(k).IsValid()) {
				first = list[0].Addr()
			}
		}
		if first.IsValid() {
			found = append(found, first)
		}
	}
	return found
}

// managerConf is what NetworkManager is told: to leave the host name alone, to make no connections of its own, and to
// leave the ports that nobody named as the kernel has them, which is down.
func managerConf(l *layout, hostname string, f image.NetworkFormat) string {
	if l == nil && hostname == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString(header + "[main]\n")
	if hostname != "" {
		b.WriteString("# The host name is that of /etc/hostname, whatever DHCP says.\nhostname-mode=none\n")
	}
	if l == nil {
		return b.String()
	}
	b.WriteString("# A port without a connection gets none.\nno-auto-default=*\n")
	if f == image.NMKeyfile && len(l.unused) > 0 {
		var specs []string
		for _, n := range l.unused {
			specs = append(specs, "mac:"+mac(&n))
		}
		b.WriteString("\n# Ports that were not named. To use one: nmcli device set NAME managed yes; to keep it so, take its address off here.\n" +
			"[device-imgbuild-unused]\nmatch-device=" + strings.Join(specs, ";") + "\nmanaged=0\n")
	}
	return b.String()
}
