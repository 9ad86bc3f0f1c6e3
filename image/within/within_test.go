package within

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestLinksAreFollowedInsideTheImage(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "data/home"), 0o755), os.MkdirAll(filepath.Join(dir, "run"), 0o755), os.MkdirAll(filepath.Join(dir, "var"), 0o755))
	for name, to := range map[string]string{"home": "/data/home", "var/run": "../run", "out": "../../../etc/passwd", "loop": "/loop", "run/up": "..", "dangling": "/not/there"} {
		err = errors.Join(err, os.Symlink(to, filepath.Join(dir, name)))
	}
	root, err2 := os.OpenRoot(dir)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, c := range []struct {
		name string
		last bool
		want string
	}{
		{"/home/anna", true, "data/home/anna"}, {"/home", false, "home"}, {"var/run/x/y", true, "run/x/y"}, {"/out", true, "etc/passwd"}, {"/out", false, "out"},
		{"/run/up/home", true, "data/home"}, {"/dangling/a", true, "not/there/a"}, {"/", true, "."}, {"/a/../../../b", true, "b"},
	} {
		if got, err := Resolve(root, c.name, c.last); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	if got, err := Resolve(root, "/loop", true); err == nil {
		t.Errorf("a loop leads to %q", got)
	}
}
