//go:build integration

package stick

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// BenchmarkWriteAgainstDdAndCmp writes the medium in IMGBUILD_BENCH_ISO to a loop device and reads it back; then dd writes it there, and cmp
// compares what the device gives back with the file. The device's file is in IMGBUILD_BENCH_DIR, and the kernel goes past the page cache to it.
func BenchmarkWriteAgainstDdAndCmp(b *testing.B) {
	medium := os.Getenv("IMGBUILD_BENCH_ISO")
	if medium == "" {
		b.Skip("IMGBUILD_BENCH_ISO= names no medium; scripts/bench.sh makes one")
	}
	image, err := OpenImage(medium)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { image.Close() })
	dir, err := os.MkdirTemp(os.Getenv("IMGBUILD_BENCH_DIR"), "stick-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	node, _ := loopIn(b, dir, roundUp(image.Size, block)+block, "--direct-io=on")
	var ours, dd, cmp time.Duration
	for b.Loop() {
		run(b, "sync", "-f", dir) // what was written before is not waited for again
		begun := time.Now()
		target, err := Host().Claim(image, node, true)
		if err != nil {
			b.Fatal(err)
		}
		if err := target.Write(b.Context(), &events{}); err != nil {
			b.Fatal(err)
		}
		if err := target.Close(); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(begun)
		run(b, "sync", "-f", dir)
		begun = time.Now()
		run(b, "dd", "if="+medium, "of="+node, "bs=4M", "conv=fsync")
		dd += time.Since(begun)
		begun = time.Now()
		run(b, "blockdev", "--flushbufs", node) // or it would be compared with what dd left in memory
		run(b, "cmp", "--bytes="+strconv.FormatInt(image.Size, 10), medium, node)
		cmp += time.Since(begun)
	}
	speed := func(t time.Duration) float64 { return float64(image.Size) * float64(b.N) / 1e6 / t.Seconds() }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.Seconds()/float64(b.N), "write-s")
	b.ReportMetric(speed(ours), "write-MB/s")
	b.ReportMetric(speed(dd), "dd-MB/s")
	b.ReportMetric(speed(dd+cmp), "dd-and-cmp-MB/s")
	b.ReportMetric(ours.Seconds()/dd.Seconds(), "of-dd-time")
	b.ReportMetric(ours.Seconds()/(dd+cmp).Seconds(), "of-dd-and-cmp-time")
}
