package releases

import (
	"cmp"
	"strings"
)

// CompareVersions orders versions as RPM does: runs of digits as numbers, runs of letters as text, everything else only
// separates, a tilde sorts before the end. So 10 is newer than 9, 1.1 than 1, and 2~rc1 older than 2.
func CompareVersions(a, b string) int {
	whole := strings.Compare(a, b)
	for a != "" || b != "" {
		a, b = skip(a), skip(b)
		at, bt := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~")
		switch {
		case at && bt:
			a, b = a[1:], b[1:]
			continue
		case at:
			return -1
		case bt:
			return 1
		case a == "" || b == "":
			if n := cmp.Compare(len(a), len(b)); n != 0 {
				return n
			}
			return whole // only their separators differ, but they are two directories
		}
		as, arest, anum := segment(a)
		bs, brest, bnum := segment(b)
		switch {
		case anum && !bnum:
			return 1
		case !anum && bnum:
			return -1
		case anum:
			as, bs = strings.TrimLeft(as, "0"), strings.TrimLeft(bs, "0")
			if n := cmp.Compare(len(as), len(bs)); n != 0 {
				return n
			}
		}
		if n := strings.Compare(as, bs); n != 0 {
			return n
		}
		a, b = arest, brest
	}
	return whole
}

func skip(s string) string {
	return strings.TrimLeftFunc(s, func(r rune) bool { return r != '~' && !digit(r) && !letter(r) })
}

// segment returns the run of digits or letters that s begins with.
func segment(s string) (run, rest string, number bool) {
	kind := letter
	if number = digit(rune(s[0])); number {
		kind = digit
	}
	i := strings.IndexFunc(s, func(r rune) bool { return !kind(r) })
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:], number
}

func digit(r rune) bool  { return r >= '0' && r <= '9' }
func letter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
