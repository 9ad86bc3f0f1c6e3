package layout

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
)

// sizeCondition is one operator of a size hint.
type sizeCondition struct {
	op string // >=, <=, >, <, =, or empty for a tolerance of 5 %
	n  int64  // bytes
}

func (c sizeCondition) holds(n int64) bool {
	switch c.op {
	case ">=":
		return n >= c.n
	case "<=":
		return n <= c.n
	case ">":
		return n > c.n
	case "<":
		return n < c.n
	case "=":
		return n == c.n
	}
	return n >= c.n-c.n/20 && n <= c.n+c.n/20
}

func parseSizeHint(s string) ([]sizeCondition, error) {
	var out []sizeCondition
	for _, word := range strings.Fields(s) {
		op := ""
		for _, o := range []string{">=", "<=", ">", "<", "="} {
			if strings.HasPrefix(word, o) {
				op = o
				break
			}
		}
		n, err := ParseBytes(word[len(op):])
		if err != nil {
			return nil, err
		}
		out = append(out, sizeCondition{op, n})
	}
	if len(out) == 0 {
		return nil, errors.New("is empty; write it as 480GB or \">=400GiB <1TiB\"")
	}
	return out, nil
}

// problems says what is wrong with hints.
func (h Hints) problems(add func(key, format string, a ...any)) {
	for _, t := range h.texts() {
		pattern := strings.TrimPrefix(t.want, "!")
		switch _, err := path.Match(pattern, ""); {
		case t.want == "":
		case pattern == "":
			add(t.key, "says only that something is not; write what, as \"!sda\"")
		case err != nil:
			add(t.key, "%s is not a pattern: a [ has no ]", clip(t.want))
		case strings.ContainsAny(t.want, "\x00\n\r\t"):
			add(t.key, "%s has a character that is not text", clip(t.want))
		}
	}
	if h.Size != "" {
		if _, err := parseSizeHint(h.Size); err != nil {
			add("size", "%s", err)
		}
	}
	switch h.Prefer {
	case "", "smallest", "largest", "first":
	default:
		add("prefer", "%s is none of smallest, largest, first", clip(h.Prefer))
	}
}

// textHint is a hint that is compared as text.
type textHint struct {
	key, want string
	have      func(Candidate) []string
}

func (h Hints) texts() []textHint {
	one := func(f func(Candidate) string) func(Candidate) []string {
		return func(c Candidate) []string { return []string{f(c)} }
	}
	return []textHint{
		{"serial", h.Serial, one(func(c Candidate) string { return c.Serial })},
		{"wwn", h.WWN, Candidate.wwns},
		{"model", h.Model, one(func(c Candidate) string { return c.Model })},
		{"transport", h.Transport, one(func(c Candidate) string { return c.Transport })},
		{"path", h.Path, Candidate.paths},
		{"hctl", h.HCTL, one(func(c Candidate) string { return c.HCTL })},
	}
}

// Match reports whether all hints hold for a disk. Hints with mistakes, which Problems finds, hold for none.
func (h Hints) Match(c Candidate) bool {
	for _, t := range h.texts() {
		if t.want != "" && !matchText(t.want, t.have(c)) {
			return false
		}
	}
	if h.Rotational != nil && *h.Rotational != c.Rotational {
		return false
	}
	if h.Size != "" {
		conditions, err := parseSizeHint(h.Size)
		if err != nil {
			return false
		}
		for _, s := range conditions {
			if !s.holds(c.Size) {
				return false
			}
		}
	}
	return true
}

// matchText compares with each name that a thing has. A slash is a character like any other.
func matchText(want string, have []string) bool {
	pattern, not := strings.CutPrefix(want, "!")
	hit := false
	for _, s := range have {
		if !strings.ContainsAny(pattern, "*?[") {
			hit = hit || s == pattern && s != ""
			continue
		}
		ok, err := path.Match(flat(pattern), flat(s))
		hit = hit || ok && err == nil
	}
	return hit != not
}

// flat hides slashes from path.Match, whose * stops at them.
func flat(s string) string { return strings.ReplaceAll(s, "/", "\x01") }

// names reports whether the hints name one disk rather than a kind: then it may be one that is not taken otherwise.
func (h Hints) names() bool {
	for _, s := range []string{h.Serial, h.WWN, h.Path} {
		if s != "" && !strings.HasPrefix(s, "!") && !strings.ContainsAny(s, "*?[") {
			return true
		}
	}
	return false
}

func (h Hints) equal(o Hints) bool { return reflect.DeepEqual(h, o) }

// String writes the hints as people write them in a layout.
func (h Hints) String() string {
	var s []string
	for _, t := range h.texts() {
		if t.want != "" {
			s = append(s, fmt.Sprintf("%s: %q", t.key, t.want))
		}
	}
	if h.Size != "" {
		s = append(s, fmt.Sprintf("size: %q", h.Size))
	}
	if h.Rotational != nil {
		s = append(s, fmt.Sprintf("rotational: %t", *h.Rotational))
	}
	if h.Prefer != "" {
		s = append(s, "prefer: "+h.Prefer)
	}
	return "{" + strings.Join(s, ", ") + "}"
}

// wwns are the ways to write a disk's world wide name.
func (c Candidate) wwns() []string {
	if c.WWN == "" {
		return nil
	}
	bare := bareWWN(c.WWN)
	return []string{c.WWN, bare, "0x" + bare, "wwn-0x" + bare}
}

// paths are all names of a disk's device node, with and without the directories of udev's links.
func (c Candidate) paths() []string {
	out := []string{c.Path}
	for _, p := range c.ByPath {
		out = append(out, p, "/dev/disk/by-path/"+p)
	}
	for _, p := range c.ByID {
		out = append(out, p, "/dev/disk/by-id/"+p)
	}
	return out
}

// Matches reports whether a name given by a person means this disk: its serial number, its WWN with or without its prefix, its
// device node or kernel name, or one of udev's names for it.
func (c Candidate) Matches(name string) bool {
	if name == "" {
		return false
	}
	for _, p := range c.paths() {
		if p == name {
			return true
		}
	}
	if strings.HasPrefix(name, "/") {
		return false
	}
	return name == c.Serial || name == c.ID || c.WWN != "" && bareWWN(name) == bareWWN(c.WWN)
}

// Named are the disks that a name given by a person means, of several paths to one disk the one to take.
func Named(all []Candidate, name string) []Candidate {
	var hits []Candidate
	ids := map[string]bool{}
	for _, c := range all {
		if c.Matches(name) {
			hits = append(hits, c)
			ids[c.ID] = true
		}
	}
	return slices.DeleteFunc(hits, func(c Candidate) bool { return c.PathOf != "" && ids[c.PathOf] })
}

// bareWWN strips what tools put before the digits.
func bareWWN(s string) string {
	s = strings.ToLower(s)
	for _, prefix := range []string{"wwn-", "naa.", "eui.", "nvme-", "nvme.", "0x"} {
		s = strings.TrimPrefix(s, prefix)
	}
	return s
}

// Argument is what a person writes after imgbuild.disk= to mean this disk and no other of all: its serial number where it has one
// of its own without blanks, else a path that does not change with the order in which drivers come up.
func (c Candidate) Argument(all []Candidate) string {
	stable := c.Path
	if len(c.ByPath) > 0 {
		stable = "/dev/disk/by-path/" + c.ByPath[0]
	}
	if c.Serial == "" || strings.ContainsAny(c.Serial, " \t\"'") || strings.HasPrefix(c.Serial, "/") {
		return stable
	}
	for _, o := range all {
		// A second path to the disk has its serial number too.
		if o.ID != c.ID && o.Matches(c.Serial) && (o.PathOf == "" || o.PathOf != c.ID) {
			return stable
		}
	}
	return c.Serial
}

// Describe is the disk in one line for people, e.g. `/dev/sda (Samsung PM893, serial S3Z, 447.1 GiB, sata)`.
func (c Candidate) Describe() string {
	var s []string
	if c.Model != "" {
		s = append(s, c.Model)
	}
	if c.Serial != "" {
		s = append(s, "serial "+c.Serial)
	} else {
		s = append(s, "no serial")
	}
	s = append(s, FormatBytes(c.Size))
	if c.Transport != "" {
		s = append(s, c.Transport)
	}
	return fmt.Sprintf("%s (%s)", c.Path, strings.Join(s, ", "))
}
