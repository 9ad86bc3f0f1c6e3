// Package tftp hands out boot loaders by TFTP (RFC 1350), with the options for block size (RFC 2348), file size and timeout
// (RFC 2349) and window size (RFC 7440). Names of a fixed list and names that a function knows come in; the files'
// bytes go out. Everything else goes over HTTP.
//
// It never writes, and no name from the network becomes a path: a name is looked up in the list, or it is not found.
//
// The protocol is written here since github.com/pin/tftp, the usual library, has no window size: block by block, each
// waiting for its acknowledgement, a boot loader takes as many round trips as it has blocks.
package tftp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits.
const (
	maxBlock     = 1468 // a block that fits an Ethernet frame: firmware does badly with fragments (RFC 2348, 5)
	maxWindow    = 64
	maxRetries   = 6
	firstTimeout = time.Second
	maxTimeout   = 8 * time.Second
	patience     = time.Minute // with a client that says nothing, whatever time it asked for
	perClient    = 8           // transfers of one address at the same time
	maxTransfers = 2048        // and of all
)

// Dynamic gives what a name stands for that is not in the list, as grub.cfg-01-52-54-00-12-34-56; an error that is
// fs.ErrNotExist if there is nothing. The name is as the client sent it, with slashes that are not doubled and without a
// leading one. client is its address, which proves nothing.
type Dynamic func(ctx context.Context, name string, client netip.Addr) ([]byte, error)

// Config is what a server is told.
type Config struct {
	// Listen is an IPv4 address and port; empty is :69.
	Listen string
	// Interface, if given, is the only one that is listened on.
	Interface string
	Files     *Files
	Dynamic   Dynamic // may be nil
	// MaxBlock bounds the block size, in bytes; 0 is what fits an Ethernet frame.
	MaxBlock int
}

// Counters are what the server has done since it was made.
type Counters struct {
	Requests, // to read
	Completed, // files that clients have acknowledged whole
	Aborted, // by the client; asking for the size alone is one
	NotFound, Refused, // requests
	TimedOut, // transfers whose client went silent
	Limited, // requests that were not answered, since too many were under way
	Bytes, // of files, in completed transfers
	Resent uint64 // times that lost blocks were sent again
	Active int // transfers under way
}

// Server is a TFTP server.
type Server struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	count   Counters
	clients map[netip.Addr]int
	active  map[netip.AddrPort]bool
	ended   sync.WaitGroup

	opened chan struct{}
}

// New makes a server. Nothing is opened before Run.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	if cfg.Listen == "" {
		cfg.Listen = ":69"
	}
	if _, _, err := net.SplitHostPort(cfg.Listen); err != nil {
		return nil, fmt.Errorf("TFTP: listen on %q: %w; give an address as :69 or 10.0.0.1:69", cfg.Listen, err)
	}
	if cfg.Files == nil {
		cfg.Files = NewFiles(nil)
	}
	if cfg.MaxBlock == 0 {
		cfg.MaxBlock = maxBlock
	}
	if cfg.MaxBlock < 512 || cfg.MaxBlock > 65464 {
		return nil, fmt.Errorf("TFTP: a largest block of %d bytes; it is to be between 512 and 65464 (RFC 2348)", cfg.MaxBlock)
	}
	return &Server{cfg: cfg, log: log, clients: map[netip.Addr]int{}, active: map[netip.AddrPort]bool{}, opened: make(chan struct{})}, nil
}

// Opened is closed when Run has its socket: what is sent from then on is heard.
func (s *Server) Opened() <-chan struct{} { return s.opened }

// Counters gives the counters as they are now.
func (s *Server) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.count
	c.Active = len(s.active)
	return c
}

func (s *Server) add(f func(*Counters)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.count)
}

// Run serves until the context ends, which is no error, or until the port cannot be had.
func (s *Server) Run(ctx context.Context) error {
	c, err := s.listen(ctx)
	if err != nil {
		return err
	}
	close(s.opened)
	s.log.Info("TFTP is served", "address", c.LocalAddr().String(), "files", s.cfg.Files.Names())
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		stop()
		cancel()
		_ = c.Close()
		s.ended.Wait()
	}()
	b, oob := make([]byte, 2048), make([]byte, 128)
	for failed := 0; ; {
		n, m, _, from, err := c.ReadMsgUDPAddrPort(b, oob)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if failed++; failed > 100 {
				return fmt.Errorf("TFTP: read from %s: %w", c.LocalAddr(), err)
			}
			time.Sleep(10 * time.Millisecond) // an interface that is down for a moment does not end the service
			continue
		}
		failed = 0
		s.take(ctx, c, b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), local(oob[:m]))
	}
}

func (s *Server) listen(ctx context.Context) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			if s.cfg.Interface != "" {
				set = errors.Join(set, unix.BindToDevice(int(fd), s.cfg.Interface))
			}
			// A rack that gets its power back asks all at once. The kernel bounds this by net.core.rmem_max.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		})
		return errors.Join(err, set)
	}}
	c, err := lc.ListenPacket(ctx, "udp4", s.cfg.Listen)
	switch {
	case err == nil:
		return c.(*net.UDPConn), nil
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("TFTP: listen on %s: another program has the port; stop it, or name another address: %w", s.cfg.Listen, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("TFTP: listen on %s: %w; ports below 1024 need the capability CAP_NET_BIND_SERVICE, and an interface CAP_NET_RAW", s.cfg.Listen, err)
	}
	return nil, fmt.Errorf("TFTP: listen on %s: %w", s.cfg.Listen, err)
}

// local reads IP_PKTINFO: the address of ours that a request came to.
func local(oob []byte) netip.Addr {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range list {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12 {
			return netip.AddrFrom4([4]byte(m.Data[4:8]))
		}
	}
	return netip.Addr{}
}
