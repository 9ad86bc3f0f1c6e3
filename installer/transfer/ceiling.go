package transfer

import (
	"sync"
	"time"
)

// Ceiling says how fast a transfer could be at best: the largest of the image's size over what its source gives, its size
// over the link, and its unpacked size over what the disk writes. What is not known is left out.
type Ceiling struct {
	Size, Unpacked int64 // bytes
	// From is what the bytes come from, in messages; "network".
	From string
	// Link is the network card's rate in bytes a second; 0 if it is not known.
	Link float64
	// Disk tells how many bytes the disks have written since they were started, and for how long they were busy with that; nil
	// if nobody can say.
	Disk func() (written int64, busy time.Duration)
}

// minBusy is how long disks have to have been busy before their rate is believed.
const minBusy = 500 * time.Millisecond

// ceiling measures against a Ceiling.
type ceiling struct {
	Ceiling
	start       time.Time
	diskWritten int64
	diskBusy    time.Duration

	mu     sync.Mutex
	window sample
	best   float64 // the source's best rate over a window, in bytes a second
}

type sample struct {
	at  time.Time
	got int64
}

// windowLength is over how long a source's rate is taken: long enough that a full socket buffer is not one.
const windowLength = 2 * time.Second

func newCeiling(c Ceiling, now time.Time) *ceiling {
	if c.From == "" {
		c.From = "network"
	}
	m := &ceiling{Ceiling: c, start: now, window: sample{at: now}}
	if c.Disk != nil {
		m.diskWritten, m.diskBusy = c.Disk()
	}
	return m
}

// percent is how much of the possible a transfer of which got bytes have come is, and what bounds it: From or disk. It
// is false as long as that is not known.
func (m *ceiling) percent(got int64, now time.Time) (share float64, by string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := now.Sub(m.window.at); d >= windowLength {
		m.best = max(m.best, float64(got-m.window.got)/d.Seconds())
		m.window = sample{now, got}
	}
	least, by := m.least()
	elapsed := now.Sub(m.start).Seconds()
	if least <= 0 || got <= 0 || elapsed < windowLength.Seconds() || m.Size <= 0 {
		return 0, "", false
	}
	whole := elapsed * float64(m.Size) / float64(got) // what all of it takes at this pace
	return min(least/whole, 1), by, true
}

// least is the least time that all of it can take, in seconds, and what it is bounded by.
func (m *ceiling) least() (seconds float64, by string) {
	if m.best > 0 {
		seconds, by = float64(m.Size)/m.best, m.From
	}
	if m.Link > 0 {
		if s := float64(m.Size) / m.Link; s > seconds {
			seconds, by = s, m.From
		}
	}
	if m.Disk != nil && m.Unpacked > 0 {
		written, busy := m.Disk()
		written, busy = written-m.diskWritten, busy-m.diskBusy
		if busy >= minBusy && written > 0 {
			if s := float64(m.Unpacked) / (float64(written) / busy.Seconds()); s > seconds {
				seconds, by = s, "disk"
			}
		}
	}
	return seconds, by
}
