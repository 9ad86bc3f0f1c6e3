package torrents

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/torrent"
	"imgbuild/server/releases"
	"imgbuild/server/releases/releasetest"
)

// rig is a directory of releases, its catalogue, a clock and a log.
type rig struct {
	dir       string
	key       image.PrivateKey
	catalogue *releases.Catalogue
	now       time.Time
	log       bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir(), key: releasetest.Key(t), now: time.Unix(1790000000, 0)}
	var err error
	if r.catalogue, err = releases.Open(releases.Options{Dir: r.dir, Trust: []image.PublicKey{r.key.Public()}, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) write(t *testing.T, x releasetest.Release) string {
	t.Helper()
	x.Key = r.key
	return r.writeAs(t, x)
}

func (r *rig) writeAs(t *testing.T, x releasetest.Release) string {
	t.Helper()
	dir := releasetest.Write(t, r.dir, x)
	r.scan(t)
	return dir
}

func (r *rig) scan(t *testing.T) {
	t.Helper()
	if err := r.catalogue.Scan(); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) index(url string) *Index {
	return New(Options{Catalogue: r.catalogue, URL: url, Log: slog.New(slog.NewTextHandler(&r.log, nil)), Now: func() time.Time { return r.now }})
}

func hashOf(t *testing.T, dir string) torrent.Hash {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, image.TorrentFile))
	if err != nil {
		t.Fatal(err)
	}
	m, err := torrent.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return m.Hash()
}

func refs(list []*Torrent) []string {
	var all []string
	for _, t := range list {
		all = append(all, t.Ref)
	}
	return all
}

func TestTheTorrentsAreThoseOfReleasesThatMayBeInstalled(t *testing.T) {
	r := newRig(t)
	one := r.write(t, releasetest.Release{Name: "web", Version: "1"})
	two := r.write(t, releasetest.Release{Name: "web", Version: "2", Rootfs: []byte("another one")})
	r.write(t, releasetest.Release{Name: "web", Version: "3", Torrent: []byte{}})
	stranger := r.writeAs(t, releasetest.Release{Name: "web", Version: "4", Rootfs: []byte("a stranger's"), Key: releasetest.Key(t)})
	r.write(t, releasetest.Release{Name: "bad", Version: "1", Torrent: []byte("no torrent")})
	other, err := os.ReadFile(filepath.Join(one, image.TorrentFile))
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, releasetest.Release{Name: "bad", Version: "2", Rootfs: []byte("not this one"), Torrent: other})
	x := r.index("")
	if got := refs(x.List()); !reflect.DeepEqual(got, []string{"web/1", "web/2"}) {
		t.Errorf("there are %v", got)
	}
	for dir, want := range map[string]string{one: "web/1", two: "web/2"} {
		if k := x.By(hashOf(t, dir)); k == nil || k.Ref != want || x.Of(want) != k {
			t.Errorf("%s: got %+v", want, k)
		}
	}
	if k := x.By(hashOf(t, stranger)); k != nil {
		t.Errorf("a release that may not be installed is there: %+v", k)
	}
	for _, want := range []string{"bad/1: read torrent", "not its rootfs.squashfs"} {
		if strings.Count(r.log.String(), want) != 1 {
			t.Errorf("the log does not say %q once:\n%s", want, &r.log)
		}
	}
	before := r.log.Len()
	x.refresh()
	if r.log.Len() != before {
		t.Errorf("the log says it again:\n%s", &r.log)
	}
}

func TestReleasesComeAndGo(t *testing.T) {
	r := newRig(t)
	x := r.index("")
	if x.Of("web/1") != nil {
		t.Fatal("there is a torrent of nothing")
	}
	dir := r.write(t, releasetest.Release{Name: "web", Version: "1"})
	if x.Of("web/1") != nil {
		t.Error("what is not there is looked for at every question")
	}
	r.now = r.now.Add(refreshEvery)
	first := x.Of("web/1")
	if first == nil || first.Hash != hashOf(t, dir) {
		t.Fatalf("the new release is %+v", first)
	}
	x.refresh()
	if x.Of("web/1") != first {
		t.Error("a torrent that has not changed was read again")
	}
	dir = r.write(t, releasetest.Release{Name: "web", Version: "1", Rootfs: []byte("built again")})
	x.refresh()
	if k := x.Of("web/1"); k == nil || k.Hash != hashOf(t, dir) || x.By(first.Hash) != nil {
		t.Errorf("the release that was built again is %+v", k)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	r.scan(t)
	x.refresh()
	if len(x.List()) != 0 {
		t.Errorf("there are %v", refs(x.List()))
	}
}

func TestATorrentThatIsNotTheManifestsIsRefused(t *testing.T) {
	r := newRig(t)
	dir := r.write(t, releasetest.Release{Name: "web", Version: "1"})
	file := filepath.Join(dir, image.TorrentFile)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-30] ^= 1 // in the last piece's digest
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	r.scan(t)
	if x := r.index(""); x.Of("web/1") != nil || !strings.Contains(r.log.String(), "the manifest says") {
		t.Errorf("it was taken; the log has\n%s", &r.log)
	}
}

func TestPeopleGetATorrentWithThisServerInIt(t *testing.T) {
	r := newRig(t)
	dir := r.write(t, releasetest.Release{Name: "web", Version: "1+2"})
	for name, test := range map[string]struct{ url, path, base string }{
		"the server says its address": {"http://imgserve.example.org:8080", "/torrent/web/1+2.torrent", "http://imgserve.example.org:8080"},
		"it was reached somewhere":    {"", "/torrent/web/1+2.torrent", "http://10.1.0.1:8080"},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			q := httptest.NewRequest(http.MethodGet, test.path, nil)
			q.Host = "10.1.0.1:8080"
			r.index(test.url).ServeHTTP(w, q)
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/x-bittorrent" {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			m, err := torrent.Parse(w.Body.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if m.Hash() != hashOf(t, dir) {
				t.Error("it is another torrent")
			}
			if !reflect.DeepEqual(m.Trackers, []string{test.base + "/announce"}) || !reflect.DeepEqual(m.WebSeeds, []string{test.base + "/images/web/1+2/rootfs.squashfs"}) {
				t.Errorf("it says %v and %v", m.Trackers, m.WebSeeds)
			}
		})
	}
	x := r.index("")
	for _, path := range []string{"/torrent/web/1.torrent", "/torrent/web/1+2", "/torrent/web", "/torrent/../web/1+2.torrent", "/torrent//.torrent"} {
		w := httptest.NewRecorder()
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		q.URL.Path = path
		if x.ServeHTTP(w, q); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestTheIndexLooksUntilItIsStopped(t *testing.T) {
	r := newRig(t)
	x := New(Options{Catalogue: r.catalogue, Log: slog.New(slog.DiscardHandler), Every: time.Millisecond, Now: func() time.Time { return r.now }})
	r.write(t, releasetest.Release{Name: "web", Version: "1"})
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- x.Run(ctx) }()
	for len(x.List()) == 0 { // the clock stands, so that only Run looks
		select {
		case err := <-done:
			t.Fatalf("it ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}
