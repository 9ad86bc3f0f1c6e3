package testvm

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheWebServerServesADirectoryAndItsFaults(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	for p, s := range map[string]string{filepath.Join(dir, "file"): "0123456789", secret: "secret"} {
		if err := os.WriteFile(p, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		fault  Fault
		path   string
		rng    string
		status int
		body   string
		broken bool
	}{
		{"a whole file", Fault{}, "/file", "", 200, "0123456789", false},
		{"a range", Fault{}, "/file", "bytes=3-5", 206, "345", false},
		{"a missing file", Fault{}, "/nothing", "", 404, "not found\n", false},
		{"a link that leads out", Fault{}, "/link", "", 404, "not found\n", false},
		{"a path that leads out", Fault{}, "/../../etc/passwd", "", 404, "not found\n", false},
		{"the directory", Fault{}, "/", "", 404, "not found\n", false},
		{"a flipped byte in a range", Fault{Flip: true, FlipAt: 4}, "/file", "bytes=3-5", 206, "3\xcb5", false},
		{"a file that ends early", Fault{Shorten: true, ShortenTo: 4}, "/file", "", 200, "0123", false},
		{"a cut connection", Fault{CutAfter: 6}, "/file", "", 200, "012345", true},
		{"a status", Fault{Status: 503}, "/file", "", 503, "Service Unavailable\n", false},
		{"a slow file", Fault{BytesPerSecond: 1 << 20}, "/file", "", 200, "0123456789", false},
		{"other content", Fault{Content: []byte("xyz")}, "/file", "", 200, "xyz", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s, err := newWebServer(l, dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.Inject("file", tt.fault)
			req, err := http.NewRequest(http.MethodGet, "http://"+l.Addr().String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.URL.Path = tt.path
			if tt.rng != "" {
				req.Header.Set("Range", tt.rng)
			}
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tt.status || !strings.HasPrefix(tt.body, string(body)) || (!tt.broken && string(body) != tt.body) || (err != nil) != tt.broken {
				t.Errorf("got %d %q, %v", resp.StatusCode, body, err)
			}
			r, err := s.AwaitRequest(t.Context(), strings.TrimPrefix(filepath.Clean(tt.path), "/"))
			if err != nil || r.Status != tt.status || r.Bytes != int64(len(tt.body)) || r.Range != tt.rng {
				t.Errorf("remembered %v, %v", r, err)
			}
			if err := s.Refuse(); err != nil {
				t.Error(err)
			}
			if _, err := net.DialTimeout("tcp", l.Addr().String(), time.Second); err == nil {
				t.Error("it still listens after Refuse")
			}
		})
	}
}

func TestAwaitingARequestThatNeverComesEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := newWebServer(l, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.AwaitRequest(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
