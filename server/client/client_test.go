package client

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgbuild/server/registry"
)

func TestWhatIsNoServerIsRefused(t *testing.T) {
	for _, o := range []Options{
		{}, {Server: "10.0.0.1:8080"}, {Server: "ftp://x"}, {Server: "http://"}, {Server: "http://user:secret@x"}, {Server: "http://x/?a=b"},
		{Server: "http://x", Token: "two words"}, {Server: "http://x", Token: "line\n"}, {Server: "https://x", CA: []byte("no PEM")},
	} {
		if _, err := New(o); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func serve(t *testing.T, h http.HandlerFunc) (*Client, *httptest.Server) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := New(Options{Server: s.URL + "/", Token: "imgt_secret"})
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		media  string
		body   string
		want   string
	}{
		{"one field", 422, "application/json", `{"error":"it is not an address","field":"ip"}`, "ip: it is not an address"},
		{"several fields", 422, "application/json; charset=utf-8", `{"error":"the query is wrong","fields":[{"field":"a","error":"x"},{"field":"b","error":"y"}]}`, "the query is wrong (a: x; b: y)"},
		{"no field", 409, "application/json", `{"error":"there is already order 1"}`, "there is already order 1"},
		{"not JSON", 502, "text/html", "<h1>Bad Gateway</h1>", "GET /api/v1/servers/A: HOST answered 502 Bad Gateway, and not in the way of an imgserve"},
		{"JSON of somebody else", 404, "application/json", `{"message":"x"}`, "GET /api/v1/servers/A: HOST answered 404 Not Found, and not in the way of an imgserve"},
		{"no token, from a proxy", 401, "", "", "the server does not know the token, or none was given"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl, s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.media)
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, err := cl.Host(t.Context(), "A")
			var e *Error
			if !errors.As(err, &e) || e.Status != c.status || strings.ReplaceAll(err.Error(), strings.TrimPrefix(s.URL, "http://"), "HOST") != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestTheTokenGoesToTheServerAndNowhereElse(t *testing.T) {
	stolen := ""
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stolen = r.Header.Get("Authorization") }))
	defer thief.Close()
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer imgt_secret" {
			t.Errorf("the token is %q", r.Header.Get("Authorization"))
		}
		http.Redirect(w, r, thief.URL+"/api/v1/servers", http.StatusTemporaryRedirect)
	})
	_, err := c.Hosts(t.Context(), HostQuery{})
	if err == nil || !strings.Contains(err.Error(), "sends us on to "+thief.URL) || strings.Contains(err.Error(), "secret") || stolen != "" {
		t.Errorf("%v; the other server got %q", err, stolen)
	}
}

func TestWhatTheServerDidNotTakeOnIsSentAgain(t *testing.T) {
	var asked atomic.Int32
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) != `{"rack":"r1"}` {
			t.Errorf("the body is %q", body)
		}
		if asked.Add(1) < 3 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"sn":"A","rack":"r1"}`)
	})
	h, err := c.PatchHost(t.Context(), "A", []byte(`{"rack":"r1"}`), 3)
	if err != nil || h.Rack != "r1" || asked.Load() != 3 {
		t.Errorf("%+v, %v after %d", h, err, asked.Load())
	}
	c, _ = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	})
	asked.Store(0)
	if _, err := c.Host(t.Context(), "A"); err == nil || asked.Load() != 1 {
		t.Errorf("a fault is asked for %d times: %v", asked.Load(), err)
	}
}

func TestSerialNumbersWithOddLetters(t *testing.T) {
	for _, sn := range []string{"VMware-56 4d", "a/b", "50%", "a?b#c", "ü"} {
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			mux := http.NewServeMux()
			mux.HandleFunc("GET /api/v1/servers/{sn}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, `{"sn":%q}`, r.PathValue("sn")) })
			mux.ServeHTTP(w, r)
		})
		if h, err := c.Host(t.Context(), sn); err != nil || h.SN != sn {
			t.Errorf("%q: %+v, %v", sn, h, err)
		}
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for _, o := range []struct {
		options Options
		want    string
	}{
		{Options{Server: s.URL, CA: ca}, ""},
		{Options{Server: s.URL}, "give the server's CA file"},
		{Options{Server: strings.Replace(s.URL, "https", "http", 1)}, "400 Bad Request"},
	} {
		c, err := New(o.options)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Images(t.Context())
		if o.want == "" && err != nil || o.want != "" && (err == nil || !strings.Contains(err.Error(), o.want)) {
			t.Errorf("%v, want %q", err, o.want)
		}
	}
	plain := httptest.NewServer(s.Config.Handler)
	defer plain.Close()
	c, err := New(Options{Server: strings.Replace(plain.URL, "http", "https", 1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Images(t.Context()); err == nil || !strings.Contains(err.Error(), "try http://") {
		t.Error(err)
	}
}

func TestFollowingComesBackWithTheLastIDAndMissesNothing(t *testing.T) {
	var connections atomic.Int32
	var starts []string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		starts = append(starts, r.Header.Get("Last-Event-ID"))
		n := int64(connections.Add(1))
		if n == 2 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "retry: 10\n\n")
		for id := n; id < n+2; id++ { // one that we have, one that is new
			fmt.Fprintf(w, "id: %d\ndata: {\"id\":%d,\"kind\":\"info\",\"text\":\"x\",\"time\":\"2026-01-01T00:00:00Z\"}\n\n", id, id)
		}
		fmt.Fprint(w, "id: 99\ndata: {\"id\":99,") // cut off
	})
	var got []int64
	var ups, downs int
	enough := errors.New("enough")
	err := c.Follow(t.Context(), EventQuery{After: 1}, Follower{
		Event: func(e registry.Event) error {
			got = append(got, e.ID)
			if e.ID >= 5 {
				return enough
			}
			return nil
		},
		Up: func() { ups++ }, Down: func(error, time.Duration) { downs++ },
	})
	if !errors.Is(err, enough) || fmt.Sprint(got) != "[2 3 4 5]" || fmt.Sprint(starts) != "[1 2 2 4]" || ups != 3 || downs != 3 {
		t.Errorf("%v: events %v, starts %v, up %d times, down %d times", err, got, starts, ups, downs)
	}
}

func TestFollowingEndsWhereTheServerRefuses(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	err := c.Follow(t.Context(), EventQuery{}, Follower{Event: func(registry.Event) error { return nil }})
	if !Denied(err) {
		t.Error(err)
	}
	c, s := serve(t, func(http.ResponseWriter, *http.Request) {})
	s.Close()
	if err := c.Follow(t.Context(), EventQuery{}, Follower{Event: func(registry.Event) error { return nil }}); err == nil {
		t.Error("a server that never was there is waited for")
	}
}
