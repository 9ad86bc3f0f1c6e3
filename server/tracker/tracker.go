// Package tracker is a BitTorrent tracker over HTTP (BEP 3, compact answers by BEP 23 and BEP 7, scrape by BEP 48) for the torrents
// of the catalogue's releases, and for no others. Announces come in; the peers to connect to go out.
//
// A machine that the planner knows gets the neighbours that were planned for it, or clients that are no installers where none were
// planned; everybody else gets seeds first and then who is near. It believes no address that a client says, only the one it asks from; keeps what it knows in memory, within bounds; and
// never answers an empty failure reason, which clients take for a failure.
package tracker

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"imgbuild/image/torrent"
	"imgbuild/server/boot"
	"imgbuild/server/torrents"
)

// Torrents are those that are tracked.
type Torrents interface {
	By(torrent.Hash) *torrents.Torrent // nil if there is none
	List() []*torrents.Torrent
}

// Seed is the server's own BitTorrent client.
type Seed interface {
	// Addr is where it takes connections for a release (name/version); an address that is unspecified is the one at which the
	// server was reached. ok is false if it does not seed the release.
	Addr(ref string) (addr netip.AddrPort, ok bool)
}

// Options say what is tracked. Torrents is required.
type Options struct {
	Torrents Torrents
	Seed     Seed // nil without
	// Neighbours are those that were planned for a peer, by its ID in hex, and whether it is known. A nil function knows nobody.
	Neighbours func(peerID string) (planned []netip.AddrPort, known bool)
	Now        func() time.Time // time.Now
}

// Times, in answers and here.
const (
	interval    = 30 * time.Second // clients come back after that
	minInterval = 10 * time.Second // and not before that
	forgetAfter = 3 * interval     // a client that has not come back is gone
)

// Bounds of what is kept.
const (
	maxPeers        = 10_000 // of one torrent
	maxPeersAddress = 32     // of one torrent at one address
	usualPeers      = 50     // in an answer, if the client does not say
	mostPeers       = 100    // in an answer
)

// Tracker is a tracker. It is safe for use from many goroutines.
type Tracker struct {
	o Options

	mu     sync.Mutex
	swarms map[torrent.Hash]*swarm
	tidied time.Time
}

// swarm are the peers of one torrent.
type swarm struct {
	peers      map[netip.AddrPort]*peer
	at         map[netip.Addr]int // how many peers an address has
	downloaded int                // how many have said that they have it all now
}

// peer is one client, where it takes connections.
type peer struct {
	addr     netip.AddrPort
	id       string // 20 bytes
	complete bool
	heard    time.Time
}

// New returns a Tracker.
func New(o Options) *Tracker {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Tracker{o: o, swarms: map[torrent.Hash]*swarm{}}
}

// Announce is the handler of torrent.AnnouncePath.
func (t *Tracker) Announce() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, err := parseAnnounce(r.URL.RawQuery)
		if err != nil {
			fail(w, err.Error())
			return
		}
		from := boot.Client(r)
		if !from.IsValid() {
			fail(w, "the address that this is asked from is not known")
			return
		}
		known := t.o.Torrents.By(a.hash)
		if known == nil {
			fail(w, unknown(a.hash))
			return
		}
		me := netip.AddrPortFrom(from, a.port)
		complete, incomplete, list, refused := t.announce(a, me)
		if refused != "" {
			fail(w, refused)
			return
		}
		seed, seeds := t.seed(r, known.Ref)
		if seeds {
			complete++
		}
		switch planned, ok := t.planned(a.id); {
		case len(planned) > 0:
			list = planned
		case ok: // where it reads from is being planned, or no machine has anything yet
			list = slices.DeleteFunc(list, func(p peer) bool { return strings.HasPrefix(p.id, torrent.InstallerPrefix) })
		case seeds && a.left > 0:
			list = append([]peer{{addr: seed, complete: true}}, list...)
		}
		if a.event == eventStopped {
			list = nil
		}
		write(w, a.answer(complete, incomplete, list[:min(len(list), a.want)]))
	})
}

// Scrape is the handler of ScrapePath (BEP 48). Without info-hashes it tells of all torrents.
func (t *Tracker) Scrape() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, err := parseScrape(r.URL.RawQuery)
		if err != nil {
			fail(w, err.Error())
			return
		}
		var files []scraped
		if len(asked) == 0 {
			for _, k := range t.o.Torrents.List() {
				asked = append(asked, k.Hash)
			}
		}
		for _, h := range asked {
			known := t.o.Torrents.By(h)
			if known == nil {
				continue // BEP 48: what is not known is not there
			}
			f := scraped{hash: h}
			f.complete, f.incomplete, f.downloaded = t.count(h)
			if t.o.Seed != nil {
				if _, ok := t.o.Seed.Addr(known.Ref); ok {
					f.complete++
				}
			}
			files = append(files, f)
		}
		write(w, scrapeAnswer(files))
	})
}

// seed is where the server's own client is, seen from who asks.
func (t *Tracker) seed(r *http.Request, ref string) (netip.AddrPort, bool) {
	if t.o.Seed == nil {
		return netip.AddrPort{}, false
	}
	addr, ok := t.o.Seed.Addr(ref)
	if ok && addr.Addr().IsUnspecified() {
		reached, isTCP := r.Context().Value(http.LocalAddrContextKey).(interface{ AddrPort() netip.AddrPort })
		if !isTCP {
			return netip.AddrPort{}, false
		}
		addr = netip.AddrPortFrom(reached.AddrPort().Addr().Unmap().WithZone(""), addr.Port())
	}
	return addr, ok
}

// planned are the neighbours of a peer that the planner knows.
func (t *Tracker) planned(id string) (list []peer, known bool) {
	if t.o.Neighbours == nil {
		return nil, false
	}
	addrs, known := t.o.Neighbours(hexID(id))
	for _, a := range addrs {
		list = append(list, peer{addr: a})
	}
	return list, known
}

// announce notes what a client says of itself, and returns the numbers of peers and those to connect to. Refused says why it is not
// noted.
func (t *Tracker) announce(a announce, me netip.AddrPort) (complete, incomplete int, list []peer, refused string) {
	now := t.o.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tidy(now)
	s := t.swarms[a.hash]
	if s == nil {
		s = &swarm{peers: map[netip.AddrPort]*peer{}, at: map[netip.Addr]int{}}
		t.swarms[a.hash] = s
	}
	if a.event == eventStopped {
		s.remove(me)
	} else if refused = s.note(a, me, now); refused != "" {
		return 0, 0, nil, refused
	}
	complete, incomplete = s.count(now)
	return complete, incomplete, s.near(a, me, now), ""
}

func (s *swarm) note(a announce, me netip.AddrPort, now time.Time) (refused string) {
	p := s.peers[me]
	switch {
	case p != nil:
	case len(s.peers) >= maxPeers:
		return "there are as many peers of this torrent as this tracker keeps: ask again later"
	case s.at[me.Addr()] >= maxPeersAddress:
		return "there are as many peers at this address as this tracker keeps: ask again later"
	default:
		p = &peer{addr: me}
		s.peers[me] = p
		s.at[me.Addr()]++
	}
	if a.event == eventCompleted && !p.complete {
		s.downloaded++
	}
	p.id, p.complete, p.heard = a.id, a.left == 0, now
	return ""
}

func (s *swarm) remove(addr netip.AddrPort) {
	if s.peers[addr] == nil {
		return
	}
	delete(s.peers, addr)
	if s.at[addr.Addr()]--; s.at[addr.Addr()] <= 0 {
		delete(s.at, addr.Addr())
	}
}

func (t *Tracker) count(h torrent.Hash) (complete, incomplete, downloaded int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.swarms[h]
	if s == nil {
		return 0, 0, 0
	}
	complete, incomplete = s.count(t.o.Now())
	return complete, incomplete, s.downloaded
}

func (p *peer) gone(now time.Time) bool { return now.Sub(p.heard) > forgetAfter }

func (s *swarm) count(now time.Time) (complete, incomplete int) {
	for _, p := range s.peers {
		switch {
		case p.gone(now):
		case p.complete:
			complete++
		default:
			incomplete++
		}
	}
	return complete, incomplete
}

// tidy forgets, now and then, who is gone, and torrents that are.
func (t *Tracker) tidy(now time.Time) {
	if now.Sub(t.tidied) < interval {
		return
	}
	t.tidied = now
	there := map[torrent.Hash]bool{}
	for _, k := range t.o.Torrents.List() {
		there[k.Hash] = true
	}
	for h, s := range t.swarms {
		if !there[h] {
			delete(t.swarms, h)
			continue
		}
		for addr, p := range s.peers {
			if p.gone(now) {
				s.remove(addr)
			}
		}
	}
}
