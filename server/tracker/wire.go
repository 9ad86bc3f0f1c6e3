package tracker

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"imgbuild/image/torrent"
	"imgbuild/image/torrent/bencode"
)

// ScrapePath is torrent.AnnouncePath with scrape in the place of announce (BEP 48).
const ScrapePath = "/scrape"

// Events that an announce can have; others are as none.
const (
	eventCompleted = "completed"
	eventStopped   = "stopped"
)

// maxScrape bounds the torrents that one scrape asks for.
const maxScrape = 100

// announce is what a client asks.
type announce struct {
	hash    torrent.Hash
	id      string // 20 bytes
	port    uint16
	left    int64 // bytes
	event   string
	want    int  // peers
	compact bool // BEP 23
	noID    bool // without peers' IDs, if it is not compact
}

// hexID is a peer's ID as plan.Swarm has it.
func hexID(id string) string { return hex.EncodeToString([]byte(id)) }

// parseAnnounce reads an announce's query. Bytes are escaped in it (RFC 3986, 2.1), so info_hash and peer_id are bytes again.
func parseAnnounce(query string) (announce, error) {
	v, err := url.ParseQuery(query)
	if err != nil {
		return announce{}, errors.New("the query cannot be read")
	}
	a := announce{id: v.Get("peer_id"), event: v.Get("event"), want: usualPeers, compact: v.Get("compact") != "0", noID: v.Get("no_peer_id") == "1"}
	if a.hash, err = parseHash(v.Get("info_hash")); err != nil {
		return announce{}, err
	}
	if len(a.id) != 20 {
		return announce{}, fmt.Errorf("peer_id has %d bytes, and not 20", len(a.id))
	}
	port, err := strconv.ParseUint(v.Get("port"), 10, 16)
	if err != nil || port == 0 {
		return announce{}, errors.New("port is not a number from 1 to 65535")
	}
	a.port = uint16(port)
	if a.left, err = strconv.ParseInt(v.Get("left"), 10, 64); err != nil || a.left < 0 {
		return announce{}, errors.New("left is not a number of bytes")
	}
	if s := v.Get("numwant"); s != "" {
		n, err := strconv.Atoi(s)
		switch {
		case err != nil:
			return announce{}, errors.New("numwant is not a number")
		case n >= 0: // some write -1 for as many as is usual
			a.want = min(n, mostPeers)
		}
	}
	return a, nil
}

func parseHash(s string) (h torrent.Hash, err error) {
	if len(s) != len(h) {
		return h, fmt.Errorf("info_hash has %d bytes, and not %d", len(s), len(h))
	}
	copy(h[:], s)
	return h, nil
}

// parseScrape reads a scrape's query: any number of info-hashes.
func parseScrape(query string) ([]torrent.Hash, error) {
	v, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the query cannot be read")
	}
	if len(v["info_hash"]) > maxScrape {
		return nil, fmt.Errorf("it asks for more than %d torrents", maxScrape)
	}
	var all []torrent.Hash
	for _, s := range v["info_hash"] {
		h, err := parseHash(s)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

// answer is what the client is told.
func (a announce) answer(complete, incomplete int, list []peer) bencode.Dict {
	d := bencode.Dict{
		"interval": bencode.Int(interval.Seconds()), "min interval": bencode.Int(minInterval.Seconds()),
		"complete": bencode.Int(complete), "incomplete": bencode.Int(incomplete),
	}
	if !a.compact {
		peers := bencode.List{}
		for _, p := range list {
			one := bencode.Dict{"ip": bencode.String(p.addr.Addr().String()), "port": bencode.Int(p.addr.Port())}
			if !a.noID && p.id != "" {
				one["peer id"] = bencode.String(p.id)
			}
			peers = append(peers, one)
		}
		d["peers"] = peers
		return d
	}
	var v4, v6 []byte // BEP 23, BEP 7
	for _, p := range list {
		ip := p.addr.Addr()
		if ip.Is4() {
			v4 = binary.BigEndian.AppendUint16(append(v4, ip.AsSlice()...), p.addr.Port())
		} else {
			v6 = binary.BigEndian.AppendUint16(append(v6, ip.AsSlice()...), p.addr.Port())
		}
	}
	d["peers"] = bencode.String(v4)
	if len(v6) > 0 {
		d["peers6"] = bencode.String(v6)
	}
	return d
}

// scraped are the numbers of one torrent.
type scraped struct {
	hash                             torrent.Hash
	complete, incomplete, downloaded int
}

func scrapeAnswer(all []scraped) bencode.Dict {
	files := bencode.Dict{}
	for _, f := range all {
		files[string(f.hash[:])] = bencode.Dict{
			"complete": bencode.Int(f.complete), "incomplete": bencode.Int(f.incomplete), "downloaded": bencode.Int(f.downloaded),
		}
	}
	return bencode.Dict{"files": files}
}

func unknown(h torrent.Hash) string {
	return fmt.Sprintf("there is no release with the info-hash %s that may be installed", h)
}

// fail says why there is no answer: a client shows it. BEP 3 has it with the status of success.
func fail(w http.ResponseWriter, reason string) {
	write(w, bencode.Dict{"failure reason": bencode.String(reason)})
}

func write(w http.ResponseWriter, d bencode.Dict) {
	h := w.Header()
	h.Set("Content-Type", "text/plain")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(bencode.Marshal(d)) // a client that has gone needs no answer
}
