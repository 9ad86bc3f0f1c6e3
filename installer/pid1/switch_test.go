package pid1

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheFirstProcessOfASystemIsFoundInside(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string // path: what a link leads to, or empty for a program
		want  string
	}{
		"systemd":                   {map[string]string{"usr/lib/systemd/systemd": ""}, "/usr/lib/systemd/systemd"},
		"init by a relative link":   {map[string]string{"sbin/init": "../opt/init", "opt/init": ""}, "/sbin/init"},
		"init by an absolute link":  {map[string]string{"sbin/init": "/opt/init", "opt/init": ""}, "/sbin/init"},
		"nothing":                   {nil, ""},
		"a link that leads nowhere": {map[string]string{"sbin/init": "/nowhere"}, ""},
		"links in a circle":         {map[string]string{"sbin/init": "/sbin/init"}, ""},
	} {
		dir := t.TempDir()
		for path, to := range c.files {
			p := filepath.Join(dir, path)
			err := os.MkdirAll(filepath.Dir(p), 0o755)
			if err == nil && to != "" {
				err = os.Symlink(to, p)
			} else if err == nil {
				err = os.WriteFile(p, nil, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := findInit(dir)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func TestTheOldRootIsEmptiedWithoutFollowingLinks(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	kept := filepath.Join(outside, "kept")
	for _, err := range []error{
		os.WriteFile(kept, nil, 0o644), os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755), os.WriteFile(filepath.Join(dir, "a/b/file"), nil, 0o400),
		os.Symlink(outside, filepath.Join(dir, "a/link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	empty(root)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("there is still %v, %v", left, err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if err := (&supervisor{}).switchRoot(dir); err == nil || !strings.Contains(err.Error(), "not the first") {
		t.Errorf("a process that is not the first switched its root: %v", err)
	}
}
