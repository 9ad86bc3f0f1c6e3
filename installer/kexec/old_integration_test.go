//go:build integration

package kexec

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/installer/disk"
	"imgbuild/installer/looptest"
)

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
		loop := strings.TrimSpace(looptest.Command(t, "losetup", "--find", "--show", file))
		t.Cleanup(func() { looptest.Command(t, "losetup", "-d", loop) })
		looptest.Partitions(t, "-a", loop)
		t.Cleanup(func() { looptest.Partitions(t, "-d", loop) })
		return loop
	}
	looptest.Command(t, "sgdisk", "-n", "1:2048:+1M", "-n", "2:0:0", live)
	loop := attach(live)
	looptest.Command(t, "mkfs."+fs, "-q", loop+"p2")
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
	looptest.Command(t, "fsfreeze", "-f", at)
	looptest.Command(t, "fsfreeze", "-u", at)
	if err := os.WriteFile(filepath.Join(at, "late"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	looptest.Command(t, "sync", "--file-system", at)
	looptest.Command(t, "cp", live, file)
	loop = attach(file)
	return file, disk.Disk{Name: filepath.Base(loop), Path: loop, Size: 400 << 20, Sector: 512}
}

func TestAnOldSystemIsReadWithoutAWrite(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			file, d := oldDisk(t, fs)
			before := looptest.Digest(t, file)
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
			looptest.Command(t, "blockdev", "--flushbufs", d.Path)
			if looptest.Digest(t, file) != before {
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
