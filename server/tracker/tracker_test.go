package tracker

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"imgbuild/image/torrent"
	"imgbuild/image/torrent/bencode"
	"imgbuild/server/torrents"
)

// known are the torrents of two releases.
type known []*torrents.Torrent

func (k known) List() []*torrents.Torrent { return k }

func (k known) By(h torrent.Hash) *torrents.Torrent {
	for _, t := range k {
		if t.Hash == h {
			return t
		}
	}
	return nil
}

// Info-hashes with bytes that have to be escaped.
const (
	hashA = "A \x00\xff&=%+aaaaaaaaaaaa"
	hashB = "Bbbbbbbbbbbbbbbbbbbb"
)

func hashOf(s string) (h torrent.Hash) {
	copy(h[:], s)
	return h
}

// rig is a tracker with a clock.
type rig struct {
	*Tracker
	torrents known
	now      time.Time
}

func newRig(change func(*Options)) *rig {
	r := &rig{now: time.Unix(1790000000, 0)}
	r.torrents = known{{Ref: "a/1", Hash: hashOf(hashA)}, {Ref: "b/1", Hash: hashOf(hashB)}}
	o := Options{Torrents: r, Now: func() time.Time { return r.now }}
	if change != nil {
		change(&o)
	}
	r.Tracker = New(o)
	return r
}

func (r *rig) List() []*torrents.Torrent                  { return r.torrents.List() }
func (r *rig) By(h torrent.Hash) *torrents.Torrent        { return r.torrents.By(h) }
func (r *rig) later(d time.Duration)                      { r.now = r.now.Add(d) }
func query(pairs ...string) string                        { return strings.Join(pairs, "&") }
func field(key, value string) string                      { return key + "=" + url.QueryEscape(value) }
func ask(h http.Handler, from, query string) bencode.Dict { return askAt(h, from, "", query) }

// peerID is that of a client with a name, which may be a whole one.
func peerID(name string) string {
	if len(name) == 20 {
		return name
	}
	return fmt.Sprintf("-XX0001-%-12s", name)
}

// askAt asks the server at one of its addresses.
func askAt(h http.Handler, from, at, query string) bencode.Dict {
	q := httptest.NewRequest(http.MethodGet, "/announce?"+query, nil)
	q.RemoteAddr = from
	if at != "" {
		q = q.WithContext(context.WithValue(q.Context(), http.LocalAddrContextKey, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(at))))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, q)
	v, err := bencode.Parse(w.Body.Bytes())
	d, ok := v.(bencode.Dict)
	if err != nil || !ok || w.Code != http.StatusOK {
		panic(fmt.Sprintf("the answer is %d %q: %v", w.Code, w.Body, err))
	}
	return d
}

// announce is one of a peer that has everything (left 0) or not, and the addresses that it hears.
func (r *rig) hears(from, name, hash string, left int, more ...string) []string {
	addr := netip.MustParseAddrPort(from)
	fields := append([]string{field("info_hash", hash), field("peer_id", peerID(name)), fmt.Sprintf("port=%d", addr.Port()), fmt.Sprintf("left=%d", left)}, more...)
	return addresses(askAt(r.Announce(), netip.AddrPortFrom(addr.Addr(), 40000).String(), "[::ffff:10.1.0.1]:8080", query(fields...)))
}

// addresses are those of an answer, IPv4 first.
func addresses(d bencode.Dict) []string {
	var all []string
	read := func(key string, n int) {
		s, _ := d[key].(bencode.String)
		for b := []byte(s); len(b) >= n+2; b = b[n+2:] {
			ip, _ := netip.AddrFromSlice(b[:n])
			all = append(all, netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[n:])).String())
		}
	}
	read("peers", 4)
	read("peers6", 16)
	if reason, ok := d["failure reason"].(bencode.String); ok {
		all = append(all, "failed: "+string(reason))
	}
	return all
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPeersHearOfEachOther(t *testing.T) {
	r := newRig(nil)
	want(t, r.hears("10.1.0.2:6881", "two", hashA, 100))
	want(t, r.hears("10.1.0.3:6881", "three", hashA, 100), "10.1.0.2:6881")
	r.later(time.Second)
	want(t, r.hears("10.1.0.2:6882", "two, again", hashA, 0), "10.1.0.2:6881", "10.1.0.3:6881")
	r.later(time.Second)
	want(t, r.hears("[2001:db8::2]:6881", "six", hashA, 100), "10.1.0.2:6882", "10.1.0.2:6881", "10.1.0.3:6881")
	r.later(time.Second)
	want(t, r.hears("10.1.0.2:6881", "two", hashA, 50), "10.1.0.2:6882", "10.1.0.3:6881", "[2001:db8::2]:6881")
	want(t, r.hears("10.1.0.4:6881", "four", hashB, 100))
	want(t, r.hears("10.1.0.3:6881", "three", hashA, 100, "event=stopped"))
	want(t, r.hears("10.1.0.2:6882", "two, again", hashA, 0), "10.1.0.2:6881", "[2001:db8::2]:6881")
}

func TestSeedsComeFirstAndThenWhoIsNear(t *testing.T) {
	r := newRig(nil)
	r.hears("10.2.0.1:1", "far seed", hashA, 0)
	r.hears("10.2.0.2:1", "far", hashA, 1)
	r.hears("10.1.0.2:1", "near", hashA, 1)
	r.hears("10.1.0.1:1", "near seed", hashA, 0)
	r.later(time.Second)
	r.hears("10.1.0.3:1", "near and new", hashA, 1)
	got := r.hears("10.1.0.9:1", "me", hashA, 1)
	want(t, got, "10.1.0.1:1", "10.2.0.1:1", "10.1.0.3:1", "10.1.0.2:1", "10.2.0.2:1")
	want(t, r.hears("10.1.0.9:1", "me", hashA, 1, "numwant=2"), got[:2]...)
	want(t, r.hears("10.1.0.9:1", "me", hashA, 1, "numwant=-1"), got...)
	want(t, r.hears("10.1.0.9:1", "me", hashA, 1, "numwant=0"))
}

type seed map[string]string

func (s seed) Addr(ref string) (netip.AddrPort, bool) {
	a, ok := s[ref]
	if !ok {
		return netip.AddrPort{}, false
	}
	return netip.MustParseAddrPort(a), true
}

func TestTheServersOwnSeedIsThere(t *testing.T) {
	r := newRig(func(o *Options) { o.Seed = seed{"a/1": "[::]:6881", "b/1": "192.0.2.1:6881"} })
	r.hears("10.1.0.2:1", "seed", hashA, 0)
	want(t, r.hears("10.1.0.3:1", "me", hashA, 1), "10.1.0.1:6881", "10.1.0.2:1")
	want(t, r.hears("10.1.0.3:1", "me", hashA, 1, "numwant=1"), "10.1.0.1:6881")
	want(t, r.hears("10.1.0.3:1", "me", hashB, 1), "192.0.2.1:6881")
	want(t, r.hears("10.1.0.3:1", "me", hashB, 0))
	want(t, r.hears("10.1.0.3:1", "me", hashB, 1, "event=stopped"))
	got := ask(r.Scrape(), "10.1.0.3:1", field("info_hash", hashA))["files"].(bencode.Dict)[hashA].(bencode.Dict)
	if got["complete"] != bencode.Int(2) || got["incomplete"] != bencode.Int(1) {
		t.Errorf("the scrape has %v", got)
	}
	without := newRig(func(o *Options) { o.Seed = seed{} })
	want(t, without.hears("10.1.0.3:1", "me", hashA, 1))
}

func TestMachinesHearWhomThePlannerChose(t *testing.T) {
	planned, unplanned := fmt.Sprintf("%x", peerID("planned")), fmt.Sprintf("%x", peerID("unplanned"))
	r := newRig(func(o *Options) {
		o.Seed = seed{"a/1": "[::]:6881"}
		o.Neighbours = func(id string) ([]netip.AddrPort, bool) {
			if id != planned {
				return nil, id == unplanned
			}
			return []netip.AddrPort{netip.MustParseAddrPort("10.1.0.7:5000"), netip.MustParseAddrPort("[2001:db8::7]:5000")}, true
		}
	})
	r.hears("10.1.0.2:1", "two", hashA, 1)
	want(t, r.hears("10.1.0.3:1", "planned", hashA, 1), "10.1.0.7:5000", "[2001:db8::7]:5000")
	want(t, r.hears("10.1.0.4:1", "four", hashA, 1), "10.1.0.1:6881", "10.1.0.2:1", "10.1.0.3:1")
	want(t, r.hears("10.1.0.3:1", "planned", hashA, 1, "event=stopped"))
	// Whoever waits for the plan connects to no other that installs, and not to the server's seed: that is the first one's.
	r.hears("10.1.0.5:1", torrent.InstallerPrefix+"abcdefabcdef", hashA, 1)
	want(t, r.hears("10.1.0.6:1", "unplanned", hashA, 1), "10.1.0.2:1", "10.1.0.4:1")
}

func TestPeersThatDoNotComeBackAreForgotten(t *testing.T) {
	r := newRig(nil)
	r.hears("10.1.0.2:1", "two", hashA, 1)
	r.later(forgetAfter)
	want(t, r.hears("10.1.0.3:1", "three", hashA, 1), "10.1.0.2:1")
	r.later(time.Second)
	want(t, r.hears("10.1.0.3:1", "three", hashA, 1))
	r.later(forgetAfter)
	r.hears("10.1.0.4:1", "four", hashB, 1)
	if len(r.swarms[hashOf(hashA)].peers) != 1 || len(r.swarms[hashOf(hashA)].at) != 1 {
		t.Errorf("kept: %v", r.swarms[hashOf(hashA)])
	}
	r.torrents = r.torrents[1:]
	r.later(interval)
	r.hears("10.1.0.4:1", "four", hashB, 1)
	if len(r.swarms) != 1 {
		t.Errorf("%d torrents are kept, of one", len(r.swarms))
	}
	if got := r.hears("10.1.0.4:1", "four", hashA, 1); len(got) != 1 || !strings.Contains(got[0], "no release with the info-hash 412000ff") {
		t.Errorf("a torrent that is gone gives %v", got)
	}
}

func TestWhatIsKeptHasBounds(t *testing.T) {
	r := newRig(nil)
	for i := range maxPeersAddress {
		r.hears(fmt.Sprintf("10.1.0.2:%d", i+1), "x", hashA, 1)
	}
	want(t, r.hears("10.1.0.2:1000", "x", hashA, 1), "failed: there are as many peers at this address as this tracker keeps: ask again later")
	r.hears("10.1.0.2:1", "x", hashA, 1, "event=stopped")
	want(t, r.hears("10.1.0.2:1000", "x", hashA, 1))
	for i := range maxPeers - maxPeersAddress {
		a := netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
		if refused := r.swarms[hashOf(hashA)].note(announce{id: peerID(a.String()), left: 1}, netip.AddrPortFrom(a, 1), r.now); refused != "" {
			t.Fatal(refused)
		}
	}
	want(t, r.hears("10.1.0.3:1", "y", hashA, 1), "failed: there are as many peers of this torrent as this tracker keeps: ask again later")
	if got := r.hears("10.1.0.2:1000", "x", hashA, 1, "numwant=100000"); len(got) != mostPeers {
		t.Errorf("an answer has %d peers", len(got))
	}
}

func TestAnAnswerIsAsBEP3AndItsFollowersSay(t *testing.T) {
	r := newRig(nil)
	r.hears("10.1.0.2:258", "two", hashA, 0, "event=completed")
	r.hears("[2001:db8::3]:772", "three", hashA, 1)
	base := query(field("info_hash", hashA), field("peer_id", peerID("me")), "port=1", "left=1")
	numbers := bencode.Dict{"interval": bencode.Int(30), "min interval": bencode.Int(10), "complete": bencode.Int(1), "incomplete": bencode.Int(2)}
	two, three := bencode.Dict{"ip": bencode.String("10.1.0.2"), "port": bencode.Int(258)}, bencode.Dict{"ip": bencode.String("2001:db8::3"), "port": bencode.Int(772)}
	with := func(d bencode.Dict, key string, v bencode.Value) bencode.Dict {
		n := bencode.Dict{key: v}
		for k, x := range d {
			n[k] = x
		}
		return n
	}
	six := bencode.String("\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x03\x04")
	for name, test := range map[string]struct {
		query string
		want  bencode.Dict
	}{
		"compact, as clients ask":         {"compact=1", with(with(numbers, "peers", bencode.String("\x0a\x01\x00\x02\x01\x02")), "peers6", six)},
		"compact where nothing is said":   {"supportcrypto=1", with(with(numbers, "peers", bencode.String("\x0a\x01\x00\x02\x01\x02")), "peers6", six)},
		"as lists":                        {"compact=0", with(numbers, "peers", bencode.List{with(two, "peer id", bencode.String(peerID("two"))), with(three, "peer id", bencode.String(peerID("three")))})},
		"as lists without IDs":            {"compact=0&no_peer_id=1", with(numbers, "peers", bencode.List{two, three})},
		"an address that a client claims": {"compact=1&ip=192.0.2.7&ipv4=192.0.2.8", with(with(numbers, "peers", bencode.String("\x0a\x01\x00\x02\x01\x02")), "peers6", six)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ask(r.Announce(), "10.1.0.9:5", base+"&"+test.query); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %q\nwant %q", bencode.Marshal(got), bencode.Marshal(test.want))
			}
		})
	}
	t.Run("a scrape", func(t *testing.T) {
		a := bencode.Dict{"complete": bencode.Int(1), "incomplete": bencode.Int(2), "downloaded": bencode.Int(1)}
		none := bencode.Dict{"complete": bencode.Int(0), "incomplete": bencode.Int(0), "downloaded": bencode.Int(0)}
		for query, want := range map[string]bencode.Dict{
			field("info_hash", hashA): {hashA: a},
			field("info_hash", hashA) + "&" + field("info_hash", "ccccccccccccccccccc1"): {hashA: a},
			"": {hashA: a, hashB: none},
		} {
			if got := ask(r.Scrape(), "10.1.0.9:5", query); !reflect.DeepEqual(got, bencode.Dict{"files": want}) {
				t.Errorf("%s: got %q", query, bencode.Marshal(got))
			}
		}
		if got := ask(r.Scrape(), "10.1.0.9:5", "info_hash=x"); len(addresses(got)) != 1 {
			t.Errorf("a short hash gives %v", got)
		}
	})
}

func TestWhatIsNoAnnounceIsRefused(t *testing.T) {
	r := newRig(nil)
	hash, id := field("info_hash", hashA), field("peer_id", peerID("me"))
	for name, test := range map[string]struct{ query, want string }{
		"nothing":                   {"", "info_hash has 0 bytes, and not 20"},
		"a broken escape":           {"info_hash=%zz", "the query cannot be read"},
		"another torrent":           {query(field("info_hash", "ccccccccccccccccccc1"), id, "port=1", "left=1"), "there is no release with the info-hash 636363"},
		"a hash in hex":             {query("info_hash=4120414141414141414141414141414141414141", id, "port=1", "left=1"), "info_hash has 40 bytes, and not 20"},
		"no peer ID":                {query(hash, "port=1", "left=1"), "peer_id has 0 bytes, and not 20"},
		"no port":                   {query(hash, id, "left=1"), "port is not a number from 1 to 65535"},
		"port 0":                    {query(hash, id, "port=0", "left=1"), "port is not a number from 1 to 65535"},
		"a port that is none":       {query(hash, id, "port=65536", "left=1"), "port is not a number from 1 to 65535"},
		"nothing of what is left":   {query(hash, id, "port=1"), "left is not a number of bytes"},
		"less than nothing is left": {query(hash, id, "port=1", "left=-1"), "left is not a number of bytes"},
		"some peers":                {query(hash, id, "port=1", "left=1", "numwant=some"), "numwant is not a number"},
	} {
		t.Run(name, func(t *testing.T) {
			d := ask(r.Announce(), "10.1.0.9:5", test.query)
			if s, ok := d["failure reason"].(bencode.String); !ok || !strings.Contains(string(s), test.want) || len(d) != 1 {
				t.Errorf("got %v, want %s", d, test.want)
			}
		})
	}
	if len(r.swarms) > 0 {
		t.Errorf("something was kept of it: %v", r.swarms)
	}
	if got := addresses(ask(r.Announce(), "somewhere", query(hash, id, "port=1", "left=1"))); len(got) != 1 {
		t.Errorf("a client without an address gives %v", got)
	}
	if d := ask(r.Announce(), "10.1.0.9:5", query(hash, id, "port=1", "left=1")); d["failure reason"] != nil {
		t.Errorf("a good one gives a reason: %v", d)
	}
}

func FuzzParseAnnounce(f *testing.F) {
	f.Add("info_hash=%41%20aaaaaaaaaaaaaaaaaa&peer_id=-XX0001-aaaaaaaaaaaa&port=6881&left=0&event=started&numwant=50&compact=1")
	f.Add("info_hash=x;y")
	f.Fuzz(func(t *testing.T, query string) {
		a, err := parseAnnounce(query)
		if err == nil && (len(a.id) != 20 || a.port == 0 || a.left < 0 || a.want < 0 || a.want > mostPeers) {
			t.Errorf("%q is read as %+v", query, a)
		}
		if all, err := parseScrape(query); err == nil && len(all) > maxScrape {
			t.Errorf("%q asks for %d torrents", query, len(all))
		}
	})
}
