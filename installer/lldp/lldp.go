// Package lldp listens to what switches say of their ports by LLDP (IEEE 802.1AB). Ethernet frames come in; the
// neighbour at the other end of each link goes out.
//
// It never sends anything. A network card whose own firmware takes LLDP (some of Intel's do) shows none.
package lldp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/image/plan"
)

// Interval is how often a switch speaks, by default (802.1AB-2016, 9.2.5.7), with a second for its slowness.
const Interval = 31 * time.Second

// etherType is LLDP's.
const etherType = 0x88cc

// groups are the addresses that LLDP is sent to: nearest bridge, nearest bridge that is no two-port one, nearest customer
// bridge (802.1AB-2016, 7.1).
func groups() [][8]byte {
	return [][8]byte{{0x01, 0x80, 0xc2, 0, 0, 0x0e}, {0x01, 0x80, 0xc2, 0, 0, 0x03}, {0x01, 0x80, 0xc2, 0, 0, 0x00}}
}

// Listener hears the neighbours of all links.
type Listener struct {
	file *os.File
	raw  syscall.RawConn
	news func(link string, n plan.Neighbour)
	quit chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	names   map[int]string // links by index
	known   map[int]plan.Neighbour
	changed chan struct{} // closed, and replaced, when known changes
}

// Listen begins to listen on all links, and on those that come. news, if not nil, is called when a link has a neighbour for
// the first time or another than before; it must not block.
func Listen(news func(link string, n plan.Neighbour)) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(bigEndian(etherType)))
	if err != nil {
		return nil, fmt.Errorf("listen to LLDP: %w", err)
	}
	l := &Listener{
		file: os.NewFile(uintptr(fd), "lldp"), news: news, quit: make(chan struct{}),
		names: map[int]string{}, known: map[int]plan.Neighbour{}, changed: make(chan struct{}),
	}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("listen to LLDP: %w", err)
	}
	updates := make(chan netlink.LinkUpdate, 64)
	if err := netlink.LinkSubscribeWithOptions(updates, l.quit, netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("listen to LLDP: watch the links: %w", err)
	}
	l.done.Add(2)
	go func() { // ends when Close closes quit
		defer l.done.Done()
		l.watch(updates)
	}()
	go func() { // ends when Close closes the file
		defer l.done.Done()
		l.receive()
	}()
	return l, nil
}

// bigEndian is the network's order of a number that the kernel wants so.
func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

// Close ends listening. What was heard stays.
func (l *Listener) Close() {
	close(l.quit)
	l.file.Close()
	l.done.Wait()
}

// watch joins the groups on every Ethernet link.
func (l *Listener) watch(updates <-chan netlink.LinkUpdate) {
	for u := range updates {
		a := u.Link.Attrs()
		l.mu.Lock()
		_, old := l.names[a.Index]
		switch {
		case u.Header.Type == unix.RTM_DELLINK:
			delete(l.names, a.Index)
			delete(l.known, a.Index)
		case a.EncapType == "ether":
			l.names[a.Index] = a.Name
		}
		l.mu.Unlock()
		if u.Header.Type != unix.RTM_DELLINK && a.EncapType == "ether" && !old {
			l.join(a.Index)
		}
	}
}

// join asks the card for the groups' frames. One that refuses shows no neighbour; that is all.
func (l *Listener) join(index int) {
	_ = l.raw.Control(func(fd uintptr) {
		for _, g := range groups() {
			_ = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
				&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_MULTICAST, Alen: 6, Address: g})
		}
	})
}

func (l *Listener) receive() {
	b := make([]byte, 1<<16)
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		err := l.raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err != nil {
			return // closed
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if rerr != nil || !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			if rerr != nil && !errors.Is(rerr, unix.EINTR) && !errors.Is(rerr, unix.ENETDOWN) && !errors.Is(rerr, unix.ENOBUFS) {
				return // the socket itself is broken: nothing more will come
			}
			continue
		}
		if nb, gone, err := Parse(b[:n]); err == nil {
			l.take(ll.Ifindex, nb, gone)
		}
	}
}

func (l *Listener) take(index int, n plan.Neighbour, gone bool) {
	l.mu.Lock()
	old, had := l.known[index]
	name, ours := l.names[index]
	if !ours || had && !gone && old == n || !had && gone {
		l.mu.Unlock()
		return
	}
	if gone {
		delete(l.known, index)
	} else {
		l.known[index] = n
	}
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	if !gone && l.news != nil {
		l.news(name, n)
	}
}

// Neighbours are those that have been heard, by the link's present name.
func (l *Listener) Neighbours() map[string]plan.Neighbour {
	found, _ := l.state()
	return found
}

func (l *Listener) state() (map[string]plan.Neighbour, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := map[string]plan.Neighbour{}
	for index, n := range l.known {
		found[l.names[index]] = n
	}
	return found, l.changed
}

// Wait returns when each of the links has a neighbour, when the limit is over or when ctx ends, with those that have
// been heard.
func (l *Listener) Wait(ctx context.Context, links []string, limit time.Duration) map[string]plan.Neighbour {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		found, changed := l.state()
		if !slices.ContainsFunc(links, func(name string) bool { _, ok := found[name]; return !ok }) {
			return found
		}
		select {
		case <-changed:
		case <-timer.C:
			return maps.Clone(found)
		case <-ctx.Done():
			return found
		}
	}
}
