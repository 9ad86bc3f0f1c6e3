package layout

import (
	"cmp"
	"slices"
)

// The first and last MiB of a disk belong to the partition table alone, and partitions begin and end at whole MiB, which suits every
// physical sector and flash page.
const align = mib

// slot is a partition that is to be placed.
type slot struct {
	want
	kept        *Existing
	start, size int64
}

// span is a part of a disk in bytes.
type span struct{ start, end int64 }

func (s span) size() int64 { return max(s.end-s.start, 0) }

// usable is what partitions may take of a disk.
func usable(size int64) span { return span{align, down(size-align, align)} }

// free is what kept partitions leave of a span, in aligned pieces.
func free(all span, slots []slot) []span {
	var kept []span
	for _, s := range slots {
		if s.kept != nil {
			kept = append(kept, span{s.kept.Start, s.kept.Start + s.kept.Size})
		}
	}
	slices.SortFunc(kept, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	var out []span
	at := all.start
	for _, k := range kept {
		if f := (span{at, down(k.start, align)}); f.size() > 0 {
			out = append(out, f)
		}
		at = max(at, up(k.end, align))
	}
	if f := (span{at, all.end}); f.size() > 0 {
		out = append(out, f)
	}
	return out
}

// placeSlots gives every slot its place. Without kept ones they lie one after the other. It returns false, and how many bytes the disk would need,
// where they do not fit.
func placeSlots(slots []slot, all span, base int64) (need int64, ok bool) {
	if !slices.ContainsFunc(slots, func(s slot) bool { return s.kept != nil }) {
		var wants []want
		for _, s := range slots {
			wants = append(wants, s.want)
		}
		sizes, need, ok := divide(all.size(), base, align, wants)
		if !ok {
			return need + 2*align, false
		}
		at := all.start
		for i := range slots {
			slots[i].start, slots[i].size = at, sizes[i]
			at += sizes[i]
		}
		return need + 2*align, true
	}
	return around(slots, all, base)
}

// around puts new partitions into the space around kept ones: each into the first piece that holds it, and what takes the rest into
// what is left.
func around(slots []slot, all span, base int64) (need int64, ok bool) {
	need = 2 * align
	pieces := free(all, slots)
	rest := -1
	for i := range slots {
		s := &slots[i]
		switch {
		case s.kept != nil:
			s.start, s.size = s.kept.Start, s.kept.Size
			need += s.size
		case s.rest:
			rest = i
			need += up(s.least, align)
		default:
			sizes, least, _ := divide(base, base, align, []want{s.want})
			if sizes == nil {
				return need + least, false
			}
			s.size = sizes[0]
			need += least
		}
	}
	if fit(slots, pieces, rest) {
		return need, true
	}
	// Percentages give way.
	for i := range slots {
		if s := &slots[i]; s.kept == nil && s.yields {
			s.size = up(s.least, align)
		}
	}
	return need, fit(slots, pieces, rest)
}

// fit places what is not kept; rest is the index of what takes the rest, or -1. All else goes into the first piece that holds it, and
// the rest is the largest piece that is left; where that is too small, the others leave it a piece for itself.
func fit(slots []slot, pieces []span, rest int) bool {
	for home := -1; home < len(pieces); home++ {
		left, ok := fill(slots, pieces, home, rest)
		if !ok {
			continue
		}
		if rest < 0 {
			return true
		}
		s := &slots[rest]
		best := -1
		for i, p := range left {
			if best < 0 || p.size() > left[best].size() {
				best = i
			}
		}
		if best < 0 || left[best].size() < up(s.least, align) {
			continue
		}
		s.start, s.size = left[best].start, left[best].size()
		if s.most > 0 {
			s.size = min(s.size, max(down(s.most, align), up(s.least, align)))
		}
		return true
	}
	return false
}

// fill places all but rest into pieces, into that of home, if any, last. It returns what is left of them.
func fill(slots []slot, pieces []span, home, rest int) (left []span, ok bool) {
	left = slices.Clone(pieces)
	var order []int
	for i := range left {
		if i != home {
			order = append(order, i)
		}
	}
	if home >= 0 {
		order = append(order, home)
	}
	for i := range slots {
		s := &slots[i]
		if s.kept != nil || i == rest {
			continue
		}
		at := slices.IndexFunc(order, func(k int) bool { return left[k].size() >= s.size })
		if at < 0 {
			return nil, false
		}
		piece := &left[order[at]]
		s.start = piece.start
		piece.start += s.size
	}
	return left, true
}
