package boot

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/server/gate"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
	"imgbuild/server/releases/releasetest"
)

var update = flag.Bool("update", false, "write the golden files")

// book is a registry in memory that can be made to fail.
type book struct {
	mu     sync.Mutex
	hosts  map[string]*registry.Host
	orders map[string]*registry.Order
	offers map[string]string // sn and order by digest
	events []registry.Event
	fail   map[string]error // by method
}

func (b *book) Host(_ context.Context, sn string) (*registry.Host, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.hosts[sn]; h != nil || b.fail["Host"] != nil {
		return h, b.fail["Host"]
	}
	return nil, registry.ErrNotFound
}

func (b *book) HostByMAC(_ context.Context, mac string) (*registry.Host, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.hosts {
		for _, m := range h.MACs {
			if m == mac {
				return h, nil
			}
		}
	}
	return nil, registry.ErrNotFound
}

func (b *book) LiveOrder(_ context.Context, sn string) (*registry.Order, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.orders[sn], b.fail["LiveOrder"]
}

func (b *book) Offer(_ context.Context, sn, order, digest string, _ time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fail["Offer"]; err != nil {
		return err
	}
	b.offers[digest] = sn + " " + order
	return nil
}

func (b *book) OfferLive(_ context.Context, sn, image, digest string, _ time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fail["Offer"]; err != nil {
		return err
	}
	b.offers[digest] = sn + " runs " + image
	return nil
}

func (b *book) Append(_ context.Context, events ...registry.Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fail["Append"]; err != nil {
		return err
	}
	b.events = append(b.events, events...)
	return nil
}

// scene is a server with hosts, orders and releases.
type scene struct {
	*Server
	book *book
	now  time.Time
	dir  string
}

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func newScene(t *testing.T) *scene {
	t.Helper()
	dir, key := t.TempDir(), releasetest.Key(t)
	releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key})
	releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "2", Key: key, KernelArgs: []string{"console=tty0", "console=ttyS0,115200n8", "quiet", "crashkernel=1G-4G:192M,4G-:256M"}})
	releasetest.Write(t, dir, releasetest.Release{Name: "new", Version: "1", Created: 1790000009, Key: key})
	catalogue, err := releases.Open(releases.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{now: start, dir: dir, book: &book{offers: map[string]string{}, fail: map[string]error{}, orders: map[string]*registry.Order{}, hosts: map[string]*registry.Host{}}}
	for _, h := range []registry.Host{
		{SN: "SN-IDLE", State: registry.Installed, Hostname: "idle.example.org"},
		{SN: "SN-WEB", State: registry.Ordered, Hostname: "web1", MACs: []string{"52:54:00:00:00:01"}, SerialConsole: "ttyS1,115200n8", Model: "R640"},
		{SN: "SN-USED", State: registry.Installing},
		{SN: "SN-LIVE", State: registry.Known, Hostname: "node7", Live: &registry.Live{Image: "web"}},
		{SN: "SN-BARE", State: registry.Known, Live: &registry.Live{Image: "gone/1"}},
	} {
		s.book.hosts[h.SN] = &h
	}
	s.book.orders["SN-WEB"] = &registry.Order{ID: "o1", SN: "SN-WEB", Image: "web/1", By: "anna", Reason: "new disks", State: registry.OrderOpen, Expires: start.Add(time.Hour)}
	s.book.orders["SN-USED"] = &registry.Order{ID: "o2", SN: "SN-USED", Image: "web/1", By: "anna", State: registry.OrderConsumed, Expires: start.Add(time.Hour)}
	public, err := image.ParsePublicKeyText(strings.Repeat("A", 43))
	if err != nil {
		t.Fatal(err)
	}
	s.Server, err = New(Options{Registry: s.book, Images: catalogue, Key: public, Policy: gate.Policy{InspectUnknown: true},
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return s.now }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var nonceRE = regexp.MustCompile(`imgbuild\.boot=([A-Za-z0-9_-]{22})`)

// get asks for a script and returns it with its nonce taken out, and the nonce.
func (s *scene) get(t *testing.T, target string) (script, nonce string) {
	t.Helper()
	h := s.IPXE()
	if strings.HasPrefix(target, GRUBPath) {
		h = s.GRUB()
	}
	r := httptest.NewRequest("GET", target, nil)
	r.Host = "10.0.0.1:8080"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 200 || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%s: %d %v %s", target, w.Code, w.Header(), w.Body)
	}
	script = w.Body.String()
	if m := nonceRE.FindStringSubmatch(script); m != nil {
		nonce = m[1]
		script = strings.ReplaceAll(script, nonce, "NONCE")
	}
	return script, nonce
}

func TestScriptsAreTheGoldenOnes(t *testing.T) {
	known := "?serial=SN-WEB&uuid=4c4c4544-0000-1000-8000-000000000001&mac=52-54-00-00-00-01&product=R640"
	for _, tt := range []struct{ name, target, offered string }{
		{"ipxe-chain", "/boot/ipxe", ""},
		{"ipxe-install-bios", "/boot/ipxe" + known + "&platform=pcbios&arch=i386", "SN-WEB o1"},
		{"ipxe-install-efi", "/boot/ipxe" + known + "&platform=efi&arch=x86_64", "SN-WEB o1"},
		{"ipxe-install-last-try", "/boot/ipxe" + known + "&platform=efi&arch=x86_64&try=5", "SN-WEB o1"},
		{"ipxe-install-old", "/boot/ipxe?serial=SN-WEB", "SN-WEB o1"},
		{"ipxe-wrong-architecture", "/boot/ipxe" + known + "&platform=efi&arch=arm64", ""},
		{"ipxe-inspect-unknown", "/boot/ipxe?serial=SN-OTHER&mac=52-54-00-00-00-99&platform=pcbios&arch=i386", "SN-OTHER "},
		{"ipxe-inspect-mismatch", "/boot/ipxe?serial=SN-WEB&mac=52-54-00-00-00-02&platform=efi&arch=x86_64", "SN-WEB o1"},
		{"ipxe-local-bios", "/boot/ipxe?serial=SN-IDLE&platform=pcbios", ""},
		{"ipxe-local-efi", "/boot/ipxe?serial=SN-IDLE&platform=efi", ""},
		{"ipxe-local-unknown-platform", "/boot/ipxe?serial=SN-IDLE&platform=${platform}", ""},
		{"ipxe-used", "/boot/ipxe?serial=SN-USED&platform=efi", ""},
		{"ipxe-live", "/boot/ipxe?serial=SN-LIVE&mac=52-54-00-00-00-07&platform=efi&arch=x86_64", "SN-LIVE runs web/2"},
		{"ipxe-live-gone", "/boot/ipxe?serial=SN-BARE&platform=efi", ""},
		{"ipxe-junk", "/boot/ipxe?serial=To+be+filled+by+O.E.M.&chassis=None&board=0123456789&platform=efi", ""},
		{"ipxe-nothing-useful", "/boot/ipxe?x=y", ""},
		{"ipxe-chassis", "/boot/ipxe?serial=Default+string&chassis=SN-IDLE&ctype=3&platform=efi", ""},
		{"ipxe-blade", "/boot/ipxe?serial=&chassis=SN-ENCLOSURE&ctype=29&board=SN-IDLE&platform=efi", ""},
		{"grub-chain", "/boot/grub.cfg", ""},
		{"grub-install", "/boot/grub.cfg?mac=52:54:00:00:00:01&arch=x86_64", "SN-WEB o1"},
		{"grub-install-serial", "/boot/grub.cfg?mac=52:54:00:00:00:01&arch=x86_64&serial=SN-WEB", "SN-WEB o1"},
		{"grub-live", "/boot/grub.cfg?mac=52:54:00:00:00:07&serial=SN-LIVE", "SN-LIVE runs web/2"},
		{"grub-local", "/boot/grub.cfg?mac=52:54:00:00:00:77&serial=SN-IDLE", ""},
		{"grub-unknown-mac", "/boot/grub.cfg?mac=52:54:00:00:00:77", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			script, nonce := s.get(t, tt.target)
			if strings.HasPrefix(tt.name, "ipxe") {
				for _, c := range parse(t, script) {
					if len(c.argv) > 0 && !allowed(c.argv[0]) {
						t.Errorf("a command %q", c.argv)
					}
				}
			}
			golden := filepath.Join("testdata", tt.name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(script), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if script != string(want) {
				t.Errorf("got\n%s\nwant\n%s", script, want)
			}
			if got := s.book.offers[Digest(nonce)]; got != tt.offered || len(s.book.offers) > 1 {
				t.Errorf("the nonce is offered to %q, want %q", got, tt.offered)
			}
		})
	}
}

func TestWhateverFailsBecomesALocalBootThatSaysSo(t *testing.T) {
	for name, spoil := range map[string]func(*scene){
		"the host cannot be read":   func(s *scene) { s.book.fail["Host"] = errors.New("disk I/O error at 0x17") },
		"the order cannot be read":  func(s *scene) { s.book.fail["LiveOrder"] = errors.New("disk I/O error at 0x17") },
		"the nonce cannot be kept":  func(s *scene) { s.book.fail["Offer"] = errors.New("disk I/O error at 0x17") },
		"the release is gone":       func(s *scene) { s.book.orders["SN-WEB"].Image = "web/7" },
		"the release is damaged":    func(s *scene) { _ = os.WriteFile(filepath.Join(s.dir, "web/1/vmlinuz"), []byte("x"), 0o644) },
		"the order has just ended":  func(s *scene) { s.book.orders["SN-WEB"].State = registry.OrderCancelled },
		"the order has expired":     func(s *scene) { s.now = start.Add(time.Hour) },
		"the order is another's":    func(s *scene) { s.book.orders["SN-WEB"].SN = "SN-IDLE" },
		"the host is another's":     func(s *scene) { s.book.hosts["SN-WEB"].SN = "SN-IDLE" },
		"there is a server no more": func(s *scene) { s.book.fail["Host"] = context.DeadlineExceeded },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			spoil(s)
			for target, want := range map[string]string{"/boot/ipxe?serial=SN-WEB&mac=52-54-00-00-00-01&platform=pcbios": "sanboot --no-describe --drive 0x80 || exit 1\n",
				"/boot/grub.cfg?serial=SN-WEB&mac=52:54:00:00:00:01": "exit 1\n"} {
				script, nonce := s.get(t, target)
				if nonce != "" || !strings.HasSuffix(script, want) || strings.Contains(script, "0x17") {
					t.Errorf("%s:\n%s", target, script)
				}
			}
			if len(s.book.offers) != 0 {
				t.Errorf("a nonce was offered: %v", s.book.offers)
			}
		})
	}
}

func TestADecisionIsWrittenDownWhenItIsNews(t *testing.T) {
	s := newScene(t)
	idle := func() { s.get(t, "/boot/ipxe?serial=SN-IDLE&platform=efi") }
	expect := func(what string, n int) {
		t.Helper()
		if len(s.book.events) != n {
			t.Fatalf("%s: %d events, want %d: %+v", what, len(s.book.events), n, s.book.events)
		}
	}
	idle()
	expect("the first decision", 1)
	if e := s.book.events[0]; e.SN != "SN-IDLE" || e.Kind != "decided" || e.Text != "iPXE is told to boot the disk: there is no order for SN-IDLE, which is installed" {
		t.Errorf("%+v", e)
	}
	idle()
	expect("the same again", 1)
	s.now = s.now.Add(quietFor)
	idle()
	expect("the same an hour later", 2)
	s.book.hosts["SN-IDLE"].State = registry.Failed
	idle()
	expect("another reason", 3)
	s.get(t, "/boot/ipxe?serial=SN-NOBODY&platform=efi")
	s.get(t, "/boot/ipxe")
	expect("a machine that nobody knows", 3)
	s.book.fail["Append"] = errors.New("full")
	s.get(t, "/boot/ipxe?serial=SN-USED&platform=efi")
	s.book.fail["Append"] = nil
	s.get(t, "/boot/ipxe?serial=SN-USED&platform=efi")
	expect("one that could not be written down at first", 4)
}

func TestAMachineWhoseInspectionFailsIsNotKeptFromItsWork(t *testing.T) {
	s := newScene(t)
	const who = "/boot/ipxe?serial=SN-OTHER&platform=efi"
	inspects := func() bool { _, nonce := s.get(t, who); return nonce != "" }
	if !inspects() {
		t.Fatal("an unknown machine is not inspected")
	}
	if _, nonce := s.get(t, who+"&try=2"); nonce == "" {
		t.Error("the same boot may not try again")
	}
	if inspects() {
		t.Error("it is inspected again at once")
	}
	s.now = s.now.Add(15 * time.Minute)
	if !inspects() {
		t.Error("it is never inspected again")
	}
}

func TestTheAnswerNamesTheServerAsTheMachineKnowsIt(t *testing.T) {
	for _, tt := range []struct {
		configured, host, want string
		status                 int
	}{
		{"", "10.0.0.1", "http://10.0.0.1/boot/ipxe?", 200},
		{"", "[fd00::1]:8080", "http://[fd00::1]:8080/boot/ipxe?", 200},
		{"", "boot.example.org:80", "http://boot.example.org:80/boot/ipxe?", 200},
		{"https://boot.example.org/imgserve", "10.0.0.1", "https://boot.example.org/imgserve/boot/ipxe?", 200},
		{"", "a b", "", 400},
		{"", "${x}", "", 400},
		{"", "x:99999", "", 400},
		{"", "", "", 400},
	} {
		s := newScene(t)
		s.o.URL = tt.configured
		r := httptest.NewRequest("GET", "/boot/ipxe", nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		s.IPXE().ServeHTTP(w, r)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%+v: %d %s", tt, w.Code, w.Body)
		}
	}
	for _, bad := range []string{"", "10.0.0.1", "ftp://10.0.0.1", "http://", "http://u:p@h", "http://h/", "http://h/a b", "http://h?x", "http://h#x", "http://h:0", "http://h:x", "http://[fe80::1%25eth0]", "http://-h", "http://h/${x}"} {
		if _, err := New(Options{URL: bad}); bad != "" && err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestScriptsAreOnlyRead(t *testing.T) {
	s := newScene(t)
	for _, m := range []string{"POST", "PUT", "DELETE", "HEAD"} {
		w := httptest.NewRecorder()
		s.IPXE().ServeHTTP(w, httptest.NewRequest(m, "/boot/ipxe?serial=SN-WEB", nil))
		if w.Code != 405 || len(s.book.offers) != 0 {
			t.Errorf("%s: %d", m, w.Code)
		}
	}
}

func TestTFTPAnswersForTheNamesThatGRUBTries(t *testing.T) {
	s := newScene(t)
	for _, tt := range []struct{ name, want string }{
		{"grub.cfg", "configfile"},
		{"/grub/grub.cfg", "configfile"},
		{"boot/grub.cfg?mac=52:54:00:00:00:01&arch=x86_64", "linux"},
		{"grub/grub.cfg-01-52-54-00-00-00-01", "linux"},
		{"grub.cfg-01-52-54-00-00-00-77", "exit 1"},
		{"grub.cfg-01-%zz", "exit 1"},
		{"boot/grub.cfg?%zz", "configfile"},
		{"grub.cfg-0A000001", ""},
		{"../etc/passwd", ""},
		{"shimx64.efi", ""},
		{"", ""},
	} {
		got, ok := s.TFTP(t.Context(), tt.name, "http://10.0.0.1:8080")
		if ok != (tt.want != "") || !strings.Contains(string(got), tt.want) {
			t.Errorf("%s: %v\n%s", tt.name, ok, got)
		}
	}
	if _, ok := s.TFTP(t.Context(), "grub.cfg", "http://a b"); ok {
		t.Error("an address that is none is taken")
	}
}

func TestManyMachinesAskAtOnce(t *testing.T) {
	s := newScene(t)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for _, sn := range []string{"SN-WEB", "SN-IDLE", "SN-NEW"} {
				q := ask("iPXE", "http://10.0.0.1", url.Values{"serial": {sn}})
				ipxeScript(q, s.answer(t.Context(), q))
			}
		})
	}
	wg.Wait()
	if c := s.Counts(); c.Install != 100 || c.LocalBoot+c.Inspect != 200 || c.Failed != 0 {
		t.Errorf("%+v", c)
	}
	if len(s.book.offers) != int(s.Counts().Install+s.Counts().Live+s.Counts().Inspect) {
		t.Errorf("%d nonces for %+v", len(s.book.offers), s.Counts())
	}
}
