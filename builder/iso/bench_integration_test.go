//go:build integration

package iso

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"imgbuild/builder/tool"
	"imgbuild/image"
)

// BenchmarkMediumAgainstXorrisoAndDd writes the medium of the release in IMGBUILD_BENCH_RELEASE, then a plain ISO 9660 of the same files
// with xorriso alone, which starts no machine, then as many bytes with dd, which waits for the disk as xorriso does. The EFI programs
// are as large as a distribution's, and the loader for BIOS is this host's. IMGBUILD_BENCH_DIR is where all are written.
func BenchmarkMediumAgainstXorrisoAndDd(b *testing.B) {
	release := os.Getenv("IMGBUILD_BENCH_RELEASE")
	if release == "" {
		b.Skip("IMGBUILD_BENCH_RELEASE= names no release; scripts/bench.sh makes one")
	}
	needTools(b, "xorriso", "mkfs.vfat", "mmd", "mcopy", "dd")
	data, err := os.ReadFile(filepath.Join(release, image.ManifestFile))
	if err != nil {
		b.Fatal(err)
	}
	manifest, err := image.Parse(data)
	if err != nil {
		b.Fatal(err)
	}
	m := Medium{
		Manifest: manifest, Dir: release, BIOS: biosOfHost(b),
		UEFI: &UEFI{Shim: bytes.Repeat([]byte("shim"), 240_000), Loader: bytes.Repeat([]byte("grub"), 650_000), MokManager: bytes.Repeat([]byte("mokm"), 215_000)},
	}
	dir, err := os.MkdirTemp(os.Getenv("IMGBUILD_BENCH_DIR"), "iso-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	ours, plain, copied := filepath.Join(dir, image.ISOFile), filepath.Join(dir, "plain.iso"), filepath.Join(dir, "dd.iso")
	timed := func(f func()) time.Duration {
		peer(b, "sync", "-f", dir) // what was written before is not waited for again
		begun := time.Now()
		f()
		return time.Since(begun)
	}
	var tOurs, tPlain, tDd time.Duration
	for b.Loop() {
		for _, f := range []string{ours, plain, copied} {
			if err := os.RemoveAll(f); err != nil {
				b.Fatal(err)
			}
		}
		tOurs += timed(func() {
			if err := m.Write(b.Context(), tool.NewRunner(io.Discard), dir, ours, nil); err != nil {
				b.Fatal(err)
			}
		})
		tPlain += timed(func() {
			argv := []string{"xorriso", "-as", "mkisofs", "-quiet", "-o", plain, "-iso-level", "3", "-r", "-graft-points"}
			for _, name := range m.files() {
				argv = append(argv, "/"+name+"="+filepath.Join(release, name))
			}
			peer(b, argv...)
		})
		tDd += timed(func() { peer(b, "dd", "if="+ours, "of="+copied, "bs=4M", "conv=fsync") })
	}
	size := sizeOf(b, ours)
	speed := func(t time.Duration) float64 { return float64(size) * float64(b.N) / 1e6 / t.Seconds() }
	rootfs := manifest.Files[image.RootfsFile].Size
	fmt.Printf("\n  %s %s: the medium has %.1f MiB, the root file system %.1f MiB, all files of the release %.1f MiB, a plain ISO of them %.1f MiB\n", manifest.Name, manifest.Version,
		float64(size)/(1<<20), float64(rootfs)/(1<<20), float64(releaseSize(b, m))/(1<<20), float64(sizeOf(b, plain))/(1<<20))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size)/float64(rootfs), "of-squashfs-size")
	b.ReportMetric(tOurs.Seconds()/float64(b.N), "medium-s")
	b.ReportMetric(speed(tOurs), "medium-MB/s")
	b.ReportMetric(speed(tPlain), "plain-xorriso-MB/s")
	b.ReportMetric(speed(tDd), "dd-MB/s")
	b.ReportMetric(tOurs.Seconds()/tPlain.Seconds(), "of-plain-xorriso-time")
	b.ReportMetric(tOurs.Seconds()/tDd.Seconds(), "of-dd-time")
}

func sizeOf(b *testing.B, file string) int64 {
	b.Helper()
	st, err := os.Stat(file)
	if err != nil {
		b.Fatal(err)
	}
	return st.Size()
}

// releaseSize is what the medium cannot do without.
func releaseSize(b *testing.B, m Medium) (sum int64) {
	b.Helper()
	for _, name := range m.files() {
		sum += sizeOf(b, filepath.Join(m.Dir, name))
	}
	return sum
}
