// Package netconf is a host's own network configuration. What the plan says of it (plan.Network), the machine's network
// cards and the form that the image keeps its configuration in come in; files for the installed system go out (Files).
// The same configuration can be brought up in the initramfs and tried before anything is erased (Check).
//
// It never chooses what the plan leaves open, writes no file itself, and leaves the installer's own network as it found it.
package netconf

import (
	"errors"
	"fmt"
	"io/fs"

	"imgbuild/image"
	"imgbuild/image/plan"
)

// Options say what the files are for.
type Options struct {
	// Format and Major are the manifest's network format and the first number of its distribution's release.
	Format image.NetworkFormat
	Major  int
	// Serial is the machine's serial number. The connections' UUIDs are made of it and of their names: the same machine has
	// the same ones after every installation.
	Serial string
	// Hosts is what the image has in /etc/hosts; it is kept.
	Hosts string
}

// File is one file of the installed system. Root owns it.
type File struct {
	Name    string // below the root, without the first slash
	Content string
	Mode    fs.FileMode
}

// Replaced are globs, as path.Match has them, of the image's files, below its root, that say what links there are. All that match are removed
// before what Files returns is written: a connection that the image brings along would be one that nobody named.
func Replaced(f image.NetworkFormat) []string {
	list := []string{"etc/NetworkManager/system-connections/*"}
	if f == image.Ifcfg {
		const scripts = "etc/sysconfig/network-scripts/"
		for _, kind := range []string{"ifcfg-[^l]*", "ifcfg-l[^o]*", "ifcfg-l", "ifcfg-lo?*", "keys-*", "route-*", "route6-*", "rule-*", "rule6-*"} {
			list = append(list, scripts+kind)
		}
	}
	return list
}

// Files returns the files that make an installed system's network and host name what the plan says. nics are the
// machine's cards as they were when the installer took its inventory. A nil network has no files for links and leaves the
// image's; an empty host name leaves the image's. What cannot be written in the image's form, or fits no card, is an
// error that says what to change; nothing of it depends on the disk, so that it can be asked before anything is erased.
func Files(n *plan.Network, hostname string, nics []plan.NIC, o Options) ([]File, error) {
	if hostname != "" {
		if err := checkHostname(hostname); err != nil {
			return nil, err
		}
	}
	var l *layout
	if n != nil {
		if err := n.Validate(); err != nil {
			return nil, err
		}
		if err := fits(n, o); err != nil {
			return nil, err
		}
		var err error
		if l, err = newLayout(n, nics, o.Serial); err != nil {
			return nil, err
		}
		if err := l.nameInterfaces(o); err != nil {
			return nil, err
		}
	}
	var files []File
	switch {
	case l == nil:
	case o.Format == image.NMKeyfile:
		files = keyfiles(l)
	default:
		files = ifcfgs(l, hostname)
	}
	files = append(files, l.udevRules(o)...)
	if c := managerConf(l, hostname, o.Format); c != "" {
		files = append(files, File{"etc/NetworkManager/conf.d/90-imgbuild.conf", c, 0o644})
	}
	return append(files, hostFiles(l, hostname, o)...), nil
}

// fits checks that the image's system can have such a network.
func fits(n *plan.Network, o Options) error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("write the network configuration: "+format, a...))
	}
	switch {
	case o.Format == image.NMKeyfile && o.Major > 0 && o.Major < 8:
		bad("the image says that EL%d keeps it in NetworkManager keyfiles, which its network scripts do not read; build the image with network: ifcfg", o.Major)
	case o.Format == image.Ifcfg && o.Major >= 10:
		bad("the image says that EL%d keeps it in ifcfg files, which its NetworkManager does not read; build the image with network: nm-keyfile", o.Major)
	case o.Format != image.NMKeyfile && o.Format != image.Ifcfg:
		bad("the image keeps it in the form %s, and the installer writes %s and %s; build the image with one of these, or take the network away from the host", o.Format, image.NMKeyfile, image.Ifcfg)
	}
	if o.Major >= 9 {
		for _, t := range n.Teams {
			bad("%s is a team, which EL%d does not have; give the host this bond instead, with the team's addresses: %s", t.Name, o.Major, bondText(TeamBond(t)))
		}
	}
	for _, b := range n.Bonds {
		if b.HashPolicy == "vlan+srcmac" && o.Major < 8 {
			bad("%s: EL%d's kernel does not know the hash_policy vlan+srcmac; take layer2+3", b.Name, o.Major)
		}
	}
	return errors.Join(errs...)
}
