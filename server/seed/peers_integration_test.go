//go:build integration

package seed

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/torrent"
	"imgbuild/server/tracker"
)

// ownAddress is one of this machine that is not loopback: transmission connects to no peer there.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has loopback alone, where transmission connects to no peer")
	return ""
}

// served is a seed's tracker, and the torrents of its releases, over HTTP.
func (r *rig) served(t *testing.T, withSeed bool) (url string) {
	t.Helper()
	o := tracker.Options{Torrents: r.index}
	if withSeed {
		o.Seed = r.Seed
	}
	track := tracker.New(o)
	mux := http.NewServeMux()
	mux.Handle(torrent.AnnouncePath, track.Announce())
	mux.Handle(tracker.ScrapePath, track.Scrape())
	server := httptest.NewUnstartedServer(mux)
	_ = server.Listener.Close() // it is at loopback
	l, err := net.Listen("tcp", net.JoinHostPort(ownAddress(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// metainfo writes the torrent of a release with a tracker and no web seed, so that BitTorrent is the only way.
func (r *rig) metainfo(t *testing.T, ref, url string) string {
	t.Helper()
	m := *r.index.Of(ref).Info
	m.Trackers = []string{url + torrent.AnnouncePath}
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), image.TorrentFile)
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// peerTool is another BitTorrent client.
type peerTool struct {
	name string
	// argv fetches a torrent into a directory, or seeds what is there, and takes connections at a port.
	argv func(torrent, dir string, port int) []string
	// whole is what it prints when it has everything.
	whole string
}

func peerTools() []peerTool {
	return []peerTool{
		{"aria2c", func(torrent, dir string, port int) []string {
			return []string{
				"aria2c", "--no-conf", "--dir=" + dir, "--listen-port=" + strconv.Itoa(port), "--enable-dht=false", "--enable-dht6=false", "--enable-peer-exchange=false",
				"--bt-enable-lpd=false", "--file-allocation=none", "--check-integrity=true", "--seed-ratio=0.0", "--summary-interval=1", torrent,
			}
		}, "Verification finished successfully|SEED("},
		{"transmission-cli", func(torrent, dir string, port int) []string {
			return []string{"transmission-cli", "--config-dir", filepath.Join(dir, ".config"), "--download-dir", dir, "--port", strconv.Itoa(port), "--no-portmap", "--no-downlimit", "--no-uplimit", torrent}
		}, "Seeding, uploading"},
	}
}

// start runs the tool until the test ends and returns a channel that is closed when it says that it has everything.
func (p peerTool) start(t *testing.T, torrent, dir string) (whole <-chan struct{}) {
	t.Helper()
	path, err := exec.LookPath(p.name)
	if err != nil {
		t.Skipf("this test needs %s: %v", p.name, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close() // the tool's now, as far as one can tell
	// transmission tries uTP first, which takes minutes to fail.
	settings := filepath.Join(dir, ".config", "settings.json")
	if err := os.MkdirAll(filepath.Dir(settings), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(settings, []byte(`{"utp-enabled": false, "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false}`), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	argv := p.argv(torrent, dir, port)
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done, read := make(chan struct{}), make(chan struct{})
	var said bytes.Buffer
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		lines.Split(byLineOrReturn)
		var closed bool
		var last string
		for lines.Scan() {
			if line := strings.TrimSpace(lines.Text()); line != last {
				last = line
				said.WriteString(line + "\n")
			}
			for _, w := range strings.Split(p.whole, "|") {
				if !closed && strings.Contains(lines.Text(), w) {
					closed = true
					close(done)
				}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-read
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, said.String())
		}
	})
	return done
}

// byLineOrReturn splits at line feeds and at carriage returns, which draw a progress line anew.
func byLineOrReturn(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

func await(t *testing.T, whole <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-whole:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s does not have everything after two minutes", what)
	}
}

func same(t *testing.T, dir string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, image.RootfsFile))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("it has %d bytes and not those %d: %v", len(got), len(want), err)
	}
}

func TestOtherClientsFetchFromTheSeedThroughTheTracker(t *testing.T) {
	for _, tool := range peerTools() {
		t.Run(tool.name, func(t *testing.T) {
			r := newRigAt(t, ownAddress(t))
			want := r.write(t, "web/1", 8*image.ChunkSize+77)
			dir := t.TempDir()
			await(t, tool.start(t, r.metainfo(t, "web/1", r.served(t, true)), dir), tool.name)
			same(t, dir, want)
			if n := r.Stats(); n.Sent < int64(len(want)) {
				t.Errorf("the seed has sent %+v", n)
			}
		})
	}
}

func TestOtherClientsFindEachOtherThroughTheTracker(t *testing.T) {
	tools := peerTools()
	for i, from := range tools {
		to := tools[1-i]
		t.Run(from.name+" to "+to.name, func(t *testing.T) {
			r := newRigAt(t, ownAddress(t))
			want := r.write(t, "web/1", 4*image.ChunkSize+77)
			file := r.metainfo(t, "web/1", r.served(t, false))
			full, empty := t.TempDir(), t.TempDir()
			if err := os.WriteFile(filepath.Join(full, image.RootfsFile), want, 0o644); err != nil {
				t.Fatal(err)
			}
			await(t, from.start(t, file, full), from.name)
			await(t, to.start(t, file, empty), to.name)
			same(t, empty, want)
			if n := r.Stats(); n.Sent != 0 {
				t.Errorf("the seed has sent %+v", n)
			}
		})
	}
}

func TestTransmissionReadsTheScrape(t *testing.T) {
	r := newRigAt(t, ownAddress(t))
	r.write(t, "web/1", 100)
	url := r.served(t, true)
	path, err := exec.LookPath("transmission-show")
	if err != nil {
		t.Skipf("this test needs transmission-show: %v", err)
	}
	out, err := exec.CommandContext(t.Context(), path, "--scrape", r.metainfo(t, "web/1", url)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "1 seeders, 0 leechers") {
		t.Errorf("transmission reads the scrape as %s, %v", out, err)
	}
}
