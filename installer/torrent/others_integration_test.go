//go:build integration && !notorrent

package torrent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"imgbuild/image"
	metafile "imgbuild/image/torrent"
)

// outside is an address of this host that is not a loopback one: transmission connects to no loopback address.
func outside(t *testing.T) string {
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
	t.Skip("this test needs an IPv4 address that is not a loopback one, and this host has none")
	return ""
}

// freePort is a port that nobody has at the moment.
func freePort(t *testing.T, host string) int {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// track is a tracker that gives everybody the same peer (BEP 3, 23), and returns its address.
func track(t *testing.T, host string, peer func() string) string {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := netip.MustParseAddrPort(peer())
		four := a.Addr().As4()
		compact := binary.BigEndian.AppendUint16(four[:], a.Port())
		fmt.Fprintf(w, "d8:intervali5e5:peers%d:%se", len(compact), compact)
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return fmt.Sprintf("http://%s/announce", l.Addr())
}

// tool is a client of somebody else. Its argv works on the metainfo file in dir, with the data beside it.
type tool struct {
	name        string
	seed, fetch func(dir, meta string, port int) []string
}

func tools() []tool {
	aria2 := func(more ...string) func(string, string, int) []string {
		return func(dir, meta string, port int) []string {
			return append([]string{"aria2c", "--no-conf", "--dir", dir, "--listen-port", strconv.Itoa(port), "--enable-dht=false",
				"--bt-enable-lpd=false", "--enable-peer-exchange=false", "--summary-interval=0", "--bt-tracker-interval=5"}, append(more, meta)...)
		}
	}
	transmission := func(more ...string) func(string, string, int) []string {
		return func(dir, meta string, port int) []string {
			return append([]string{"transmission-cli", "--no-portmap", "--encryption-tolerated", "--no-downlimit", "--no-uplimit", "--config-dir", filepath.Join(dir, "config"),
				"--download-dir", dir, "--port", strconv.Itoa(port)}, append(more, meta)...)
		}
	}
	return []tool{
		{"aria2", aria2("--check-integrity=true", "--seed-ratio=0.0"), aria2("--seed-time=0")},
		{"transmission", transmission("--verify"), transmission()},
	}
}

// transmissionSettings leave out what the command line cannot: it would try µTP first, for a long time.
const transmissionSettings = `{"utp-enabled": false, "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "rpc-enabled": false}`

// run starts a tool and ends it with the test.
func run(t *testing.T, argv []string) {
	t.Helper()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		t.Skipf("this test talks to %s: %v", argv[0], err)
	}
	var out bytes.Buffer
	cmd := exec.Command(path, argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			b := out.Bytes()
			t.Logf("%s said:\n%s", argv[0], b[max(0, len(b)-2000):])
		}
	})
}

// write puts the metainfo, with a tracker, and if need be the file into a directory of their own.
func (c content) write(t *testing.T, tracker string, withData bool) (dir, meta string) {
	t.Helper()
	m, err := metafile.Parse(c.meta)
	if err != nil {
		t.Fatal(err)
	}
	m.Trackers = []string{tracker}
	data, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	meta = filepath.Join(t.TempDir(), image.TorrentFile)
	if err := os.WriteFile(meta, data, 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config")
	if err := os.Mkdir(config, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "settings.json"), []byte(transmissionSettings), 0o644); err != nil {
		t.Fatal(err)
	}
	if withData {
		if err := os.WriteFile(filepath.Join(dir, image.RootfsFile), c.data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, meta
}

func TestOtherClientsSeedToUs(t *testing.T) {
	host, c := outside(t), random(t, 40*image.ChunkSize+4321)
	for _, tool := range tools() {
		for _, told := range []string{"the plan", "the tracker"} {
			t.Run(tool.name+" told by "+told, func(t *testing.T) {
				address := net.JoinHostPort(host, strconv.Itoa(freePort(t, host)))
				tracker := track(t, host, func() string { return address })
				dir, meta := c.write(t, tracker, true)
				run(t, tool.seed(dir, meta, int(netip.MustParseAddrPort(address).Port())))
				n := start(t, c, roomy, func(o *Options) {
					o.Listen = host + ":0"
					if told == "the tracker" {
						o.Trackers = []string{tracker}
					}
				})
				if told == "the plan" {
					n.SetPeers([]string{address})
				}
				begun := time.Now()
				within(t, time.Minute, func() error { return n.readAll(c) })
				t.Logf("%d MiB in %s", len(c.data)>>20, time.Since(begun))
				if s := n.Sources()[0]; s.Got != int64(len(c.data)) || s.Bad != 0 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

func TestWeSeedToOtherClients(t *testing.T) {
	host, c := outside(t), random(t, 40*image.ChunkSize+4321)
	for _, tool := range tools() {
		t.Run(tool.name, func(t *testing.T) {
			n := start(t, c, roomy, func(o *Options) { o.Listen = host + ":0" })
			n.fill(t, c)
			dir, meta := c.write(t, track(t, host, n.address), false)
			begun := time.Now()
			run(t, tool.fetch(dir, meta, freePort(t, host)))
			within(t, time.Minute, func() error {
				for {
					data, err := os.ReadFile(filepath.Join(dir, image.RootfsFile))
					if err == nil && bytes.Equal(data, c.data) {
						return nil
					}
					time.Sleep(20 * time.Millisecond) // another program's file: there is no event
				}
			})
			t.Logf("%d MiB in %s", len(c.data)>>20, time.Since(begun))
			within(t, time.Minute, func() error {
				for n.Stats().Sent < int64(len(c.data)) {
					time.Sleep(tick / 10)
				}
				return nil
			})
		})
	}
}
