package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// notifier tells systemd how the server is (sd_notify(3)).
type notifier struct {
	socket string
	log    *slog.Logger
}

func newNotifier(socket string, log *slog.Logger) *notifier {
	if abstract, ok := strings.CutPrefix(socket, "@"); ok {
		socket = "\x00" + abstract
	}
	return &notifier{socket, log}
}

func (n *notifier) send(state string) {
	if n.socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(state))
		_ = c.Close() // a datagram is gone or not
	}
	if err != nil {
		n.log.Warn("tell systemd how the server is", "err", err)
	}
}

// watchdog tells systemd that the server lives as long as it answers itself over HTTP. A database that is gone is no reason:
// another start would not bring it back.
func (s *Server) watchdog(ctx context.Context, n *notifier) error {
	if s.o.Watchdog <= 0 || n.socket == "" || len(s.listeners) == 0 {
		return nil
	}
	client := &http.Client{Timeout: s.o.Watchdog, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", own(s.listeners[0].Addr()))
	}}}
	t := time.NewTicker(s.o.Watchdog)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := alive(ctx, client); err != nil {
			s.log.Error("the server does not answer itself", "err", err)
			continue
		}
		n.send("WATCHDOG=1")
	}
}

func alive(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://imgserve/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	return nil
}

// own is the address by which this machine reaches a listener of its own.
func own(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
