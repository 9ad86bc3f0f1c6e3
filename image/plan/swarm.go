package plan

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// SwarmPath is where a machine says how its transfer goes, and hears from whom it is to read: POST Swarm, answers
// Upstreams. Like EventsPath it is asked with the plan's token.
const SwarmPath = "/machine/v1/swarm"

// ChunksPath is where an installing machine serves the root file system that it reads itself, to others that show a
// ticket, as ranges of a file (RFC 9110, 14).
const ChunksPath = "/chunks"

// SwarmSeconds is how often a machine that transfers says how that goes, unless it was told another time.
const SwarmSeconds = 2

// Transport is the way a root file system comes.
type Transport string

// The transports. With each of them the release's own address is the last resort.
const (
	TransportHTTP    Transport = "http"    // ranges from the release's address and its mirrors
	TransportRelay   Transport = "relay"   // from a machine that installs too, as the server plans
	TransportTorrent Transport = "torrent" // BitTorrent
)

// Valid reports whether it is one of the transports.
func (t Transport) Valid() bool {
	return t == TransportHTTP || t == TransportRelay || t == TransportTorrent
}

// Swarm is what a machine says of its transfer.
type Swarm struct {
	Schema int `json:"schema"`
	// Port is where the machine serves chunks, at the address that it asks from; 0 if it does not.
	Port int `json:"port,omitempty"`
	// PeerPort and PeerID are BitTorrent's; 0 and empty without. PeerID is in hex, 40 digits.
	PeerPort int    `json:"peer_port,omitempty"`
	PeerID   string `json:"peer_id,omitempty"`
	// Total is the file's size; Got are distinct bytes that came and were good; Held is how much of them it can serve. In bytes.
	Total int64 `json:"total"`
	Got   int64 `json:"got"`
	Held  int64 `json:"held"`
	// Rate is what comes, SendRate what is served to others: bytes a second, smoothed. Sent is in bytes.
	Rate     float64 `json:"rate"`
	Sent     int64   `json:"sent,omitempty"`
	SendRate float64 `json:"send_rate,omitempty"`
	// Full is true if it would take more but for want of memory: its disk, and not the network, is what it waits for.
	Full bool `json:"full,omitempty"`
	// Done is true when it needs no more bytes.
	Done bool `json:"done,omitempty"`
	// Stays is true of a machine that is done and serves others for as long as there are any: it runs from memory.
	Stays   bool          `json:"stays,omitempty"`
	Sources []SwarmSource `json:"sources"`
}

// SwarmSource is where bytes of a transfer came from.
type SwarmSource struct {
	// ID is an Upstream's. It is the order's ID for a machine, origin, mirror and a number, or torrent.
	ID   string     `json:"id"`
	Kind SourceKind `json:"kind"`
	Got  int64      `json:"got"`           // bytes that were good
	Rate float64    `json:"rate"`          // bytes a second, smoothed
	Bad  int        `json:"bad,omitempty"` // chunks with another SHA-256 than the signed one
	// Stalls is how often it brought nothing for so long that another was asked.
	Stalls int `json:"stalls,omitempty"`
	// Down says why it is not asked any more; empty if it is.
	Down string `json:"down,omitempty"`
}

// SourceKind is what kind of source it is.
type SourceKind string

// The kinds of sources.
const (
	SourceOrigin  SourceKind = "origin"  // the release's own address, or a mirror of it
	SourceRelay   SourceKind = "relay"   // another machine
	SourceTorrent SourceKind = "torrent" // BitTorrent's peers, together
)

// Upstreams is what the server answers to a Swarm.
type Upstreams struct {
	// Upstreams are the sources, the one to be read from first. Each that follows takes over when those before it fail. The origin is
	// among them, and after it machines for when even that has gone. Empty if the machine is to go on as it does.
	Upstreams []Upstream `json:"upstreams"`
	// Secret is what the tickets of those who read from this machine are made with; it stays the same for an installation.
	Secret []byte `json:"secret,omitempty"`
	// Keep asks the machine to keep all chunks that it can: others read from it, or will.
	Keep bool `json:"keep,omitempty"`
	// Linger asks a machine that is done to stay a while: others still read from it.
	Linger bool `json:"linger,omitempty"`
	// Rate and SendRate are the most that the machine may read, and serve, in bytes a second; 0 is no limit.
	Rate     int64 `json:"rate,omitempty"`
	SendRate int64 `json:"send_rate,omitempty"`
	// Peers are BitTorrent's planned neighbours, as host:port.
	Peers []string `json:"peers,omitempty"`
	// AskSeconds is when to ask again; 0 is SwarmSeconds.
	AskSeconds float64 `json:"ask_seconds,omitempty"`
}

// Upstream is one source to read from.
type Upstream struct {
	ID   string     `json:"id"` // as SwarmSource's
	Kind SourceKind `json:"kind"`
	// URL is the file's.
	URL string `json:"url"`
	// Ticket lets the machine read from another one, as a bearer token. It is a secret.
	Ticket string `json:"ticket,omitempty"`
	// Rate is the most to be read from it, in bytes a second; 0 is no limit.
	Rate int64 `json:"rate,omitempty"`
}

// ticketBytes are the expiry in Unix seconds, and the code that vouches for it.
const ticketBytes = 8 + sha256.Size

// Ticket lets whoever has it read from the machine that has the secret, until it expires.
func Ticket(secret []byte, expires time.Time) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, ticketBytes), uint64(expires.Unix()))
	return base64.RawURLEncoding.EncodeToString(append(b, ticketCode(secret, b)...))
}

// CheckTicket reports whether a ticket was made with the secret and has not expired.
func CheckTicket(secret []byte, ticket string, now time.Time) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	if err != nil || len(b) != ticketBytes || len(secret) == 0 || !hmac.Equal(b[8:], ticketCode(secret, b[:8])) {
		return false
	}
	return now.Unix() < int64(binary.BigEndian.Uint64(b))
}

func ticketCode(secret, expires []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("imgbuild ticket 1\n"))
	h.Write(expires)
	return h.Sum(nil)
}

// maxSources bounds lists of sources in either direction.
const maxSources = 64

// Validate finds what a server would not have from a machine that is in order.
func (s Swarm) Validate() error {
	if s.Schema != Schema {
		return fmt.Errorf("its schema is %d and this server knows %d", s.Schema, Schema)
	}
	if s.Total <= 0 || s.Got < 0 || s.Got > s.Total || s.Held < 0 || s.Held > s.Total || s.Sent < 0 || !(s.Rate >= 0) || !(s.SendRate >= 0) {
		return errors.New("its numbers of bytes make no sense")
	}
	if s.Port < 0 || s.Port > 65535 || s.PeerPort < 0 || s.PeerPort > 65535 {
		return errors.New("a port is a number from 1 to 65535")
	}
	if len(s.PeerID) != 0 && len(s.PeerID) != 40 || strings.Trim(s.PeerID, "0123456789abcdef") != "" {
		return errors.New("a peer ID has 40 hexadecimal digits")
	}
	if len(s.Sources) > maxSources {
		return fmt.Errorf("it has more than %d sources", maxSources)
	}
	for _, x := range s.Sources {
		if x.ID == "" || len(x.ID) > 200 || len(x.Down) > 500 || x.Got < 0 || x.Bad < 0 || x.Stalls < 0 || !(x.Rate >= 0) {
			return errors.New("one of its sources makes no sense")
		}
	}
	return nil
}

// Validate finds what a machine would not do for a server that is in order.
func (u Upstreams) Validate() error {
	if len(u.Upstreams) > maxSources || len(u.Peers) > maxSources {
		return fmt.Errorf("it has more than %d sources", maxSources)
	}
	for _, x := range u.Upstreams {
		if x.ID == "" || x.Rate < 0 || x.Kind != SourceOrigin && x.Kind != SourceRelay {
			return fmt.Errorf("the source %.60q makes no sense", x.ID)
		}
		if p, err := url.Parse(x.URL); err != nil || p.Host == "" || p.Scheme != "http" && p.Scheme != "https" {
			return fmt.Errorf("the address of the source %.60q is neither http nor https", x.ID)
		}
	}
	for _, p := range u.Peers {
		if _, err := netip.ParseAddrPort(p); err != nil {
			return fmt.Errorf("the peer %.60q is no address with a port", p)
		}
	}
	if u.Rate < 0 || u.SendRate < 0 || !(u.AskSeconds >= 0 && u.AskSeconds <= 3600) {
		return errors.New("its numbers make no sense")
	}
	return nil
}
