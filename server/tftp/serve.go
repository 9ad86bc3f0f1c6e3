package tftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// take begins a transfer for a request. It must not wait.
func (s *Server) take(ctx context.Context, c *net.UDPConn, b []byte, from netip.AddrPort, to netip.Addr) {
	r, err := parseRequest(b)
	if err != nil {
		var no *refusal
		if errors.As(err, &no) {
			s.add(func(c *Counters) { c.Refused++ })
			s.log.Debug("TFTP request is refused", "client", from, "reason", no.text)
			_, _ = c.WriteToUDPAddrPort(errorPacket(no.code, no.text), from) // who does not hear it asks again
		}
		return
	}
	s.mu.Lock()
	switch a := from.Addr(); {
	case s.active[from]: // the request again, since our answer is slow or lost: that is repeated by itself
		s.mu.Unlock()
		return
	case s.clients[a] >= perClient || len(s.active) >= maxTransfers:
		s.count.Limited++
		s.mu.Unlock()
		s.log.Debug("TFTP request is not answered, since too many transfers are under way", "client", from, "file", r.name)
		return
	default:
		s.count.Requests++
		s.active[from] = true
		s.clients[a]++
	}
	s.mu.Unlock()
	s.ended.Add(1)
	go func() {
		defer s.ended.Done()
		defer s.leave(from)
		s.serve(ctx, r, from, to)
	}()
}

func (s *Server) leave(from netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.active, from)
	if s.clients[from.Addr()]--; s.clients[from.Addr()] <= 0 {
		delete(s.clients, from.Addr())
	}
}

// serve does one transfer, from a port of its own (RFC 1350, 4).
func (s *Server) serve(ctx context.Context, r *asked, from netip.AddrPort, to netip.Addr) {
	log := s.log.With("client", from.String(), "file", r.name)
	c, err := s.dial(ctx, from, to)
	if err != nil {
		log.Warn("TFTP transfer cannot begin", "error", err)
		return
	}
	defer c.Close()
	data, err := s.open(ctx, r.name, from.Addr())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.add(func(c *Counters) { c.NotFound++ })
		log.Info("TFTP file is not there", "known", s.cfg.Files.Names())
		_, _ = c.Write(errorPacket(codeNotFound, "there is no such file"))
		return
	case err != nil:
		s.add(func(c *Counters) { c.Refused++ })
		log.Error("TFTP file cannot be read", "error", err)
		_, _ = c.Write(errorPacket(codeOther, "the file cannot be read"))
		return
	}
	if r.ascii {
		data = netascii(data)
	}
	t := newTransfer(data, negotiate(r, len(data), s.cfg.MaxBlock, maxWindow))
	begin := time.Now()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.transfer(ctx, c, t); err != nil {
		var end *ending
		switch {
		case ctx.Err() != nil:
			_, _ = c.Write(errorPacket(codeOther, "the server is being stopped"))
		case errors.As(err, &end):
			s.add(func(c *Counters) { c.Aborted++ })
			if t.terms.sizeOnly && (t.oack || t.base == 1) {
				log.Debug("TFTP client wanted to know the size only", "bytes", len(data))
				return
			}
			log.Info("TFTP client ended the transfer", "reason", err, "blocks", t.base-1, "of", t.total)
		default:
			s.add(func(c *Counters) { c.TimedOut++ })
			log.Warn("TFTP transfer failed", "error", err, "blocks", t.base-1, "of", t.total, "block size", t.terms.block, "window", t.terms.window)
		}
		return
	}
	s.add(func(c *Counters) { c.Completed++; c.Bytes += uint64(len(data)) })
	log.Info("TFTP file was sent", "bytes", len(data), "seconds", time.Since(begin).Seconds(), "block size", t.terms.block, "window", t.terms.window)
}

// ending is what a client says that wants no more.
type ending struct {
	code uint16
	text string
}

func (e *ending) Error() string { return fmt.Sprintf("%q (code %d)", e.text, e.code) }

// transfer sends and listens until the client has the file.
func (s *Server) transfer(ctx context.Context, c *net.UDPConn, t *transfer) error {
	send := func(b []byte) error {
		_, err := c.Write(b)
		if errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EAGAIN) {
			return nil // as good as lost on the way
		}
		return err
	}
	b := make([]byte, 1024)
	wait, retries := firstTimeout, 0
	if t.terms.seconds > 0 {
		wait = time.Duration(t.terms.seconds) * time.Second
	}
	again, heard := wait, time.Now()
	for {
		if err := t.due(send); err != nil {
			return gone(err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_ = c.SetReadDeadline(time.Now().Add(min(again, patience)))
		if ctx.Err() != nil { // the deadline that ends us may have come before this one
			return context.Cause(ctx)
		}
	listen:
		n, err := c.Read(b)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
				return gone(err)
			}
			if retries++; retries > maxRetries || time.Since(heard) >= patience {
				return fmt.Errorf("the client has not answered for %s", time.Since(heard).Round(time.Second))
			}
			s.add(func(c *Counters) { c.Resent++ })
			if t.rewind(); t.terms.seconds == 0 {
				again = min(2*again, maxTimeout)
			}
			continue
		}
		switch o, code, text := t.take(b[:n]); o {
		case ignored:
			goto listen
		case progress:
			retries, again, heard = 0, wait, time.Now()
		case resend:
			s.add(func(c *Counters) { c.Resent++ })
		case finished:
			return nil
		case aborted:
			return &ending{code, text}
		}
	}
}

// gone turns the ICMP error of a client that has closed its port into the end that it means: PXE firmware that wanted the
// size says nothing and closes.
func gone(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return &ending{0, "it has closed its port"}
	}
	return err
}

// dial opens a port of ours towards a client, with the address that the request came to.
func (s *Server) dial(ctx context.Context, from netip.AddrPort, to netip.Addr) (*net.UDPConn, error) {
	d := net.Dialer{}
	if to.IsValid() && !to.IsUnspecified() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 0))
	}
	if s.cfg.Interface != "" {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var set error
			err := c.Control(func(fd uintptr) { set = unix.BindToDevice(int(fd), s.cfg.Interface) })
			return errors.Join(err, set)
		}
	}
	c, err := d.DialContext(ctx, "udp4", from.String())
	if err != nil {
		return nil, fmt.Errorf("open a port: %w", err)
	}
	return c.(*net.UDPConn), nil
}

// open finds what a name stands for: in the list, else with the function.
func (s *Server) open(ctx context.Context, name string, client netip.Addr) ([]byte, error) {
	name = Clean(name)
	b, err := s.cfg.Files.Read(name)
	if !errors.Is(err, fs.ErrNotExist) || s.cfg.Dynamic == nil {
		return b, err
	}
	return s.cfg.Dynamic(ctx, name, client)
}

// Clean brings a name from the network into the form of the list: firmware sends leading slashes, doubled slashes (shim)
// and backslashes (RIS, EFI paths).
func Clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+strings.ReplaceAll(name, `\`, "/")), "/")
}
