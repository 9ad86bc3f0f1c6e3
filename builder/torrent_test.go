package builder

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgbuild/builder/progress"
	"imgbuild/image"
	"imgbuild/image/torrent"
	"imgbuild/initramfs"
	"imgbuild/profiles"
)

func TestTheTorrentIsMadeWhileTheRootFileSystemIsHashed(t *testing.T) {
	plan := planned(t, shipped(t, "centos-stream-9"), nil)
	b := newBuild(plan)
	file := filepath.Join(t.TempDir(), image.RootfsFile)
	data := bytes.Repeat([]byte("squashfs"), 100_000)
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	pieces := torrent.NewHasher()
	f, err := b.describe(context.Background(), file, true, pieces)
	if err != nil {
		t.Fatal(err)
	}
	alone := torrent.NewHasher()
	if _, err := alone.Write(data); err != nil {
		t.Fatal(err)
	}
	if m := pieces.Metainfo(); m.Size != f.Size || m.Hash() != alone.Metainfo().Hash() {
		t.Errorf("the torrent has %d of %d bytes and the hash %s", m.Size, f.Size, m.Hash())
	}
}

func TestThePlanShowsTrackersAndWebSeeds(t *testing.T) {
	p := shipped(t, "centos-stream-9")
	p.Version = "2026+1"
	p.Torrent = profiles.Torrent{Trackers: []string{"http://imgserve/announce"}, WebSeeds: []string{"http://mirror/images/", "http://other"}}
	text := planned(t, p, nil).String()
	for _, want := range []string{
		"tracker http://imgserve/announce\n", "web seed http://mirror/images/centos-stream-9/2026+1/rootfs.squashfs\n", "web seed http://other/centos-stream-9/2026+1/rootfs.squashfs\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the plan does not say %s", want)
		}
	}
}

func TestTheInstallerHasTorrentWhereTheProfileSaysSo(t *testing.T) {
	for _, want := range []bool{true, false} {
		p := shipped(t, "centos-stream-9")
		p.Initramfs.Torrent = &want
		var asked []bool
		plan := planned(t, p, func(o *Options) {
			o.Installer = func(_ string, torrent bool) ([]byte, error) { asked = append(asked, torrent); return nil, nil }
			o.KeyFile = filepath.Join(t.TempDir(), "none")
		})
		if _, err := plan.releaseDigest(nil); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(asked, []bool{want}) {
			t.Errorf("with torrent %v the digest is over the installers %v", want, asked)
		}
	}
}

func TestBothInstallersSizesAreSaid(t *testing.T) {
	r := initramfs.Report{Packed: 40 << 20, InstallerPacked: 8 << 20, OtherPacked: 3 << 20}
	in := torrentCost(true, 25<<20, 10<<20, r)
	for _, want := range []int64{25 << 20, 10 << 20, 40 << 20, 5 << 20} {
		if !strings.Contains(in, progress.Bytes(want)) {
			t.Errorf("it does not say %s: %s", progress.Bytes(want), in)
		}
	}
	out := torrentCost(false, 10<<20, 25<<20, initramfs.Report{Packed: 35 << 20, InstallerPacked: 3 << 20, OtherPacked: 8 << 20})
	for _, want := range []int64{10 << 20, 25 << 20, 5 << 20, 35 << 20} {
		if !strings.Contains(out, progress.Bytes(want)) {
			t.Errorf("it does not say %s: %s", progress.Bytes(want), out)
		}
	}
}
