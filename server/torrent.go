package server

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"imgbuild/server/seed"
	"imgbuild/server/torrents"
	"imgbuild/server/tracker"
)

// bitTorrent is BitTorrent's side of the server.
type bitTorrent struct {
	listener net.Listener // nil without a seed
	index    *torrents.Index
	tracker  *tracker.Tracker
	seed     *seed.Seed // nil without
	host     netip.Addr // where machines reach the server, if the configuration says it
}

// lookupTime is how long the name of the server's own address may take to be looked up.
const lookupTime = 2 * time.Second

// openTorrent listens for BitTorrent, if the server seeds.
func (s *Server) openTorrent(ctx context.Context) error {
	if !*s.c.Torrent.Enabled {
		return nil
	}
	l, err := listen(ctx, "BitTorrent", s.c.Torrent.Listen)
	if err != nil {
		return err
	}
	s.torrent.listener = l
	s.closers = append(s.closers, func() error { return closed(l.Close()) })
	return nil
}

// assembleTorrent connects BitTorrent's parts but for the tracker, which asks the planner.
func (s *Server) assembleTorrent(ctx context.Context) error {
	t := &s.torrent
	t.index = torrents.New(torrents.Options{Catalogue: s.catalogue, URL: s.c.URL, Log: s.log})
	if t.listener == nil {
		return nil
	}
	var err error
	if t.seed, err = seed.New(seed.Options{Torrents: t.index, Open: s.catalogue.OpenFile, Listener: t.listener, Log: s.log}); err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { return closed(t.seed.Close()) })
	if s.c.URL != "" {
		if t.host, err = addressOf(ctx, s.c.URL); err != nil {
			s.log.Warn("machines that are told of this server's BitTorrent will look for it where they have reached HTTP", "err", err)
		}
	}
	return nil
}

// addressOf is the address of a URL's host.
func addressOf(ctx context.Context, text string) (netip.Addr, error) {
	u, err := url.Parse(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("url: %w", err)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return a, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("url: %w", err)
	}
	var found netip.Addr
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			return a, nil
		}
		found = cmp.Or(found, a)
	}
	return found, nil
}

// seeds is whether there is a seed; the planner and the tracker are given none where there is not.
func (t *bitTorrent) seeds() bool { return t.seed != nil }

// Addr is where machines reach the seed for a release.
func (t *bitTorrent) Addr(ref string) (netip.AddrPort, bool) {
	at, ok := t.seed.Addr(ref)
	if ok && at.Addr().IsUnspecified() && t.host.IsValid() {
		at = netip.AddrPortFrom(t.host, at.Port())
	}
	return at, ok
}

// Times of tendSeed.
const (
	ratesEvery = 2 * time.Second
	tidyEvery  = 30 * time.Second
)

// tendSeed keeps the seed to the rates that hold, and to the releases that are there.
func (s *Server) tendSeed(ctx context.Context) error {
	rates, tidy := time.NewTicker(ratesEvery), time.NewTicker(tidyEvery)
	defer rates.Stop()
	defer tidy.Stop()
	for {
		now, _ := s.swarm.Rates()
		s.torrent.seed.SetRate(now.Global)
		select {
		case <-ctx.Done():
			return nil
		case <-rates.C:
		case <-tidy.C:
			s.torrent.seed.Tidy()
		}
	}
}
