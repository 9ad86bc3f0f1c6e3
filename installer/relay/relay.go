package relay

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/blob"
	"imgbuild/installer/report"
)

const (
	maxReaders     = 16
	maxConnections = 64 // with those that have not shown a ticket

	headerTimeout = 5 * time.Second
	idleTimeout   = 15 * time.Second // between the requests of a reader
	writeTimeout  = 15 * time.Second // for one piece
)

// Options say what is served.
type Options struct {
	Blob   *blob.Blob
	Report report.Reporter
	// Listen is where it is served, as host:port; port 0 is any that is free. All addresses, and any port, if it is empty.
	Listen string
}

// Server serves chunks. All methods may be called from several goroutines.
type Server struct {
	o        Options
	listener net.Listener
	http     *http.Server
	pace     *pace
	meter    *report.Meter
	hold     time.Duration
	timeout  time.Duration // for one piece to be taken by its reader

	mu      sync.Mutex
	secret  []byte
	known   chan struct{} // closed when there is a secret
	sent    int64
	open    map[net.Conn]struct{} // all connections
	readers map[net.Conn]struct{} // those that have shown a ticket
}

// Stats are counters for reports.
type Stats struct {
	Sent    int64   // bytes
	Rate    float64 // bytes a second, smoothed
	Readers int     // connections that have shown a ticket
}

// New listens. Until SetSecret was called, everybody waits.
func New(o Options) (*Server, error) {
	if o.Listen == "" {
		o.Listen = ":0"
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for other machines: %w", err)
	}
	s := &Server{
		o: o, listener: listener, pace: newPace(), meter: report.NewMeter("relay", 0), hold: Hold, timeout: writeTimeout,
		known: make(chan struct{}), open: map[net.Conn]struct{}{}, readers: map[net.Conn]struct{}{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc(plan.ChunksPath, s.serve)
	s.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 8 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connection{}, c) },
		ConnState:   s.watch, ErrorLog: log.New(warnings{o.Report}, "", 0),
	}
	return s, nil
}

// connection is the key of a request's connection in its context.
type connection struct{}

// warnings takes what the HTTP server logs, such as that the machine has no file descriptors left.
type warnings struct{ report.Reporter }

func (w warnings) Write(p []byte) (int, error) {
	w.Warn("pass chunks on: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Port is the port that is listened at.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// SetSecret sets what tickets are checked with. A nil one is passed over.
func (s *Server) SetSecret(secret []byte) {
	if len(secret) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secret == nil {
		close(s.known)
	}
	s.secret = slices.Clone(secret)
}

// hasSecret waits for the secret: the server names this machine to others as soon as it has heard of it, which may be before its
// answer is here.
func (s *Server) hasSecret(ctx context.Context) bool {
	timer := time.NewTimer(s.hold)
	defer timer.Stop()
	select {
	case <-s.known:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// SetRate bounds what all readers get together, in bytes a second; 0 is no limit.
func (s *Server) SetRate(bytesPerSecond int64) { s.pace.set(bytesPerSecond) }

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Sent: s.sent, Rate: s.meter.Progress().Rate, Readers: len(s.readers)}
}

// Run serves until the context ends or Close is called, for which it returns nil. What is being sent then ends early.
func (s *Server) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve other machines: %w", err)
	}
	return nil
}

// Close ends all connections.
func (s *Server) Close() error {
	err := s.http.Close()
	if e := s.listener.Close(); !errors.Is(e, net.ErrClosed) {
		err = errors.Join(err, e) // Run was not called
	}
	return err
}

// watch counts connections, and ends those that are too many.
func (s *Server) watch(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.open[c] = struct{}{}
		if len(s.open) > maxConnections {
			c.Close()
		}
	case http.StateClosed:
		delete(s.open, c)
		delete(s.readers, c)
	}
}

// admit gives a connection a reader's place, which it has until it ends.
func (s *Server) admit(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.readers[c]; ok {
		return true
	}
	if len(s.readers) >= maxReaders {
		return false
	}
	s.readers[c] = struct{}{}
	return true
}

// authorised says whether a request has a good ticket (RFC 6750, 2.1).
func (s *Server) authorised(r *http.Request, now time.Time) bool {
	scheme, ticket, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.EqualFold(scheme, "Bearer") && plan.CheckTicket(s.secret, ticket, now)
}

// passed counts bytes that a reader's socket took.
func (s *Server) passed(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent += int64(n)
	s.meter.Set(s.sent)
}
