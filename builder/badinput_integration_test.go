//go:build integration

package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadInputEndsInOneSentenceAndNoRelease(t *testing.T) {
	needRoot(t, "dnf", "rpm", "createrepo_c")
	key, other := newTestKey(t, "right"), newTestKey(t, "wrong")
	flip := func(at int64) func(string) {
		return func(rpm string) {
			f, err := os.OpenFile(rpm, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if at < 0 {
				st, err := f.Stat()
				if err != nil {
					t.Fatal(err)
				}
				at += st.Size()
			}
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 0x40
			if _, err := f.WriteAt(b, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		options func(t *testing.T) Options
		says    []string
	}{
		"a repository that is not there": {
			func(t *testing.T) Options {
				return testOptions(t, filepath.Join(t.TempDir(), "none"), key.file, "alpha")
			},
			[]string{"repository tiny does not answer", "repomd.xml"},
		},
		"packages signed by another key than the profile trusts": {
			func(t *testing.T) Options { return testOptions(t, testRepo(t, &other, nil), key.file, "alpha") },
			[]string{"not signed by any key that the profile trusts", "gpgkeys"},
		},
		"packages that are not signed": {
			func(t *testing.T) Options { return testOptions(t, testRepo(t, nil, nil), key.file, "alpha") },
			[]string{"are not signed", "alpha-1.0-1.noarch", "beta-1.0-1.noarch"},
		},
		"a package whose payload was tampered with": {
			func(t *testing.T) Options { return testOptions(t, testRepo(t, &key, flip(-40)), key.file, "alpha") },
			[]string{"alpha-1.0-1.noarch", "tampered"},
		},
		"a package whose header was tampered with": {
			func(t *testing.T) Options { return testOptions(t, testRepo(t, &key, flip(2200)), key.file, "alpha") },
			[]string{"alpha-1.0-1.noarch", "tampered"},
		},
		"a misspelt package": {
			func(t *testing.T) Options {
				return testOptions(t, testRepo(t, &key, nil), key.file, "alhpa", "bta", "@corre")
			},
			[]string{"alhpa", "did you mean alpha?", "bta", "did you mean beta?", "@corre"},
		},
		"a key file that is no key": {
			func(t *testing.T) Options {
				bad := filepath.Join(t.TempDir(), "bad.asc")
				if err := os.WriteFile(bad, []byte("not a key"), 0o644); err != nil {
					t.Fatal(err)
				}
				return testOptions(t, testRepo(t, &key, nil), bad, "alpha")
			},
			[]string{"bad.asc"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := c.options(t)
			_, err := runStages(t.Context(), t, o, StagePackages)
			if err == nil {
				t.Fatal("it was built")
			}
			first, _, _ := strings.Cut(err.Error(), "\n====")
			for _, s := range c.says {
				if !strings.Contains(first, s) {
					t.Errorf("it does not say %q:\n%s", s, err)
				}
			}
			if found, _ := filepath.Glob(filepath.Join(o.Out, "*", "*")); len(found) != 0 {
				t.Errorf("something is in the output directory: %v", found)
			}
			if trees, _ := filepath.Glob(filepath.Join(o.Cache, "trees", "[^.]*")); len(trees) != 0 {
				t.Errorf("a tree was kept: %v", trees)
			}
		})
	}
}

func TestASecondBuildReusesPackagesAndForceAsksAgain(t *testing.T) {
	needRoot(t, "dnf", "rpm", "createrepo_c")
	key := newTestKey(t, "right")
	o := testOptions(t, testRepo(t, &key, nil), key.file, "alpha")
	first, err := runStages(t.Context(), t, o, StagePackages)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.lock.Packages) != 2 || first.lock.Packages[0].NEVRA != "alpha-1.0-1.noarch" || first.lock.Packages[0].Repo != "tiny" {
		t.Errorf("the lock is %+v", first.lock.Packages)
	}
	for i, name := range []string{"a second build", "a forced one"} {
		o.Force = i == 1
		b, err := runStages(t.Context(), t, o, StagePackages)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range b.times {
			if s.Name == StagePackages && !s.Reused || s.Name == StageResolve && s.Reused == o.Force {
				t.Errorf("%s: stage %s has reused=%v", name, s.Name, s.Reused)
			}
		}
		if b.treeDir != first.treeDir {
			t.Errorf("%s uses another tree", name)
		}
	}
	if _, err := os.Stat(filepath.Join(first.treeDir, "root/usr/share/beta")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(first.treeDir, "root/.imgbuild")); err == nil {
		t.Error("dnf's private directory was left in the tree")
	}
}

func TestACancelledBuildLeavesNothing(t *testing.T) {
	needRoot(t, "dnf", "rpm", "createrepo_c")
	key := newTestKey(t, "right")
	o := testOptions(t, testRepo(t, &key, nil), key.file, "alpha")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the person at the keyboard stopped it")
	o.Report = &stopper{quiet: &quiet{}, at: StageResolve, stop: func() { cancel(stop) }}
	b, err := runStages(ctx, t, o, StagePackages)
	if !errors.Is(err, stop) {
		t.Errorf("it ended with %v", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	for _, pattern := range []string{"trees/*", "trees/.*", "work/*"} {
		if left, _ := filepath.Glob(filepath.Join(o.Cache, pattern)); len(left) != 0 {
			t.Errorf("it left %v", left)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), o.Cache) {
		t.Errorf("it left mounts below %s:\n%s", o.Cache, mounts)
	}
}
