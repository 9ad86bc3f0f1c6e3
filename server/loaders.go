package server

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"imgbuild/server/boot"
	"imgbuild/server/config"
	"imgbuild/server/dhcp"
	"imgbuild/server/releases"
	"imgbuild/server/tftp"
)

// loaders are the boot loaders that this server has, and those that it has not.
type loaders struct{ found, missing []tftp.Loader }

// findLoaders takes the boot loaders of the configuration, and of the distribution's packages where that has none. What is
// for Secure Boot alone is left out unless the configuration asks for it.
func findLoaders(c config.Loaders) loaders {
	var l loaders
	found, missing := tftp.FindLoaders("")
	for _, one := range slices.Concat(found, missing) {
		if path := c.Files[one.Name]; path != "" {
			one.Path = path
		}
		switch {
		case one.SecureBoot && !c.SecureBoot:
		case one.Path == "":
			l.missing = append(l.missing, one)
		default:
			l.found = append(l.found, one)
		}
	}
	return l
}

// files are the boot loaders by their names, for TFTP and UEFI HTTP boot.
func (l loaders) files() *tftp.Files {
	paths := map[string]string{}
	for _, one := range l.found {
		paths[one.Name] = one.Path
	}
	return tftp.NewFiles(paths)
}

// names are what DHCP tells each platform to load.
func (l loaders) names() (plain, shims map[dhcp.Platform]string) {
	plain, shims = map[dhcp.Platform]string{}, map[dhcp.Platform]string{}
	for _, one := range l.found {
		switch {
		case !one.SecureBoot:
			plain[dhcp.Platform(one.Platform)] = one.Name
		case strings.HasPrefix(one.Name, "shim"):
			shims[dhcp.Platform(one.Platform)] = one.Name
		}
	}
	return plain, shims
}

// dhcpConfig is DHCP's part of the configuration.
func dhcpConfig(c *config.Config, l loaders) dhcp.Config {
	d := dhcp.Config{Mode: dhcp.Mode(c.DHCP.Mode), Interfaces: interfaces(c)}
	d.Boot.URL = cmp.Or(c.URL, "http://:"+port(c.Listen)) // without a host: the address at which the client reaches us
	d.Boot.Loaders, d.Boot.Shims = l.names()
	if !*c.DHCP.Probe {
		d.Probe = -1
	}
	for _, s := range c.DHCP.Subnets {
		subnet := dhcp.Subnet{
			Prefix: s.Subnet, Gateway: s.Gateway, DNS: s.DNS, Domain: s.Domain, Search: s.Search, NTP: s.NTP, MTU: s.MTU,
			Lease: time.Duration(s.Lease), RelayOnly: s.RelayOnly,
		}
		if s.Range.From.IsValid() {
			subnet.Ranges = []dhcp.Range{{First: s.Range.From, Last: s.Range.To}}
		}
		d.Subnets = append(d.Subnets, subnet)
	}
	for _, r := range c.DHCP.Reservations {
		d.Reservations = append(d.Reservations, dhcp.Reservation{Address: r.Address, SN: r.SN, MAC: r.MAC, ClientID: r.ClientID, Hostname: r.Hostname})
	}
	return d
}

// Bounds of boot files over TFTP, which only a GRUB without HTTP asks for.
const (
	keptFiles   = 4 // two releases' kernels and initramfs
	maxBootFile = 512 << 20
	keepFor     = time.Minute
)

// tftpNames gives what is made or found for a name over TFTP: GRUB's configuration, and boot files of releases.
type tftpNames struct {
	boot   *boot.Server
	images *releases.Catalogue
	port   string // of HTTP
	now    func() time.Time

	mu    sync.Mutex
	files map[string]*bootFile
}

// bootFile is a file in memory, which transfers share.
type bootFile struct {
	load sync.Once
	data []byte
	err  error
	used time.Time
}

func (n *tftpNames) read(ctx context.Context, name string, client netip.Addr) ([]byte, error) {
	if script, ok := n.boot.TFTP(ctx, name, n.base(ctx, client)); ok {
		return script, nil
	}
	if !strings.HasPrefix("/"+name, releases.Prefix) {
		return nil, fs.ErrNotExist
	}
	f := n.file(name)
	f.load.Do(func() { f.data, f.err = n.readFile(context.WithoutCancel(ctx), name) })
	if f.err != nil {
		n.forget(name, f)
	}
	return f.data, f.err
}

// base is this server's HTTP address as the client reaches it: that of the interface on the way to it. Nothing is sent.
func (n *tftpNames) base(ctx context.Context, client netip.Addr) string {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(client, 9).String())
	if err != nil {
		return "" // the script then says that it does not know
	}
	defer func() { _ = c.Close() }()
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return ""
	}
	return "http://" + net.JoinHostPort(local.Addr().Unmap().String(), n.port)
}

func (n *tftpNames) readFile(ctx context.Context, name string) ([]byte, error) {
	f, err := n.images.OpenBootFile(ctx, "/"+name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxBootFile+1))
	if err == nil && len(data) > maxBootFile {
		err = fmt.Errorf("read %s for TFTP: it has more than %d bytes", name, maxBootFile)
	}
	return data, err
}

// file returns the entry of a name, and lets go of what has not been used for a while, or longest.
func (n *tftpNames) file(name string) *bootFile {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	f := n.files[name]
	if f == nil {
		f = &bootFile{}
	}
	for other, o := range n.files {
		if now.Sub(o.used) > keepFor {
			delete(n.files, other)
		}
	}
	for len(n.files) >= keptFiles && n.files[name] == nil {
		oldest := ""
		for other, o := range n.files {
			if oldest == "" || o.used.Before(n.files[oldest].used) {
				oldest = other
			}
		}
		delete(n.files, oldest)
	}
	f.used, n.files[name] = now, f
	return f
}

func (n *tftpNames) forget(name string, f *bootFile) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.files[name] == f {
		delete(n.files, name)
	}
}
