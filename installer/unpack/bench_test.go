//go:build integration

package unpack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/installer/blob"
	"imgbuild/installer/fetch"
	"imgbuild/installer/report"
	"imgbuild/installer/transfer"
	"imgbuild/installer/unpack"
)

// Variables of the benchmark's own child process: what to unpack, and where to.
const (
	childImage   = "IMGBUILD_BENCH_CHILD_IMAGE" // its path, or its URL if childTable is set
	childDest    = "IMGBUILD_BENCH_CHILD_DEST"
	childTable   = "IMGBUILD_BENCH_CHILD_TABLE" // a file with the image's description as the manifest has it
	childWorkers = "IMGBUILD_BENCH_CHILD_WORKERS"
)

func TestMain(m *testing.M) {
	if os.Getenv(childImage) == "" {
		os.Exit(m.Run())
	}
	run := local
	if os.Getenv(childTable) != "" {
		run = fetched
	}
	if err := run(os.Getenv(childImage), os.Getenv(childDest)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// local unpacks a file in a process of its own, whose time and memory can then be measured as those of any other.
func local(img, dest string) error {
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

// fetched unpacks an image while it is fetched and checked, with as little memory for it as the installer ever takes.
func fetched(url, dest string) error {
	table, err := os.ReadFile(os.Getenv(childTable))
	if err != nil {
		return err
	}
	var f image.File
	if err := json.Unmarshal(table, &f); err != nil {
		return err
	}
	say := report.New(stderr{})
	t, err := transfer.New(transfer.Options{
		Report: say, Fetcher: fetch.New(fetch.Options{Report: say}), Size: f.Size, Chunks: f.Chunks, URLs: []string{url}, Memory: blob.MinMemory,
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- t.Run(context.Background()) }()
	_, err = unpack.Unpack(context.Background(), t.Blob(), f.Size, dest, unpack.Options{})
	return errors.Join(err, t.Close(), <-ended)
}

type stderr struct{}

func (stderr) Line(_ report.Class, text string) { fmt.Fprintln(os.Stderr, text) }

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

// measure runs a program that fills a directory. What was written before is synced first.
func measure(b *testing.B, cmd *exec.Cmd) usage {
	b.Helper()
	unix.Sync()
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	u := usage{wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	u.peak = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	return u
}

// child is this program again, to unpack an image.
func child(b *testing.B, img, dest string, env ...string) *exec.Cmd {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), childImage+"="+img, childDest+"="+dest), env...)
	return cmd
}

// benchImage is IMGBUILD_BENCH_SQUASHFS or else an image of this host's /usr/share and /usr/lib with zstd at level 9.
func benchImage(b *testing.B) (path string, size int64) {
	b.Helper()
	img := os.Getenv("IMGBUILD_BENCH_SQUASHFS")
	if img == "" {
		img = filepath.Join(b.TempDir(), "usr.squashfs")
		tool(b, "mksquashfs", "/usr/lib/x86_64-linux-gnu", "/usr/share", img, "-noappend", "-no-progress", "-quiet", "-comp", "zstd", "-Xcompression-level", "9")
	}
	st, err := os.Stat(img)
	if err != nil {
		b.Fatal(err)
	}
	return img, st.Size()
}

// places returns what gives an empty directory for one run, and a function that removes it. They are in
// IMGBUILD_BENCH_DIR or else in the temporary directory. On a tmpfs they are just directories. Elsewhere each is an ext4
// of its own in a file there, as a machine that is installed has it: one from which a tree was just removed looks for
// inodes that were not used lately, which takes longer than all else.
func places(b *testing.B) func() (string, func()) {
	b.Helper()
	dir := os.Getenv("IMGBUILD_BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		b.Fatal(err)
	}
	dest, disk := filepath.Join(dir, "unpacked"), filepath.Join(dir, "disk")
	fresh := fs.Type != unix.TMPFS_MAGIC
	if fresh {
		needRoot(b, "mkfs.ext4", "mount")
	}
	return func() (string, func()) {
		b.Helper()
		if err := os.Mkdir(dest, 0o755); err != nil {
			b.Fatal(err)
		}
		if fresh {
			if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 16<<30)); err != nil {
				b.Fatal(err)
			}
			tool(b, "mkfs.ext4", "-q", "-F", disk)
			tool(b, "mount", "-t", "ext4", "-o", "loop,noinit_itable", disk, dest)
		}
		return dest, func() {
			if fresh {
				tool(b, "umount", dest)
				if err := os.Remove(disk); err != nil {
					b.Error(err)
				}
			}
			if err := os.RemoveAll(dest); err != nil {
				b.Error(err)
			}
		}
	}
}

// once unpacks with a program into a place of its own.
func once(b *testing.B, place func() (string, func()), program func(dest string) *exec.Cmd) usage {
	b.Helper()
	dest, remove := place()
	defer remove()
	return measure(b, program(dest))
}

// BenchmarkUnpackAgainstUnsquashfs unpacks one image by turns with this package and with unsquashfs, in two processes, on
// one file system: see benchImage and places. Figures are per run.
func BenchmarkUnpackAgainstUnsquashfs(b *testing.B) {
	needRoot(b, "mksquashfs", "unsquashfs")
	img, size := benchImage(b)
	place := places(b)
	var ours, peer usage
	for b.Loop() {
		ours.add(once(b, place, func(dest string) *exec.Cmd { return child(b, img, dest) }))
		peer.add(once(b, place, func(dest string) *exec.Cmd {
			return exec.Command("unsquashfs", "-n", "-quiet", "-f", "-d", dest, img)
		}))
	}
	n := float64(b.N)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size)/(1<<20), "image-MiB")
	b.ReportMetric(ours.wall.Seconds()/n, "unpack-s")
	b.ReportMetric(peer.wall.Seconds()/n, "unsquashfs-s")
	b.ReportMetric(peer.wall.Seconds()/ours.wall.Seconds(), "x-as-fast")
	b.ReportMetric(ours.cpu.Seconds()/n, "unpack-cpu-s")
	b.ReportMetric(peer.cpu.Seconds()/n, "unsquashfs-cpu-s")
	b.ReportMetric(float64(ours.peak)/(1<<20), "unpack-peak-MiB")
	b.ReportMetric(float64(peer.peak)/(1<<20), "unsquashfs-peak-MiB")
}

// BenchmarkUnpackWhileFetched unpacks one image by turns from a file and from a web server on this machine, fetched and
// checked as it comes. The web server is this process, which takes its share of the CPUs.
func BenchmarkUnpackWhileFetched(b *testing.B) {
	needRoot(b, "mksquashfs")
	img, size := benchImage(b)
	place := places(b)
	f, err := os.Open(img)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	described, err := image.Describe(f, true)
	if err != nil {
		b.Fatal(err)
	}
	text, err := json.Marshal(described)
	if err != nil {
		b.Fatal(err)
	}
	table := filepath.Join(b.TempDir(), "table.json")
	if err := os.WriteFile(table, text, 0o600); err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, img) })}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			b.Error(err)
		}
	}()
	defer server.Close()
	url := "http://" + l.Addr().String() + "/" + image.RootfsFile
	var here, there usage
	for b.Loop() {
		here.add(once(b, place, func(dest string) *exec.Cmd { return child(b, img, dest) }))
		there.add(once(b, place, func(dest string) *exec.Cmd { return child(b, url, dest, childTable+"="+table) }))
	}
	n := float64(b.N)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size)/(1<<20), "image-MiB")
	b.ReportMetric(here.wall.Seconds()/n, "local-s")
	b.ReportMetric(there.wall.Seconds()/n, "fetched-s")
	b.ReportMetric(100*(there.wall.Seconds()/here.wall.Seconds()-1), "%-more")
	b.ReportMetric(here.cpu.Seconds()/n, "local-cpu-s")
	b.ReportMetric(there.cpu.Seconds()/n, "fetched-cpu-s")
	b.ReportMetric(float64(here.peak)/(1<<20), "local-peak-MiB")
	b.ReportMetric(float64(there.peak)/(1<<20), "fetched-peak-MiB")
}
