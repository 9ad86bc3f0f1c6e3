//go:build integration

package live

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/blob"
)

// packed is a squashfs with a small tree, and its chunk table.
func packed(t *testing.T) ([]byte, *image.ChunkTable) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	mksquashfs, err := exec.LookPath("mksquashfs")
	if err != nil {
		t.Skip("there is no mksquashfs; make setup-test installs it")
	}
	tree := t.TempDir()
	for name, text := range map[string]string{"etc/hostname": "image\n", "var/lib/state": "of the image\n", "home/readme": "nobody\n"} {
		must(t, os.MkdirAll(filepath.Join(tree, filepath.Dir(name)), 0o755))
		must(t, os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644))
	}
	must(t, os.WriteFile(filepath.Join(tree, "large"), bytes.Repeat([]byte("x"), 3<<20), 0o644))
	must(t, os.Chmod(tree, 0o751))
	file := filepath.Join(t.TempDir(), image.RootfsFile)
	if out, err := exec.CommandContext(t.Context(), mksquashfs, tree, file, "-no-progress", "-noD", "-no-fragments").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(file)
	must(t, err)
	f, err := image.Describe(bytes.NewReader(data), true)
	must(t, err)
	return data, f.Chunks
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// filled is an image that came through a blob.
func filled(t *testing.T, dir string) *Image {
	t.Helper()
	data, chunks := packed(t)
	b, err := blob.New(int64(len(data)), chunks, 2<<20)
	must(t, err)
	i, err := NewImage(dir, int64(len(data)))
	must(t, err)
	b.Keep(i)
	go func() { // ends with the blob
		for {
			first, n, err := b.Claim(t.Context(), 1)
			if err != nil {
				return
			}
			off, length := image.Chunk(int64(len(data)), first)
			if b.Put(first, data[off:off+length]) != nil {
				b.Unclaim(first, n)
				return
			}
		}
	}()
	must(t, i.Fill(t.Context(), b))
	must(t, b.Close())
	got := make([]byte, len(data))
	if _, err := i.f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the image is not what came: %v", err)
	}
	for n := range i.here {
		if !i.Has(n) {
			t.Errorf("chunk %d is not there for others", n)
		}
	}
	return i
}

// mounted is a live root.
func mounted(t *testing.T, find func(context.Context, string) (string, string, error)) (*Root, string) {
	t.Helper()
	dir := t.TempDir()
	o := Options{Work: filepath.Join(dir, "work"), Root: filepath.Join(dir, "root"), Size: 8 << 20, Find: find}
	store := filepath.Join(dir, "image")
	must(t, os.Mkdir(store, 0o755))
	r := New(o)
	t.Cleanup(func() {
		if err := r.Unmount(); err != nil {
			t.Error(err)
		}
	})
	must(t, r.MountImage(t.Context(), filled(t, store)))
	must(t, r.Overlay(t.Context()))
	return r, o.Root
}

func TestASystemRunsBelowAnOverlay(t *testing.T) {
	_, root := mounted(t, nil)
	if b, err := os.ReadFile(filepath.Join(root, "etc/hostname")); err != nil || string(b) != "image\n" {
		t.Errorf("%q, %v", b, err)
	}
	if s, err := os.Stat(root); err != nil || s.Mode().Perm() != 0o751 {
		t.Errorf("the root's mode is %v, %v", s.Mode(), err)
	}
	must(t, os.WriteFile(filepath.Join(root, "etc/hostname"), []byte("other\n"), 0o644))
	must(t, os.Remove(filepath.Join(root, "home/readme")))
	err := os.WriteFile(filepath.Join(root, "too-much"), make([]byte, 9<<20), 0o644)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than what there is room for: %v", err)
	}
}

// disk is a file system of a label on a loop device.
func disk(t *testing.T, label string) func(context.Context, string) (string, string, error) {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("there is no mkfs.ext4; make setup-test installs it")
	}
	file := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, 32<<20))
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-F", "-L", label, file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Skipf("there is no loop device: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return func(_ context.Context, asked string) (string, string, error) {
		if asked != label {
			return "", "", errors.New("nowhere")
		}
		return device, "ext4", nil
	}
}

func TestWhatIsKeptIsThereAtTheNextStart(t *testing.T) {
	find := disk(t, "VAR")
	for start, want := range []string{"of the image\n", "written\n"} {
		t.Run(want[:2], func(t *testing.T) {
			r, root := mounted(t, find)
			must(t, r.Persist(t.Context(), plan.Persistent{Dir: "/var", Label: "VAR"}))
			file := filepath.Join(root, "var/lib/state")
			if b, err := os.ReadFile(file); err != nil || string(b) != want {
				t.Errorf("start %d: %q, %v", start, b, err)
			}
			must(t, os.WriteFile(file, []byte("written\n"), 0o644))
		})
	}
}

func TestAFileSystemThatHoldsSomethingTakesTheDirectorysPlace(t *testing.T) {
	find := disk(t, "HOME")
	device, _, err := find(t.Context(), "HOME")
	must(t, err)
	at := t.TempDir()
	must(t, unix.Mount(device, at, "ext4", 0, ""))
	must(t, os.WriteFile(filepath.Join(at, "mine"), nil, 0o644))
	must(t, unix.Unmount(at, 0))
	r, root := mounted(t, find)
	must(t, r.Persist(t.Context(), plan.Persistent{Dir: "/home", Label: "HOME"}))
	if _, err := os.Stat(filepath.Join(root, "home/mine")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "home/readme")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the image's own file is there: %v", err)
	}
	if err := r.Persist(t.Context(), plan.Persistent{Dir: "/etc/hostname", Label: "HOME"}); err == nil {
		t.Error("a file was laid over")
	}
}
