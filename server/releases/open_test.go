package releases

import (
	"errors"
	"io"
	"path/filepath"
	"testing"

	"imgbuild/image"
	"imgbuild/server/releases/releasetest"
)

func TestAFileIsOpenedForWhatReadsReleasesInOtherWays(t *testing.T) {
	dir, key := t.TempDir(), releasetest.Key(t)
	releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: key, Rootfs: []byte("the root file system")})
	releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "2", Key: releasetest.Key(t)})
	c := open(t, dir, key.Public())
	for name, test := range map[string]struct {
		ref, file string
		want      error
	}{
		"a file that is there":                {"web/1", image.RootfsFile, nil},
		"a file that no manifest names":       {"web/1", "secret", ErrNotFound},
		"a path":                              {"web/1", "../1/" + image.RootfsFile, ErrNotFound},
		"a release that is not there":         {"web/3", image.RootfsFile, ErrNotFound},
		"a release that a stranger signed":    {"web/2", image.RootfsFile, ErrRefused},
		"no version":                          {"web", image.RootfsFile, ErrNotFound},
		"a release that is somewhere else":    {"../web/1", image.RootfsFile, ErrNotFound},
		"a version that is somewhere else":    {"web/..", image.RootfsFile, ErrNotFound},
		"a release's file, with more slashes": {"web/1/x", image.RootfsFile, ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := c.OpenFile(test.ref, test.file)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			defer f.Close()
			if data, err := io.ReadAll(f); err != nil || string(data) != "the root file system" {
				t.Errorf("it holds %q, %v", data, err)
			}
		})
	}
	overwrite(t, filepath.Join(dir, "web/1", image.RootfsFile), "another root filesystem")
	if f, err := c.OpenFile("web/1", image.RootfsFile); !errors.Is(err, errChanged) {
		t.Errorf("a file that has changed gives %v, %v", f, err)
	}
}
