package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/boot"
	"imgbuild/server/gate"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
	"imgbuild/server/releases/releasetest"
	"imgbuild/server/swarm"
)

// site is a whole server: a real registry, a real catalogue, boot scripts and the machines' side, over HTTP.
type site struct {
	*Server
	store *registry.Store
	key   image.PrivateKey
	http  *httptest.Server
	dir   string // of the releases

	mu  sync.Mutex
	now time.Time // added to by the tests; the registry gets it with each call
}

type options struct {
	limits   registry.SlotLimits
	unknown  bool
	registry func(*registry.Store) Registry // wraps the store
}

func newSite(t testing.TB, o options) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), now: time.Now().UTC().Truncate(time.Microsecond)}
	var err error
	if s.store, err = registry.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	})
	signer := releasetest.Key(t)
	for _, v := range []string{"1", "2"} {
		releasetest.Write(t, s.dir, releasetest.Release{Name: "web", Version: v, Key: signer, RootfsBytes: 100})
	}
	log := slog.New(slog.DiscardHandler)
	catalogue, err := releases.Open(releases.Options{Dir: s.dir, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if s.key, err = LoadKey(t.Context(), s.store); err != nil {
		t.Fatal(err)
	}
	policy := gate.Policy{InspectUnknown: o.unknown}
	scripts, err := boot.New(boot.Options{Registry: s.store, Images: catalogue, Key: s.key.Public(), Policy: policy, Rate: -1, Log: log, Now: s.clock})
	if err != nil {
		t.Fatal(err)
	}
	var r Registry = s.store
	if o.registry != nil {
		r = o.registry(s.store)
	}
	const mirror = "http://mirror.example.org/images/"
	planner, err := swarm.New(t.Context(), swarm.Options{Registry: s.store, Key: s.key, Mirrors: []string{mirror}, Log: log, Now: s.clock})
	if err != nil {
		t.Fatal(err)
	}
	s.Server, err = New(Options{
		Registry: r, Images: catalogue, Key: s.key, Policy: policy, Limits: o.limits, Rate: -1, Log: log, Now: s.clock,
		Swarm: planner, Transport: plan.TransportRelay, Mirrors: []string{mirror},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+boot.IPXEPath, scripts.IPXE())
	mux.Handle(plan.ClaimPath, s.Claim())
	mux.Handle(plan.EventsPath, s.Events())
	mux.Handle(plan.SwarmPath, s.Swarm())
	mux.Handle(plan.BootedPath, s.Booted())
	s.http = httptest.NewServer(mux)
	t.Cleanup(s.http.Close)
	s.http.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	return s
}

func (s *site) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *site) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

// host writes a host down, and orders its installation.
func (s *site) host(t testing.TB, h registry.Host) {
	t.Helper()
	if _, _, err := s.store.PutHost(t.Context(), h, "anna", 0); err != nil {
		t.Fatal(err)
	}
}

func (s *site) order(t testing.TB, sn string) *registry.Order {
	t.Helper()
	o, err := s.store.CreateOrder(t.Context(), registry.Order{SN: sn, Image: "web/1", By: "anna", Reason: "new disks"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// diary returns what was written down for a host, one line each: kind and text.
func (s *site) diary(t testing.TB, sn string) []string {
	t.Helper()
	events, err := s.store.Events(t.Context(), registry.EventFilter{SN: sn})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range events {
		lines = append(lines, e.Kind+": "+e.Text)
	}
	return lines
}

// computer is a machine that boots from the network.
type computer struct {
	site  *site
	inv   plan.Inventory
	boot  string // the nonce of this boot
	token string
	seq   int64
}

func (s *site) computer(sn string) *computer {
	return &computer{site: s, inv: plan.Inventory{Serial: sn, Firmware: "uefi", CPUs: 4, MemoryBytes: 8 << 30,
		Disks: []plan.Disk{{Path: "/dev/vda", SizeBytes: 20 << 30}}, NICs: []plan.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01", Link: true}}}}
}

var nonceRE = regexp.MustCompile(`imgbuild\.mode=(\w+) .*imgbuild\.boot=([A-Za-z0-9_-]{22})`)

// start asks for a boot script and returns what it is told to do: install, inspect or localboot.
func (c *computer) start(t testing.TB) string {
	t.Helper()
	q := url.Values{"serial": {c.inv.Serial}, "platform": {"efi"}, "arch": {"x86_64"}}
	r, err := c.site.http.Client().Get(c.site.http.URL + boot.IPXEPath + "?" + q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	script, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 {
		t.Fatal(r.Status, err)
	}
	m := nonceRE.FindSubmatch(script)
	if m == nil {
		c.boot = ""
		return string(plan.LocalBoot)
	}
	c.boot = string(m[2])
	return string(m[1])
}

// status is an answer that is not what was hoped for.
type status struct {
	code int
	text string
}

func (s status) Error() string { return fmt.Sprintf("%d %s", s.code, s.text) }

// post sends v and reads the answer into back. An answer that is no success is a status.
func (c *computer) post(path string, v, back any) error {
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.site.http.URL+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.site.http.Client().Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return status{resp.StatusCode, string(body)}
	}
	if back == nil {
		return nil
	}
	return json.Unmarshal(body, back)
}

// claim asks for the plan and opens it as the installer does.
func (c *computer) claim() (plan.Plan, error) {
	var signed plan.Signed
	if err := c.post(plan.ClaimPath, plan.Claim{Schema: plan.Schema, Boot: c.boot, Inventory: c.inv}, &signed); err != nil {
		return plan.Plan{}, err
	}
	p, err := plan.Open(signed, c.site.key.Public(), c.boot, c.inv.Serial)
	if err == nil && (p.Action == plan.Install || p.Action == plan.Preview || p.Action == plan.Live) {
		c.token = p.Token
	}
	return p, err
}

func (c *computer) mustClaim(t testing.TB, want plan.Action) plan.Plan {
	t.Helper()
	p, err := c.claim()
	if err != nil || p.Action != want {
		t.Fatalf("%s is told %+v, %v; want %s", c.inv.Serial, p, err, want)
	}
	return p
}

// report sends events, numbered on.
func (c *computer) report(kinds ...plan.Kind) (plan.Answer, error) {
	rep := plan.Report{Schema: plan.Schema, Events: []plan.Event{}}
	for _, k := range kinds {
		c.seq++
		rep.Events = append(rep.Events, plan.Event{Seq: c.seq, Time: c.site.clock(), Kind: k, Text: string(k)})
	}
	var a plan.Answer
	return a, c.post(plan.EventsPath, rep, &a)
}

func (c *computer) booted() error {
	return c.post(plan.BootedPath, plan.Booted{Schema: plan.Schema, Serial: c.inv.Serial, Hostname: "web1", Kernel: "5.14", System: "CentOS"}, nil)
}

// refusedWith reports whether err is an answer with this status.
func refusedWith(err error, code int) bool {
	var s status
	return errors.As(err, &s) && s.code == code
}
