package fetch

import (
	"bytes"
	"context"
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

	"imgbuild/image"
	"imgbuild/installer/blob"
	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
)

// impatient returns a Fetcher that gives up soon, and what it reports.
func impatient(o Options) (*Fetcher, *reporttest.Lines) {
	l := &reporttest.Lines{}
	o.Report = report.New(l)
	o.Backoff = time.Millisecond
	if o.Stall == 0 {
		o.Stall = 300 * time.Millisecond
	}
	if o.Patience == 0 {
		o.Patience = time.Second
	}
	return New(o), l
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestASmallFileIsAskedForUntilSomebodyAnswers(t *testing.T) {
	var n atomic.Int32
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2: // the connection breaks
			panic(http.ErrAbortHandler)
		case 3: // the body is shorter than announced
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "short")
		case 4: // nothing comes
			<-r.Context().Done()
		default:
			fmt.Fprint(w, "hello")
		}
	})
	f, l := impatient(Options{})
	data, err := f.Small(t.Context(), u+"/x", 100)
	if err != nil || string(data) != "hello" {
		t.Fatalf("%q, %v", data, err)
	}
	for _, want := range []string{"503 Service Unavailable", "EOF", "the connection ended too early", "no byte came for 1 s", "trying again in"} {
		if !strings.Contains(l.String(), want) {
			t.Errorf("nobody said %q:\n%s", want, l)
		}
	}
}

func TestAnswersThatAreFinalEndTheTriesAtOnce(t *testing.T) {
	var n atomic.Int32
	mux := http.NewServeMux()
	handle := func(path string, h http.HandlerFunc) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { n.Add(1); h(w, r) })
	}
	handle("/404", http.NotFound)
	handle("/403", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	handle("/long", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 101)) })
	handle("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for range 10 {
			w.Write(make([]byte, 50))
			w.(http.Flusher).Flush()
		}
	})
	handle("/gzip", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		fmt.Fprint(w, "x")
	})
	handle("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	u := serve(t, mux.ServeHTTP)
	f, _ := impatient(Options{Patience: time.Hour})
	for path, want := range map[string]string{
		"/404": "404 Not Found: check the address", "/403": "403 Forbidden: the server does not let",
		"/long": "101 bytes, and at most 100 are taken", "/endless": "more than the 100 bytes", "/gzip": `Content-Encoding "gzip"`,
		"/file": `starts with "file:"`, "/loop": "more than 5 times",
	} {
		n.Store(0)
		_, err := f.Small(t.Context(), strings.Replace(u, "http://", "http://user:secret@", 1)+path+"?token=secret", 100)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "user")) {
			t.Errorf("%s: the error repeats a secret: %v", path, err)
		}
		if n.Load() > 1 {
			t.Errorf("%s: asked %d times", path, n.Load())
		}
	}
}

func TestASmallFileIsGivenUpAfterAWhileWithTheReason(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close() // nobody listens there now
	f, l := impatient(Options{Patience: 50 * time.Millisecond})
	_, err := f.Small(t.Context(), s.URL+"/manifest.json", 10)
	if err == nil || !strings.Contains(err.Error(), "connection refused; gave up after") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(l.String(), "connection refused; trying again in") {
		t.Errorf("no message after a try:\n%s", l)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("somebody pressed ctrl-alt-del"))
	if _, err := f.Small(ctx, s.URL, 10); err == nil || !strings.Contains(err.Error(), "ctrl-alt-del") {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAnUntrustedCertificateIsFinalAndShowsTheClock(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	f, _ := impatient(Options{Patience: time.Hour})
	_, err := f.Small(t.Context(), s.URL, 10)
	if err == nil || !strings.Contains(err.Error(), "certificate is not accepted") || !strings.Contains(err.Error(), "the clock says 20") {
		t.Errorf("got %v", err)
	}
}

// release makes a signed manifest for a root file system.
func release(t *testing.T, rootfs []byte) (manifest, signature []byte, key image.PublicKey) {
	t.Helper()
	file, err := image.Describe(bytes.NewReader(rootfs), true)
	if err != nil {
		t.Fatal(err)
	}
	m := &image.Manifest{Schema: image.Schema, Name: "demo", Version: "1", Arch: "x86_64", KernelRelease: "6.1.0",
		SELinux: "disabled", NetworkFormat: image.NMKeyfile, UnpackedBytes: 1,
		Files: map[string]image.File{image.RootfsFile: file}}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	k, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return raw, image.Sign(raw, k), k.Public()
}

func TestAManifestIsTakenOnlyWithASignatureOfATrustedKey(t *testing.T) {
	manifest, signature, key := release(t, []byte("rootfs"))
	_, _, other := release(t, []byte("x"))
	served := manifest
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/d/manifest.json":
			w.Write(served)
		case "/d/manifest.json.sig":
			w.Write(signature)
		default:
			http.NotFound(w, r)
		}
	})
	f, _ := impatient(Options{})
	m, raw, sig, err := f.Manifest(t.Context(), u+"/d/manifest.json", []image.PublicKey{other, key})
	if err != nil || m.Name != "demo" || !bytes.Equal(raw, manifest) || !bytes.Equal(sig, signature) {
		t.Errorf("%+v, %v", m, err)
	}
	if _, _, _, err := f.Manifest(t.Context(), u+"/d/manifest.json", []image.PublicKey{other}); !errors.Is(err, image.ErrSignature) {
		t.Errorf("signed by another: %v", err)
	}
	served = bytes.Replace(manifest, []byte("demo"), []byte("evil"), 1)
	if _, _, _, err := f.Manifest(t.Context(), u+"/d/manifest.json", []image.PublicKey{key}); !errors.Is(err, image.ErrSignature) {
		t.Errorf("changed: %v", err)
	}
	if _, _, _, err := f.Manifest(t.Context(), u+"/other.json", []image.PublicKey{key}); err == nil || !strings.Contains(err.Error(), "/other.json: the server answers 404") {
		t.Errorf("not there: %v", err)
	}
}

func TestFilesLieBesideTheManifest(t *testing.T) {
	for manifest, want := range map[string]string{
		"http://h/a/manifest.json":         "http://h/a/rootfs.squashfs",
		"http://u:p@h:8/a%2fb/m.json?t=1":  "http://u:p@h:8/rootfs.squashfs?t=1",
		"https://[::1]/manifest.json":      "https://[::1]/rootfs.squashfs",
		"http://h/a%20b/c/manifest.json?x": "http://h/a%20b/c/rootfs.squashfs?x",
	} {
		got, err := Beside(manifest, image.RootfsFile)
		if manifest == "http://u:p@h:8/a%2fb/m.json?t=1" {
			want = "http://u:p@h:8/a%2fb/rootfs.squashfs?t=1"
		}
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v", manifest, got, err)
		}
	}
}

func TestURLsAreShownWithoutSecrets(t *testing.T) {
	for u, want := range map[string]string{
		"http://u:p@h/x?token=1#y": "http://h/x?...",
		"http://h/x":               "http://h/x",
		"http://h/x?":              "http://h/x",
		"http://%zz":               "an address that is not a URL",
	} {
		if got := Shown(u); got != want {
			t.Errorf("%s: got %s", u, got)
		}
	}
}

// feed feeds b from urls, which all lead to the same file and are used together, until b is closed. An error has also been
// given to b.Fail.
func feed(ctx context.Context, f *Fetcher, urls []string, b *blob.Blob) error {
	err := errors.New("get the root file system: there is no address to get it from")
	if len(urls) > 0 {
		t := f.NewTransfer(b)
		var sources []Source
		for i, u := range urls {
			sources = append(sources, Source{ID: fmt.Sprintf("origin %d", i+1), URL: u})
		}
		t.Use(sources)
		err = t.Run(ctx)
	}
	if err != nil {
		b.Fail(err)
	}
	return err
}
