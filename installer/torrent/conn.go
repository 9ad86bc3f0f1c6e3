//go:build !notorrent

package torrent

import (
	"context"
	"net"
	"time"

	"golang.org/x/time/rate"
)

// burst is how many bytes may pass at once under a rate: more than the largest message and the library's read buffer.
const burst = 256 << 10

// limited is a connection whose reads keep to a rate. The library's own limit for reads would refuse connections whenever
// the rate is used up.
type limited struct {
	net.Conn
	rate *rate.Limiter
	ctx  context.Context // ends with the client
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p[:min(len(p), burst)])
	if n > 0 {
		if werr := l.rate.WaitN(l.ctx, n); werr != nil && err == nil {
			err = werr
		}
	}
	return n, err
}

// wrap makes a fresh connection ready: what is still to be sent is dropped when it is closed, and it is noticed when the
// other side is gone without a word.
func (c *Client) wrap(conn net.Conn) net.Conn {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3})
	}
	return &limited{conn, c.limitIn, c.ctx}
}

// listener takes peers' connections.
type listener struct {
	net.Listener
	c *Client
}

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.c.wrap(conn), nil
}

// dialer makes connections to peers.
type dialer struct {
	net.Dialer
	c *Client
}

func (d *dialer) Dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, d.DialerNetwork(), address)
	if err != nil {
		return nil, err
	}
	return d.c.wrap(conn), nil
}

// DialerNetwork is for the library's messages.
func (d *dialer) DialerNetwork() string { return "tcp" }
