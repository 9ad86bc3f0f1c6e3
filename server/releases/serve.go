package releases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"imgbuild/image"
)

// Prefix is where ServeHTTP's URLs begin: /images/<name>/<version>/<file>.
const Prefix = "/images/"

// ServeHTTP serves the files of releases that may be installed: GET and HEAD, with ranges (RFC 9110, 14) and entity tags.
// A release never changes, so its files may be cached for good. The file goes from the kernel's page cache to the socket
// if the ResponseWriter is net/http's own: one that is wrapped has to keep its io.ReaderFrom.
func (c *Catalogue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "releases are only read", http.StatusMethodNotAllowed)
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, Prefix), "/")
	if !strings.HasPrefix(r.URL.Path, Prefix) || len(parts) != 3 || !image.ValidName(parts[0]) || !image.ValidVersion(parts[1]) {
		http.Error(w, "there is no such file: ask for "+Prefix+"<name>/<version>/<file>", http.StatusNotFound)
		return
	}
	c.serve(w, r, parts[0], parts[1], parts[2])
}

func (c *Catalogue) serve(w http.ResponseWriter, r *http.Request, name, version, base string) {
	found := c.find(name, version)
	if len(found) == 0 {
		if err := c.rescan(); err != nil {
			c.o.Log.Error("look for releases", "err", err)
		}
		if found = c.find(name, version); len(found) == 0 {
			http.Error(w, fmt.Sprintf("there is no release %s/%s", name, version), http.StatusNotFound)
			return
		}
	}
	e := found[0]
	known, ok := e.files[base]
	if !ok {
		http.Error(w, fmt.Sprintf("release %s has no file of this name", e.ref()), http.StatusNotFound)
		return
	}
	if err := e.servable(r, base); err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, ErrRefused) {
			status = http.StatusForbidden
		}
		http.Error(w, err.Error(), status)
		return
	}
	f, err := e.open(base)
	if err != nil {
		c.lost(w, e, base, err)
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", contentType(base))
	h.Set("Etag", `"`+known.sha256+`"`)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, f)
}

// OpenBootFile opens the kernel or initramfs of a release that may be installed, by the path of its URL: for boot loaders
// that speak TFTP only. Errors are ErrNotFound and ErrRefused, or the file system's.
func (c *Catalogue) OpenBootFile(ctx context.Context, urlPath string) (*os.File, error) {
	below, ok := strings.CutPrefix(strings.TrimPrefix(urlPath, "/"), Prefix[1:])
	parts := strings.Split(below, "/")
	if !ok || len(parts) != 3 || !image.ValidName(parts[0]) || !image.ValidVersion(parts[1]) || !slices.Contains(bootFiles(), parts[2]) {
		return nil, fmt.Errorf("open %q: it is no boot file of a release: %w", urlPath, ErrNotFound)
	}
	found := c.find(parts[0], parts[1])
	if len(found) == 0 {
		return nil, fmt.Errorf("open %q: %w", urlPath, ErrNotFound)
	}
	if _, err := found[0].usable(ctx); err != nil {
		return nil, err
	}
	return found[0].open(parts[2])
}

// servable says whether a file may be served: any of a release without a problem, boot files once they have been checked.
func (e *entry) servable(r *http.Request, base string) error {
	if slices.Contains(bootFiles(), base) {
		_, err := e.usable(r.Context())
		return err
	}
	if v := e.view(); v.Problem != "" {
		return fmt.Errorf("release %s: %w: %s", v.Ref(), ErrRefused, v.Problem)
	}
	return nil
}

// lost answers for a file that is not there any more, or is another one. The next request finds the catalogue up to date.
func (c *Catalogue) lost(w http.ResponseWriter, e *entry, base string, err error) {
	if scanErr := c.rescan(); scanErr != nil {
		c.o.Log.Error("look for releases", "err", scanErr)
	}
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		status = http.StatusNotFound
	case errors.Is(err, errChanged):
		w.Header().Set("Retry-After", "2")
		status = http.StatusServiceUnavailable
	}
	c.o.Log.Warn("serve a file of a release", "release", e.ref(), "file", base, "err", err)
	http.Error(w, fmt.Sprintf("%s of release %s cannot be read: look at the server's log", base, e.ref()), status)
}

func contentType(base string) string {
	switch path.Ext(base) {
	case ".json":
		return "application/json"
	case ".ipxe", ".sig", ".lock":
		return "text/plain; charset=utf-8"
	case ".torrent":
		return "application/x-bittorrent"
	}
	return "application/octet-stream"
}
