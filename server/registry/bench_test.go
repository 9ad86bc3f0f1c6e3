package registry

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"imgbuild/image/plan"
)

// A benchmark's writers come from 64 goroutines for each processor, as a server's do.
const writers = 64

func eachBench(b *testing.B, f func(*testing.B, *Store)) {
	for _, c := range []struct {
		name string
		dsn  func(testing.TB) string
	}{
		{"sqlite", func(t testing.TB) string { return filepath.Join(t.TempDir(), "registry.db") }},
		{"postgres", func(t testing.TB) string { return postgresDSN(t) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, err := Open(b.Context(), c.dsn(b))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.ReportAllocs()
			b.ResetTimer()
			f(b, s)
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	eachBench(b, func(b *testing.B, s *Store) {
		b.SetParallelism(writers)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := s.Append(b.Context(), Event{SN: "SN-1", Kind: "info", Text: "something has happened"}); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkReport is what 1000 installing machines send: a step or a progress every ten seconds, or nothing but that they
// are there.
func BenchmarkReport(b *testing.B) {
	eachBench(b, func(b *testing.B, s *Store) {
		now := time.Now()
		var orders []string
		for i := range 1000 {
			orders = append(orders, begin(b, s, i, now))
		}
		var n atomic.Int64
		b.SetParallelism(writers)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				i := n.Add(1)
				var events []plan.Event
				if i%2 == 0 {
					events = []plan.Event{{Seq: i, Kind: plan.KindProgress, Text: "rootfs", Done: i, Total: 1 << 30, Rate: 1e8}}
				}
				if _, err := s.Report(b.Context(), orders[i%1000], events, now); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkBoot is one machine's way from its registration to its slot.
func BenchmarkBoot(b *testing.B) {
	eachBench(b, func(b *testing.B, s *Store) {
		now := time.Now()
		var n atomic.Int64
		b.SetParallelism(writers)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				begin(b, s, int(n.Add(1)), now)
			}
		})
	})
}

// begin brings a machine to where it installs.
func begin(b *testing.B, s *Store, i int, now time.Time) string {
	ctx, sn, digest := b.Context(), fmt.Sprintf("SN-%05d", i), fmt.Sprintf("boot-%d", i)
	if _, _, err := s.PutHost(ctx, Host{SN: sn, Hostname: "host", IP: "10.0.0.7", Netmask: "8"}, "alice", 0); err != nil {
		b.Fatal(err)
	}
	o, err := s.CreateOrder(ctx, Order{SN: sn, Image: "web/1.0", By: "alice", Reason: "a bench"}, 1)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Offer(ctx, sn, o.ID, digest, now); err != nil {
		b.Fatal(err)
	}
	if _, err := s.Consume(ctx, o.ID, digest, now); err != nil {
		b.Fatal(err)
	}
	if _, err := s.StartOrder(ctx, o.ID, "token-"+digest, SlotLimits{}, now); err != nil {
		b.Fatal(err)
	}
	return o.ID
}

func BenchmarkHostAndLiveOrder(b *testing.B) {
	eachBench(b, func(b *testing.B, s *Store) {
		begin(b, s, 1, time.Now())
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Host(b.Context(), "SN-00001"); err != nil {
					b.Error(err)
				}
				if _, err := s.LiveOrder(b.Context(), "SN-00001"); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
