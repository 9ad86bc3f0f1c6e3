package tree

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLinksAreFollowedInsideTheImage(t *testing.T) {
	outside := t.TempDir()
	dir := t.TempDir()
	for _, d := range []string{"usr/lib", "etc", "real/deep"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"lib": "usr/lib", "abs": "/real", "out": outside, "up": "../../../../etc", "loop": "loop", "etc/chain": "../abs/deep",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	owner := Meta{Mode: 0o644, UID: os.Getuid(), GID: os.Getgid()}
	for name, c := range map[string]struct{ write, lands string }{
		"a relative link":                        {"/lib/a", "usr/lib/a"},
		"an absolute link":                       {"/abs/b", "real/b"},
		"a link over another":                    {"/etc/chain/c", "real/deep/c"},
		"a link that climbs out":                 {"/up/d", "etc/d"},
		"a path that climbs out":                 {"/../../e", "e"},
		"a directory that is missing":            {"/new/dir/f", "new/dir/f"},
		"a link to a host directory stays below": {"/out/g", filepath.Join(outside, "g")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tr.WriteFile(c.write, []byte("x"), owner); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(filepath.Join(dir, c.lands)); err != nil {
				t.Error(err)
			}
			if data, err := tr.ReadFile(c.write); err != nil || string(data) != "x" {
				t.Errorf("read back %q, %v", data, err)
			}
		})
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("something was written outside: %v, %v", entries, err)
	}
	if err := tr.WriteFile("/loop/x", nil, owner); err == nil {
		t.Error("a loop of links was followed to an end")
	}
	if err := tr.Remove("/"); err == nil {
		t.Error("the root directory was removed")
	}
	if err := tr.Remove("/abs"); err != nil {
		t.Error(err)
	}
	if !tr.Exists("/real/deep") {
		t.Error("removing a link removed what it points to")
	}
}

func TestADirectoryIsCopiedWhole(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(src, "d"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "d", "run"), []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("run", filepath.Join(src, "d", "link")); err != nil {
		t.Fatal(err)
	}
	tr, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if err := tr.CopyIn(src, "/opt/app", Meta{UID: os.Getuid(), GID: os.Getgid()}); err != nil {
		t.Fatal(err)
	}
	st, err := tr.Stat("/opt/app/d/run")
	if err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("the file came out as %v, %v", st, err)
	}
	if st, err := tr.Stat("/opt/app/d"); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("the directory came out as %v, %v", st, err)
	}
	if to, err := os.Readlink(filepath.Join(dir, "opt/app/d/link")); err != nil || to != "run" {
		t.Errorf("the link came out as %q, %v", to, err)
	}
}
