package storm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// relay is the machines' DHCP relay (RFC 2131, 4.1, and RFC 1542): all of them send and hear through it.
type relay struct {
	conn     *net.UDPConn
	server   netip.AddrPort
	done     chan struct{}
	repeated atomic.Int64 // messages that were sent again

	mu      sync.RWMutex
	waiting map[uint32]chan []byte // by transaction
}

// A machine sends a message again when there is no answer, and gives up in the end (RFC 2131, 4.1).
const (
	firstWait = 2 * time.Second
	mostSends = 4
)

func newRelay(ctx context.Context) (*relay, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp4", relayAddr+":67")
	if err != nil {
		return nil, fmt.Errorf("open DHCP relay: %w", err)
	}
	r := &relay{conn: c.(*net.UDPConn), server: netip.MustParseAddrPort("10.77.0.1:67"), done: make(chan struct{}), waiting: map[uint32]chan []byte{}}
	// What the relay itself drops would be taken for the server's fault. The kernel gives as much as it allows.
	_ = r.conn.SetReadBuffer(4 << 20)
	go r.read()
	return r, nil
}

// read hands answers to the machines that wait for them, until the socket is closed.
func (r *relay) read() {
	defer close(r.done)
	b := make([]byte, 4096)
	for {
		n, _, err := r.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 240 || b[0] != byte(dhcpv4.OpcodeBootReply) {
			continue
		}
		r.mu.RLock()
		c := r.waiting[binary.BigEndian.Uint32(b[4:8])]
		r.mu.RUnlock()
		select {
		case c <- append([]byte(nil), b[:n]...):
		default: // nobody waits for it any more
		}
	}
}

func (r *relay) close() error {
	err := r.conn.Close()
	<-r.done
	return err
}

// lease gets a machine an address, in four messages, as iPXE does, and returns it with what the server has told it to load.
func (r *relay) lease(ctx context.Context, m *machine) (addr netip.Addr, bootFile string, err error) {
	fail := func(err error) (netip.Addr, string, error) {
		return netip.Addr{}, "", fmt.Errorf("DHCP for %s: %w", m.sn, err)
	}
	d, err := dhcpv4.NewDiscovery(m.mac, append(m.dhcpOptions(), dhcpv4.WithRelay(net.ParseIP(relayAddr)))...)
	if err != nil {
		return fail(err)
	}
	offer, err := r.ask(ctx, d, dhcpv4.MessageTypeOffer)
	if err != nil {
		return fail(err)
	}
	q, err := dhcpv4.NewRequestFromOffer(offer, append(m.dhcpOptions(), dhcpv4.WithRelay(net.ParseIP(relayAddr)))...)
	if err != nil {
		return fail(err)
	}
	ack, err := r.ask(ctx, q, dhcpv4.MessageTypeAck)
	if err != nil {
		return fail(err)
	}
	addr, _ = netip.AddrFromSlice(ack.YourIPAddr.To4())
	bootFile = ack.BootFileName
	if f := ack.BootFileNameOption(); f != "" {
		bootFile = f
	}
	return addr, bootFile, nil
}

// ask sends a message until it is answered.
func (r *relay) ask(ctx context.Context, p *dhcpv4.DHCPv4, want dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	xid := binary.BigEndian.Uint32(p.TransactionID[:])
	answers := make(chan []byte, 2)
	r.mu.Lock()
	r.waiting[xid] = answers
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.waiting, xid)
		r.mu.Unlock()
	}()
	b, wait := p.ToBytes(), firstWait
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for sent := 1; ; {
		if _, err := r.conn.WriteToUDPAddrPort(b, r.server); err != nil {
			return nil, err
		}
		select {
		case b := <-answers:
			a, err := dhcpv4.FromBytes(b)
			if err != nil {
				return nil, fmt.Errorf("read the answer to %s: %w", p.MessageType(), err)
			}
			if a.MessageType() != want {
				return nil, fmt.Errorf("the answer to %s is %s: %s", p.MessageType(), a.MessageType(), a.Message())
			}
			return a, nil
		case <-timer.C:
			if sent++; sent > mostSends {
				return nil, fmt.Errorf("%s was sent %d times and not answered", p.MessageType(), mostSends)
			}
			r.repeated.Add(1)
			wait *= 2
			timer.Reset(wait)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// dhcpOptions are what iPXE for BIOS sends.
func (m *machine) dhcpOptions() []dhcpv4.Modifier {
	return []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1472)),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.INTEL_X86PC)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 16})),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:003016")),
		dhcpv4.WithOption(dhcpv4.OptUserClass("iPXE")),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, append([]byte{0}, m.uuid[:]...))),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(175), []byte{0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0x41})),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName,
			dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName, dhcpv4.OptionVendorSpecificInformation),
	}
}
