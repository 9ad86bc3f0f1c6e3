package target

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"imgbuild/image"
)

// Link is a card that a system's root file system comes over.
type Link struct {
	Name   string
	Index  int // the kernel's
	MAC    net.HardwareAddr
	Addr   netip.Prefix
	Router netip.Addr // invalid for none
	DNS    []netip.Addr
	// Connection is the UUID of the system's own connection for the card; empty if it has none.
	Connection string
}

// rootConnection is the UUID of the connection that KeepLink makes. Each machine has one of them.
const rootConnection = "1d0b7f0e-6a51-5b1c-9e0a-696d67627569"

// KeepLink writes what has NetworkManager go on with a link as it is, without taking anything off it first: a connection, unless the
// system has one for it, and a note in run, NetworkManager's directory below /run, that this is what the link has. So it does when it is
// itself restarted (NetworkManager.conf(5), device.keep-configuration).
func KeepLink(root *os.Root, run string, format image.NetworkFormat, k Link) error {
	fail := func(err error) error { return fmt.Errorf("keep the network of %s: %w", k.Name, err) }
	if format == image.Networkd {
		return fail(fmt.Errorf("the image keeps its network in the form %s, and a root over NFS needs NetworkManager; build it with system: {network: %s}", format, image.NMKeyfile))
	}
	w, err := newWriter(root)
	if err != nil {
		return fail(err)
	}
	connection := k.Connection
	if connection == "" {
		connection = rootConnection
		if err := w.write("etc/NetworkManager/system-connections/imgbuild-root.nmconnection", []byte(k.keyfile()), meta{mode: 0o600}); err != nil {
			return fail(err)
		}
	}
	if err := w.write("etc/NetworkManager/conf.d/99-imgbuild-root.conf", []byte(k.conf()), meta{mode: 0o644}); err != nil {
		return fail(err)
	}
	dir := filepath.Join(run, "devices")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fail(err)
	}
	note := fmt.Sprintf("[device]\nmanaged=1\nconnection-uuid=%s\n", connection)
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(k.Index)), []byte(note), 0o644); err != nil {
		return fail(err)
	}
	return nil
}

// keyfile is a connection that has the link's address for good, as losing it is losing the root file system, and renews its lease.
func (k Link) keyfile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Made when this system started: its root file system comes over this card.\n[connection]\nid=imgbuild-root\nuuid=%s\ntype=ethernet\nautoconnect-priority=100\n\n[ethernet]\nmac-address=%s\n",
		rootConnection, strings.ToUpper(k.MAC.String()))
	b.WriteString("\n[ipv4]\nmethod=auto\n")
	if k.Addr.Addr().Is4() {
		fmt.Fprintf(&b, "address1=%s\n", k.Addr)
		if k.Router.IsValid() {
			fmt.Fprintf(&b, "gateway=%s\n", k.Router)
		}
		if len(k.DNS) > 0 {
			b.WriteString("dns=")
			for _, a := range k.DNS {
				if a.Is4() {
					b.WriteString(a.String() + ";")
				}
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("\n[ipv6]\nmethod=auto\naddr-gen-mode=eui64\n")
	return b.String()
}

// conf has NetworkManager leave the link as it finds it when it starts, ask DHCP for as long as it takes, and be for DHCP servers whom
// they know already.
func (k Link) conf() string {
	return fmt.Sprintf(`# Made when this system started: its root file system comes over this card.
[device-imgbuild-root]
match-device=mac:%[1]s
keep-configuration=no
managed=1
ignore-carrier=yes

[connection-imgbuild-root]
match-device=mac:%[1]s
ipv4.dhcp-timeout=2147483647
ipv4.dhcp-client-id=mac
`, k.MAC)
}
