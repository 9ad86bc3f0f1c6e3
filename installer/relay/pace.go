package relay

import (
	"context"
	"sync"
	"time"
)

// leastBurst is what may be sent at once at any rate, in bytes.
const leastBurst = 64 << 10

// burstTime is for how long a rate may have been unused and still be made up for.
const burstTime = 50 * time.Millisecond

// pace bounds a rate that several share, a piece each in turn: a bucket of tokens, one a byte.
type pace struct {
	turn chan struct{} // holds a token: whoever takes it waits for bytes, the others for it

	mu      sync.Mutex
	rate    int64 // bytes a second; 0 is no limit
	tokens  float64
	last    time.Time     // when tokens were counted
	changed chan struct{} // closed when the rate was changed, then replaced
}

func newPace() *pace {
	p := &pace{turn: make(chan struct{}, 1), changed: make(chan struct{})}
	p.turn <- struct{}{}
	return p
}

// set changes the rate, also for those who wait.
func (p *pace) set(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if rate == p.rate {
		return
	}
	p.count(time.Now())
	p.rate = max(rate, 0)
	close(p.changed)
	p.changed = make(chan struct{})
}

// count adds the tokens that came since the last time.
func (p *pace) count(now time.Time) {
	if !p.last.IsZero() {
		p.tokens += float64(p.rate) * now.Sub(p.last).Seconds()
	}
	p.tokens, p.last = min(p.tokens, max(float64(p.rate)*burstTime.Seconds(), leastBurst)), now
}

// wait returns how many of n bytes may be sent now, when at least one may.
func (p *pace) wait(ctx context.Context, n int) (int, error) {
	p.mu.Lock()
	unlimited := p.rate == 0
	p.mu.Unlock()
	if unlimited {
		return n, nil
	}
	select {
	case <-p.turn:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { p.turn <- struct{}{} }()
	for {
		p.mu.Lock()
		if p.rate == 0 {
			p.mu.Unlock()
			return n, nil
		}
		p.count(time.Now())
		n := min(n, leastBurst)
		missing := float64(n) - p.tokens
		if missing <= 0 {
			p.tokens -= float64(n)
			p.mu.Unlock()
			return n, nil
		}
		pause := time.Duration(missing / float64(p.rate) * float64(time.Second))
		changed := p.changed
		p.mu.Unlock()
		timer := time.NewTimer(pause + time.Microsecond)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return 0, context.Cause(ctx)
		}
		timer.Stop()
	}
}
