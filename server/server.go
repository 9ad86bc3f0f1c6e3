// Package server puts the boot server together: the registry, the releases, the boot scripts, the machines' side, the API,
// DHCP and TFTP. A configuration comes in; a server that runs until it is told to stop goes out, or everything that is in
// its way, at once.
//
// It decides nothing: who may boot what is the gate's, who may ask is the API's.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/api"
	"imgbuild/server/boot"
	"imgbuild/server/config"
	"imgbuild/server/dhcp"
	"imgbuild/server/gate"
	"imgbuild/server/machine"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
	"imgbuild/server/swarm"
	"imgbuild/server/tftp"
	"imgbuild/server/tracker"
)

// stopTime is how long downloads that run may take after the server was asked to stop. Machines ask for the rest again.
const stopTime = 20 * time.Second

// Options are what a server is made of. Config is required.
type Options struct {
	Config *config.Config
	Log    *slog.Logger // slog.Default()
	// Notify is systemd's $NOTIFY_SOCKET, and Watchdog half of what $WATCHDOG_USEC says; empty and 0 without systemd.
	Notify   string
	Watchdog time.Duration
	// Program is how the program was called, for messages that say what to type.
	Program string
}

// Server is one server.
type Server struct {
	o         Options
	c         *config.Config
	log       *slog.Logger
	store     *registry.Store
	catalogue *releases.Catalogue
	boot      *boot.Server
	machine   *machine.Server
	swarm     *swarm.Server
	torrent   bitTorrent
	api       *api.API
	dhcp      *dhcp.Server // nil without
	tftp      *tftp.Server // nil without
	certs     *certificates
	listeners []listener
	closers   []func() error
}

// New opens everything that a server needs, but for DHCP's and TFTP's sockets. The error has all that is wrong.
func New(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Server{o: o, c: o.Config, log: o.Log}
	err := errors.Join(s.openRegistry(ctx), s.openFiles(), s.openSockets(ctx))
	if err == nil {
		err = s.assemble(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes what New has opened. Run does it itself.
func (s *Server) Close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// openFiles reads the releases, their keys and the server's certificates.
func (s *Server) openFiles() error {
	var errs []error
	keys, err := trusted(s.c.Trust)
	errs = append(errs, err)
	if s.catalogue, err = releases.Open(releases.Options{Dir: s.c.Images, Trust: keys, Log: s.log}); err != nil {
		errs = append(errs, fmt.Errorf("images: %w", err))
	}
	if s.c.TLS.On() {
		if s.certs, err = openCertificates(s.c, time.Now); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// OpenRegistry opens the registry that the configuration names, and makes its directory.
func OpenRegistry(ctx context.Context, c *config.Config) (*registry.Store, error) {
	if err := makeState(c); err != nil {
		return nil, err
	}
	return registry.Open(ctx, c.Database)
}

func (s *Server) openRegistry(ctx context.Context) error {
	store, err := OpenRegistry(ctx, s.c)
	if err != nil {
		return err
	}
	s.store = store
	s.closers = append(s.closers, store.Close)
	return nil
}

// openSockets listens for HTTP, and sees whether DHCP and TFTP will have their ports.
func (s *Server) openSockets(ctx context.Context) error {
	var errs []error
	l, err := listen(ctx, "HTTP", s.c.Listen)
	if err == nil {
		s.listeners = append(s.listeners, listener{Listener: l, scheme: "http"})
		s.closers = append(s.closers, func() error { return closed(l.Close()) })
	}
	errs = append(errs, err)
	if s.certs != nil {
		l, err := listen(ctx, "HTTPS", s.c.TLS.Listen)
		if err == nil {
			s.listeners = append(s.listeners, listener{Listener: l, scheme: "https"})
			s.closers = append(s.closers, func() error { return closed(l.Close()) })
		}
		errs = append(errs, err)
	}
	errs = append(errs, s.openTorrent(ctx))
	errs = append(errs, s.tryPorts(ctx)...)
	return errors.Join(errs...)
}

// assemble connects the parts.
func (s *Server) assemble(ctx context.Context) error {
	key, err := machine.LoadKey(ctx, s.store)
	if err != nil {
		return err
	}
	policy := gate.Policy{InspectUnknown: s.c.Unknown == "inspect"}
	limits := registry.SlotLimits{Global: *s.c.Limits.Global, PerRack: *s.c.Limits.PerRack, PerImage: *s.c.Limits.PerImage}
	if s.boot, err = boot.New(boot.Options{Registry: s.store, Images: s.catalogue, Key: key.Public(), URL: s.c.URL, Policy: policy, Log: s.log}); err != nil {
		return err
	}
	if err := s.assembleTorrent(ctx); err != nil {
		return err
	}
	mirrors := s.mirrors()
	rates := swarm.Rates{Global: int64(s.c.Rates.Global), PerSubnet: int64(s.c.Rates.PerSubnet), PerMachine: int64(s.c.Rates.PerMachine)}
	planned := swarm.Options{Registry: s.store, Key: key, Mirrors: mirrors, Rates: rates, Log: s.log}
	if s.torrent.seeds() {
		planned.Seed = &s.torrent
	}
	if s.swarm, err = swarm.New(ctx, planned); err != nil {
		return err
	}
	tracked := tracker.Options{Torrents: s.torrent.index, Neighbours: s.swarm.Neighbours}
	if s.torrent.seeds() {
		tracked.Seed = &s.torrent
	}
	s.torrent.tracker = tracker.New(tracked)
	s.machine, err = machine.New(machine.Options{
		Registry: s.store, Images: s.catalogue, Key: key, URL: s.c.URL, Policy: policy, Limits: limits,
		Swarm: s.swarm, Transport: plan.Transport(s.c.Transport), Mirrors: mirrors, Subnets: s.subnets(), Log: s.log,
	})
	if err != nil {
		return err
	}
	loaders := findLoaders(s.c.Loaders)
	files := loaders.files()
	metrics := api.NewMetrics()
	if s.c.DHCP.Mode != "off" {
		if s.dhcp, err = dhcp.New(dhcpConfig(s.c, loaders), s.store, s.store, s.log); err != nil {
			return err
		}
	}
	if *s.c.TFTP.Enabled {
		names := &tftpNames{boot: s.boot, images: s.catalogue, port: port(s.c.Listen), files: map[string]*bootFile{}, now: time.Now}
		if s.tftp, err = tftp.New(tftp.Config{Listen: s.c.TFTP.Listen, Files: files, Dynamic: names.read}, s.log); err != nil {
			return err
		}
	}
	s.api, err = api.New(api.Options{
		Store: s.store, Catalogue: s.catalogue, Swarm: s.swarm, Limits: limits, OrderExpiry: time.Duration(s.c.OrderExpiry), LegacyClients: s.c.LegacyClients,
		TokensOverTLS: s.certs != nil, HTTPS: s.httpsURL(), Metrics: metrics, Log: s.log,
		Handlers: api.Handlers{
			IPXE: s.boot.IPXE(), GRUB: s.boot.GRUB(), Loaders: http.StripPrefix("/boot/loader/", files), Images: s.catalogue,
			Claim: s.machine.Claim(), Events: s.machine.Events(), Swarm: s.machine.Swarm(), Booted: s.machine.Booted(),
			Torrent: s.torrent.index, Announce: s.torrent.tracker.Announce(), Scrape: s.torrent.tracker.Scrape(),
		},
	})
	if err != nil {
		return err
	}
	return metrics.Add(newCounters(s))
}

// subnets are those that addresses are given out of.
func (s *Server) subnets() []netip.Prefix {
	var list []netip.Prefix
	for _, n := range s.c.DHCP.Subnets {
		list = append(list, n.Subnet)
	}
	return list
}

// mirrors are the configuration's, each with a slash at its end.
func (s *Server) mirrors() []string {
	var list []string
	for _, m := range s.c.Mirrors {
		list = append(list, strings.TrimRight(m, "/")+"/")
	}
	return list
}

// Run serves until ctx ends, then stops gracefully; or until something that it cannot do without fails.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	s.greet(ctx)
	// Stopping has an order: machines and people are told first, then answered out, and the registry closes last. So what
	// serves HTTP does not end with ctx but when it is told.
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return s.catalogue.Run(running) })
	g.Go(func() error { return s.machine.Run(running) })
	g.Go(func() error { return s.swarm.Run(running) })
	g.Go(func() error { return s.tidy(running) })
	g.Go(func() error { return s.torrent.index.Run(running) })
	if s.torrent.seeds() {
		g.Go(func() error { return s.tendSeed(running) })
	}
	if s.dhcp != nil {
		g.Go(func() error { return named("DHCP", s.dhcp.Run(running)) })
	}
	if s.tftp != nil {
		g.Go(func() error { return named("TFTP", s.tftp.Run(running)) })
	}
	servers := s.httpServers()
	for i, l := range s.listeners {
		g.Go(func() error { return serveHTTP(servers[i], l) })
	}
	notify := newNotifier(s.o.Notify, s.log)
	g.Go(func() error { return s.watchdog(running, notify) })
	if s.opened(running) {
		notify.send("READY=1\nSTATUS=" + s.status())
		s.log.Info("ready", "status", s.status())
	}
	<-running.Done()
	notify.send("STOPPING=1\nSTATUS=finishing downloads")
	s.api.Drain()
	s.log.Info("stopping: downloads that run have a while", "seconds", int(stopTime.Seconds()))
	stop(servers, s.log)
	return g.Wait()
}

// opened waits until DHCP and TFTP have their sockets too: HTTP's are open from the start. It is false if ctx ends before.
func (s *Server) opened(ctx context.Context) bool {
	var all []<-chan struct{}
	if s.dhcp != nil {
		all = append(all, s.dhcp.Opened())
	}
	if s.tftp != nil {
		all = append(all, s.tftp.Opened())
	}
	for _, one := range all {
		select {
		case <-one:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func named(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// closed passes over the error of closing what is closed.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// greet says how to begin to who starts a server for the first time.
func (s *Server) greet(ctx context.Context) {
	tokens, err := s.store.Tokens(ctx)
	if err == nil && len(tokens) == 0 {
		s.log.Warn("there is no API token yet, so nobody can order anything; make one with: " + s.o.Program + " token create NAME --role admin")
	}
	if len(s.catalogue.List()) == 0 {
		s.log.Warn("there is no release yet", "images", s.c.Images)
	}
}

// status is what systemctl status shows.
func (s *Server) status() string {
	text := ""
	for i, l := range s.listeners {
		if i > 0 {
			text += ", "
		}
		text += l.scheme + " on " + l.Addr().String()
	}
	if s.dhcp != nil {
		text += ", DHCP (" + s.c.DHCP.Mode + ")"
	}
	if s.tftp != nil {
		text += ", TFTP"
	}
	if s.torrent.seeds() {
		text += ", BitTorrent on " + s.torrent.listener.Addr().String()
	}
	return text
}

// tidy keeps the registry from growing with what nobody reads any more.
func (s *Server) tidy(ctx context.Context) error {
	t := time.NewTicker(24 * time.Hour)
	defer t.Stop()
	for {
		n, err := s.store.Tidy(ctx, time.Now().Add(-time.Duration(s.c.KeepProgress)))
		switch {
		case err != nil && ctx.Err() == nil:
			s.log.Warn("tidy the registry", "err", err)
		case n > 0:
			s.log.Info("progress of old installations removed", "events", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// trusted reads the public keys of releases.
func trusted(paths []string) ([]image.PublicKey, error) {
	var keys []image.PublicKey
	var errs []error
	for _, p := range paths {
		data, err := readSmall(p)
		if err == nil {
			var some []image.PublicKey
			if some, err = image.ParsePublicKeys(data); err == nil {
				keys = append(keys, some...)
				continue
			}
		}
		errs = append(errs, fmt.Errorf("trust: %s: %w", p, err))
	}
	return keys, errors.Join(errs...)
}
