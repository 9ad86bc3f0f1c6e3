package tftp

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNamesNeverBecomePaths(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	loader := filepath.Join(dir, "loader")
	for _, p := range []string{secret, loader} {
		if err := os.WriteFile(p, []byte(filepath.Base(p)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := NewFiles(map[string]string{"undionly.kpxe": loader})
	for _, name := range []string{"secret", secret, "../secret", "undionly.kpxe/../secret", "/etc/passwd", `..\secret`, "", ".", "/", "undionly.kpxe\x00"} {
		if b, err := f.Read(Clean(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q gives %q, %v", name, b, err)
		}
	}
	for _, name := range []string{"undionly.kpxe", "/undionly.kpxe", "//undionly.kpxe", `\undionly.kpxe`, "./undionly.kpxe", "grub/../undionly.kpxe"} {
		if b, err := f.Read(Clean(name)); err != nil || string(b) != "loader" {
			t.Errorf("%q gives %q, %v", name, b, err)
		}
	}
}

func TestAFileThatAPackageReplacesIsReadAgain(t *testing.T) {
	p := filepath.Join(t.TempDir(), "loader")
	f := NewFiles(map[string]string{"x": p})
	if _, err := f.Read("x"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "install the package") {
		t.Errorf("a file that is missing though it is in the list: %v", err)
	}
	if err := f.Check(); err == nil {
		t.Error("Check finds nothing")
	}
	write := func(s string, at time.Time) {
		if err := errors.Join(os.WriteFile(p+".new", []byte(s), 0o600), os.Chtimes(p+".new", at, at), os.Rename(p+".new", p)); err != nil {
			t.Fatal(err)
		}
	}
	write("one", time.Unix(1000, 0))
	first, err := f.Read("x")
	if err != nil || string(first) != "one" || f.Check() != nil {
		t.Fatal(string(first), err)
	}
	write("two", time.Unix(1000, 0)) // same size, same time, another file
	second, err := f.Read("x")
	if err != nil || string(second) != "two" || string(first) != "one" {
		t.Errorf("%q, then %q, %v", first, second, err)
	}
	if err := errors.Join(os.Remove(p), os.Mkdir(p, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read("x"); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a folder: %v", err)
	}
}

func TestBootLoadersGoOverHTTPToo(t *testing.T) {
	p := filepath.Join(t.TempDir(), "loader")
	if err := os.WriteFile(p, []byte("MZ loader"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := http.StripPrefix("/boot/loader/", NewFiles(map[string]string{"ipxe.efi": p, "gone.efi": p + ".gone"}))
	for _, c := range []struct {
		method, path, ranged string
		status               int
		body                 string
	}{
		{"GET", "/boot/loader/ipxe.efi", "", 200, "MZ loader"},
		{"HEAD", "/boot/loader/ipxe.efi", "", 200, ""},
		{"GET", "/boot/loader/ipxe.efi", "bytes=3-5", 206, "loa"},
		{"GET", "/boot/loader/../../etc/passwd", "", 404, "there is no such boot loader\n"},
		{"GET", "/boot/loader/gone.efi", "", 500, "the boot loader cannot be read\n"},
		{"POST", "/boot/loader/ipxe.efi", "", 405, "boot loaders can be read only\n"},
	} {
		r := httptest.NewRequest(c.method, "http://x"+c.path, nil)
		if c.ranged != "" {
			r.Header.Set("Range", c.ranged)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || w.Body.String() != c.body {
			t.Errorf("%s %s: %d %q", c.method, c.path, w.Code, w.Body)
		}
		if c.method == "HEAD" && (w.Header().Get("Content-Length") != "9" || w.Header().Get("Content-Type") != "application/efi") {
			t.Errorf("headers: %v", w.Header())
		}
	}
}

func TestBootLoadersAreFoundWherePackagesPutThem(t *testing.T) {
	root := t.TempDir()
	put := func(p string) {
		p = filepath.Join(root, p)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if found, missing := FindLoaders(root); len(found) != 0 || len(missing) != len(Loaders()) {
		t.Errorf("found %v", found)
	}
	put("/usr/share/ipxe/undionly.kpxe")
	put("/usr/share/ipxe/ipxe-x86_64.efi")
	put("/usr/share/ipxe/ipxe-snponly-x86_64.efi")
	put("/boot/efi/EFI/rocky/shimx64.efi")
	found, missing := FindLoaders(root)
	got := map[string]string{}
	for _, l := range found {
		got[l.Name] = strings.TrimPrefix(l.Path, root)
	}
	if len(got) != 3 || got["undionly.kpxe"] != "/usr/share/ipxe/undionly.kpxe" || got["ipxe.efi"] != "/usr/share/ipxe/ipxe-snponly-x86_64.efi" || got["shimx64.efi"] != "/boot/efi/EFI/rocky/shimx64.efi" {
		t.Errorf("found %v", got)
	}
	if len(found)+len(missing) != len(Loaders()) || missing[0].String() != "iPXE for UEFI on arm64 (ipxe-arm64.efi) is not installed; it is in the package ipxe (Debian), ipxe-bootimgs-aarch64 (EL)" {
		t.Errorf("missing: %v", missing[0].String())
	}
}
