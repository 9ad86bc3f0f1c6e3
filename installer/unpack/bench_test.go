//go:build integration

package unpack_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/installer/unpack"
)

// Variables of the benchmark's own child process: what to unpack, and where to.
const (
	childImage   = "IMGBUILD_BENCH_CHILD_IMAGE"
	childDest    = "IMGBUILD_BENCH_CHILD_DEST"
	childWorkers = "IMGBUILD_BENCH_CHILD_WORKERS"
)

func TestMain(m *testing.M) {
	if os.Getenv(childImage) == "" {
		os.Exit(m.Run())
	}
	if err := child(os.Getenv(childImage), os.Getenv(childDest)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child unpacks in a process of its own, whose time and memory can then be measured as those of any other.
func child(img, dest string) error {
	f, err := os.Open(img)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	workers, err := strconv.Atoi(os.Getenv(childWorkers))
	if err != nil {
		workers = 0
	}
	_, err = unpack.Unpack(context.Background(), f, st.Size(), dest, unpack.Options{Workers: workers})
	return err
}

// usage is what a process took.
type usage struct {
	wall, cpu time.Duration
	peak      int64 // bytes
}

func (u *usage) add(v usage) {
	u.wall += v.wall
	u.cpu += v.cpu
	u.peak = max(u.peak, v.peak)
}

// measure runs a program that fills dest, and empties dest again. What earlier runs wrote is synced first.
func measure(b *testing.B, dest string, cmd *exec.Cmd) usage {
	b.Helper()
	unix.Sync()
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	u := usage{wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	u.peak = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	if err := os.RemoveAll(dest); err != nil {
		b.Fatal(err)
	}
	return u
}

// BenchmarkUnpackAgainstUnsquashfs unpacks one image by turns with this package and with unsquashfs, in two processes, on
// one file system. The image is IMGBUILD_BENCH_SQUASHFS or else made of this host's /usr/share and /usr/lib with
// zstd at level 9; the place is IMGBUILD_BENCH_DIR or else the temporary directory. Figures are per run.
func BenchmarkUnpackAgainstUnsquashfs(b *testing.B) {
	needRoot(b, "mksquashfs", "unsquashfs")
	img := os.Getenv("IMGBUILD_BENCH_SQUASHFS")
	if img == "" {
		img = filepath.Join(b.TempDir(), "usr.squashfs")
		tool(b, "mksquashfs", "/usr/lib/x86_64-linux-gnu", "/usr/share", img, "-noappend", "-no-progress", "-quiet", "-comp", "zstd", "-Xcompression-level", "9")
	}
	dir := os.Getenv("IMGBUILD_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	st, err := os.Stat(img)
	if err != nil {
		b.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	dest := filepath.Join(dir, "unpacked")
	var ours, peer usage
	for b.Loop() {
		if err := os.Mkdir(dest, 0o755); err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childImage+"="+img, childDest+"="+dest)
		ours.add(measure(b, dest, cmd))
		peer.add(measure(b, dest, exec.Command("unsquashfs", "-n", "-quiet", "-d", dest, img)))
	}
	n := float64(b.N)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(st.Size())/(1<<20), "image-MiB")
	b.ReportMetric(ours.wall.Seconds()/n, "unpack-s")
	b.ReportMetric(peer.wall.Seconds()/n, "unsquashfs-s")
	b.ReportMetric(peer.wall.Seconds()/ours.wall.Seconds(), "x-as-fast")
	b.ReportMetric(ours.cpu.Seconds()/n, "unpack-cpu-s")
	b.ReportMetric(peer.cpu.Seconds()/n, "unsquashfs-cpu-s")
	b.ReportMetric(float64(ours.peak)/(1<<20), "unpack-peak-MiB")
	b.ReportMetric(float64(peer.peak)/(1<<20), "unsquashfs-peak-MiB")
}
