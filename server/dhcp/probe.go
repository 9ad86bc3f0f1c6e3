package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// packetSocket opens a packet socket without link headers on one interface; protocol 0 receives nothing.
func packetSocket(index int, protocol uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, packetError(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: index}); err != nil {
		_ = unix.Close(fd)
		return nil, packetError(err)
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

func packetError(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("open packet socket: %w; it needs the capability CAP_NET_RAW", err)
	}
	return fmt.Errorf("open packet socket: %w", err)
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// sendPacket sends to a hardware address on the socket's interface.
func sendPacket(f *os.File, index int, protocol uint16, to, b []byte) error {
	sa := &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: index, Halen: uint8(len(to))}
	copy(sa.Addr[:], to)
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = c.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, 0, sa)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// receivePacket reads one packet that others sent. It is os.ErrClosed when the socket is closed.
func receivePacket(f *os.File, b []byte) (int, *unix.SockaddrLinklayer, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	for {
		var n int
		var from unix.Sockaddr
		var got error
		err := c.Read(func(fd uintptr) bool {
			n, from, got = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(got, unix.EAGAIN)
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return 0, nil, err
		case err != nil: // package os does not say with a word of its own that a file was closed while it was read
			return 0, nil, os.ErrClosed
		case got != nil:
			return 0, nil, got
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
			return n, ll, nil
		}
	}
}

// asker finds out whether an address is in use. Questions of many clients share its sockets.
type asker struct {
	wait time.Duration
	icmp net.PacketConn
	id   uint16
	seq  atomic.Uint32

	mu      sync.Mutex
	waiting map[netip.Addr][]*question
}

// question waits for somebody to say that an address is his. Nothing that the asker's own hardware says counts.
type question struct {
	mac  []byte
	once sync.Once
	who  string
	hit  chan struct{}
}

func newAsker(wait time.Duration) (*asker, error) {
	c, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return nil, fmt.Errorf("open ICMP socket, to ask whether addresses are in use: %w; it needs the capability CAP_NET_RAW", err)
	}
	return &asker{wait: wait, icmp: c, id: uint16(os.Getpid()), waiting: map[netip.Addr][]*question{}}, nil
}

// listenICMP hears answers until the socket is closed.
func (k *asker) listenICMP() {
	b := make([]byte, 1500)
	for {
		n, from, err := k.icmp.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		ip, ok := from.(*net.IPAddr)
		if err != nil || !ok || n < 8 || b[0] != 0 || b[4] != byte(k.id>>8) || b[5] != byte(k.id) {
			continue
		}
		if a, ok := netip.AddrFromSlice(ip.IP.To4()); ok {
			k.heard(a, nil)
		}
	}
}

// listenARP hears ARP on one interface until the socket is closed.
func (k *asker) listenARP(f *os.File) {
	b := make([]byte, 1500)
	for {
		n, _, err := receivePacket(f, b)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // the interface is down; it may come back
			continue
		}
		if a, mac, ok := arpSender(b[:n]); ok {
			k.heard(a, mac)
		}
	}
}

func (k *asker) heard(a netip.Addr, mac []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, q := range k.waiting[a] {
		if mac != nil && bytes.Equal(mac, q.mac) {
			continue
		}
		q.once.Do(func() {
			if q.who = "a machine that answers ICMP"; mac != nil {
				q.who = net.HardwareAddr(mac).String()
			}
			close(q.hit)
		})
	}
}

// inUse asks whether somebody uses an address, by ARP on the client's own link, else by ICMP, and waits for an answer. It
// says who, or "" if nobody answered. mac is the client's, whose own answer does not count.
func (k *asker) inUse(ctx context.Context, a netip.Addr, on *port, mac []byte) (string, error) {
	q := &question{mac: mac, hit: make(chan struct{})}
	k.mu.Lock()
	k.waiting[a] = append(k.waiting[a], q)
	k.mu.Unlock()
	defer k.done(a, q)
	end := time.NewTimer(k.wait)
	defer end.Stop()
	again := time.NewTicker(max(k.wait/3, time.Millisecond)) // one lost packet is not to be taken for a free address
	defer again.Stop()
	for {
		if err := k.ask(a, on); err != nil {
			return "", fmt.Errorf("ask whether %s is in use: %w", a, err)
		}
		select {
		case <-q.hit:
			return q.who, nil
		case <-end.C:
			return "", nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-again.C:
		}
	}
}

func (k *asker) ask(a netip.Addr, on *port) error {
	if on != nil {
		l := on.link.Load()
		return sendPacket(on.arp, l.index, unix.ETH_P_ARP, bytes.Repeat([]byte{0xff}, 6), arpProbe(l.mac, a))
	}
	_, err := k.icmp.WriteTo(echoRequest(k.id, uint16(k.seq.Add(1))), &net.IPAddr{IP: a.AsSlice()})
	if errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) {
		return nil // there is no way to it: nobody answers
	}
	return err
}

func (k *asker) done(a netip.Addr, q *question) {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := k.waiting[a]
	for i := range list {
		if list[i] == q {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(k.waiting, a)
		return
	}
	k.waiting[a] = list
}
