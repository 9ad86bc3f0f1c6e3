package netconf

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Dial makes a connection through the host's own network, with its DNS servers.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Reach tries the way back to a server. It is called again after an error, until CheckOptions.ReachWait is over.
type Reach func(ctx context.Context, dial Dial) error

func (l *trial) checkReach(ctx context.Context) {
	end := time.Now().Add(l.o.ReachWait)
	var err error
	for tries := 0; tries == 0 || time.Now().Before(end) && ctx.Err() == nil; tries++ {
		if tries > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
		try, cancel := context.WithDeadline(ctx, end)
		fault := l.o.Reach(try, l.dialer())
		cancel()
		if fault == nil {
			l.seen(nil, true, "the server is reached")
			return
		}
		if err == nil || !errors.Is(fault, context.DeadlineExceeded) {
			err = fault // that the time is over says less than what was seen before
		}
	}
	l.seen(nil, false, "the links work and the server is not reached from them: %v", err)
}

// dialer has its own resolver: the file that Go's reads is the installer's.
func (l *trial) dialer() Dial {
	servers := l.servers()
	var next atomic.Int64
	d := &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if len(servers) == 0 {
			return nil, errors.New("the host's network has no DNS servers")
		}
		server := servers[int(next.Add(1)-1)%len(servers)]
		return (&net.Dialer{}).DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
	}}}
	return d.DialContext
}
