package fetch

import (
	"context"
	"sync"
	"time"
)

// pace lets bytes through at a rate that may change at any time. Whoever read some waits until they are due.
type pace struct {
	now func() time.Time

	mu   sync.Mutex
	rate int64     // bytes a second; 0 is no limit
	due  time.Time // when all that was let through until now is due
}

func newPace(rate int64) *pace { return &pace{now: time.Now, rate: max(rate, 0)} }

func (p *pace) set(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate = max(rate, 0); p.rate == 0 {
		p.due = time.Time{}
	}
}

// piece is how much to read at once, at most n: a twentieth of a second's worth.
func (p *pace) piece(n int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return n
	}
	return min(n, max(p.rate/20, 512))
}

// take counts n bytes and says how long to wait after them.
func (p *pace) take(n int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return 0
	}
	now := p.now()
	if p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return p.due.Sub(now)
}

// wait counts n bytes with all the paces and waits for the slowest.
func wait(ctx context.Context, n int64, paces ...*pace) error {
	var longest time.Duration
	for _, p := range paces {
		longest = max(longest, p.take(n))
	}
	if longest <= 0 {
		return nil
	}
	return sleep(ctx, longest)
}
