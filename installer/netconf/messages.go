package netconf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Addresses and routes are kept as the kernel's own messages and given back as such: a library's idea of a route would
// lose what the library does not know.

// message is an RTM_NEWADDR or RTM_NEWROUTE that the kernel gave, ready to be given back.
type message struct {
	link    int    // index of its interface; 0 with several
	fixed   []byte // struct ifaddrmsg or rtmsg
	attrs   []attr
	expires uint32 // seconds from taken on; of routes
	taken   time.Time
	learned bool // from a router's advertisement
}

type attr struct {
	kind  uint16
	value []byte
}

func (m *message) get(kind uint16) []byte {
	for _, a := range m.attrs {
		if a.kind == kind {
			return a.value
		}
	}
	return nil
}

// same says whether two messages mean the same, whatever time has passed.
func (m *message) same(o *message) bool { return bytes.Equal(m.key(), o.key()) }

func (m *message) key() []byte {
	b := slices.Clone(m.fixed)
	for _, a := range m.attrs {
		v := a.value
		if m.isAddress() && a.kind == unix.IFA_CACHEINFO {
			v = slices.Clone(v[:8])
			for i := 0; i < 8; i += 4 { // a lifetime counts as for ever or not
				if binary.NativeEndian.Uint32(v[i:]) != infinity {
					binary.NativeEndian.PutUint32(v[i:], 0)
				}
			}
		}
		b = binary.NativeEndian.AppendUint16(b, a.kind)
		b = binary.NativeEndian.AppendUint16(b, uint16(len(v)))
		b = append(b, v...)
	}
	return b
}

func (m *message) isAddress() bool { return len(m.fixed) == unix.SizeofIfAddrmsg }

// send gives the message to the kernel with a request like RTM_NEWADDR.
func (m *message) send(request, flags int) error {
	raw := slices.Clone(m.fixed)
	add := func(kind uint16, value []byte) {
		raw = append(raw, nl.NewRtAttr(int(kind), value).Serialize()...)
	}
	for _, a := range m.attrs {
		v := a.value
		if m.isAddress() && a.kind == unix.IFA_CACHEINFO {
			v = m.aged(v)
		}
		add(a.kind, v)
	}
	if m.expires > 0 && request == unix.RTM_NEWROUTE {
		add(unix.RTA_EXPIRES, binary.NativeEndian.AppendUint32(nil, max(m.left(m.expires), 1)))
	}
	req := nl.NewNetlinkRequest(request, flags|unix.NLM_F_ACK)
	req.AddRawData(raw)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

const (
	infinity = 0xffffffff
	// IFA_PROTO and IFAPROT_KERNEL_RA of linux/if_addr.h, which golang.org/x/sys does not have yet. Kernels before 5.18 do not
	// have them either.
	ifaProto   = 11
	ifaProtoRA = 2
)

func (m *message) left(seconds uint32) uint32 {
	if seconds == infinity {
		return seconds
	}
	return uint32(max(int64(seconds)-int64(time.Since(m.taken)/time.Second), 0))
}

// over says whether its lifetime has ended since it was taken.
func (m *message) over() bool {
	life := m.expires
	if info := m.get(unix.IFA_CACHEINFO); m.isAddress() && info != nil {
		life = binary.NativeEndian.Uint32(info[4:])
	}
	return life != 0 && m.left(life) == 0
}

// aged is a struct ifa_cacheinfo with the lifetimes that are left: preferred and valid. An address may be no longer
// preferred, and is always valid.
func (m *message) aged(info []byte) []byte {
	b := slices.Clone(info)
	binary.NativeEndian.PutUint32(b, m.left(binary.NativeEndian.Uint32(b)))
	binary.NativeEndian.PutUint32(b[4:], max(m.left(binary.NativeEndian.Uint32(b[4:])), 1))
	return b
}

// markLearned marks what the kernel has from routers: their routes and addresses, and the routes to the networks that they
// advertise, which look like those that the kernel makes of addresses and have none.
func markLearned(addrs, rts []message) {
	for i := range rts {
		r := &rts[i]
		if r.fixed[0] != unix.AF_INET6 || r.linkLocal() {
			continue
		}
		to := prefixOf(r.get(unix.RTA_DST), r.fixed[1])
		ofAddress := func(a message) bool {
			return !a.learned && a.link == r.link && prefixOf(a.get(unix.IFA_ADDRESS), a.fixed[1]) == to
		}
		switch r.fixed[5] {
		case unix.RTPROT_RA:
			r.learned = true
		case unix.RTPROT_KERNEL:
			r.learned = !slices.ContainsFunc(addrs, ofAddress)
		}
	}
}

func prefixOf(address []byte, bits byte) netip.Prefix {
	a, _ := netip.AddrFromSlice(address)
	return netip.PrefixFrom(a, int(bits)).Masked()
}

// dump asks the kernel for all messages of a kind.
func dump(request int, answer uint16, fixed []byte) ([][]byte, error) {
	for range 10 {
		req := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
		req.AddRawData(fixed)
		list, err := req.Execute(unix.NETLINK_ROUTE, answer)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue // something changed meanwhile
		}
		return list, err
	}
	return nil, errors.New("it changes all the time")
}

// addresses lists all addresses of all links but the loopback's.
func addresses() ([]message, error) {
	raw, err := dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("list the network addresses: %w", err)
	}
	now := time.Now()
	var list []message
	for _, b := range raw {
		m, ok := parse(b, unix.SizeofIfAddrmsg, now)
		if !ok {
			return nil, errors.New("list the network addresses: the kernel's answer is not understood")
		}
		m.link = int(binary.NativeEndian.Uint32(m.fixed[4:]))
		m.fixed[2] = 0 // the flags' first eight bits, which stand in IFA_FLAGS too
		m.attrs = slices.DeleteFunc(m.attrs, func(a attr) bool {
			switch a.kind {
			case unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_LABEL, unix.IFA_BROADCAST, unix.IFA_CACHEINFO, unix.IFA_FLAGS, unix.IFA_RT_PRIORITY, ifaProto:
				return false
			}
			return true
		})
		m.learned = m.fixed[0] == unix.AF_INET6 && m.autoconfigured()
		for i, a := range m.attrs {
			if a.kind == unix.IFA_FLAGS && len(a.value) == 4 {
				// What only the kernel can say of an address is left out.
				const settable = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
				m.attrs[i].value = binary.NativeEndian.AppendUint32(nil, binary.NativeEndian.Uint32(a.value)&settable)
			}
		}
		if m.link != loopback {
			list = append(list, m)
		}
	}
	return list, nil
}

// autoconfigured says whether the kernel has made the address of a router's advertisement.
func (m *message) autoconfigured() bool {
	if p := m.get(ifaProto); len(p) == 1 {
		return p[0] == ifaProtoRA
	}
	v := m.get(unix.IFA_FLAGS)
	return len(v) == 4 && binary.NativeEndian.Uint32(v)&(unix.IFA_F_PERMANENT|unix.IFA_F_MANAGETEMPADDR) == unix.IFA_F_MANAGETEMPADDR
}

// loopback is the index of the loopback interface in every network namespace.
const loopback = 1

// routes lists the unicast routes of all tables but the kernel's own one of local addresses.
func routes() ([]message, error) {
	raw, err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, make([]byte, unix.SizeofRtMsg))
	if err != nil {
		return nil, fmt.Errorf("list the routes: %w", err)
	}
	now := time.Now()
	var list []message
	for _, b := range raw {
		m, ok := parse(b, unix.SizeofRtMsg, now)
		if !ok {
			return nil, errors.New("list the routes: the kernel's answer is not understood")
		}
		if v := m.get(unix.RTA_OIF); len(v) == 4 {
			m.link = int(binary.NativeEndian.Uint32(v))
		}
		// table, type and flags of struct rtmsg
		flags := binary.NativeEndian.Uint32(m.fixed[8:])
		if m.fixed[4] == unix.RT_TABLE_LOCAL || m.fixed[7] != unix.RTN_UNICAST || flags&unix.RTM_F_CLONED != 0 || m.link == loopback {
			continue
		}
		binary.NativeEndian.PutUint32(m.fixed[8:], flags&unix.RTNH_F_ONLINK)
		if info := m.get(unix.RTA_CACHEINFO); len(info) >= 12 && m.fixed[0] == unix.AF_INET6 {
			// struct rta_cacheinfo: expires is its third field, in USER_HZ, and negative when it is past.
			switch ticks := int32(binary.NativeEndian.Uint32(info[8:])); {
			case ticks > 0:
				m.expires = max(uint32(ticks)/100, 1)
			case ticks < 0:
				continue // nobody uses it any more; the kernel takes it away when it gets round to it
			}
		}
		m.attrs = slices.DeleteFunc(m.attrs, func(a attr) bool { return a.kind == unix.RTA_CACHEINFO || a.kind == unix.RTA_EXPIRES })
		for _, a := range m.attrs {
			if a.kind == unix.RTA_MULTIPATH {
				clearHopFlags(a.value)
			}
		}
		list = append(list, m)
	}
	return list, nil
}

// clearHopFlags takes out of each struct rtnexthop what the kernel says of its link's state and refuses to be told.
func clearHopFlags(b []byte) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		b[2] &= unix.RTNH_F_ONLINK
		if n = (n + 3) &^ 3; n < unix.SizeofRtNexthop || n > len(b) {
			return
		}
		b = b[n:]
	}
}

// parse splits a message into its fixed part and its attributes, in copies.
func parse(b []byte, fixed int, now time.Time) (message, bool) {
	if len(b) < fixed {
		return message{}, false
	}
	m := message{fixed: slices.Clone(b[:fixed]), taken: now}
	for b = b[fixed:]; len(b) >= unix.SizeofRtAttr; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return message{}, false
		}
		m.attrs = append(m.attrs, attr{binary.NativeEndian.Uint16(b[2:]) &^ unix.NLA_F_NESTED, slices.Clone(b[unix.SizeofRtAttr:n])})
		b = b[min((n+3)&^3, len(b)):]
	}
	if fixed == unix.SizeofIfAddrmsg {
		for _, a := range m.attrs {
			if a.kind == unix.IFA_CACHEINFO && len(a.value) < 16 {
				return message{}, false
			}
		}
	}
	return m, true
}
