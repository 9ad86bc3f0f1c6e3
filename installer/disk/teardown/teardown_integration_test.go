//go:build integration

package teardown

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func real() System { return System{Sys: "/sys", Proc: "/proc", Dev: "/dev"} }

// loop attaches a file or a device, and detaches it at the end if nobody else did.
func loop(t *testing.T, file string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("losetup cannot make a loop device here: %v: %s", err, out)
	}
	node := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		b, err := os.ReadFile("/sys/block/" + filepath.Base(node) + "/loop/backing_file")
		if err == nil && strings.TrimSpace(string(b)) == file {
			if out, err := exec.Command("losetup", "--detach", node).CombinedOutput(); err != nil {
				t.Errorf("detach %s: %v: %s", node, err, out)
			}
		}
	})
	return node
}

func backing(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64<<20); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoopDevicesOnADiskAreDetachedTopDown(t *testing.T) {
	disk := loop(t, backing(t))
	middle := loop(t, disk)
	top := loop(t, middle)
	steps, err := Down(context.Background(), real(), filepath.Base(disk))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(steps), filepath.Base(top)+" "+filepath.Base(middle); got != want {
		t.Errorf("removed %s, want %s", got, want)
	}
	f, err := os.OpenFile(disk, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatalf("the disk is not free: %v", err)
	}
	f.Close()
	if steps, err = Down(context.Background(), real(), filepath.Base(disk)); err != nil || len(steps) != 0 {
		t.Errorf("a free disk: %v, %v", steps, err)
	}
}

func TestADiskWithAMountedFileSystemStaysAsItIs(t *testing.T) {
	disk := loop(t, backing(t))
	top := loop(t, disk)
	if out, err := exec.Command("mkfs.ext4", "-q", top).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	dir := t.TempDir()
	if err := unix.Mount(top, dir, "ext4", 0, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	_, err := Down(context.Background(), real(), filepath.Base(disk))
	if err == nil || !strings.Contains(err.Error(), "is mounted at "+dir) {
		t.Fatalf("got %v", err)
	}
	if b, err := os.ReadFile("/sys/block/" + filepath.Base(top) + "/loop/backing_file"); err != nil || strings.TrimSpace(string(b)) != disk {
		t.Errorf("the loop device on it is gone: %q, %v", b, err)
	}
}

func TestAHolderThatTheKernelDoesNotNameIsNoticed(t *testing.T) {
	disk := loop(t, backing(t))
	f, err := os.OpenFile(disk, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Down(context.Background(), real(), filepath.Base(disk)); err == nil || !strings.Contains(err.Error(), "in use by something that the kernel does not name") {
		t.Errorf("got %v", err)
	}
}
