package releases

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/server/releases/releasetest"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t testing.TB, dir string, trust ...image.PublicKey) *Catalogue {
	t.Helper()
	c, err := Open(Options{Dir: dir, Trust: trust, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func overwrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVersionsAreOrderedAsRPMDoes(t *testing.T) {
	order := []string{"0.9", "1~rc1", "1~rc2", "1", "1a", "1.1", "1.9", "1.10", "1.10.1", "2", "10", "20260101", "20261121"}
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := CompareVersions(a, b); got != want {
				t.Errorf("%s against %s: %d, want %d", a, b, got, want)
			}
		}
	}
	if CompareVersions("1-0", "1.0") == 0 || CompareVersions("1.0", "1.00") == 0 {
		t.Error("two directories are one version")
	}
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("1.0~rc1", "1.0", "1.0a")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if CompareVersions(a, b) != -CompareVersions(b, a) {
			t.Errorf("%q and %q: the order depends on who is asked first", a, b)
		}
		if CompareVersions(a, a) != 0 || a != b && CompareVersions(a, b) == 0 {
			t.Errorf("%q and %q: equal is not the same", a, b)
		}
		for _, s := range []string{a, b, c} {
			if !image.ValidVersion(s) {
				return
			}
		}
		if CompareVersions(a, b) < 0 && CompareVersions(b, c) < 0 && CompareVersions(a, c) >= 0 {
			t.Errorf("%q < %q < %q, and yet not the first before the last", a, b, c)
		}
	})
}

func TestANameIsItsNewestVersionThatMayBeInstalled(t *testing.T) {
	dir, key := t.TempDir(), releasetest.Key(t)
	for _, v := range []string{"9", "10", "11"} {
		releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: v, Key: key})
	}
	releasetest.Write(t, dir, releasetest.Release{Name: "arm", Version: "1", Arch: "aarch64", Created: 1790000001, Key: key})
	overwrite(t, filepath.Join(dir, "web/11", image.KernelFile), "another kernel")
	c := open(t, dir, key.Public())
	for _, tt := range []struct{ ref, want, err string }{
		{"web", "web/10", ""},
		{"web/9", "web/9", ""},
		{"web/11", "", "vmlinuz has 14 bytes and the manifest says"},
		{"web/12", "", "there is no such release"},
		{"db", "", "there is no such release"},
		{"../etc", "", "neither a name nor name/version"},
		{"", "", "neither a name nor name/version"},
		{"web/", "", "neither a name nor name/version"},
		{"web/9/x", "", "neither a name nor name/version"},
	} {
		r, err := c.Resolve(t.Context(), tt.ref)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v, want %q", tt.ref, err, tt.err)
			}
			continue
		}
		if err != nil || r.Ref() != tt.want {
			t.Errorf("%q: %+v, %v", tt.ref, r, err)
		}
	}
	if r, err := c.Newest(t.Context(), "x86_64"); err != nil || r.Ref() != "web/10" {
		t.Errorf("newest for x86_64: %+v, %v", r, err)
	}
	if r, err := c.Newest(t.Context(), ""); err != nil || r.Ref() != "arm/1" {
		t.Errorf("newest: %+v, %v", r, err)
	}
	if _, err := c.Newest(t.Context(), "riscv64"); !errors.Is(err, ErrNotFound) {
		t.Errorf("newest for riscv64: %v", err)
	}
}

func TestAReleaseThatFailsACheckIsListedWithTheReasonAndNeverServed(t *testing.T) {
	key, other := releasetest.Key(t), releasetest.Key(t)
	swap := func(name string) func(t *testing.T, dir string) { // same size, same time, other bytes
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			data[0] ^= 1
			overwrite(t, path, string(data))
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		signer image.PrivateKey
		trust  []image.PublicKey
		spoil  func(t *testing.T, dir string)
		want   string
	}{
		{"signed by a trusted key", key, []image.PublicKey{other.Public(), key.Public()}, nil, ""},
		{"signed, and no keys are configured", key, nil, nil, ""},
		{"signed by another key", other, []image.PublicKey{key.Public()}, nil, "not made by a key that this program trusts"},
		{"not signed", key, []image.PublicKey{key.Public()}, remove(image.SignatureFile), "it is not signed"},
		{"not signed, and no keys are configured", key, nil, remove(image.SignatureFile), "it is not signed"},
		{"a changed manifest", key, []image.PublicKey{key.Public()}, swap(image.ManifestFile), "not made by a key"},
		{"a changed kernel", key, nil, swap(image.KernelFile), "vmlinuz has SHA-256"},
		{"a changed initramfs", key, nil, swap(image.InitramfsFile), "initramfs.img has SHA-256"},
		{"a missing root file system", key, nil, remove(image.RootfsFile), "rootfs.squashfs is missing"},
		{"a manifest that is none", key, nil, func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, image.ManifestFile), "{}") }, "schema"},
		{"a kernel that is a link", key, nil, func(t *testing.T, dir string) {
			remove(image.KernelFile)(t, dir)
			if err := os.Symlink("/etc/hostname", filepath.Join(dir, image.KernelFile)); err != nil {
				t.Fatal(err)
			}
		}, "vmlinuz is not a regular file"},
		{"under another name", key, nil, func(t *testing.T, dir string) {
			if err := os.Rename(dir, filepath.Join(filepath.Dir(dir), "2")); err != nil {
				t.Fatal(err)
			}
		}, "its manifest is that of web/1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			release := releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: tt.signer})
			if tt.spoil != nil {
				tt.spoil(t, release)
			}
			c := open(t, dir, tt.trust...)
			ref := c.List()[0].Ref()
			_, err := c.Resolve(t.Context(), ref)
			list := c.List()
			if tt.want == "" {
				if err != nil || list[0].Problem != "" || len(tt.trust) > 0 && list[0].Key != key.Public().ID() {
					t.Fatalf("%+v, %v", list, err)
				}
				return
			}
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("resolve: %v, want %q", err, tt.want)
			}
			if len(list) != 1 || !strings.Contains(list[0].Problem, tt.want) || list[0].Verified {
				t.Errorf("list: %+v, want %q", list, tt.want)
			}
			for _, f := range []string{image.KernelFile, image.InitramfsFile, image.RootfsFile, image.ManifestFile} {
				w := httptest.NewRecorder()
				c.ServeHTTP(w, httptest.NewRequest("GET", "/images/"+ref+"/"+f, nil))
				if w.Code != http.StatusForbidden && w.Code != http.StatusNotFound {
					t.Errorf("%s: %d %s", f, w.Code, w.Body)
				}
			}
		})
	}
}

func TestChangesAreSeenWithoutARestart(t *testing.T) {
	dir, key := t.TempDir(), releasetest.Key(t)
	c := open(t, dir, key.Public())
	if len(c.List()) != 0 {
		t.Fatalf("an empty directory lists %+v", c.List())
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	c.o.Every = 10 * time.Millisecond
	go func() { done <- c.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	await := func(what string, f func([]Release) bool) {
		t.Helper()
		end := time.Now().Add(10 * time.Second)
		for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
			if f(c.List()) {
				tick.Stop()
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: not seen; there is %+v", what, c.List())
			}
		}
	}
	release := releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key})
	await("a new release, read and verified", func(l []Release) bool { return len(l) == 1 && l[0].Verified })
	overwrite(t, filepath.Join(release, image.RootfsFile), "cut off")
	await("a damaged file", func(l []Release) bool { return len(l) == 1 && strings.Contains(l[0].Problem, "has 7 bytes") })
	releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key})
	await("the release built again", func(l []Release) bool { return len(l) == 1 && l[0].Problem == "" && l[0].Verified })
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	releasetest.Write(t, dir, releasetest.Release{Name: "db", Version: "1", Key: key})
	await("another directory in its place", func(l []Release) bool { return len(l) == 1 && l[0].Name == "db" })
	if err := os.RemoveAll(filepath.Join(dir, "db")); err != nil {
		t.Fatal(err)
	}
	await("a removed release", func(l []Release) bool { return len(l) == 0 })
}

func TestReadingFindsWhatTheSizesDoNotShow(t *testing.T) {
	dir, key := t.TempDir(), releasetest.Key(t)
	release := releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key})
	data, err := os.ReadFile(filepath.Join(release, image.RootfsFile))
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	overwrite(t, filepath.Join(release, image.RootfsFile), string(data))
	c := open(t, dir)
	if _, err := c.Resolve(t.Context(), "web/1"); err != nil {
		t.Fatalf("before it was read: %v", err)
	}
	c.verify(t.Context())
	if _, err := c.Resolve(t.Context(), "web/1"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), image.RootfsFile+" has SHA-256") {
		t.Errorf("after it was read: %v", err)
	}
}

func TestAScanReadsNothingThatHasNotChanged(t *testing.T) {
	dir, key := t.TempDir(), releasetest.Key(t)
	releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key})
	c := open(t, dir)
	c.verify(t.Context())
	before := c.entries["web/1"]
	if err := c.Scan(); err != nil || c.entries["web/1"] != before {
		t.Errorf("the release was read again: %v", err)
	}
}

func TestADirectoryThatIsNotThereIsAnErrorAtTheStart(t *testing.T) {
	if _, err := Open(Options{Dir: filepath.Join(t.TempDir(), "none"), Log: quiet()}); err == nil || !strings.Contains(err.Error(), "give the directory") {
		t.Errorf("%v", err)
	}
}

func TestOnlyTheReleasesOwnFilesAreServed(t *testing.T) {
	dir, key := t.TempDir(), releasetest.Key(t)
	release := releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key})
	overwrite(t, filepath.Join(dir, "secret"), "secret")
	overwrite(t, filepath.Join(release, "notes.txt"), "secret")
	if err := os.Symlink("../../secret", filepath.Join(release, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "web", ".unfinished-2"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir)
	for _, f := range []string{image.KernelFile, image.InitramfsFile, image.RootfsFile, image.ManifestFile, image.SignatureFile, image.BootIPXEFile} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest("GET", "/images/web/1/"+f, nil))
		want, err := os.ReadFile(filepath.Join(release, f))
		if err != nil {
			t.Fatal(err)
		}
		if w.Code != 200 || w.Body.String() != string(want) || w.Header().Get("Cache-Control") != "public, max-age=31536000, immutable" {
			t.Errorf("%s: %d, %d bytes, %v", f, w.Code, w.Body.Len(), w.Header())
		}
	}
	for _, p := range []string{"/images/web/1/notes.txt", "/images/web/1/link", "/images/web/1/build.log", "/images/web/1/../../secret", "/images/web/1/..%2f..%2fsecret",
		"/images/web/1/", "/images/web/1", "/images/web/", "/images/", "/images/secret", "/images/web/2/vmlinuz", "/images/web/.unfinished-2/vmlinuz", "/images/web/1/vmlinuz/",
		"/images//1/vmlinuz", "/images/web/1/%00", "/images/web/1//vmlinuz", "/secret", "/web/1/vmlinuz", "/images/./web/1/vmlinuz"} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest("GET", p, nil))
		if w.Code != 404 || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s", p, w.Code, w.Body)
		}
	}
	for _, m := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(m, "/images/web/1/vmlinuz", nil))
		if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", m, w.Code)
		}
	}
}

func TestPartsOfAFileAreServedAsRFC9110Says(t *testing.T) {
	dir, key := t.TempDir(), releasetest.Key(t)
	release := releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key})
	data, err := os.ReadFile(filepath.Join(release, image.RootfsFile))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(open(t, dir))
	defer s.Close()
	etag := ""
	for _, tt := range []struct {
		name, method string
		header       map[string]string
		status       int
		from, to     int
	}{
		{"whole", "GET", nil, 200, 0, len(data)},
		{"its head", "HEAD", nil, 200, 0, 0},
		{"a range", "GET", map[string]string{"Range": "bytes=100-199"}, 206, 100, 200},
		{"the end", "GET", map[string]string{"Range": "bytes=-10"}, 206, len(data) - 10, len(data)},
		{"from somewhere on", "GET", map[string]string{"Range": "bytes=3000000-"}, 206, 3000000, len(data)},
		{"beyond the end", "GET", map[string]string{"Range": "bytes=99999999-"}, 416, -1, 0},
		{"a range of what has not changed", "GET", map[string]string{"Range": "bytes=0-9", "If-Range": "ETAG"}, 206, 0, 10},
		{"a range of what was another file", "GET", map[string]string{"Range": "bytes=0-9", "If-Range": `"other"`}, 200, 0, len(data)},
		{"what the client has", "GET", map[string]string{"If-None-Match": "ETAG"}, 304, 0, 0},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, s.URL+"/images/web/1/rootfs.squashfs", nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range tt.header {
			r.Header.Set(k, strings.Replace(v, "ETAG", etag, 1))
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if etag == "" {
			etag = resp.Header.Get("Etag")
		}
		if resp.StatusCode != tt.status || tt.from >= 0 && !slices.Equal(body, data[tt.from:tt.to]) {
			t.Errorf("%s: %d with %d bytes", tt.name, resp.StatusCode, len(body))
		}
	}
}

func TestAFileThatChangesUnderTheCatalogueIsNotServed(t *testing.T) {
	dir, key := t.TempDir(), releasetest.Key(t)
	release := releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key})
	c := open(t, dir)
	if _, err := c.Resolve(t.Context(), "web/1"); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(release, image.InitramfsFile), "evil")
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest("GET", "/images/web/1/initramfs.img", nil))
	if w.Code != 503 || strings.Contains(w.Body.String(), "evil") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestBootFilesCanBeOpenedByTheirPath(t *testing.T) {
	dir, key := t.TempDir(), releasetest.Key(t)
	releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key})
	overwrite(t, filepath.Join(releasetest.Write(t, dir, releasetest.Release{Name: "bad", Version: "1", Key: key}), image.KernelFile), "x")
	c := open(t, dir)
	for path, want := range map[string]error{"/images/web/1/vmlinuz": nil, "images/web/1/initramfs.img": nil, "/images/web/1/rootfs.squashfs": ErrNotFound, "/images/web/2/vmlinuz": ErrNotFound,
		"/images/../web/1/vmlinuz": ErrNotFound, "/web/1/vmlinuz": ErrNotFound, "vmlinuz": ErrNotFound, "": ErrNotFound, "/images/bad/1/vmlinuz": ErrRefused} {
		f, err := c.OpenBootFile(t.Context(), path)
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
}
