package boot

import (
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// mostClients bounds how many addresses are remembered.
const mostClients = 50000

// Pace lets each address make so many requests a second, and ten times as many at once. What it remembers of an address
// is when it would be even again (a leaky bucket in one number).
type Pace struct {
	each  time.Duration // between requests; 0 is no limit
	burst time.Duration

	mu   sync.Mutex
	even map[netip.Addr]time.Time
}

// DefaultRate is how many requests a second one address may make. A machine makes some ten in a minute; behind a load
// balancer or a proxy many share an address.
const DefaultRate = 500

// NewPace returns a Pace: 0 is DefaultRate, less than 0 no limit.
func NewPace(perSecond float64) *Pace {
	p := &Pace{even: map[netip.Addr]time.Time{}}
	if perSecond == 0 {
		perSecond = DefaultRate
	}
	if perSecond > 0 {
		p.each = time.Duration(float64(time.Second) / perSecond)
		p.burst = 10 * max(p.each, time.Second)
	}
	return p
}

// Client is the address that a request comes from. It is trusted for nothing but fairness.
func Client(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// Allow counts a request and reports whether it is within the limit.
func (p *Pace) Allow(client netip.Addr, now time.Time) bool {
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
