package dhcp

import "time"

// A client's boot takes some twelve messages in a minute or two (firmware, iPXE, installer); what loops sends that many in
// seconds.
const (
	burst     = 24
	perSecond = 1
	maxBucket = 1 << 16 // clients that are remembered
)

// limiter bounds how many messages of one client are answered. It is not safe for concurrent use.
type limiter struct {
	buckets map[string]*bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
	told   bool
}

func newLimiter() *limiter { return &limiter{buckets: map[string]*bucket{}} }

// allow takes a token. first is true for the first message of a client that is refused since it was last quiet.
func (l *limiter) allow(key string, now time.Time) (ok, first bool) {
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxBucket && !l.sweep(now) {
			return false, false
		}
		b = &bucket{tokens: burst, at: now}
		l.buckets[key] = b
	}
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(burst, b.tokens+d.Seconds()*perSecond)
		b.at = now
	}
	if b.tokens == burst {
		b.told = false
	}
	if b.tokens < 1 {
		first, b.told = !b.told, true
		return false, first
	}
	b.tokens--
	return true, false
}

// sweep forgets clients that have been quiet, at most once a second, and reports whether there is room.
func (l *limiter) sweep(now time.Time) bool {
	if d := now.Sub(l.swept); d >= 0 && d < time.Second {
		return false
	}
	l.swept = now
	for k, b := range l.buckets {
		if now.Sub(b.at).Seconds()*perSecond >= burst-b.tokens {
			delete(l.buckets, k)
		}
	}
	return len(l.buckets) < maxBucket
}
