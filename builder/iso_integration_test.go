//go:build integration

package builder

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"imgbuild/builder/tool"
)

func TestTheMediumsBIOSLoaderIsTheHostsWhereTheImageHasNone(t *testing.T) {
	host, err := hostMkimage()
	if err != nil {
		t.Skip(err)
	}
	b := newBuild(planned(t, shipped(t, "centos-stream-9"), nil))
	b.tree, b.work, b.runner = treeOf(t, "etc/passwd"), t.TempDir(), tool.NewRunner(t.Output())
	got, err := b.isoBIOS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(biosGRUB, mediumMBR))
	if err != nil || !bytes.Equal(got.MBR, want) {
		t.Errorf("the MBR's code is not the host's: %v", err)
	}
	// The core begins with the code that the firmware starts from a CD.
	cd, err := os.ReadFile(filepath.Join(biosGRUB, "cdboot.img"))
	if err != nil || len(got.Core) < len(cd) || !bytes.Equal(got.Core[:8], cd[:8]) {
		t.Errorf("%s made %d bytes, which no CD starts: %v", host, len(got.Core), err)
	}
}
