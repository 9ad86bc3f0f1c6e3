//go:build integration

package lldp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/image/plan"
)

// inside marks the process that runs in the network namespace of its own.
const inside = "IMGBUILD_TEST_NAMESPACE"

func TestMain(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), inside+"=1"))
	}
	fmt.Fprintf(os.Stderr, "start tests in a network namespace of their own: %v\n", err)
	os.Exit(1)
}

// pair makes two links that are connected, and up.
func pair(t *testing.T, a, b string) (netlink.Link, netlink.Link) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("links need root")
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b}); err != nil {
		t.Fatal(err)
	}
	la, err1 := netlink.LinkByName(a)
	lb, err2 := netlink.LinkByName(b)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(la); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(netlink.LinkSetUp(la), netlink.LinkSetUp(lb)); err != nil {
		t.Fatal(err)
	}
	return la, lb
}

// lldpd is the peer: a switch's side of the link.
func TestARealLLDPDaemonIsANeighbour(t *testing.T) {
	path, err := exec.LookPath("lldpd")
	if err != nil {
		t.Skip("lldpd is not installed")
	}
	news := make(chan string, 8)
	l, err := Listen(func(link string, n plan.Neighbour) { news <- link + " " + n.System })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, b := pair(t, "card0", "switch0") // after the listener: links come late
	// The daemon's own user has to get at its socket.
	dir, err := os.MkdirTemp("", "lldpd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	c := exec.CommandContext(ctx, path, "-d", "-I", "switch0", "-C", "switch0", "-u", filepath.Join(dir, "socket"))
	c.Stderr, c.SysProcAttr = &said, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	found := l.Wait(t.Context(), []string{"card0"}, 40*time.Second)
	stop()
	_ = c.Wait() // it was killed
	n, ok := found["card0"]
	if !ok {
		t.Fatalf("nothing was heard in 40 s; lldpd said:\n%s", &said)
	}
	mac := b.Attrs().HardwareAddr.String()
	host, err := os.Hostname()
	if err != nil || n.Port != mac || n.Description != "switch0" || n.Chassis != mac || !strings.HasPrefix(n.System, strings.SplitN(host, ".", 2)[0]) {
		t.Errorf("%+v, %v; want the port %s of %s", n, err, mac, host)
	}
	if got := <-news; got != "card0 "+n.System {
		t.Errorf("the news are %q", got)
	}
	if _, ours := found["switch0"]; ours {
		t.Error("what was sent here was taken for a neighbour")
	}
}

func TestAListenerKeepsTheLastWordAndForgetsWhoLeaves(t *testing.T) {
	l, err := Listen(nil)
	if err != nil {
		t.Fatal(err)
	}
	a, b := pair(t, "card1", "switch1")
	send := func(frame string) {
		t.Helper()
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(bigEndian(etherType)))
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Protocol: bigEndian(etherType), Ifindex: b.Attrs().Index, Halen: 6, Addr: groups()[0]}
		if err := unix.Sendto(fd, []byte(frame), 0, to); err != nil {
			t.Fatal(err)
		}
	}
	// The membership and the link's name come by netlink: a frame that is sent before is lost, as any other would be.
	frame := tlv(1, chassisMAC) + tlv(2, portName) + tlv(3, ttl)
	for len(l.Neighbours()) == 0 {
		send(frame)
		l.Wait(t.Context(), []string{"card1"}, 50*time.Millisecond)
	}
	_, changed := l.state()
	send("junk")
	send(tlv(1, chassisMAC) + tlv(2, "\x05other") + tlv(3, ttl))
	<-changed
	if n := l.Neighbours()["card1"]; n.Port != "other" {
		t.Errorf("%+v", n)
	}
	_, changed = l.state()
	send(tlv(1, chassisMAC) + tlv(2, "\x05other") + tlv(3, "\x00\x00"))
	<-changed
	if n := l.Neighbours(); len(n) != 0 {
		t.Errorf("%+v", n)
	}
	if found := l.Wait(t.Context(), []string{"card1"}, time.Millisecond); len(found) != 0 {
		t.Errorf("%+v", found)
	}
	l.Close()
	if _, err := net.InterfaceByIndex(a.Attrs().Index); err != nil {
		t.Error(err)
	}
}
