// Package seed gives releases' root file systems to BitTorrent clients. Connections come in; the bytes of the releases' directory, as
// they are there, go out.
//
// It only reads: it makes no connection, asks no tracker, takes no byte from a peer and writes nothing. A release is given away
// from when somebody was first sent here for it, and while it may be installed.
package seed

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	pp "github.com/anacrolix/torrent/peer_protocol"
	"golang.org/x/time/rate"

	"imgbuild/image"
	metafile "imgbuild/image/torrent"
	"imgbuild/server/torrents"
)

// Bounds.
const (
	maxPeers    = 64        // of one release
	maxReleases = 64        // at a time; the one that nobody was sent here for longest makes room
	maxBuffer   = 1 << 20   // bytes that are read ahead for one peer
	burst       = 256 << 10 // bytes that may go out at once under a rate
)

// idleAfter is how long a release that nobody was sent here for is kept open.
const idleAfter = 30 * time.Minute

// Torrents are those that can be given away.
type Torrents interface {
	Of(ref string) *torrents.Torrent // nil if there is none
}

// Options say what is given away. Torrents, Open and Listener are required.
type Options struct {
	Torrents Torrents
	// Open opens a file of a release (name/version).
	Open     func(ref, name string) (*os.File, error)
	Listener net.Listener // the Seed closes it
	Log      *slog.Logger // slog.Default()
	Now      func() time.Time
}

// Seed is a BitTorrent client that has everything. It is safe for use from many goroutines.
type Seed struct {
	o      Options
	client *torrent.Client
	limit  *rate.Limiter
	ended  context.Context
	end    context.CancelFunc

	mu     sync.Mutex
	seeded map[metafile.Hash]*seeded
	failed map[string]string // by name/version: what was logged of it
}

// seeded is one release that is given away.
type seeded struct {
	ref     string
	torrent *torrent.Torrent
	asked   time.Time
}

// New starts to take connections.
func New(o Options) (*Seed, error) {
	o.Log = cmp.Or(o.Log, slog.Default())
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Seed{o: o, limit: rate.NewLimiter(rate.Inf, burst), seeded: map[metafile.Hash]*seeded{}, failed: map[string]string{}}
	s.ended, s.end = context.WithCancel(context.Background())
	cfg := torrent.NewDefaultClientConfig()
	cfg.Bep20, cfg.ExtendedHandshakeClientVersion, cfg.HTTPUserAgent = "-IS0001-", "imgserve", "imgserve" // BEP 20
	cfg.Extensions = pp.NewPeerExtensionBytes(pp.ExtensionBitFast, pp.ExtensionBitLtep)
	// The library gets our listener, so that the port's errors are ours to explain, and makes no connections.
	cfg.DisableTCP, cfg.DisableUTP, cfg.NoDHT, cfg.DisablePEX, cfg.DialForPeerConns = true, true, true, true, false
	cfg.NoDefaultPortForwarding, cfg.DisableWebtorrent, cfg.DisableWebseeds, cfg.DisableTrackers = true, true, true, true
	cfg.Seed, cfg.DropMutuallyCompletePeers = true, true
	cfg.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{} // RC4 hides nothing here and costs more than all the rest
	cfg.EstablishedConnsPerTorrent, cfg.MaxAllocPeerRequestDataPerConn = maxPeers, maxBuffer
	cfg.UploadRateLimiter = s.limit
	// No other extension is offered: the library panics when a peer asks for a third one (BEP 55) and knows no such answers.
	cfg.Callbacks.PeerConnAdded = []func(*torrent.PeerConn){func(p *torrent.PeerConn) {
		p.LocalLtepProtocolMap = &torrent.LocalLtepProtocolMap{Index: []pp.ExtensionName{pp.ExtensionNameMetadata}, NumBuiltin: 1}
	}}
	cfg.DefaultStorage = nowhere{}              // else it makes a database in the working directory
	cfg.Slogger = slog.New(slog.DiscardHandler) // peers that come and go
	var err error
	if s.client, err = torrent.NewClient(cfg); err != nil {
		return nil, fmt.Errorf("start seeding by BitTorrent: %w", err)
	}
	s.client.AddListener(listener{o.Listener, s.ended})
	return s, nil
}

// Addr is where machines reach it for a release (name/version); the address is unspecified if it listens at all of the server's. ok
// is false if the release cannot be given away.
func (s *Seed) Addr(ref string) (addr netip.AddrPort, ok bool) {
	t := s.o.Torrents.Of(ref)
	if t == nil {
		return netip.AddrPort{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.offer(t); err != nil {
		if text := err.Error(); s.failed[ref] != text {
			s.failed[ref] = text
			s.o.Log.Warn("seed by BitTorrent", "release", ref, "err", err)
		}
		return netip.AddrPort{}, false
	}
	delete(s.failed, ref)
	at, ok := s.o.Listener.Addr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	addr = at.AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), true
}

// offer adds a torrent, if it is not there yet.
func (s *Seed) offer(t *torrents.Torrent) error {
	if s.ended.Err() != nil {
		return errors.New("the server is stopping")
	}
	if old := s.seeded[t.Hash]; old != nil {
		old.asked = s.o.Now()
		return nil
	}
	if len(s.seeded) >= maxReleases {
		s.dropOldest()
	}
	f, err := s.o.Open(t.Ref, image.RootfsFile)
	if err != nil {
		return err
	}
	spec, err := spec(t, f)
	if err == nil {
		var added *torrent.Torrent
		if added, _, err = s.client.AddTorrentSpec(spec); err == nil {
			s.seeded[t.Hash] = &seeded{ref: t.Ref, torrent: added, asked: s.o.Now()}
			s.o.Log.Info("seeding by BitTorrent", "release", t.Ref, "info_hash", t.Hash.String())
			return nil
		}
	}
	_ = f.Close() // it was only read
	return fmt.Errorf("seed release %s: %w", t.Ref, err)
}

// spec is a torrent as the library wants it. Trackers and web seeds are others'.
func spec(t *torrents.Torrent, f *os.File) (*torrent.TorrentSpec, error) {
	alone := metafile.Metainfo{Size: t.Info.Size, Pieces: t.Info.Pieces}
	data, err := alone.Marshal()
	if err != nil {
		return nil, err
	}
	m, err := metainfo.Load(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	spec, err := torrent.TorrentSpecFromMetaInfoErr(m)
	if err != nil {
		return nil, err
	}
	spec.Storage, spec.DisableInitialPieceCheck = &file{f}, true
	return spec, nil
}

func (s *Seed) dropOldest() {
	var oldest metafile.Hash
	for h, x := range s.seeded {
		if o := s.seeded[oldest]; o == nil || x.asked.Before(o.asked) {
			oldest = h
		}
	}
	s.drop(oldest)
}

func (s *Seed) drop(h metafile.Hash) {
	if x := s.seeded[h]; x != nil {
		x.torrent.Drop()
		delete(s.seeded, h)
		s.o.Log.Info("no longer seeding by BitTorrent", "release", x.ref)
	}
}

// SetRate sets the most that goes out in all, in bytes a second; 0 is no limit.
func (s *Seed) SetRate(n int64) {
	limit := rate.Limit(n)
	if n <= 0 {
		limit = rate.Inf
	}
	s.limit.SetLimit(limit)
}

// Tidy stops to give away what may not be installed any more, and what nobody has come for in a while.
func (s *Seed) Tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	for h, x := range s.seeded {
		t := s.o.Torrents.Of(x.ref)
		idle := now.Sub(x.asked) > idleAfter && x.torrent.Stats().ActivePeers == 0
		if t == nil || t.Hash != h || idle {
			s.drop(h)
		}
	}
}

// Stats are counters since the start, and what is so now.
type Stats struct {
	Sent     int64 // bytes of root file systems
	Peers    int
	Releases int
}

// Stats returns the counters as they are now.
func (s *Seed) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.client.Stats()
	n := Stats{Sent: all.BytesWrittenData.Int64(), Releases: len(s.seeded)}
	for _, x := range s.seeded {
		n.Peers += x.torrent.Stats().ActivePeers
	}
	return n
}

// Close ends all connections.
func (s *Seed) Close() error {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.seeded {
		x.torrent.Drop() // which closes its file
	}
	clear(s.seeded)
	errs := append(s.client.Close(), s.o.Listener.Close())
	return errors.Join(errs...)
}
