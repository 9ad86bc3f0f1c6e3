package fetch

import (
	"cmp"
	"time"

	"imgbuild/image"
)

// view is what a decision knows of one source.
type view struct {
	tier    int
	relay   bool // another machine: it is read from by one connection, in order
	ordered bool // its chunks are to come in the order of the file
	whole   bool // it sends whole files only, and is asked after all that send ranges
	down    bool // it is not asked any more
	avoid   bool // it is not asked for this run
	// suspect is true from a fault until bytes come again, or an answer while others are in use. It is not asked before retry.
	suspect bool
	retry   time.Time
	probing bool    // somebody asks whether it is there again
	busy    int     // requests in flight, and workers that wait for work for it
	odd     int     // answers that made no sense, and bad chunks
	rate    float64 // what one connection brought lately, in bytes a second; 0 if nobody knows
}

func (v view) good() bool { return !v.down && !v.avoid && !v.suspect }

// wholeTier is added to the tier of a source that sends whole files only.
const wholeTier = 1 << 20

// LastResort is a tier after all smaller ones, also of sources that turn out to send whole files only.
const LastResort = 2 * wholeTier

// order is the source's tier; those that send whole files only come after all others below LastResort.
func (v view) order() int {
	if v.whole {
		return v.tier + wholeTier
	}
	return v.tier
}

// choice is the source to ask next, or why there is none.
type choice struct {
	index int // -1 if there is none
	// wait is when to choose again; 0 is when something changes.
	wait time.Duration
	// whole is true if what is left sends whole files only.
	whole bool
	// over is true if every source is down, alone if every one that is not is to be avoided.
	over, alone bool
}

// choose says which source a worker that is free is to ask. The lowest tier with a good source is used, its sources
// together: the one with the fewest requests first. If none is good, those that are not down
// are tried with one request each.
func choose(now time.Time, views []view, connections int) choice {
	if order, ok := inUse(views); ok {
		best := -1
		for i, v := range views {
			if v.good() && v.order() == order && v.busy < slots(views, order, v, connections) &&
				(best < 0 || cmp.Or(cmp.Compare(v.busy, views[best].busy), cmp.Compare(v.odd, views[best].odd), cmp.Compare(views[best].rate, v.rate)) < 0) {
				best = i
			}
		}
		return choice{index: best, whole: best >= 0 && views[best].whole}
	}
	c := choice{index: -1, over: len(views) > 0, alone: true}
	best := -1
	for i, v := range views {
		c.over = c.over && v.down
		c.alone = c.alone && (v.down || v.avoid)
		if !v.down && !v.avoid && v.busy == 0 && (best < 0 || before(now, v, views[best])) {
			best = i
		}
	}
	switch {
	case best < 0:
	case views[best].retry.After(now):
		c.wait = views[best].retry.Sub(now)
	default:
		c.index, c.whole = best, views[best].whole
	}
	return c
}

// before says whether a, of two sources that are not good, is to be tried before b.
func before(now time.Time, a, b view) bool {
	return cmp.Or(cmp.Compare(max(a.retry.Sub(now), 0), max(b.retry.Sub(now), 0)), cmp.Compare(a.order(), b.order()), cmp.Compare(a.odd, b.odd)) < 0
}

// inUse is the order of the sources that are used together now.
func inUse(views []view) (order int, ok bool) {
	for _, v := range views {
		if v.good() && (!ok || v.order() < order) {
			order, ok = v.order(), true
		}
	}
	return order, ok
}

// slots is how many requests may be under way at a source: one at a relay or at one that sends whole files only, and at
// the others so many that together they have all connections, and each at least one.
func slots(views []view, order int, v view, connections int) int {
	if v.relay || v.whole {
		return 1
	}
	n := 0
	for _, w := range views {
		if w.good() && w.order() == order && !w.relay {
			n++
		}
	}
	return (connections + n - 1) / max(n, 1)
}

// stays says whether a worker that waits for work for source i is still in the right place.
func stays(views []view, i, connections int) bool {
	v := views[i]
	if order, ok := inUse(views); ok {
		return v.good() && v.order() == order && v.busy <= slots(views, order, v, connections)
	}
	return !v.down && v.busy <= 1
}

// due says which source is to be probed now, or else how long to wait; 0 is until something changes. Nobody is probed if
// no source is good, for then all are tried with real work, and nobody who would not be used anyway.
func due(now time.Time, views []view) (index int, wait time.Duration) {
	order, ok := inUse(views)
	best := -1
	for i, v := range views {
		if ok && v.suspect && !v.down && !v.probing && v.order() <= order && (best < 0 || before(now, v, views[best])) {
			best = i
		}
	}
	if best < 0 {
		return -1, 0
	}
	if wait = views[best].retry.Sub(now); wait > 0 {
		return -1, wait
	}
	return best, 0
}

const (
	relayRun  = 16              // chunks that a relay is asked for at most
	firstRun  = 2               // chunks that a source is asked for whose speed nobody knows
	runLength = 2 * time.Second // what a request to another source is to take at most
)

// runChunks is how many chunks a request is to ask a source for, at least one. Memory is how many chunks it has room for.
func runChunks(v view, most, connections, memory int) int {
	switch {
	case v.relay:
		return max(min(relayRun, memory/2), 1)
	case v.ordered:
		return 1
	case v.rate > 0:
		most = min(most, int(v.rate*runLength.Seconds()/image.ChunkSize))
	default:
		most = min(most, firstRun)
	}
	return max(min(most, memory/(2*connections)), 1)
}

// flight is what a decision knows of a request under way.
type flight struct {
	source int // whose
	relay  bool
	taken  bool          // another request brings the same
	age    time.Duration // since it began
	silent time.Duration // since the last byte
	left   int64         // bytes to come
	rate   float64       // bytes a second lately
}

// farBelow is the part of the best rate below which a request is too slow.
const farBelow = 10

// hedge says whose work a worker that has none is to do once more: that of a request which has been silent for the given
// time, or is far below the rate of the best. Source is whom the worker would ask, and rate what that brings, 0 if nobody
// knows. It returns -1 if all is well. A relay is left alone: it waits for chunks like everybody else.
func hedge(flights []flight, source int, rate float64, after time.Duration) int {
	fastest := rate
	for _, f := range flights {
		fastest = max(fastest, f.rate)
	}
	worst, worstLeft := -1, 0.0
	for i, f := range flights {
		silent, slow := f.silent >= after, f.rate*farBelow < fastest
		if f.taken || f.relay || f.age < after || f.left <= 0 || !silent && !slow {
			continue
		}
		if !silent && f.source != source && rate*2 < fastest {
			continue // the worker's own source is none of the fast ones
		}
		if left := float64(f.left) / max(f.rate, 1); left > worstLeft {
			worst, worstLeft = i, left
		}
	}
	return worst
}
