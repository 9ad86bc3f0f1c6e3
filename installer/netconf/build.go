package netconf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/image/plan"
)

// prepare checks, before anything is touched, that the cards are still those that were chosen, and that the names of what
// is made are free.
func (l *trial) prepare() error {
	for _, k := range l.layout.links {
		dev, err := netlink.LinkByName(k.current())
		var none netlink.LinkNotFoundError
		gone := errors.As(err, &none)
		switch {
		case err != nil && !gone:
			return fmt.Errorf("look at %s: %w", k.current(), err)
		case k.nic != nil && (gone || dev.Attrs().HardwareAddr.String() != mac(k.nic)):
			return fmt.Errorf("try the host's own network: the card %s is no longer there under this name", card(k.nic))
		case k.nic != nil && dev.Attrs().MasterIndex != 0:
			return fmt.Errorf("try the host's own network: the card %s is part of another link already", card(k.nic))
		case k.nic == nil && !gone && !idleBond(dev):
			return fmt.Errorf("try the host's own network: there is already an interface called %s", k.name)
		case k.nic == nil && !gone:
			// The bonding module makes a bond0 of its own when it is loaded (max_bonds), which nobody uses.
			if err := netlink.LinkDel(dev); err != nil {
				return fmt.Errorf("remove the unused %s: %w", k.name, err)
			}
		}
	}
	return nil
}

func idleBond(l netlink.Link) bool { return l.Type() == "bond" && l.Attrs().Flags&net.FlagUp == 0 }

// build makes the links and brings them up, what is below first.
func (l *trial) build() error {
	for _, k := range l.layout.links {
		var err error
		switch {
		case k.master != nil: // comes up with its bond
		case k.nic != nil:
			err = l.raise(k)
		case k.bond != nil:
			err = l.makeBond(k)
		case k.vlan != nil:
			err = l.makeVLAN(k)
		}
		if err != nil {
			return fmt.Errorf("bring %s up: %w", l.title(k), err)
		}
	}
	return nil
}

// raise gives a link its MTU and settings, and brings it up.
func (l *trial) raise(k *link) error {
	dev, err := netlink.LinkByName(k.current())
	if err != nil {
		return err
	}
	if k.ip.MTU != 0 && k.ip.MTU != dev.Attrs().MTU {
		if err := netlink.LinkSetMTU(dev, k.ip.MTU); err != nil {
			l.seen(k, false, "it refuses an MTU of %d bytes: %v", k.ip.MTU, err)
		}
	}
	// With advertisements or without, before the link is up: the kernel asks routers as it comes up.
	ra := "0"
	if k.ip.TakesRA() {
		ra = "1"
	}
	for _, s := range []struct{ name, value string }{{"disable_ipv6", "0"}, {"accept_dad", "1"}, {"autoconf", ra}, {"accept_ra", ra}} {
		if err := set(k.current(), s.name, s.value); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	return netlink.LinkSetUp(dev)
}

func (l *trial) makeBond(k *link) error {
	members := l.layout.members(k)
	primary := 0
	var devices []netlink.Link
	for _, m := range members {
		dev, err := netlink.LinkByName(m.current())
		if err != nil {
			return err
		}
		if m.name == k.bond.Primary {
			primary = dev.Attrs().Index
		}
		devices = append(devices, dev)
	}
	if err := netlink.LinkAdd(bondDevice(k, primary)); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("the kernel makes no bonds; add the module bonding to the image's initramfs: %w", err)
		}
		return fmt.Errorf("make the bond: %w", err)
	}
	l.made = append(l.made, k.name)
	dev, err := netlink.LinkByName(k.name)
	if err != nil {
		return err
	}
	if k.ip.MTU != 0 {
		if err := netlink.LinkSetMTU(dev, k.ip.MTU); err != nil {
			return fmt.Errorf("set the MTU: %w", err)
		}
	}
	for i, port := range devices {
		// A port joins while it is down; the bond brings it up.
		if err := netlink.LinkSetDown(port); err != nil {
			return fmt.Errorf("bring %s down: %w", l.title(members[i]), err)
		}
		if err := netlink.LinkSetMasterByIndex(port, dev.Attrs().Index); err != nil {
			return fmt.Errorf("add %s to it: %w", l.title(members[i]), err)
		}
	}
	return l.raise(k)
}

// bondDevice is the plan's bond as netlink has it. What the plan leaves open is left to the driver, which -1 means.
func bondDevice(k *link, primary int) *netlink.Bond {
	b := k.bond
	attrs := netlink.NewLinkAttrs()
	attrs.Name = k.name
	d := netlink.NewLinkBond(attrs)
	d.Mode = netlink.StringToBondMode(b.Mode)
	given := func(v *int, n int) {
		if n != 0 {
			*v = n
		}
	}
	given(&d.Miimon, miimon(b))
	given(&d.UpDelay, b.UpDelay)
	given(&d.DownDelay, b.DownDelay)
	given(&d.ArpInterval, b.ARPInterval)
	given(&d.MinLinks, b.MinLinks)
	given(&d.Primary, primary)
	for _, a := range b.ARPTargets {
		d.ArpIpTargets = append(d.ArpIpTargets, a.AsSlice())
	}
	// The numbers are those of the kernel's Documentation/networking/bonding.rst, in the order in which it lists them.
	word := func(s string, words ...string) int { return slices.Index(words, s) }
	d.ArpValidate = netlink.BondArpValidate(word(b.ARPValidate, "none", "active", "backup", "all", "filter", "filter_active", "filter_backup"))
	d.PrimaryReselect = netlink.BondPrimaryReselect(word(b.Reselect, "always", "better", "failure"))
	d.FailOverMac = netlink.BondFailOverMac(word(b.FailOverMAC, "none", "active", "follow"))
	d.XmitHashPolicy = netlink.BondXmitHashPolicy(word(b.HashPolicy, "layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"))
	d.LacpRate = netlink.BondLacpRate(word(b.LACPRate, "slow", "fast"))
	d.AdSelect = netlink.BondAdSelect(word(b.ADSelect, "stable", "bandwidth", "count"))
	return d
}

func (l *trial) makeVLAN(k *link) error {
	below, err := netlink.LinkByName(k.below.current())
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = k.name, below.Attrs().Index
	err = netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: k.vlan.ID, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the kernel makes no VLANs; add the module 8021q to the image's initramfs: %w", err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s has VLAN %d already: %w", k.below.current(), k.vlan.ID, err)
	case err != nil:
		return fmt.Errorf("make the VLAN: %w", err)
	}
	l.made = append(l.made, k.name)
	return l.raise(k)
}

// unmake removes a link that was made. A bond's ports leave it first and get back what the bond changed.
func unmake(name string) error {
	dev, err := netlink.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(dev)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// checkCarriers waits for the carriers of all ports, and takes links without one out of what follows.
func (l *trial) checkCarriers(ctx context.Context) {
	names := map[string]*link{}
	var list []string
	for _, k := range l.layout.links {
		if k.nic != nil {
			names[k.current()] = k
			list = append(list, k.current())
		}
	}
	for _, name := range waitCarrier(ctx, list, l.o.CarrierWait) {
		l.dead[names[name]] = true
		l.seen(names[name], false, "no carrier after %s: is its cable plugged in and the switch's port enabled?", seconds(l.o.CarrierWait))
	}
	for _, k := range l.layout.links {
		switch {
		case k.nic != nil && !l.dead[k]:
			l.seen(k, true, "link is up")
		case k.bond != nil:
			l.dead[k] = !slices.ContainsFunc(l.layout.members(k), func(m *link) bool { return !l.dead[m] })
		case k.vlan != nil:
			l.dead[k] = l.dead[k.below]
		}
	}
}

// checkStacked waits for the carriers of bonds and VLANs, which come when those of their ports have: a bond waits for its
// updelay, its partner or min_links. Nobody would hear what is sent before.
func (l *trial) checkStacked(ctx context.Context) {
	names := map[string]*link{}
	var list []string
	for _, k := range l.layout.links {
		if k.nic == nil && !l.dead[k] && !k.monitored() {
			names[k.name] = k
			list = append(list, k.name)
		}
	}
	for _, name := range waitCarrier(ctx, list, l.o.CarrierWait) {
		k := names[name]
		l.dead[k] = true
		if k.below == nil || !l.dead[k.below] {
			l.seen(k, false, "no carrier after %s, although links below it have one", seconds(l.o.CarrierWait))
		}
	}
}

// monitored says whether the link has a carrier only when others answer ARP requests from its address: there is no use in
// waiting for one before it has the address.
func (k *link) monitored() bool {
	return k.bond != nil && k.bond.ARPInterval > 0 || k.below != nil && k.below.monitored()
}

// waitCarrier waits until all links of these names have a carrier; it returns those that have none in the end.
func waitCarrier(ctx context.Context, names []string, wait time.Duration) []string {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	missing := map[string]bool{}
	for _, n := range names {
		missing[n] = true
	}
	updates := make(chan netlink.LinkUpdate, 64)
	err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{ListExisting: true})
	for err == nil && len(missing) > 0 {
		u, ok := <-updates // closed when ctx ends
		if !ok {
			break
		}
		a := u.Link.Attrs()
		if !slices.Contains(names, a.Name) {
			continue
		}
		if u.Header.Type == unix.RTM_NEWLINK && hasCarrier(a) {
			delete(missing, a.Name)
		} else {
			missing[a.Name] = true
		}
	}
	cancel()
	var list []string
	for _, n := range names {
		if missing[n] {
			list = append(list, n)
		}
	}
	return list
}

// gatewaysOf are the next hops on a link, each once, gateways first.
func gatewaysOf(ip *plan.IP) []plan.Route {
	var list []plan.Route
	add := func(r plan.Route) {
		if r.Via.IsValid() && !slices.ContainsFunc(list, func(o plan.Route) bool { return o.Via == r.Via }) {
			list = append(list, r)
		}
	}
	add(plan.Route{Via: ip.Gateway4})
	add(plan.Route{Via: ip.Gateway6})
	for _, r := range ip.Routes {
		add(r)
	}
	return list
}
