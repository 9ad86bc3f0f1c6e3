package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/server/config"
	"imgbuild/server/registry"
	"imgbuild/server/releases/releasetest"
)

// freePort is a port of loopback that nobody has, below those that the kernel gives to whoever connects: a server comes back
// to it.
func freePort(t testing.TB) string {
	t.Helper()
	for {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close() // it is ours now, as far as one can tell
			return address
		}
	}
}

// configuration is one of a server on loopback with a signed release, without DHCP and TFTP.
func configuration(t testing.TB, more ...config.Flag) *config.Config {
	t.Helper()
	dir := t.TempDir()
	key := releasetest.Key(t)
	releasetest.Write(t, filepath.Join(dir, "images"), releasetest.Release{Name: "web", Version: "1.0", Key: key, RootfsBytes: 8 << 20})
	public, err := key.Public().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "release.pub"), public, 0o600); err != nil {
		t.Fatal(err)
	}
	text := "images: images\ntrust: [release.pub]\nstate: state\nlisten: " + freePort(t) + "\ndhcp: {mode: off}\n"
	file := filepath.Join(dir, "imgserve.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, more, config.Surroundings{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lines is a log that a test reads.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// running is a server that runs.
type running struct {
	*Server
	url  string
	log  *lines
	stop context.CancelFunc
	done chan error
}

func start(t testing.TB, c *config.Config, change ...func(*Options)) *running {
	t.Helper()
	log := &lines{}
	o := Options{Config: c, Log: slog.New(slog.NewTextHandler(log, nil)), Program: "imgserve"}
	for _, f := range change {
		f(&o)
	}
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Server: s, url: "http://" + c.Listen, log: log, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx); close(r.done) }()
	t.Cleanup(func() { stop(); <-r.done })
	return r
}

func get(t testing.TB, client *http.Client, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestEveryRouteOfTheWholeServerIsDeniedWithoutCredentials walks the mux with the real handlers of all packages.
func TestEveryRouteOfTheWholeServerIsDeniedWithoutCredentials(t *testing.T) {
	public := map[string]bool{
		"GET /healthz": true, "GET /readyz": true, "GET /openapi.json": true,
		"GET /boot/ipxe": true, "GET /boot/grub.cfg": true, "GET /boot/loader/{file}": true, "GET /images/{name}/{version}/{file}": true,
		"GET /torrent/{name}/{file}": true, "GET /announce": true, "GET /scrape": true,
	}
	s := start(t, configuration(t))
	routes := s.api.Routes()
	if len(routes) < 25 {
		t.Errorf("there are only %d routes", len(routes))
	}
	for _, r := range routes {
		method, path, _ := strings.Cut(r.Pattern, " ")
		path = strings.NewReplacer("{sn}", "SNA001", "{id}", "x", "{name}", "web", "{version}", "1.0", "{file}", "vmlinuz").Replace(path)
		for _, credentials := range []string{"", "Bearer imgt_wrong", "Basic YTpi"} {
			req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if credentials != "" {
				req.Header.Set("Authorization", credentials)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			denied := resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusTooManyRequests ||
				// a claim has its credential in the body: without the nonce of a boot script it is no claim
				path == "/machine/v1/claim" && resp.StatusCode >= 400 && resp.StatusCode < 500
			if denied == public[r.Pattern] {
				t.Errorf("%s with %q: %d", r.Pattern, credentials, resp.StatusCode)
			}
		}
	}
}

func TestEverythingInTheWayIsSaidAtOnce(t *testing.T) {
	c := configuration(t)
	taken, err := net.Listen("tcp", c.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	c.Images = filepath.Join(c.State, "nowhere")
	c.Trust = []string{"/nonexistent/key.pub"}
	c.TLS.Cert, c.TLS.Key, c.TLS.Listen = "/nonexistent/c.pem", "/nonexistent/k.pem", "127.0.0.1:0"
	if err := os.WriteFile(c.State, []byte("not a directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.DHCP.Mode, c.Interface = "proxy", "nosuchif0"
	_, err = New(t.Context(), Options{Config: c})
	if err == nil {
		t.Fatal("it starts")
	}
	for _, want := range []string{"images: ", "trust: /nonexistent/key.pub", "tls: read certificate /nonexistent/c.pem", "state: ", "is taken by", "there is no network interface nosuchif0; there are lo"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("there is no %q in\n%v", want, err)
		}
	}
}

func TestAServerTellsSystemdHowItIs(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c := configuration(t)
	enabled := true
	c.TFTP.Enabled, c.TFTP.Listen = &enabled, freePort(t)
	s := start(t, c, func(o *Options) { o.Notify, o.Watchdog = socket, 20*time.Millisecond })
	until := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		for {
			if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := l.Read(b)
			if err != nil {
				t.Fatalf("it does not say %s: %v", want, err)
			}
			if strings.HasPrefix(string(b[:n]), want) {
				return
			}
		}
	}
	until("READY=1")
	if p, err := net.ListenPacket("udp", c.TFTP.Listen); err == nil {
		_ = p.Close()
		t.Error("it says that it is ready, and TFTP's socket is not open")
	}
	if status, body := get(t, http.DefaultClient, s.url+"/readyz", ""); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	until("WATCHDOG=1")
	until("WATCHDOG=1")
	s.stop()
	until("STOPPING=1")
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.log.String(), "imgserve token create NAME --role admin") {
		t.Error("the first start does not say how to make a token")
	}
}

func TestADownloadThatRunsIsFinishedBeforeTheServerStops(t *testing.T) {
	s := start(t, configuration(t))
	resp, err := http.Get(s.url + "/images/web/1.0/rootfs.squashfs") //nolint:noctx // it outlives nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	first := make([]byte, 1<<10)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	s.stop()
	for { // the server takes no more
		if _, err := net.DialTimeout("tcp", s.c.Listen, time.Second); err != nil {
			break
		}
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || len(rest)+len(first) != 8<<20 {
		t.Errorf("%d bytes, %v", len(rest)+len(first), err)
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}
}

func TestARestartLosesNothing(t *testing.T) {
	c := configuration(t)
	s := start(t, c)
	host := registry.Host{SN: "SNA001", Hostname: "web1", IP: "10.0.0.7", Netmask: "24", GW: "10.0.0.1"}
	if _, _, err := s.store.PutHost(t.Context(), host, "alice", 0); err != nil {
		t.Fatal(err)
	}
	_, script := get(t, http.DefaultClient, s.url+"/boot/ipxe?serial=SNB002&platform=pcbios&arch=x86_64&mac=52-54-00-00-00-01", "")
	s.stop()
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
	again := start(t, c)
	h, err := again.store.Host(t.Context(), "SNA001")
	if err != nil || h.Hostname != "web1" {
		t.Errorf("%+v, %v", h, err)
	}
	_, second := get(t, http.DefaultClient, again.url+"/boot/ipxe?serial=SNC003&platform=pcbios&arch=x86_64&mac=52-54-00-00-00-02", "")
	if serverKey(script) == "" || serverKey(script) != serverKey(second) {
		t.Errorf("the key that signs plans changed from %q to %q", serverKey(script), serverKey(second))
	}
}

// serverKey is the key that a boot script tells the machine to believe.
func serverKey(script string) string {
	_, rest, _ := strings.Cut(script, "imgbuild.serverkey=")
	key, _, _ := strings.Cut(rest, " ")
	return key
}

func TestTheServersOwnAuthorityIsKept(t *testing.T) {
	c := configuration(t)
	c.TLS.Self, c.TLS.Listen, c.TLS.Names = true, freePort(t), []string{"boot.example.org"}
	var first []byte
	for range 2 {
		s := start(t, c)
		pem, err := os.ReadFile(filepath.Join(c.State, CAFile))
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(pem, first) {
			t.Error("the second start made another authority")
		}
		first = pem
		if st, err := os.Stat(filepath.Join(c.State, caKeyFile)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the key is %v, %v", st.Mode(), err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		for _, name := range []string{"127.0.0.1", "localhost", "boot.example.org"} {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: name}, DisableKeepAlives: true}}
			if status, _ := get(t, client, "https://"+c.TLS.Listen+"/healthz", ""); status != 200 {
				t.Errorf("as %s: %d", name, status)
			}
		}
		secret, _, err := s.store.CreateToken(t.Context(), "alice", registry.RoleRead, time.Now().Add(time.Hour))
		if err != nil && !errors.Is(err, registry.ErrConflict) {
			t.Fatal(err)
		}
		if err == nil {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
			if status, body := get(t, client, "https://"+c.TLS.Listen+"/api/v1/orders", secret); status != 200 {
				t.Errorf("%d %s", status, body)
			}
		}
		s.stop()
		if err := <-s.done; err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnOwnCertificateIsRenewedAndALostHalfIsSaid(t *testing.T) {
	c := configuration(t)
	c.TLS.Self = true
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	certs, err := openCertificates(c, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first, err := certs.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(leafLife - renewBefore + time.Hour)
	second, err := certs.get(nil)
	if err != nil || second.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) == 0 || second.Leaf.NotAfter.Before(now.Add(leafLife-time.Hour)) {
		t.Errorf("%v until %v", err, second.Leaf.NotAfter)
	}
	if err := os.Remove(filepath.Join(c.State, CAFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := openCertificates(c, time.Now); err == nil || !strings.Contains(err.Error(), "bring it back") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(c.State, CAFile), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openCertificates(c, time.Now); err == nil {
		t.Error("junk is an authority")
	}
}

func TestAGivenCertificateIsReadAgainWhenItChanges(t *testing.T) {
	c, now := configuration(t), time.Now()
	dir := t.TempDir()
	c.TLS.Cert, c.TLS.Key = filepath.Join(dir, CAFile), filepath.Join(dir, caKeyFile)
	if _, _, err := authority(dir, now); err != nil {
		t.Fatal(err)
	}
	certs, err := openCertificates(c, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first, _ := certs.get(nil)
	if err := os.Remove(c.TLS.Key); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * lookEvery)
	if same, err := certs.get(nil); err != nil || same != first {
		t.Errorf("while it is being changed: %v", err)
	}
	if _, _, err := authority(dir, now); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(c.TLS.Cert, now, now); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * lookEvery)
	if second, err := certs.get(nil); err != nil || second == first {
		t.Errorf("the old one is still used: %v", err)
	}
}

func TestTFTPGivesGRUBItsConfigurationAndItsKernel(t *testing.T) {
	s := start(t, configuration(t))
	n := &tftpNames{boot: s.boot, images: s.catalogue, port: port(s.c.Listen), files: map[string]*bootFile{}, now: time.Now}
	client := netip.MustParseAddr("127.0.0.1")
	script, err := n.read(t.Context(), "grub/grub.cfg-01-52-54-00-00-00-01", client)
	if err != nil || !strings.Contains(string(script), "boots its own disk") {
		t.Errorf("%s %v", script, err)
	}
	script, err = n.read(t.Context(), "boot/grub.cfg?serial=SNA001&mac=52:54:00:00:00:01&arch=x86_64", client)
	if err != nil || !strings.Contains(string(script), "imgbuild.server=http://127.0.0.1:"+port(s.c.Listen)) {
		t.Errorf("%s %v", script, err)
	}
	a, err := n.read(t.Context(), "images/web/1.0/vmlinuz", client)
	if err != nil || string(a) != "kernel of web 1.0" {
		t.Errorf("%s %v", a, err)
	}
	b, err := n.read(t.Context(), "images/web/1.0/vmlinuz", client)
	if err != nil || &a[0] != &b[0] {
		t.Error("two transfers have the file in memory twice")
	}
	for _, name := range []string{"images/web/1.0/rootfs.squashfs", "images/web/2.0/vmlinuz", "etc/passwd", "images/../x", "images/web/1.0/../1.0/vmlinuz"} {
		if _, err := n.read(t.Context(), name, client); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(n.files) > keptFiles {
		t.Errorf("%d files are kept", len(n.files))
	}
}

func TestDHCPIsToldWhatTheConfigurationSays(t *testing.T) {
	c := configuration(t)
	c.Interface, c.DHCP.Mode, c.DHCP.Interfaces = "br0", "server", []string{"br1"}
	c.DHCP.Subnets = []config.Subnet{{
		Subnet: netip.MustParsePrefix("10.1.0.0/24"), Range: config.Range{From: netip.MustParseAddr("10.1.0.100"), To: netip.MustParseAddr("10.1.0.199")},
		Gateway: netip.MustParseAddr("10.1.0.1"), Lease: config.Duration(time.Hour), MTU: 9000,
	}}
	c.DHCP.Reservations = []config.Reservation{{Address: netip.MustParseAddr("10.1.0.9"), SN: "SNA001"}}
	d := dhcpConfig(c, loaders{})
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
	if len(d.Interfaces) != 2 || d.Boot.URL != "http://:"+port(c.Listen) || d.Subnets[0].Ranges[0].Last.String() != "10.1.0.199" || d.Subnets[0].Lease != time.Hour || d.Reservations[0].SN != "SNA001" {
		t.Errorf("%+v", d)
	}
	c.URL = "http://boot.example.org"
	if d := dhcpConfig(c, loaders{}); d.Boot.URL != c.URL {
		t.Errorf("%+v", d.Boot)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	c := configuration(t)
	text := func() string {
		var b strings.Builder
		for _, f := range Check(t.Context(), c) {
			fmt.Fprintln(&b, f)
		}
		return b.String()
	}
	if got := text(); strings.Contains(got, "error") || !strings.Contains(got, "ok       images: 1 releases can be installed") || !strings.Contains(got, "imgserve.db will be made") {
		t.Errorf("a good configuration:\n%s", got)
	}
	if _, err := os.Stat(c.State); err == nil {
		t.Error("check made the state directory")
	}
	s := start(t, c)
	if got := text(); !strings.Contains(got, "is whole and has 0 hosts") || !strings.Contains(got, "there is no API token") {
		t.Errorf("beside a server:\n%s", got)
	}
	c.URL = s.url
	if got := text(); !strings.Contains(got, "leads to an imgserve") {
		t.Errorf("with its own address:\n%s", got)
	}
	s.stop()
	<-s.done
	if got := text(); !strings.Contains(got, "leads to an imgserve") {
		t.Errorf("with its own address, where none runs:\n%s", got)
	}
	c.URL = "http://127.0.0.1:1"
	c.Trust = nil
	c.Loaders.Files = map[string]string{"ipxe.efi": "/nonexistent/ipxe.efi"}
	c.DHCP.Mode, c.Interface = "proxy", "nosuchif0"
	bad := filepath.Join(c.Images, "web", "1.0", "manifest.json")
	if err := os.WriteFile(bad, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Database, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	got := text()
	for _, want := range []string{
		"error    database: ", "error    images: web/1.0 may not be installed", "warning  images: no key is trusted", "warning  images: there is no release",
		"error    loaders: ", "/nonexistent/ipxe.efi", "error    ports: there is no network interface nosuchif0", "error    url: machines are told http://127.0.0.1:1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
}
