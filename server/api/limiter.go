package api

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

// A client may send so many wrong tokens at once, and one more each refill, before it has to wait. Guessing 256 bits is
// hopeless anyway; this keeps a script that has gone astray from keeping the database busy and the log full.
const (
	maxWrong = 10
	refill   = 6 * time.Second
	// maxClients bounds the memory of a limiter: when it is full, those that need not wait are forgotten, then any half.
	maxClients = 10000
	// goodFor is how long a token that was right passes although its client sent wrong ones: others may share its address.
	goodFor = 10 * time.Minute
)

// limiter counts wrong tokens by the client's address: by /64 for IPv6, of which every client has a whole one.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex
	wrong   map[netip.Prefix]time.Time // when the client's debt is paid
	correct map[[sha256.Size]byte]time.Time
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, wrong: map[netip.Prefix]time.Time{}, correct: map[[sha256.Size]byte]time.Time{}}
}

func clientKey(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // an address that is none shares one account
	}
	return p
}

// blocked says whether the client has to wait, and how long.
func (l *limiter) blocked(client netip.Addr, secret string) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	debt := l.wrong[clientKey(client)].Sub(now)
	if debt <= (maxWrong-1)*refill {
		return 0, false
	}
	if until, ok := l.correct[digest(secret)]; ok && now.Before(until) {
		return 0, false
	}
	return debt - (maxWrong-1)*refill, true
}

// failed notes a wrong token.
func (l *limiter) failed(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, key := l.now(), clientKey(client)
	if len(l.wrong) >= maxClients {
		forget(l.wrong, now, maxClients/2)
	}
	paid := l.wrong[key]
	if paid.Before(now) {
		paid = now
	}
	l.wrong[key] = paid.Add(refill)
}

// good notes a token that was right.
func (l *limiter) good(secret string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if len(l.correct) >= maxClients {
		forget(l.correct, now, maxClients/2)
	}
	l.correct[digest(secret)] = now.Add(goodFor)
}

// forget drops what has passed and, if that is not enough, others until at most keep are left.
func forget[K comparable](m map[K]time.Time, now time.Time, keep int) {
	for k, t := range m {
		if !t.After(now) {
			delete(m, k)
		}
	}
	for k := range m {
		if len(m) <= keep {
			return
		}
		delete(m, k)
	}
}
