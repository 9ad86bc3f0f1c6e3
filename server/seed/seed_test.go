package seed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"golang.org/x/time/rate"

	"imgbuild/image"
	"imgbuild/server/releases"
	"imgbuild/server/releases/releasetest"
	"imgbuild/server/torrents"
)

// rig is a directory of releases and its seed, with a clock.
type rig struct {
	*Seed
	dir       string
	key       image.PrivateKey
	catalogue *releases.Catalogue
	index     *torrents.Index
	now       time.Time
	log       bytes.Buffer
}

func newRig(t *testing.T) *rig { return newRigAt(t, "127.0.0.1") }

// newRigAt has its seed at an address of this machine.
func newRigAt(t *testing.T, host string) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir(), key: releasetest.Key(t), now: time.Unix(1790000000, 0)}
	silent := slog.New(slog.DiscardHandler)
	clock := func() time.Time { return r.now }
	var err error
	if r.catalogue, err = releases.Open(releases.Options{Dir: r.dir, Trust: []image.PublicKey{r.key.Public()}, Log: silent}); err != nil {
		t.Fatal(err)
	}
	r.index = torrents.New(torrents.Options{Catalogue: r.catalogue, Log: silent, Now: clock})
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	if r.Seed, err = New(Options{Torrents: r.index, Open: r.catalogue.OpenFile, Listener: l, Log: log, Now: clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// write adds a release with a root file system of its own, and returns that.
func (r *rig) write(t *testing.T, ref string, size int) []byte {
	t.Helper()
	name, version, _ := bytes.Cut([]byte(ref), []byte("/"))
	data := make([]byte, size)
	source := rand.NewChaCha8(sha256.Sum256([]byte(fmt.Sprint(ref, size))))
	_, _ = source.Read(data) // it never fails
	releasetest.Write(t, r.dir, releasetest.Release{Name: string(name), Version: string(version), Key: r.key, Rootfs: data})
	if err := r.catalogue.Scan(); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(time.Second) // after which the index looks again
	return data
}

// peer is a BitTorrent client that knows the seed and nobody else.
func (r *rig) peer(t *testing.T, ref string) *torrent.Torrent {
	t.Helper()
	at, ok := r.Addr(ref)
	if !ok {
		t.Fatalf("%s is not given away: %s", ref, &r.log)
	}
	cfg := torrent.NewDefaultClientConfig()
	cfg.NoDHT, cfg.DisableUTP, cfg.DisablePEX, cfg.NoDefaultPortForwarding, cfg.DisableWebtorrent, cfg.DisableTrackers = true, true, true, true, true, true
	cfg.ListenHost, cfg.ListenPort = func(string) string { return "127.0.0.1" }, 0
	cfg.DisableIPv6, cfg.Slogger = true, slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	cfg.DefaultStorage = storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: dir, PieceCompletion: storage.NewMapPieceCompletion()})
	c, err := torrent.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // what it got was checked
	f, err := r.catalogue.OpenFile(ref, image.TorrentFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := metainfo.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.AddTorrent(m)
	if err != nil {
		t.Fatal(err)
	}
	p.AddPeers([]torrent.PeerInfo{{Addr: net.TCPAddrFromAddrPort(at), Trusted: true}})
	return p
}

func (r *rig) fetched(t *testing.T, ref string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reader := r.peer(t, ref).NewReader()
	defer reader.Close()
	reader.SetContext(ctx)
	data, err := io.ReadAll(reader)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(data), err)
	}
	return data
}

func TestAPeerGetsTheRootFileSystem(t *testing.T) {
	r := newRig(t)
	want := r.write(t, "web/1", 2*image.ChunkSize+77)
	if got := r.fetched(t, "web/1"); !bytes.Equal(got, want) {
		t.Errorf("it got %d bytes, and other ones", len(got))
	}
	if n := r.Stats(); n.Sent < int64(len(want)) || n.Releases != 1 {
		t.Errorf("the counters say %+v", n)
	}
	left, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if filepath.Ext(name) != ".go" {
			t.Errorf("it left %s in the working directory", name)
		}
	}
}

func TestAnAddressIsGivenForWhatCanBeGivenAway(t *testing.T) {
	r := newRig(t)
	r.write(t, "web/1", 100)
	at, ok := r.Addr("web/1")
	if want := r.o.Listener.Addr().(*net.TCPAddr).AddrPort(); !ok || at != want {
		t.Errorf("it is at %v, %v; want %v", at, ok, want)
	}
	if at, ok := r.Addr("web/2"); ok {
		t.Errorf("a release that is not there is at %v", at)
	}
	// The catalogue does not know it yet.
	if err := os.Remove(filepath.Join(r.dir, "web/1", image.RootfsFile)); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Addr("web/1"); !ok {
		t.Error("what is open is not given away any more")
	}
	r.mu.Lock()
	for h := range r.seeded {
		r.drop(h)
	}
	r.mu.Unlock()
	for range 2 {
		if at, ok := r.Addr("web/1"); ok {
			t.Errorf("a release without its file is at %v", at)
		}
	}
	if n := bytes.Count(r.log.Bytes(), []byte("level=WARN")); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, &r.log)
	}
}

func TestAnUnspecifiedAddressStandsForTheServers(t *testing.T) {
	r := newRig(t)
	r.write(t, "web/1", 100)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Torrents: r.index, Open: r.catalogue.OpenFile, Listener: l})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at, ok := s.Addr("web/1")
	if !ok || at != netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(l.Addr().(*net.TCPAddr).Port)) && at.Addr() != netip.IPv4Unspecified() {
		t.Errorf("it is at %v, %v", at, ok)
	}
}

func TestWhatNobodyAsksForIsClosed(t *testing.T) {
	r := newRig(t)
	r.write(t, "web/1", 100)
	r.write(t, "web/2", 200)
	one := r.index.Of("web/1").Hash
	offered := func(ref string) {
		t.Helper()
		if _, ok := r.Addr(ref); !ok {
			t.Fatalf("%s is not given away", ref)
		}
	}
	offered("web/1")
	offered("web/2")
	r.now = r.now.Add(idleAfter)
	offered("web/2")
	r.Tidy()
	if len(r.seeded) != 2 {
		t.Errorf("%d are left too early", len(r.seeded))
	}
	r.now = r.now.Add(time.Second)
	r.Tidy()
	if len(r.seeded) != 1 || r.seeded[one] != nil {
		t.Errorf("left are %v", r.seeded)
	}
	r.write(t, "web/2", 300)
	if r.Tidy(); len(r.seeded) != 1 {
		t.Errorf("the index does not know yet that the release was built again, and left are %v", r.seeded)
	}
	if err := os.RemoveAll(filepath.Join(r.dir, "web/2")); err != nil {
		t.Fatal(err)
	}
	if err := r.catalogue.Scan(); err != nil {
		t.Fatal(err)
	}
	again := torrents.New(torrents.Options{Catalogue: r.catalogue, Log: slog.New(slog.DiscardHandler)})
	r.o.Torrents = again
	if r.Tidy(); len(r.seeded) != 0 {
		t.Errorf("a release that is gone is still given away: %v", r.seeded)
	}
}

func TestTheReleasesThatAreOpenHaveABound(t *testing.T) {
	r := newRig(t)
	for i := range maxReleases + 1 {
		r.write(t, fmt.Sprintf("web/%d", i), 100+i)
		r.index.Of(fmt.Sprintf("web/%d", i))
	}
	for i := range maxReleases + 1 {
		r.now = r.now.Add(time.Millisecond)
		if _, ok := r.Addr(fmt.Sprintf("web/%d", i)); !ok {
			t.Fatalf("web/%d is not given away", i)
		}
	}
	if len(r.seeded) != maxReleases || r.seeded[r.index.Of("web/0").Hash] != nil {
		t.Errorf("%d are open", len(r.seeded))
	}
}

func TestTheRateCanBeChanged(t *testing.T) {
	r := newRig(t)
	for n, want := range map[int64]rate.Limit{1000: 1000, 0: rate.Inf, -1: rate.Inf} {
		if r.SetRate(n); r.limit.Limit() != want {
			t.Errorf("%d: %v", n, r.limit.Limit())
		}
	}
}

func TestASeedThatIsClosedOffersNothing(t *testing.T) {
	r := newRig(t)
	r.write(t, "web/1", 100)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Torrents: r.index, Open: r.catalogue.OpenFile, Listener: l, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if at, ok := s.Addr("web/1"); ok {
		t.Errorf("it is at %v", at)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("it still takes connections")
	}
}
