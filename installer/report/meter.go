package report

import (
	"math"
	"sync"
	"time"
)

// smoothing is the time over which a Meter's rate forgets: long enough that a progress line does not jump, short
// enough that a stalled transfer shows.
const smoothing = 5 * time.Second

// Meter measures the rate of something that grows and tells when it will be complete. It may be used from several
// goroutines.
type Meter struct {
	what  string
	total int64
	now   func() time.Time

	mu      sync.Mutex
	done    int64
	rate    float64 // bytes a second, exponentially smoothed
	weight  float64 // how much of the rate rests on measurements: 0 at first, towards 1
	pending int64   // bytes since last
	last    time.Time
}

// NewMeter starts the clock. Total is in bytes, 0 if it is not known.
func NewMeter(what string, total int64) *Meter {
	return newMeter(what, total, time.Now)
}

func newMeter(what string, total int64, now func() time.Time) *Meter {
	return &Meter{what: what, total: total, now: now, last: now()}
}

// Set says how many bytes there are now.
func (m *Meter) Set(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending += done - m.done
	m.done = done
	m.settle()
}

// settle folds what came since the last time into the rate. Steps shorter than a tenth of a second are collected first:
// one buffer more or less would otherwise be the whole measurement.
func (m *Meter) settle() {
	now := m.now()
	step := now.Sub(m.last)
	if step < 100*time.Millisecond {
		return
	}
	keep := math.Exp(-step.Seconds() / smoothing.Seconds())
	m.rate = m.rate*keep + max(float64(m.pending), 0)/step.Seconds()*(1-keep)
	m.weight = m.weight*keep + (1 - keep)
	m.pending, m.last = 0, now
}

// Progress is the state now; time that passed without news lowers the rate.
func (m *Meter) Progress() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle()
	p := Progress{What: m.what, Done: m.done, Total: m.total}
	if m.weight > 0 {
		p.Rate = m.rate / m.weight
	}
	if p.Rate >= 1 && m.total > m.done {
		seconds := float64(m.total-m.done) / p.Rate
		if seconds < 365*24*3600 {
			p.Left = time.Duration(seconds * float64(time.Second))
		}
	}
	return p
}
