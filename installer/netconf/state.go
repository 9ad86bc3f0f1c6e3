package netconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// state is the installer's own network: what every link was before a host's network was tried.
type state struct {
	links     []linkState
	addresses []message
	routes    []message
}

type linkState struct {
	index, mtu, master int
	name               string
	mac                net.HardwareAddr
	up, carrier        bool
	settings           map[string]string // of IPv6, by the name of their file
}

const ipv6Settings = "/proc/sys/net/ipv6/conf"

// settings are those that are changed here. The order is that in which they are given back.
func settings() []string { return []string{"disable_ipv6", "accept_dad", "autoconf", "accept_ra"} }

func setting(link, name string) string { return filepath.Join(ipv6Settings, link, name) }

// capture takes down what there is.
func capture() (*state, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network links: %w", err)
	}
	s := &state{}
	for _, l := range links {
		a := l.Attrs()
		if a.Index == loopback {
			continue
		}
		k := linkState{index: a.Index, mtu: a.MTU, master: a.MasterIndex, name: a.Name, mac: slices.Clone(a.HardwareAddr),
			up: a.Flags&net.FlagUp != 0, carrier: hasCarrier(a), settings: map[string]string{}}
		for _, name := range settings() {
			b, err := os.ReadFile(setting(a.Name, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue // a kernel without IPv6
			}
			if err != nil {
				return nil, fmt.Errorf("read the settings of %s: %w", a.Name, err)
			}
			k.settings[name] = strings.TrimSpace(string(b))
		}
		s.links = append(s.links, k)
	}
	s.addresses, s.routes, err = present()
	return s, err
}

// present lists the addresses and routes of all links.
func present() (addrs, rts []message, err error) {
	if addrs, err = addresses(); err != nil {
		return nil, nil, err
	}
	if rts, err = routes(); err != nil {
		return nil, nil, err
	}
	markLearned(addrs, rts)
	return addrs, rts, nil
}

// hasCarrier says whether a link that is up can carry packets. UP alone is only our wish.
func hasCarrier(a *netlink.LinkAttrs) bool {
	return a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_RUNNING != 0
}

func set(link, name, value string) error {
	err := os.WriteFile(setting(link, name), []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// clear takes all addresses and routes off all links, so that nothing of the installer's own network can pass for the
// host's. Links stay up: one that goes down may need half a minute until its switch forwards again. So do link-local
// addresses, which every IPv6 link has.
func (s *state) clear() error {
	for _, k := range s.links {
		if err := set(k.name, "accept_ra", "0"); err != nil {
			return fmt.Errorf("clear %s: %w", k.name, err)
		}
	}
	list, err := addresses()
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.linkLocal() {
			continue
		}
		if err := m.send(unix.RTM_DELADDR, 0); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take the address %s off: %w", m.text(), err)
		}
	}
	left, err := routes()
	if err != nil {
		return err
	}
	for _, m := range left {
		if m.linkLocal() {
			continue
		}
		if err := m.send(unix.RTM_DELROUTE, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("take the route %s away: %w", m.text(), err)
		}
	}
	return nil
}

// linkLocal says whether the message is about an address in fe80::/10, or the route to them.
func (m *message) linkLocal() bool {
	if m.fixed[0] != unix.AF_INET6 {
		return false
	}
	kind := uint16(unix.IFA_ADDRESS)
	if !m.isAddress() {
		kind = unix.RTA_DST
	}
	v := m.get(kind)
	return len(v) == 16 && v[0] == 0xfe && v[1]&0xc0 == 0x80
}

// text is the message for an error: "192.0.2.5/24", "10.0.0.0/8".
func (m *message) text() string {
	kind := uint16(unix.IFA_LOCAL)
	switch {
	case !m.isAddress():
		kind = unix.RTA_DST
	case m.get(kind) == nil:
		kind = unix.IFA_ADDRESS
	}
	if v := m.get(kind); len(v) == 4 || len(v) == 16 {
		return fmt.Sprintf("%s/%d", net.IP(v), m.fixed[1])
	}
	return "default"
}

func (k *linkState) restore() error {
	l, err := netlink.LinkByIndex(k.index)
	if err != nil {
		return fmt.Errorf("%s is gone: %w", k.name, err)
	}
	var errs []error
	try := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of %s: %w", what, k.name, err))
		}
	}
	a := l.Attrs()
	if a.MasterIndex != k.master {
		if k.master == 0 {
			try("set the master", netlink.LinkSetNoMaster(l))
		} else {
			try("set the master", netlink.LinkSetMasterByIndex(l, k.master))
		}
	}
	if !bytes.Equal(a.HardwareAddr, k.mac) {
		try("set the MAC address", netlink.LinkSetHardwareAddr(l, k.mac))
	}
	if a.MTU != k.mtu {
		try("set the MTU", netlink.LinkSetMTU(l, k.mtu))
	}
	for _, name := range settings() {
		if v, ok := k.settings[name]; ok {
			try("set "+name, set(k.name, name, v))
		}
	}
	if k.up {
		try("set the state", netlink.LinkSetUp(l))
	} else {
		try("set the state", netlink.LinkSetDown(l))
	}
	return errors.Join(errs...)
}
