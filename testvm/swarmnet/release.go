package swarmnet

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"imgbuild/image"
	"imgbuild/image/torrent"
)

// A release of the lab is called so.
const releaseName, releaseVersion = "swarm", "1"

// rootfs is where a machine's browser of releases finds the root file system, below the directory of releases.
const rootfs = releaseName + "/" + releaseVersion + "/" + image.RootfsFile

// release is a signed release with a root file system for measurements.
type release struct {
	images string // the directory of releases
	trust  string // the file with the public key
	key    image.PublicKey
	size   int64  // of the root file system, in bytes
	sha256 string // of it, in hex
}

// noise is size bytes that nothing compresses and that are the same each time.
func noise(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte(rootfs))), size)
}

// writeRelease writes a release into an empty directory, with what it reads from content as its root file system.
func writeRelease(dir string, content io.Reader) (release, error) {
	r := release{images: filepath.Join(dir, "images"), trust: filepath.Join(dir, "key.pub")}
	fail := func(err error) (release, error) {
		return release{}, fmt.Errorf("write a release for the swarm: %w", err)
	}
	key, err := image.GenerateKey()
	if err != nil {
		return fail(err)
	}
	r.key = key.Public()
	public, err := r.key.Marshal()
	if err != nil {
		return fail(err)
	}
	to := filepath.Join(r.images, releaseName, releaseVersion)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fail(err)
	}
	if err := os.WriteFile(r.trust, public, 0o644); err != nil {
		return fail(err)
	}
	m := &image.Manifest{
		Schema: image.Schema, Name: releaseName, Version: releaseVersion, Arch: "x86_64", KernelRelease: "5.14.0-1.el9.x86_64",
		Distro: image.Distro{ID: "centos", Name: "CentOS Stream 9", Release: "9"}, KernelArgs: []string{"console=tty0"},
		LockDigest: fmt.Sprintf("%x", sha256.Sum256(nil)), SELinux: "enforcing", NetworkFormat: image.NMKeyfile, Created: 1790000000,
		UnpackedBytes: 1 << 20, Files: map[string]image.File{},
		Tools: []string{"extlinux", "grub2-mkimage", "lvm", "mkfs.ext4", "mkfs.vfat", "mkfs.xfs", "mkswap"},
	}
	f, err := os.Create(filepath.Join(to, image.RootfsFile))
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	pieces, chunks := torrent.NewHasher(), image.NewHasher()
	if _, err := io.CopyBuffer(io.MultiWriter(f, pieces, chunks), struct{ io.Reader }{content}, make([]byte, 1<<20)); err != nil {
		return fail(err)
	}
	if err := f.Close(); err != nil {
		return fail(err)
	}
	root := chunks.File(true)
	m.Files[image.RootfsFile], r.size, r.sha256 = root, root.Size, root.SHA256
	metainfo, err := pieces.Metainfo().Marshal()
	if err != nil {
		return fail(err)
	}
	for name, data := range map[string][]byte{
		image.KernelFile: []byte("a kernel that nobody boots"), image.InitramfsFile: []byte("an initramfs that nobody boots"), image.BootIPXEFile: []byte("#!ipxe\nboot\n"),
		image.TorrentFile: metainfo,
	} {
		if err := os.WriteFile(filepath.Join(to, name), data, 0o644); err != nil {
			return fail(err)
		}
		if m.Files[name], err = image.Describe(bytes.NewReader(data), false); err != nil {
			return fail(err)
		}
	}
	data, err := m.Marshal()
	if err != nil {
		return fail(err)
	}
	for name, data := range map[string][]byte{image.ManifestFile: data, image.SignatureFile: image.Sign(data, key), image.BuildLogFile: []byte("nothing was built\n")} {
		if err := os.WriteFile(filepath.Join(to, name), data, 0o644); err != nil {
			return fail(err)
		}
	}
	return r, nil
}
