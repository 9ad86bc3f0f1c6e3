// Package releasetest writes small, whole and signed releases for tests of what serves and installs them.
package releasetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/torrent"
)

// Release says what to write. Zero fields take what is in their comments.
type Release struct {
	Name, Version string
	Arch          string   // x86_64
	Created       int64    // 1790000000
	KernelArgs    []string // console=tty0 console=ttyS0,115200n8
	RootfsBytes   int      // 3 MiB and a few
	Rootfs        []byte   // RootfsBytes of a pattern
	Torrent       []byte   // the root file system's rootfs.torrent; empty and not nil writes none
	Layout        layout.Layout
	Tools         []string // those of the layouts simple and lvm, with either BIOS loader
	Key           image.PrivateKey
}

// Key makes a key to sign with.
func Key(t testing.TB) image.PrivateKey {
	t.Helper()
	k, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Write writes the release as <dir>/<name>/<version> and returns that directory. It appears at once, by a rename.
func Write(t testing.TB, dir string, r Release) string {
	t.Helper()
	if r.Arch == "" {
		r.Arch = "x86_64"
	}
	if r.Created == 0 {
		r.Created = 1790000000
	}
	if r.KernelArgs == nil {
		r.KernelArgs = []string{"console=tty0", "console=ttyS0,115200n8"}
	}
	if r.Tools == nil {
		r.Tools = []string{"extlinux", "grub2-mkimage", "lvm", "mkfs.ext4", "mkfs.vfat", "mkfs.xfs", "mkswap"}
	}
	if r.RootfsBytes == 0 {
		r.RootfsBytes = 3*image.ChunkSize + 77
	}
	if r.Rootfs == nil {
		r.Rootfs = bytes.Repeat([]byte("0123456789abcdef"), r.RootfsBytes/16+1)[:r.RootfsBytes]
	}
	if r.Torrent == nil {
		r.Torrent = metainfo(t, r.Rootfs)
	}
	parent := filepath.Join(dir, r.Name)
	check(t, os.MkdirAll(parent, 0o755))
	staging, err := os.MkdirTemp(parent, ".unfinished-")
	check(t, err)
	m := manifest(r)
	for name, data := range map[string][]byte{
		image.KernelFile: []byte("kernel of " + r.Name + " " + r.Version), image.InitramfsFile: []byte("initramfs of " + r.Name + " " + r.Version),
		image.RootfsFile: r.Rootfs, image.BootIPXEFile: []byte("#!ipxe\nboot\n"), image.TorrentFile: r.Torrent,
	} {
		if len(data) == 0 {
			continue
		}
		check(t, os.WriteFile(filepath.Join(staging, name), data, 0o644))
		f := image.File{Size: int64(len(data)), SHA256: fmt.Sprintf("%x", sha256.Sum256(data))}
		if name == image.RootfsFile {
			f.Chunks = chunks(data)
		}
		m.Files[name] = f
	}
	data, err := m.Marshal()
	check(t, err)
	check(t, os.WriteFile(filepath.Join(staging, image.ManifestFile), data, 0o644))
	check(t, os.WriteFile(filepath.Join(staging, image.SignatureFile), image.Sign(data, r.Key), 0o644))
	check(t, os.WriteFile(filepath.Join(staging, image.BuildLogFile), []byte("it was built\n"), 0o644))
	final := filepath.Join(parent, r.Version)
	check(t, os.RemoveAll(final))
	check(t, os.Rename(staging, final))
	return final
}

func metainfo(t testing.TB, rootfs []byte) []byte {
	t.Helper()
	h := torrent.NewHasher()
	_, err := h.Write(rootfs)
	check(t, err)
	data, err := h.Metainfo().Marshal()
	check(t, err)
	return data
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func manifest(r Release) *image.Manifest {
	return &image.Manifest{
		Schema: image.Schema, Name: r.Name, Version: r.Version, Arch: r.Arch, KernelRelease: "5.14.0-1.el9." + r.Arch,
		Distro: image.Distro{ID: "centos", Name: "CentOS Stream 9", Release: "9"}, KernelArgs: r.KernelArgs,
		LockDigest: fmt.Sprintf("%x", sha256.Sum256(nil)), SELinux: "enforcing", NetworkFormat: image.NMKeyfile, Created: r.Created, UnpackedBytes: 1 << 20,
		Layout: r.Layout, Tools: r.Tools,
		Files: map[string]image.File{},
	}
}

func chunks(data []byte) *image.ChunkTable {
	t := &image.ChunkTable{Size: image.ChunkSize}
	for len(data) > 0 {
		n := min(len(data), image.ChunkSize)
		t.Digests = append(t.Digests, sha256.Sum256(data[:n]))
		data = data[n:]
	}
	return t
}
