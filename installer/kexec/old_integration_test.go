//go:build integration

package kexec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/installer/disk"
)

func command(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// partitions adds a loop device's partitions to the kernel, or removes them. Whoever looks at all devices of the machine, as LVM
// does, may have one open for a moment, of which nobody is told.
func partitions(t *testing.T, verb, loop string) {
	t.Helper()
	var out []byte
	var err error
	for range 300 {
		if out, err = exec.Command("partx", verb, loop).CombinedOutput(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("partx %s %s: %v\n%s", verb, loop, err, out)
}

func digest(t *testing.T, file string) [32]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	for off := int64(0); ; { // holes are skipped
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err != nil {
			return [32]byte(h.Sum(nil))
		}
		if off, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, off-start)
		if _, err := f.ReadAt(b, start); err != nil {
			t.Fatal(err)
		}
		for i := int64(0); i < int64(len(b)); i += 4096 {
			if block := b[i:min(i+4096, int64(len(b)))]; len(bytes.Trim(block, "\x00")) > 0 {
				fmt.Fprintf(h, "%d:%x\n", start+i, block)
			}
		}
	}
}

// oldDisk is a loop device with a /boot on its second partition, as it is after the power failed: its journal is to be replayed.
func oldDisk(t *testing.T, fs string) (file string, d disk.Disk) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	for _, tool := range []string{"sgdisk", "losetup", "partx", "mkfs." + fs} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	live, file := filepath.Join(dir, "live"), filepath.Join(dir, "disk")
	if err := errors.Join(os.WriteFile(live, nil, 0o600), os.Truncate(live, 400<<20)); err != nil {
		t.Fatal(err)
	}
	attach := func(file string) string {
		loop := command(t, "losetup", "--find", "--show", file)
		t.Cleanup(func() { command(t, "losetup", "-d", loop) })
		partitions(t, "-a", loop)
		t.Cleanup(func() { partitions(t, "-d", loop) })
		return loop
	}
	command(t, "sgdisk", "-n", "1:2048:+1M", "-n", "2:0:0", live)
	loop := attach(live)
	command(t, "mkfs."+fs, "-q", loop+"p2")
	at := filepath.Join(dir, "boot")
	if err := errors.Join(os.Mkdir(at, 0o755), unix.Mount(loop+"p2", at, fs, 0, "")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, 0)
	for name, text := range map[string]string{"vmlinuz-5.14.0-9": "kernel", "initramfs-5.14.0-9.img": "initrd", "loader/entries/m.conf": entry("9")} {
		p := filepath.Join(at, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	// Written back to its place, and then the journal gets something more.
	command(t, "fsfreeze", "-f", at)
	command(t, "fsfreeze", "-u", at)
	if err := os.WriteFile(filepath.Join(at, "late"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "sync", "--file-system", at)
	command(t, "cp", live, file)
	loop = attach(file)
	return file, disk.Disk{Name: filepath.Base(loop), Path: loop, Size: 400 << 20, Sector: 512}
}

func TestAnOldSystemIsReadWithoutAWrite(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			file, d := oldDisk(t, fs)
			before := digest(t, file)
			blank := disk.Disk{Name: "none", Path: "/dev/null"}
			var asked []string
			e, err := OldSystem(t.Context(), []disk.Disk{blank, d}, Options{Scratch: t.TempDir(), LoadFS: func(fs string) error { asked = append(asked, fs); return nil }})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			k, err1 := io.ReadAll(e.Kernel)
			i, err2 := io.ReadAll(e.Initrd)
			if err := errors.Join(err1, err2); err != nil || string(k) != "kernel" || string(i) != "initrd" || e.Disk != d.Path || !strings.HasPrefix(e.Args, "root=UUID=R ro") {
				t.Errorf("%+v, %q, %q, %v", e, k, i, err)
			}
			if strings.Join(asked, " ") != fs {
				t.Errorf("the drivers %q were asked for", asked)
			}
			if err := exec.Command("findmnt", "-n", "--source", d.Path+"p2").Run(); err == nil {
				t.Error("it is still mounted")
			}
			command(t, "blockdev", "--flushbufs", d.Path)
			if digest(t, file) != before {
				t.Error("the disk was written to")
			}
		})
	}
}

func TestTheSearchForAnOldSystemCanBeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("somebody pressed a key")
	cancel(gone)
	_, d := oldDisk(t, "ext4")
	if _, err := OldSystem(ctx, []disk.Disk{d}, Options{Scratch: t.TempDir()}); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func TestDisksWithoutASystemAreSaid(t *testing.T) {
	_, err := OldSystem(t.Context(), nil, Options{Scratch: t.TempDir()})
	if !errors.Is(err, ErrNone) {
		t.Errorf("got %v", err)
	}
	_, err = OldSystem(t.Context(), []disk.Disk{{Name: "none", Path: "/dev/null"}}, Options{Scratch: t.TempDir()})
	if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "/dev/null: ") {
		t.Errorf("got %v", err)
	}
}
