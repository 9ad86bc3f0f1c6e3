package swarmnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/testvm"
)

// MostMachines is how many machines have an address beside the server's, 10.77.0.1.
const MostMachines = 200

const (
	firstHost = 10 // the last number of the first machine's address
	bridge    = "br0"
	trunk     = "origin" // the switch's port to the origin
	card      = "eth0"   // of a machine
)

// lab is a switch with cables to the origin and to machines, each in a namespace of its own.
type lab struct {
	origin   *testvm.Network // imgserve's address is its bridge's
	backbone *testvm.Namespace
	machines []*testvm.Namespace
}

// newLab makes the switch and the origin's cable.
func newLab(ctx context.Context, cable Link) (_ *lab, err error) {
	if os.Geteuid() != 0 {
		return nil, testvm.ErrRoot
	}
	l := &lab{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make the network of a swarm: %w", err), l.close())
		}
	}()
	if l.origin, err = (&testvm.Host{}).NewNetwork(ctx, testvm.NetworkConfig{NoDHCP: true}); err != nil {
		return nil, err
	}
	if l.backbone, err = testvm.NewNamespace(); err != nil {
		return nil, err
	}
	if err := l.backbone.Do(makeSwitch); err != nil {
		return nil, err
	}
	if err := l.origin.Namespace().Do(useCubic); err != nil {
		return nil, err
	}
	if err := l.plug(trunk, "uplink", l.origin.Namespace(), cable); err != nil {
		return nil, err
	}
	if err := l.origin.Namespace().Do(func() error { return enslave("uplink") }); err != nil {
		return nil, err
	}
	return l, nil
}

// useCubic makes the connections of a namespace share cables as those of EL's kernels do, whatever the host's do: one that is paced by
// BBR leaves a part of a cable unused on which acknowledgements go too. The module may not be loaded; it is built in nearly everywhere.
func useCubic() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte("cubic"), 0o644); err != nil {
		return fmt.Errorf("have TCP use cubic: %w: %w", ErrShape, err)
	}
	return nil
}

// makeSwitch makes a bridge without an address. A new bridge has STP off, and then forwards at once.
func makeSwitch() error {
	snooping := false
	la := netlink.NewLinkAttrs()
	la.Name = bridge
	br := &netlink.Bridge{LinkAttrs: la, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	return up(bridge)
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// enslave puts an interface into the bridge beside it.
func enslave(name string) error {
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find the bridge: %w", err)
	}
	port, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkSetMaster(port, br); err != nil {
		return fmt.Errorf("put %s into the bridge: %w", name, err)
	}
	return nil
}

// plug lays a cable from a port of the switch to an interface in another namespace. Both ends are up then.
func (l *lab) plug(port, name string, to *testvm.Namespace, cable Link) error {
	var tid int
	if err := to.Do(func() error { tid = unix.Gettid(); return nil }); err != nil {
		return err
	}
	end := func(name string) error {
		if cable.Loss > 0 {
			if err := single(name); err != nil {
				return err
			}
		}
		return errors.Join(shape(name, cable.Rate), lose(name, cable.Loss), up(name))
	}
	err := l.backbone.Do(func() error {
		la := netlink.NewLinkAttrs()
		la.Name = port
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: name, PeerNamespace: netlink.NsPid(tid)}); err != nil {
			return fmt.Errorf("add cable: %w", err)
		}
		return errors.Join(enslave(port), end(port))
	})
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	if err := to.Do(func() error { return end(name) }); err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	return nil
}

// add adds a machine, which gets the next number, from 0.
func (l *lab) add(cable Link) (int, error) {
	i := len(l.machines)
	if i >= MostMachines {
		return 0, fmt.Errorf("add machine %d: there are addresses for %d", i, MostMachines)
	}
	ns, err := testvm.NewNamespace()
	if err != nil {
		return 0, err
	}
	l.machines = append(l.machines, ns)
	if err := l.plug(fmt.Sprintf("port%d", i), card, ns, cable); err != nil {
		return 0, err
	}
	err = ns.Do(func() error {
		if err := useCubic(); err != nil {
			return err
		}
		c, err := netlink.LinkByName(card)
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(address(i) + "/24")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(c, addr), up("lo"))
	})
	if err != nil {
		return 0, fmt.Errorf("give machine %d its address: %w", i, err)
	}
	return i, nil
}

// address is a machine's.
func address(i int) string { return fmt.Sprintf("10.77.0.%d", firstHost+i) }

// originSent is how many bytes of payload the origin has sent.
func (l *lab) originSent() (n int64, err error) {
	err = l.origin.Namespace().Do(func() (err error) { n, err = sent("uplink"); return err })
	return n, err
}

// probe measures what a cable of this kind brings: a plain TCP connection from one machine to another, for the given time.
// It returns bytes of payload a second.
func (l *lab) probe(ctx context.Context, from, to int, d time.Duration) (float64, error) {
	var listener net.Listener
	err := l.machines[from].Do(func() (err error) { listener, err = net.Listen("tcp4", address(from)+":0"); return err })
	if err != nil {
		return 0, fmt.Errorf("measure a cable: %w", err)
	}
	defer listener.Close()
	go func() { // ends when the other side has closed the connection, or the listener
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for b := make([]byte, 256<<10); err == nil; {
			_, err = c.Write(b)
		}
	}()
	var c net.Conn
	dialer := net.Dialer{Timeout: 5 * time.Second}
	err = l.machines[to].Do(func() (err error) {
		c, err = dialer.DialContext(ctx, "tcp4", listener.Addr().String())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measure a cable: %w", err)
	}
	defer c.Close()
	// The first burst, and slow start, are not the cable's rate.
	b := make([]byte, 256<<10)
	var begun time.Time
	var n int64
	warm := time.Now().Add(d / 4)
	if err := c.SetDeadline(warm.Add(d)); err != nil {
		return 0, fmt.Errorf("measure a cable: %w", err)
	}
	for {
		k, err := c.Read(b)
		now := time.Now()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && n > 0:
			return float64(n) / now.Sub(begun).Seconds(), nil
		case err != nil:
			return 0, fmt.Errorf("measure a cable: %w", errors.Join(err, context.Cause(ctx)))
		case begun.IsZero() && now.After(warm):
			begun = now
		case !begun.IsZero():
			n += int64(k)
		}
	}
}

func (l *lab) close() error {
	for _, ns := range l.machines {
		ns.Close()
	}
	if l.backbone != nil {
		l.backbone.Close()
	}
	if l.origin != nil {
		return l.origin.Close()
	}
	return nil
}
