package api

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
	"imgbuild/server/releases/releasetest"
	"imgbuild/server/swarm"
)

// service is an API over a real registry and real releases (web/1.0 and web/2.0), on a real listener.
type service struct {
	*httptest.Server
	api      *API
	swarm    *swarm.Server
	store    *registry.Store
	contract *contract
	tokens   map[Access]string
	log      *log
}

// log is what was logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func serve(t testing.TB, change ...func(*Options)) *service {
	t.Helper()
	dir := t.TempDir()
	store, err := registry.Open(t.Context(), filepath.Join(dir, "registry.db"))
	if err != nil {
		t.Fatal(err)
	}
	key := releasetest.Key(t)
	images := filepath.Join(dir, "images")
	for _, version := range []string{"1.0", "2.0"} {
		releasetest.Write(t, images, releasetest.Release{Name: "web", Version: version, Key: key, RootfsBytes: 1 << 20})
	}
	l := &log{}
	logger := slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
	catalogue, err := releases.Open(releases.Options{Dir: images, Trust: []image.PublicKey{key.Public()}, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	other := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusUnauthorized, "another package asks for the nonce or the token")
	})
	planKey, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	planner, err := swarm.New(t.Context(), swarm.Options{Registry: store, Key: planKey, Rates: swarm.Rates{Global: 5e6}, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Store: store, Catalogue: catalogue, Swarm: planner, Log: logger, Limits: registry.SlotLimits{Global: 2, PerRack: 1},
		Handlers: Handlers{IPXE: other, GRUB: other, Loaders: other, Images: catalogue, Torrent: other, Announce: other, Scrape: other, Claim: other, Events: other, Swarm: other, Booted: other},
	}
	for _, c := range change {
		c(&o)
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{Server: httptest.NewServer(a), api: a, swarm: planner, store: store, contract: readContract(t), tokens: map[Access]string{}, log: l}
	for _, role := range []Access{Read, Operate, Admin} {
		secret, _, err := store.CreateToken(t.Context(), string(role)+"er", registry.Role(role), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		s.tokens[role] = secret
	}
	t.Cleanup(func() {
		a.Drain()
		s.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		for role, secret := range s.tokens {
			if strings.Contains(l.String(), secret) {
				t.Errorf("the log has the secret of %s", role)
			}
		}
	})
	return s
}

// legacy opens the old calls to this machine.
func legacy(o *Options) { o.LegacyClients = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// call is one request; GET without a method, without a token with the role none.
type call struct {
	method, path string
	as           Access // the role whose token is sent
	token        string // or this one
	body         string
	header       map[string]string
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// do asks, and holds the answer against the API's description.
func (s *service) do(t testing.TB, c call) answer {
	t.Helper()
	if c.method == "" {
		c.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	if c.as != "" {
		c.token = s.tokens[c.as]
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.api.o.LegacyClients) == 0 || c.token != "" { // old scripts are answered as before: there is no document of that
		if err := s.contract.check(req, resp, body); err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
		}
	}
	return answer{resp.StatusCode, resp.Header, body}
}

// want asks and demands a status and, unless it is empty, that the body contains a text.
func (s *service) want(t testing.TB, c call, status int, contains string) answer {
	t.Helper()
	a := s.do(t, c)
	if a.status != status || !strings.Contains(string(a.body), contains) {
		t.Errorf("%s %s: %d %.600s, want %d and %q", c.method, c.path, a.status, a.body, status, contains)
	}
	return a
}

func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}
