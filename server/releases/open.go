package releases

import (
	"fmt"
	"os"
	"strings"

	"imgbuild/image"
)

// OpenFile opens a file of a release (name/version) without a problem: for what reads releases in other ways than HTTP. The file is
// the one that was catalogued, and stays so while it is open. Errors are ErrNotFound and ErrRefused, or the file system's.
func (c *Catalogue) OpenFile(ref, name string) (*os.File, error) {
	release, version, ok := strings.Cut(ref, "/")
	if !ok || !image.ValidName(release) || !image.ValidVersion(version) {
		return nil, fmt.Errorf("open %s of release %q: it is not name/version: %w", name, ref, ErrNotFound)
	}
	found := c.find(release, version)
	if len(found) == 0 {
		return nil, fmt.Errorf("open %s of release %s: %w", name, ref, ErrNotFound)
	}
	e := found[0]
	if v := e.view(); v.Problem != "" {
		return nil, fmt.Errorf("open %s of release %s: %w: %s", name, ref, ErrRefused, v.Problem)
	}
	if _, ok := e.files[name]; !ok {
		return nil, fmt.Errorf("open %s of release %s: it has no such file: %w", name, ref, ErrNotFound)
	}
	f, err := e.open(name)
	if err != nil {
		return nil, fmt.Errorf("open %s of release %s: %w", name, ref, err)
	}
	return f, nil
}
