package storm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// patience is how long an answer may take. Boot loaders wait longer.
const patience = time.Minute

// conn is one HTTP connection of one machine. net/http's client would take two goroutines for each of them.
type conn struct {
	c       net.Conn
	readers *sync.Pool // of *bufio.Reader: a connection that waits has none
}

// dial connects from a machine's own address.
func dial(ctx context.Context, from netip.Addr, to string, readers *sync.Pool) (*conn, error) {
	d := net.Dialer{Timeout: patience, KeepAlive: -1, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	c, err := d.DialContext(ctx, "tcp4", to)
	if err != nil {
		return nil, err
	}
	return &conn{c, readers}, nil
}

// newReaders returns what connections share.
func newReaders() *sync.Pool { return &sync.Pool{New: func() any { return bufio.NewReader(nil) }} }

// do sends a request, which is all of its bytes, and returns the answer's body if its status is the wanted one.
func (c *conn) do(request []byte, want int) ([]byte, error) {
	if err := c.c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := c.c.Write(request); err != nil {
		return nil, err
	}
	b := c.readers.Get().(*bufio.Reader)
	defer c.readers.Put(b)
	b.Reset(c.c)
	r, err := http.ReadResponse(b, nil)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if r.StatusCode != want {
		return nil, fmt.Errorf("the answer is %s: %.200s", r.Status, body)
	}
	return body, nil
}

func (c *conn) close() { _ = c.c.Close() } // what was read has been checked

// get is a request for a path, as iPXE writes it.
func get(host, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: iPXE/1.21.1\r\nConnection: keep-alive\r\n\r\n", path, host)
}

// post is a request that sends JSON, with a token where there is one.
func post(host, path, token string, body []byte) []byte {
	auth := ""
	if token != "" {
		auth = "Authorization: Bearer " + token + "\r\n"
	}
	b := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: imgbuild\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n", path, host, auth, len(body))
	return append(b, body...)
}
