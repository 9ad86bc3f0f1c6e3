//go:build integration && !notorrent

package torrent

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// BenchmarkChain prints how near the last machine of a chain gets to what its links can do: each is as fast up as down, and
// all begin with nothing at the same time. The links are the clients' own rates, so a busy machine makes them slower than
// cables would be.
func BenchmarkChain(b *testing.B) {
	const size, rate = 64 << 20, 4 << 20
	c := random(b, size)
	for _, n := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("%d machines", n), func(b *testing.B) {
			for b.Loop() {
				best := float64(size) / rate
				b.ReportMetric(100*best/chain(b, c, n, rate).Seconds(), "%limit")
			}
		})
	}
}

// chain returns how long n machines take that are told to read from each other, the first from a seed.
func chain(t testing.TB, c content, n int, rate int64) time.Duration {
	nodes := []*node{start(t, c, roomy, nil)}
	nodes[0].fill(t, c)
	nodes[0].SetRates(0, rate)
	begun := time.Now()
	var all sync.WaitGroup
	for range n {
		m := start(t, c, roomy, nil)
		m.SetRates(rate, rate)
		m.SetPeers([]string{nodes[len(nodes)-1].address()})
		nodes = append(nodes, m)
		all.Go(func() {
			if err := m.readAll(c); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	took := time.Since(begun)
	for _, m := range nodes {
		m.Close()
	}
	return took
}

// BenchmarkOne prints how fast one machine reads from another without any limit, and what that costs.
func BenchmarkOne(b *testing.B) {
	const size = 256 << 20
	c := random(b, size)
	b.SetBytes(size)
	for b.Loop() {
		chain(b, c, 1, 0)
	}
}
