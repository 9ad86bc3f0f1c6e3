//go:build !notorrent

package torrent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring"
	library "github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	pp "github.com/anacrolix/torrent/peer_protocol"
	"golang.org/x/time/rate"

	"imgbuild/image"
	"imgbuild/image/plan"
	metafile "imgbuild/image/torrent"
	"imgbuild/installer/report"
)

// Built says whether this installer has BitTorrent.
const Built = true

// maxPeers bounds the connections.
const maxPeers = 24

// Client gets one blob by BitTorrent and serves it. All methods may be called from any goroutine.
type Client struct {
	o        Options
	size     int64
	listener net.Listener
	client   *library.Client
	torrent  *library.Torrent
	trackers []string // Run announces to them
	limitIn  *rate.Limiter
	limitOut *rate.Limiter
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	woken    chan struct{} // there may be something to be done
	taking   chan struct{} // take may look again
	claiming chan struct{} // claim may look again
	dialing  chan struct{} // there are other planned peers
	most     int           // jobs

	mu       sync.Mutex // never held while the library is called
	pieces   []pieceState
	good     *roaring.Bitmap // pieces that are here
	unknown  int             // a piece that the library is to take another look at, or -1
	jobs     map[int]*job
	order    []*job // in the order in which they were claimed
	complete []*job // those of which all pieces are here
	counted  []bool // chunks that are in put
	missing  int    // bytes of wanted pieces that have not come
	ahead    int    // how much may be missing when the next piece is asked for
	due      bool   // so little is missing, and the next piece was not asked for yet
	fresh    []int  // the pieces that were asked for last, if others were outstanding, until the first block of them comes
	settled  []int  // pieces whose state the library is to hear of
	recent   []held
	spare    [][]byte

	planned []netip.AddrPort
	dialed  time.Time                 // when those that are not connected were last asked for
	listens map[*library.PeerConn]int // the port where a peer takes connections

	ready     bool
	useful    time.Time // when a peer last had something that we lacked
	holdOff   time.Time // nothing is claimed before
	stopClaim context.CancelFunc
	lure      bool // a piece is wanted for show: see beckon

	lastByte  time.Time
	nudged    time.Time
	refused   bool // a peer refused a request since
	poked     time.Time
	pause     time.Duration // how long nothing may come before the next poke
	raw, got  int64
	known     int64 // distinct bytes in the blob that peers were told of
	badChunks int
	banned    int
	stalls    int
	down      error
	peers     int
	sent      int64
	in, out   *report.Meter
}

// New checks the metainfo against the blob and takes connections from now on. The caller calls Run, and Close in any case.
func New(o Options) (*Client, error) {
	c := &Client{
		o: o, size: o.Blob.Size(), woken: make(chan struct{}, 1), claiming: make(chan struct{}, 1),
		taking: make(chan struct{}, 1), dialing: make(chan struct{}, 1), unknown: -1, ahead: metafile.PieceSize, pause: firstPoke,
		good: roaring.New(), jobs: map[int]*job{}, listens: map[*library.PeerConn]int{},
		limitIn: rate.NewLimiter(rate.Inf, burst), limitOut: rate.NewLimiter(rate.Inf, burst),
		in: report.NewMeter(sourceID, 0), out: report.NewMeter(sourceID, 0),
	}
	if c.o.Silence <= 0 {
		c.o.Silence = 15 * time.Second
	}
	info, err := c.spec()
	if err != nil {
		return nil, fmt.Errorf("start BitTorrent: %w", err)
	}
	c.most = int(min(max(o.Blob.Stats().Limit/image.ChunkSize/4, 1), 6))
	c.counted = make([]bool, (c.size+image.ChunkSize-1)/image.ChunkSize)
	c.pieces = make([]pieceState, (c.size+metafile.PieceSize-1)/metafile.PieceSize)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.start(info); err != nil {
		c.Close()
		return nil, fmt.Errorf("start BitTorrent: %w", err)
	}
	return c, nil
}

// spec checks the metainfo, and makes what the library wants to know of it.
func (c *Client) spec() (*library.TorrentSpec, error) {
	m, err := metafile.Parse(c.o.Metainfo)
	if err != nil {
		return nil, err
	}
	if m.Size != c.size {
		return nil, fmt.Errorf("%s is of a file of %d bytes, and the signed manifest's has %d: publish the release again, whole", image.TorrentFile, m.Size, c.size)
	}
	c.trackers = append(slices.Clone(c.o.Trackers), m.Trackers...)
	m.Trackers, m.WebSeeds = c.trackers, nil
	data, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	mi, err := metainfo.Load(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	spec, err := library.TorrentSpecFromMetaInfoErr(mi)
	if err != nil {
		return nil, err
	}
	spec.Storage, spec.DisableInitialPieceCheck, spec.Trackers = store{c}, true, nil
	return spec, nil
}

// start makes the library's client, and adds the torrent.
func (c *Client) start(spec *library.TorrentSpec) (err error) {
	if c.listener, err = net.Listen("tcp", c.o.Listen); err != nil {
		return err
	}
	id := make([]byte, 6)
	rand.Read(id)
	cfg := library.NewDefaultClientConfig()
	cfg.PeerID = metafile.InstallerPrefix + hex.EncodeToString(id)
	cfg.ExtendedHandshakeClientVersion, cfg.HTTPUserAgent = clientName, "imgbuild"
	cfg.Extensions = pp.NewPeerExtensionBytes(pp.ExtensionBitFast, pp.ExtensionBitLtep)
	// Our own listener and dialer stand in for the library's: see conn.go.
	cfg.DisableTCP, cfg.DisableUTP, cfg.NoDHT, cfg.DisablePEX = true, true, true, true
	cfg.NoDefaultPortForwarding, cfg.DisableWebtorrent, cfg.DisableWebseeds = true, true, true
	cfg.Seed, cfg.DropDuplicatePeerIds, cfg.DropMutuallyCompletePeers = true, true, false
	cfg.HeaderObfuscationPolicy = library.HeaderObfuscationPolicy{} // RC4 hides nothing here and costs more than all the rest
	cfg.EstablishedConnsPerTorrent, cfg.HalfOpenConnsPerTorrent, cfg.TotalHalfOpenConns = maxPeers, 8, 8
	cfg.TorrentPeersHighWater, cfg.TorrentPeersLowWater = 100, maxPeers
	cfg.NominalDialTimeout, cfg.MinDialTimeout = 5*time.Second, 3*time.Second
	cfg.UploadRateLimiter, cfg.DefaultStorage = c.limitOut, store{c}
	cfg.MaxUnverifiedBytes = 0 // want bounds what is asked for
	cfg.Slogger = slog.New(slog.DiscardHandler)
	cfg.Callbacks = c.callbacks()
	if c.client, err = library.NewClient(cfg); err != nil {
		return err
	}
	if c.torrent, _, err = c.client.AddTorrentSpec(spec); err != nil {
		return err
	}
	c.client.AddDialer(&dialer{c: c})
	c.client.AddListener(listener{c.listener, c})
	return nil
}

// callbacks are called by the library, most of them with its lock held: they do no more than to note something.
func (c *Client) callbacks() library.Callbacks {
	return library.Callbacks{
		PeerConnAdded: []func(*library.PeerConn){func(p *library.PeerConn) {
			// No other extension is offered: no peer may make us connect to a third one (BEP 55).
			p.LocalLtepProtocolMap = &library.LocalLtepProtocolMap{Index: []pp.ExtensionName{pp.ExtensionNameMetadata}, NumBuiltin: 1}
			c.look()
		}},
		ReadExtendedHandshake: func(p *library.PeerConn, m *pp.ExtendedHandshakeMessage) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.listens[p] = m.Port
		},
		PeerConnClosed: func(p *library.PeerConn) {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.listens, p)
			c.look()
		},
		ReadMessage: func(_ *library.PeerConn, m *pp.Message) {
			switch m.Type {
			case pp.Reject:
				c.mu.Lock()
				c.refused = true
				c.mu.Unlock()
			case pp.Have, pp.Bitfield, pp.HaveAll, pp.Unchoke:
				c.look()
			}
		},
	}
}

// look makes Run look again whether there is something to be done.
func (c *Client) look() { signal(c.woken) }

// signal wakes whoever waits for ch, now or when it waits next.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// SetPeers says who the planned peers are, as host:port. Connections that were made to others that were planned before end.
func (c *Client) SetPeers(peers []string) {
	var planned []netip.AddrPort
	for _, p := range peers {
		if a, err := netip.ParseAddrPort(p); err == nil { // plan.Upstreams.Validate has refused others
			planned = append(planned, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.planned, c.dialed = planned, time.Time{}
	signal(c.dialing)
}

// SetRates sets the most that is read and sent, in bytes a second; 0 is no limit. It works while the client runs.
func (c *Client) SetRates(in, out int64) {
	for limiter, n := range map[*rate.Limiter]int64{c.limitIn: in, c.limitOut: out} {
		limit := rate.Limit(n)
		if n <= 0 {
			limit = rate.Inf
		}
		limiter.SetLimit(limit)
	}
}

// Sources returns the peers together, as one source.
func (c *Client) Sources() []plan.SwarmSource {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := plan.SwarmSource{ID: sourceID, Kind: plan.SourceTorrent, Got: c.got, Rate: c.in.Progress().Rate, Bad: c.badChunks, Stalls: c.stalls}
	if c.down != nil {
		s.Down = c.down.Error()
	}
	return []plan.SwarmSource{s}
}

// PeerPort is where connections are taken.
func (c *Client) PeerPort() int { return c.listener.Addr().(*net.TCPAddr).Port }

// PeerID is the client's, in hex, 40 digits.
func (c *Client) PeerID() string {
	id := c.client.PeerID()
	return hex.EncodeToString(id[:])
}

// Stats returns the counters as they are now.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Peers: c.peers, Ready: c.ready, Got: c.got, Sent: c.sent, SendRate: c.out.Progress().Rate}
	if len(c.order) > 0 {
		s.Quiet = time.Since(c.lastByte)
	}
	return s
}

// Close ends all connections. Run returns.
func (c *Client) Close() {
	c.cancel()
	if c.listener != nil {
		c.listener.Close()
	}
	if c.client != nil {
		c.client.Close()
	}
}

// errDown is why nothing more is asked of peers.
func errDown(err error) error {
	return fmt.Errorf("%s is not of the file in the signed manifest: %w: publish the release again, whole", image.TorrentFile, err)
}

// errClosed ends Run after Close.
var errClosed = errors.New("BitTorrent was ended")
