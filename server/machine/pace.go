package machine

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

// mostClients bounds how many addresses are remembered.
const mostClients = 50000

// pace lets each address make so many requests a second, ten times as many at once. What it remembers of an address is
// when it would be even again (a leaky bucket in one number).
type pace struct {
	each  time.Duration // between requests; 0 is no limit
	burst time.Duration

	mu   sync.Mutex
	even map[netip.Addr]time.Time
}

func newPace(perSecond float64) *pace {
	p := &pace{even: map[netip.Addr]time.Time{}}
	if perSecond > 0 {
		p.each = time.Duration(float64(time.Second) / perSecond)
		p.burst = 10 * max(p.each, time.Second)
	}
	return p
}

func (p *pace) allow(client netip.Addr, now time.Time) bool {
	if p.each == 0 {
		return true
	}
	if client.Is6() { // one machine has a whole /64
		if n, err := client.Prefix(64); err == nil {
			client = n.Addr()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	even := p.even[client]
	if even.Before(now) {
		even = now
	}
	if even.Sub(now) > p.burst-p.each {
		return false
	}
	if len(p.even) >= mostClients {
		maps.DeleteFunc(p.even, func(_ netip.Addr, t time.Time) bool { return !t.After(now) })
		if len(p.even) >= mostClients {
			clear(p.even)
		}
	}
	p.even[client] = even.Add(p.each)
	return true
}
