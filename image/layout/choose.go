package layout

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// ErrChoice is wrapped by every refusal to take a disk: a person has to decide.
var ErrChoice = errors.New("no disk was chosen")

// choiceError has a sentence of its own and is still an ErrChoice.
type choiceError string

func (e choiceError) Error() string        { return string(e) }
func (e choiceError) Is(target error) bool { return target == ErrChoice }

func refuse(format string, a ...any) error {
	return choiceError("choose disks: " + fmt.Sprintf(format, a...))
}

// Choose says which disks the layout's disks are, in its order, and which are its data disks. named are disks that a person named on
// the machine, by serial number, WWN or path: they are the layout's first disks, whatever its hints say. The same disks give the same
// choice, in whatever order the kernel found them. Where it is not clear, the error, an ErrChoice, lists the candidates and what would
// decide.
func (l Layout) Choose(all []Candidate, named []string) (disks, data []Candidate, err error) {
	e := l.Expand(Auto)
	all = slices.Clone(all)
	slices.SortStableFunc(all, compareCandidates)
	c := &chooser{all: all, taken: map[string]bool{}, chosen: make([]*Candidate, len(e.Disks)), layout: e.Disks}
	if len(all) == 0 {
		return nil, nil, refuse("this machine has no disk that the kernel knows; check the controller's driver and cabling")
	}
	if err := c.named(named); err != nil {
		return nil, nil, err
	}
	if err := c.hinted(); err != nil {
		return nil, nil, err
	}
	for _, d := range c.chosen {
		disks = append(disks, *d)
	}
	if e.Data == nil {
		return disks, nil, nil
	}
	data, err = c.data(e.Data.Match)
	return disks, data, err
}

type chooser struct {
	all    []Candidate
	layout []Disk
	chosen []*Candidate // for each disk of the layout
	taken  map[string]bool
}

func (c *chooser) take(i int, d *Candidate) {
	c.chosen[i] = d
	c.taken[d.ID] = true
}

// named takes the disks that a person named.
func (c *chooser) named(names []string) error {
	if len(names) > len(c.layout) {
		return refuse("%d disks are named and the layout has %d; name as many", len(names), len(c.layout))
	}
	for i, name := range names {
		var hits []*Candidate
		for _, d := range Named(c.all, name) {
			hits = append(hits, &d)
		}
		switch {
		case len(hits) == 0:
			return refuse("%q names no disk of this machine; it has%s", name, c.list(c.offer(), nil))
		case len(hits) > 1:
			return refuse("%q names %d disks; name one of them as%s", name, len(hits), c.list(hits, nil))
		case c.taken[hits[0].ID]:
			return refuse("%q names %s, which is named already for another disk of the layout", name, hits[0].Describe())
		case hits[0].Unusable != "":
			return refuse("%s cannot be taken: %s", hits[0].Describe(), hits[0].Unusable)
		}
		c.take(i, hits[0])
	}
	return nil
}

// offer are the disks that a refusal lists: all that are left but virtual ones, as there may be thousands of loop devices.
func (c *chooser) offer() []*Candidate {
	var out []*Candidate
	for i := range c.all {
		if d := &c.all[i]; !c.taken[d.ID] && d.Transport != "virtual" {
			out = append(out, d)
		}
	}
	return out
}

// fits are the disks that may be disk i of the layout.
func (c *chooser) fits(i int) []*Candidate {
	h := c.layout[i].Match
	var out []*Candidate
	for k := range c.all {
		d := &c.all[k]
		if !c.taken[d.ID] && d.Unusable == "" && (d.Unfit == "" || h.names()) && h.Match(*d) {
			out = append(out, d)
		}
	}
	return out
}

// hinted takes disks by their hints: first where only one way is left, then where a preference decides, each of which may leave only one way
// for others.
func (c *chooser) hinted() error {
	for {
		progress := false
		for _, prefer := range []bool{false, true} {
			for _, same := range c.alike() {
				fits := c.fits(same[0])
				if len(fits) < len(same) {
					return c.none(same, fits)
				}
				if prefer {
					fits = preferred(fits, len(same), c.layout[same[0]].Match.Prefer)
				}
				if len(fits) != len(same) {
					continue
				}
				for k, i := range same {
					c.take(i, fits[k])
				}
				progress = true
			}
			if progress {
				break
			}
		}
		if !progress {
			break
		}
	}
	if open := c.alike(); len(open) > 0 {
		return c.tie(open[0])
	}
	return nil
}

// alike are the layout's disks that are still open, those together that are declared alike, so that it does not matter which is
// which.
func (c *chooser) alike() [][]int {
	var out [][]int
next:
	for i, d := range c.layout {
		if c.chosen[i] != nil {
			continue
		}
		for k, group := range out {
			if interchangeable(c.layout[group[0]], d) {
				out[k] = append(group, i)
				continue next
			}
		}
		out = append(out, []int{i})
	}
	return out
}

func interchangeable(a, b Disk) bool {
	if !a.Match.equal(b.Match) || a.Table != b.Table || a.Group != b.Group || a.Array != b.Array {
		return false
	}
	return reflect.DeepEqual(a.Partitions, b.Partitions)
}

// preferred takes the n best by a preference, where it decides.
func preferred(fits []*Candidate, n int, prefer string) []*Candidate {
	fits = slices.Clone(fits)
	switch prefer {
	case "first":
		return fits[:n]
	case "smallest":
		slices.SortStableFunc(fits, func(a, b *Candidate) int { return compareInt(a.Size, b.Size) })
	case "largest":
		slices.SortStableFunc(fits, func(a, b *Candidate) int { return compareInt(b.Size, a.Size) })
	default:
		return fits
	}
	if len(fits) > n && fits[n-1].Size == fits[n].Size {
		return fits
	}
	best := fits[:n]
	slices.SortStableFunc(best, func(a, b *Candidate) int { return compareCandidates(*a, *b) })
	return best
}

func (c *chooser) names(indexes []int) string {
	var out []string
	for _, i := range indexes {
		out = append(out, c.layout[i].Name)
	}
	return joinAnd(out)
}

// none refuses where too few disks fit.
func (c *chooser) none(indexes []int, fits []*Candidate) error {
	h := c.layout[indexes[0]].Match
	offer := c.offer()
	if h.equal(Hints{Prefer: h.Prefer}) {
		switch {
		case len(fits) == 0 && len(offer) == 0 && len(c.taken) == 0:
			return refuse("this machine has no disk but virtual ones, which are taken only when they are named with imgbuild.disk= or an order's --disk")
		case len(fits) == 0 && len(offer) == 0:
			return refuse("no disk is left for %s; all that the machine has are taken by other disks of the layout", c.names(indexes))
		case len(fits) == 0:
			return refuse("no disk may be taken for %s without being named; choose with imgbuild.disk= or an order's --disk%s", c.names(indexes), c.list(offer, nil))
		}
		return refuse("%s need %d disks and %d may be taken without being named; choose with imgbuild.disk= or an order's --disk%s", c.names(indexes), len(indexes), len(fits), c.list(offer, nil))
	}
	return refuse("match: %s of %s fits %d disks of the machine and %d are needed; correct it, or choose with imgbuild.disk= or an order's --disk%s",
		h, c.names(indexes), len(fits), len(indexes), c.list(offer, nil))
}

// tie refuses where more disks fit than are needed.
func (c *chooser) tie(indexes []int) error {
	fits := c.fits(indexes[0])
	what := "is one disk"
	if n := len(indexes); n > 1 {
		what = fmt.Sprintf("are %d disks", n)
	}
	text := fmt.Sprintf("%s %s, and %d fit; choose with imgbuild.disk= or an order's --disk, or with match: in the layout as below", c.names(indexes), what, len(fits))
	text += c.list(fits, func(d *Candidate) string { return deciding(fits, []*Candidate{d}) })
	if n := len(indexes); n > 1 {
		if h := decidingAny(fits, n); h != "" {
			text += fmt.Sprintf("\n  match: %s on each of %s takes %d of them", h, c.names(indexes), n)
		}
	}
	return refuse("%s", text)
}

// deciding is a hint that fits some of many disks and no others: a kind rather than one disk where that does. Empty if there is none.
func deciding(all, some []*Candidate) string {
	d := some[0]
	yes, no := true, false
	var try []Hints
	if d.Rotational {
		try = append(try, Hints{Rotational: &yes})
	} else {
		try = append(try, Hints{Rotational: &no})
	}
	try = append(try, Hints{Transport: literal(d.Transport)}, Hints{Size: FormatSize(d.Size)}, Hints{Model: literal(d.Model)})
	if len(some) == 1 {
		try = append(try, Hints{Serial: literal(d.Serial)}, Hints{WWN: literal(d.WWN)}, Hints{HCTL: literal(d.HCTL)})
		if len(d.ByPath) > 0 {
			try = append(try, Hints{Path: literal(d.ByPath[0])})
		}
		try = append(try, Hints{Path: literal(d.Path)})
	}
	for _, h := range try {
		if h.equal(Hints{}) {
			continue
		}
		ok := true
		for _, o := range all {
			ok = ok && h.Match(*o) == slices.Contains(some, o)
		}
		if ok {
			return h.String()
		}
	}
	return ""
}

// decidingAny is a hint that fits exactly n of many disks.
func decidingAny(all []*Candidate, n int) string {
	for _, d := range all {
		for _, same := range []func(o *Candidate) bool{
			func(o *Candidate) bool { return o.Rotational == d.Rotational },
			func(o *Candidate) bool { return o.Transport == d.Transport },
			func(o *Candidate) bool { return Hints{Size: FormatSize(d.Size)}.Match(*o) },
			func(o *Candidate) bool { return o.Model == d.Model },
		} {
			some := []*Candidate{d}
			for _, o := range all {
				if o != d && same(o) {
					some = append(some, o)
				}
			}
			if len(some) != n {
				continue
			}
			if h := deciding(all, some); h != "" {
				return h
			}
		}
	}
	return ""
}

// literal writes a text so that a hint means it alone; what hints cannot say is left out.
func literal(s string) string {
	if strings.HasPrefix(s, "!") || strings.ContainsAny(s, "*?[\\") {
		return ""
	}
	return s
}

// FormatSize writes a disk's size as makers do: 480GB.
func FormatSize(n int64) string {
	for i, unit := range []string{"TB", "GB", "MB"} {
		factor := int64(1)
		for range 4 - i {
			factor *= 1000
		}
		if n < factor {
			continue
		}
		return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(factor), 'f', 1, 64), ".0") + unit
	}
	return strconv.FormatInt(n, 10)
}

// list is one line for each disk: the argument that names it, what it is, what is on it, and a hint that means it.
func (c *chooser) list(disks []*Candidate, hint func(*Candidate) string) string {
	var b strings.Builder
	for _, d := range disks {
		fmt.Fprintf(&b, "\n  %s: %s", d.Argument(c.all), d.Describe())
		for _, s := range []string{d.Unusable, d.Unfit, d.Found} {
			if s != "" {
				b.WriteString("; " + s)
			}
		}
		if hint != nil {
			if h := hint(d); h != "" {
				b.WriteString("; match: " + h)
			}
		}
	}
	return b.String()
}

// data are the remaining disks that become data disks.
func (c *chooser) data(h Hints) ([]Candidate, error) {
	var out []Candidate
	for _, d := range c.all {
		switch {
		case c.taken[d.ID] || !h.Match(d):
		case d.Unusable != "" && h.names():
			return nil, refuse("the data disk %s cannot be taken: %s", d.Describe(), d.Unusable)
		case d.Unusable != "", d.Unfit != "" && !h.names():
		default:
			out = append(out, d)
		}
	}
	return out, nil
}
