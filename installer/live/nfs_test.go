package live

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/imagetest"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
)

// release is the manifest of a version of an image.
func release(t *testing.T, version string) []byte {
	t.Helper()
	data, chunks := imagetest.Random(t, 1000, 1)
	m := image.Manifest{
		Schema: image.Schema, Name: "node", Version: version, Arch: "x86_64", Distro: image.Distro{ID: "centos", Name: "CentOS Stream 9", Release: "9"},
		KernelRelease: "5.14.0", LockDigest: strings.Repeat("0", 64), SELinux: "disabled", NetworkFormat: image.NMKeyfile, Created: 1,
		Layout: layout.Layout{Preset: layout.Simple, Filesystem: "ext4"}, BootLoader: image.BootLoader{Extlinux: &image.Extlinux{}},
		UnpackedBytes: 1, Files: map[string]image.File{image.RootfsFile: {Size: int64(len(data)), SHA256: strings.Repeat("0", 64), Chunks: chunks}},
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestATreeIsLookedAtBeforeItIsTheRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the tree has to be root's")
	}
	mine := release(t, "2")
	short, err := json.Marshal("no manifest")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		manifest []byte // nil for none
		owner    int
		want     string // empty for a good tree
	}{
		"the release's":     {manifest: mine},
		"another version's": {manifest: release(t, "1"), want: "it is the tree of node 1, and not of the release that this machine starts"},
		"nobody's":          {manifest: short, want: "it is the tree of another release"},
		"without a name":    {want: "write it with imgbuild export"},
		"of nobody's files": {manifest: mine, owner: 65534, want: "belongs to the user 65534 and not to root: the server sends names"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, image.TreeManifest)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if c.manifest != nil {
				if err := os.WriteFile(file, c.manifest, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Chown(dir, c.owner, 0); err != nil {
				t.Fatal(err)
			}
			n := NFS{From: plan.NFSRoot{Server: "10.0.0.1", Path: "/srv/node-2"}, Manifest: mine}
			err := n.check(dir)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "look at 10.0.0.1:/srv/node-2: ")) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
}

func TestATreesSourceIsAsTheKernelWritesIt(t *testing.T) {
	for want, from := range map[string]plan.NFSRoot{"10.0.0.1:/a": {Server: "10.0.0.1", Path: "/a"}, "[2001:db8::1]:/a": {Server: "2001:db8::1", Path: "/a"}} {
		if got := (NFS{From: from}).source(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
