package relay

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestARateIsSharedAndKept(t *testing.T) {
	const mib = 1 << 20
	for _, rate := range []int64{100 << 10, mib, 64 * mib} {
		synctest.Test(t, func(t *testing.T) {
			p := newPace()
			p.set(rate)
			begun := time.Now()
			var group sync.WaitGroup
			got := make([]int64, 4)
			for k := range got {
				group.Go(func() {
					for time.Since(begun) < 10*time.Second {
						n, err := p.wait(t.Context(), 256<<10)
						if err != nil || n <= 0 || n > 256<<10 {
							t.Error(n, err)
						}
						got[k] += int64(n)
					}
				})
			}
			group.Wait()
			sum := int64(0)
			for _, n := range got {
				sum += n
				if want := float64(rate) * 10 / 4; math.Abs(float64(n)-want) > want/10+256<<10 {
					t.Errorf("%d bytes a second: one of four got %d in 10 s and not %.0f", rate, n, want)
				}
			}
			if is := float64(sum) / time.Since(begun).Seconds(); math.Abs(is/float64(rate)-1) > 0.1 {
				t.Errorf("%d bytes a second became %.0f", rate, is)
			}
		})
	}
}

func TestARateThatWasNotUsedIsNotMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		p.set(1 << 20)
		time.Sleep(time.Hour)
		begun, sum := time.Now(), 0
		for time.Since(begun) == 0 {
			n, _ := p.wait(t.Context(), 1<<20)
			sum += n
		}
		if sum > 3*leastBurst {
			t.Errorf("%d bytes at once", sum)
		}
	})
}

func TestANewRateCountsForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		p.set(1) // 64 KiB take 18 h
		begun := time.Now()
		time.AfterFunc(time.Second, func() { p.set(leastBurst) })
		if n, err := p.wait(t.Context(), 1<<20); n != leastBurst || err != nil || time.Since(begun) > 3*time.Second {
			t.Errorf("%d, %v after %s", n, err, time.Since(begun))
		}
		time.AfterFunc(time.Second/2, func() { p.set(0) })
		if n, err := p.wait(t.Context(), 1<<20); n != 1<<20 || err != nil || time.Since(begun) > 3*time.Second {
			t.Errorf("%d, %v after %s", n, err, time.Since(begun))
		}
		p.set(1)
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		for range 2 { // one waits for bytes, the other for its turn
			go func() {
				if _, err := p.wait(ctx, 1<<20); !errors.Is(err, stop) {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		cancel(stop)
	})
}
