package swarmnet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
)

// transport is what the machine talks to the server with; nil for the installer's own.
func (m *machine) transport() http.RoundTripper {
	if m.config.Corrupt == 0 {
		return nil
	}
	return &liar{next: &http.Transport{DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, ResponseHeaderTimeout: 30 * time.Second}, every: m.config.Corrupt}
}

// liar is a machine that spoils what it passes on. The installer's own relay does not: what others ask goes through a proxy
// beside it, whose port the server is told in the place of the relay's.
type liar struct {
	next  http.RoundTripper
	every int

	mu   sync.Mutex
	port map[int]int // the proxy's, by the relay's
}

// RoundTrip implements http.RoundTripper.
func (l *liar) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path != plan.SwarmPath {
		return l.next.RoundTrip(r)
	}
	var s plan.Swarm
	err := plan.Decode(r.Body, &s)
	if e := r.Body.Close(); err == nil {
		err = e
	}
	if err == nil && s.Port != 0 {
		s.Port, err = l.proxy(s.Port)
	}
	if err != nil {
		return nil, fmt.Errorf("change what is said of the swarm: %w", err)
	}
	body, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body, r.ContentLength, r.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	return l.next.RoundTrip(r)
}

// proxy is the port of the proxy before the relay at a port. It runs until the process ends.
func (l *liar) proxy(port int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.port[port]; ok {
		return p, nil
	}
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		return 0, err
	}
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))})
	p.FlushInterval = -1
	p.ModifyResponse = func(res *http.Response) error {
		from, _, ok := strings.Cut(strings.TrimPrefix(res.Header.Get("Content-Range"), "bytes "), "-")
		if off, err := strconv.ParseInt(from, 10, 64); ok && err == nil {
			res.Body = &spoiled{ReadCloser: res.Body, off: off, every: l.every}
		}
		return nil
	}
	go func() { _ = (&http.Server{Handler: p, ReadHeaderTimeout: time.Minute}).Serve(listener) }() // it ends with the process
	l.port = map[int]int{port: listener.Addr().(*net.TCPAddr).Port}
	return l.port[port], nil
}

// spoiled inverts a byte in the midst of every so many-th chunk.
type spoiled struct {
	io.ReadCloser
	off   int64
	every int
}

// Read implements io.Reader.
func (s *spoiled) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	for i := s.off / image.ChunkSize; i <= (s.off+int64(n))/image.ChunkSize; i++ {
		at := i*image.ChunkSize + 1000 - s.off
		if i%int64(s.every) == int64(s.every)-1 && at >= 0 && at < int64(n) {
			p[at] ^= 0xff
		}
	}
	s.off += int64(n)
	return n, err
}
