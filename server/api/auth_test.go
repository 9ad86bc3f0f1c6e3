package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"imgbuild/server/registry"
)

// public is everything that anybody may ask. Each addition to it is a decision.
func public() []string {
	return []string{
		"GET /healthz", "GET /readyz", "GET /openapi.json",
		"GET /boot/ipxe", "GET /boot/grub.cfg", "GET /boot/loader/{file}", "GET /images/{name}/{version}/{file}",
		"GET /torrent/{name}/{file}", "GET /announce", "GET /scrape",
	}
}

func TestEveryRouteIsDeniedWithoutCredentialsUnlessItIsPublic(t *testing.T) {
	s := serve(t)
	open := map[string]bool{}
	for _, p := range public() {
		open[p] = true
	}
	for _, r := range s.api.Routes() {
		if open[r.Pattern] != (r.Access == Public) {
			t.Errorf("%s is %s", r.Pattern, r.Access)
		}
		if open[r.Pattern] {
			continue
		}
		method, path, _ := strings.Cut(r.Pattern, " ")
		path = strings.NewReplacer("{sn}", "SNA001", "{id}", "x", "{name}", "x").Replace(path)
		s.want(t, call{method: method, path: path, body: "{}"}, http.StatusUnauthorized, "")
		if r.Access == Machine {
			continue
		}
		s.want(t, call{method: method, path: path, body: "{}", token: "imgt_wrong"}, http.StatusUnauthorized, "not known")
		s.api.limiter = newLimiter(time.Now) // so many wrong tokens are this test's, not a client's
		a := s.do(t, call{method: method, path: path, body: "{}", header: map[string]string{"Authorization": "Basic YTpi"}})
		if a.status != http.StatusUnauthorized || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s with a password: %d %v", r.Pattern, a.status, a.header)
		}
	}
}

func TestARoleOpensWhatIsItsOwnAndWhatIsBelow(t *testing.T) {
	s := serve(t)
	for _, r := range s.api.Routes() {
		if rank(r.Access) == 0 {
			continue
		}
		method, path, _ := strings.Cut(r.Pattern, " ")
		path = strings.NewReplacer("{sn}", "SNA001", "{id}", "x", "{name}", "x").Replace(path)
		for _, role := range []Access{Read, Operate, Admin} {
			a := s.do(t, call{method: method, path: path, as: role, body: "{}"})
			denied := a.status == http.StatusForbidden || a.status == http.StatusUnauthorized
			if denied != (rank(role) < rank(r.Access)) {
				t.Errorf("%s as %s: %d %s", r.Pattern, role, a.status, a.body)
			}
		}
	}
	if rank("") != 0 || rank("root") != 0 || rank(Public) != 0 || rank(Machine) != 0 {
		t.Error("what is no role has a rank")
	}
}

func TestATokenThatExpiredOrWasRevokedOpensNothing(t *testing.T) {
	s := serve(t)
	secret, _, err := s.store.CreateToken(t.Context(), "ci", registry.RoleRead, time.Now().Add(150*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if s.do(t, call{path: "/api/v1/orders", token: secret}).status == http.StatusUnauthorized {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a token that has expired is taken")
		}
		s.api.limiter = newLimiter(time.Now)
	}
	s.want(t, call{path: "/api/v1/orders", as: Read}, 200, "[]")
	s.want(t, call{method: "DELETE", path: "/api/v1/tokens/reader", as: Admin}, 204, "")
	s.want(t, call{path: "/api/v1/orders", as: Read}, 401, "not known")
}

func TestWrongTokensAreSlowedDownAndRightOnesAreNot(t *testing.T) {
	now := time.Now()
	s := serve(t, func(o *Options) { o.Now = func() time.Time { return now } })
	s.want(t, call{path: "/api/v1/orders", as: Read}, 200, "")
	for range maxWrong {
		s.want(t, call{path: "/api/v1/orders", token: "imgt_guess"}, 401, "")
	}
	a := s.want(t, call{path: "/api/v1/orders", token: "imgt_guess"}, 429, "too many wrong tokens")
	if a.header.Get("Retry-After") == "" {
		t.Error("it does not say when to come again")
	}
	s.want(t, call{path: "/api/v1/orders", as: Read}, 200, "")              // it was right before
	s.want(t, call{path: "/api/v1/orders", as: Admin}, 429, "")             // nobody knows yet
	s.want(t, call{path: "/api/v1/orders"}, 401, "this needs an API token") // no token is no guess
	now = now.Add(refill + time.Second)
	s.want(t, call{path: "/api/v1/orders", as: Admin}, 200, "")
	s.want(t, call{path: "/api/v1/orders", token: "imgt_guess"}, 401, "")
	s.want(t, call{path: "/api/v1/orders", token: "imgt_guess"}, 429, "")
}

func TestTheLimiterForgetsAndStaysSmall(t *testing.T) {
	now := time.Now()
	l := newLimiter(func() time.Time { return now })
	for i := range 3 * maxClients {
		l.failed(clientAddr(&http.Request{RemoteAddr: "[2001:db8:" + hex(i) + "::1]:1"}))
		l.good("token " + hex(i))
	}
	if len(l.wrong) > maxClients || len(l.correct) > maxClients {
		t.Errorf("%d clients, %d tokens", len(l.wrong), len(l.correct))
	}
	one, other := clientAddr(&http.Request{RemoteAddr: "[2001:db8::1]:1"}), clientAddr(&http.Request{RemoteAddr: "[2001:db8::2]:1"})
	for range maxWrong {
		l.failed(one)
	}
	if _, blocked := l.blocked(other, "x"); !blocked {
		t.Error("another address of the same /64 goes on guessing")
	}
}

func hex(i int) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[i>>12&15], digits[i>>8&15], digits[i>>4&15], digits[i&15]})
}

func TestTokensOverHTTPAreRefusedWhereThereIsHTTPS(t *testing.T) {
	s := serve(t, func(o *Options) { o.TokensOverTLS, o.HTTPS = true, "https://boot.example.org:8443" })
	s.want(t, call{path: "/api/v1/orders", as: Read}, 200, "") // from this machine itself
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.RemoteAddr = "10.0.0.9:1234"
	r.Header.Set("Authorization", "Bearer "+s.tokens[Read])
	w := &silentWriter{header: http.Header{}}
	s.api.ServeHTTP(w, r)
	if w.status != http.StatusForbidden {
		t.Errorf("from elsewhere: %d", w.status)
	}
}

func TestWhatIsNowhereIsSaidInJSON(t *testing.T) {
	s := serve(t)
	s.want(t, call{path: "/api/v1/serverz"}, 404, "openapi.json")
	s.want(t, call{path: "/"}, 404, "openapi.json")
	a := s.want(t, call{method: "POST", path: "/api/v1/queue"}, 405, "POST cannot be used here; there is GET, HEAD")
	if a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow is %q", a.header.Get("Allow"))
	}
}
