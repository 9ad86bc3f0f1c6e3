package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/server/config"
	"imgbuild/server/dhcp"
)

// Bounds of connections. A download takes as long as it takes: what ends it is a client that takes nothing any more.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10
	// unacknowledged is how long a client may leave bytes unacknowledged, or its window closed (TCP_USER_TIMEOUT, RFC 5482).
	unacknowledged = 2 * time.Minute
)

// listener is one address that is listened at.
type listener struct {
	net.Listener
	scheme string
}

// listen listens for TCP, for what is served there. The error names the port, who has it, and what it takes.
func listen(ctx context.Context, what, address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		controlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
		})
		return errors.Join(controlErr, err)
	}}
	l, err := lc.Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
	}
	return nil, portError(what, "tcp", address, err)
}

// portError says why a port cannot be had and what to do about it.
func portError(what, network, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		who := "another program"
		if u := dhcp.TakenAddress(context.Background(), network, address); u != nil && u.Program != "" {
			who = u.Program
		}
		return fmt.Errorf("%s: port %s/%s is taken by %s: stop that, or listen elsewhere", what, port(address), network, who)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: port %s/%s may not be opened: ports below 1024 take root, or the capability CAP_NET_BIND_SERVICE (imgserve.service has it)", what, port(address), network)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine does not have the address of %s", what, address)
	}
	return fmt.Errorf("%s: listen at %s: %w", what, address, err)
}

func port(address string) string {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return p
}

// tryPorts sees whether DHCP and TFTP will have their ports and interfaces.
func (s *Server) tryPorts(ctx context.Context) []error {
	var errs []error
	if s.c.DHCP.Mode != "off" {
		for _, name := range interfaces(s.c) {
			if _, err := net.InterfaceByName(name); err != nil {
				errs = append(errs, fmt.Errorf("DHCP: there is no network interface %s; there are %s", name, strings.Join(interfaceNames(), ", ")))
				continue
			}
			for _, u := range dhcp.Taken(ctx, []string{name}) {
				errs = append(errs, portError("DHCP on "+name, u.Network, fmt.Sprintf(":%d", u.Port), u.Err))
			}
		}
	}
	if *s.c.TFTP.Enabled {
		if u := dhcp.TakenAddress(ctx, "udp4", s.c.TFTP.Listen); u != nil {
			errs = append(errs, portError("TFTP", "udp", s.c.TFTP.Listen, u.Err))
		}
	}
	return errs
}

// interfaces are those that DHCP is served on.
func interfaces(c *config.Config) []string {
	if c.Interface == "" {
		return c.DHCP.Interfaces
	}
	return append([]string{c.Interface}, c.DHCP.Interfaces...)
}

func interfaceNames() []string {
	list, err := net.Interfaces()
	if err != nil {
		return []string{"none that could be listed (" + err.Error() + ")"}
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

// httpServers returns a server for each listener.
func (s *Server) httpServers() []*http.Server {
	var list []*http.Server
	for _, l := range s.listeners {
		h := &http.Server{
			Handler: s.api, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // handshakes of scanners and the like
		}
		if l.scheme == "https" {
			h.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certs.get}
		}
		list = append(list, h)
	}
	return list
}

func serveHTTP(h *http.Server, l listener) error {
	var err error
	if h.TLSConfig != nil {
		err = h.ServeTLS(l, "", "")
	} else {
		err = h.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s on %s: %w", l.scheme, l.Addr(), err)
}

// stop lets requests finish for a while, then cuts them off.
func stop(servers []*http.Server, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range servers {
		wg.Go(func() {
			if err := h.Shutdown(ctx); err != nil {
				log.Warn("some downloads were cut off; machines ask for the rest when the server is back", "err", err)
				_ = h.Close() // there is nobody left to tell
			}
		})
	}
	wg.Wait()
}

// httpsURL is where people find the API over HTTPS: as exactly as this server knows.
func (s *Server) httpsURL() string {
	if s.certs == nil {
		return ""
	}
	host := ""
	if u, err := url.Parse(s.c.URL); err == nil {
		host = u.Hostname()
	}
	if host == "" {
		host, _, _ = net.SplitHostPort(s.c.TLS.Listen)
	}
	if host == "" || host == "::" || host == "0.0.0.0" {
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	return "https://" + net.JoinHostPort(host, port(s.c.TLS.Listen))
}
