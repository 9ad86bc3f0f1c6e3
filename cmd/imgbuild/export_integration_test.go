//go:build integration

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/layout"
)

// exportBench is a release of a small tree, and the program.
type exportBench struct{ bin, release, trust, trees string }

func newExportBench(t *testing.T) *exportBench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners need root")
	}
	pack, err := exec.LookPath("mksquashfs")
	if err != nil {
		t.Skip("there is no mksquashfs; make setup installs it")
	}
	dir := t.TempDir()
	b := &exportBench{filepath.Join(dir, "imgbuild"), filepath.Join(dir, "release"), filepath.Join(dir, "key.pub"), filepath.Join(dir, "trees")}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", b.bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	src := filepath.Join(dir, "src")
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fatal(errors.Join(os.Mkdir(b.release, 0o755), os.MkdirAll(filepath.Join(src, "usr/bin"), 0o755), os.MkdirAll(filepath.Join(src, "var"), 0o755)))
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	fatal(os.WriteFile(filepath.Join(src, "usr/bin/su"), data, 0o755))
	fatal(errors.Join(os.Chown(filepath.Join(src, "usr/bin/su"), 0, 12), os.Chmod(filepath.Join(src, "usr/bin/su"), 0o755|fs.ModeSetuid)))
	fatal(os.Link(filepath.Join(src, "usr/bin/su"), filepath.Join(src, "usr/bin/again")))
	// cap_net_raw+ep, as capability.h lays it out.
	fatal(os.WriteFile(filepath.Join(src, "usr/bin/ping"), []byte("ping"), 0o755))
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(filepath.Join(src, "usr/bin/ping"), "security.capability", capability, 0); err != nil {
		t.Skip("capabilities cannot be set here:", err)
	}
	rootfs := filepath.Join(b.release, image.RootfsFile)
	if out, err := exec.CommandContext(t.Context(), pack, src, rootfs, "-noappend", "-quiet", "-noD", "-noF").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := os.Open(rootfs)
	fatal(err)
	defer f.Close()
	file, err := image.Describe(f, true)
	fatal(err)
	m := image.Manifest{
		Schema: image.Schema, Name: "node", Version: "7", Arch: "x86_64", Distro: image.Distro{ID: "centos", Name: "CentOS Stream 9", Release: "9"},
		KernelRelease: "5.14.0", LockDigest: strings.Repeat("0", 64), SELinux: "enforcing", NetworkFormat: image.NMKeyfile, Created: 1,
		Layout: layout.Layout{Preset: layout.Simple, Filesystem: "ext4"}, BootLoader: image.BootLoader{Extlinux: &image.Extlinux{}},
		UnpackedBytes: int64(len(data)) + 4, Files: map[string]image.File{image.RootfsFile: file},
	}
	raw, err := m.Marshal()
	fatal(err)
	key, err := image.GenerateKey()
	fatal(err)
	public, err := key.Public().Marshal()
	fatal(err)
	fatal(errors.Join(os.WriteFile(filepath.Join(b.release, image.ManifestFile), raw, 0o644),
		os.WriteFile(filepath.Join(b.release, image.SignatureFile), image.Sign(raw, key), 0o644), os.WriteFile(b.trust, public, 0o644)))
	return b
}

// export runs the program.
func (b *exportBench) export(t *testing.T) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), b.bin, "export", b.release, b.trees, "--trust", b.trust).CombinedOutput()
	return string(out), err
}

// left are the names in the directory of trees.
func (b *exportBench) left(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(b.trees)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAnExportedTreeIsTheImages(t *testing.T) {
	b := newExportBench(t)
	// What a killed run has left is no obstacle.
	if err := os.MkdirAll(filepath.Join(b.trees, ".node-7.partial/root/usr"), 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := b.export(t)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tree := filepath.Join(b.trees, "node-7")
	for _, want := range []string{tree + " 10.0.0.0/24(ro,no_root_squash,no_subtree_check,security_label)", "live.root=nfs:SERVER:" + tree, "do not go over NFS, so that users other than root go without what these have by them:\n  /usr/bin/ping\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	var su, again, manifest unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"usr/bin/su": &su, "usr/bin/again": &again, image.TreeManifest: &manifest} {
		if err := unix.Stat(filepath.Join(tree, name), st); err != nil {
			t.Fatal(err)
		}
	}
	if su.Mode != unix.S_IFREG|unix.S_ISUID|0o755 || su.Gid != 12 || su.Ino != again.Ino || manifest.Mode != unix.S_IFREG|0o600 {
		t.Errorf("su %o of group %d, inodes %d and %d, manifest %o", su.Mode, su.Gid, su.Ino, again.Ino, manifest.Mode)
	}
	if n, err := unix.Getxattr(filepath.Join(tree, "usr/bin/ping"), "security.capability", make([]byte, 64)); err != nil || n != 20 {
		t.Errorf("ping has lost its capability: %d, %v", n, err)
	}
	if got := fmt.Sprint(b.left(t)); got != "[node-7]" {
		t.Errorf("there are %s", got)
	}
	if out, err := b.export(t); err == nil || !strings.Contains(out, "is there already, and machines may run from it") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWhatIsNotSignedIsNotExported(t *testing.T) {
	b := newExportBench(t)
	rootfs := filepath.Join(b.release, image.RootfsFile)
	good, err := os.ReadFile(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[1<<20+5] ^= 1
	stranger, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := stranger.Public().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	trust, err := os.ReadFile(b.trust)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		rootfs, trust []byte
		says          string
	}{
		"a flipped byte": {bad, trust, "check chunk 1: the bytes are not those of the signed manifest"},
		"a short file":   {good[:len(good)-4096], trust, "the manifest says"},
		"a stranger":     {good, public, "check manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.WriteFile(rootfs, c.rootfs, 0o644), os.WriteFile(b.trust, c.trust, 0o644)); err != nil {
				t.Fatal(err)
			}
			out, err := b.export(t)
			if err == nil || !strings.Contains(out, c.says) {
				t.Errorf("%v\n%s", err, out)
			}
			if left := b.left(t); len(left) > 0 {
				t.Errorf("there are %v", left)
			}
		})
	}
}
