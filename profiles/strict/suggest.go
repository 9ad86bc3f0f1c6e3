package strict

import (
	"slices"
	"strings"
)

// Suggest returns the one of names that was probably meant by got, or nothing when none is near.
func Suggest(got string, names []string) string {
	flat := func(s string) string {
		return strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(s))
	}
	if len(got) == 0 || len(got) > 100 {
		return ""
	}
	best, least := "", 0
	for _, n := range names {
		d := distance(flat(got), flat(n))
		limit := max(1, len(n)/3)
		if len(n) <= 2 {
			limit = 0
		}
		if strings.HasPrefix(flat(n), flat(got)) && len(got) >= 3 {
			d = min(d, limit) // a beginning, or the singular
		}
		if d <= limit && (best == "" || d < least) {
			best, least = n, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
func distance(a, b string) int {
	ra, rb := []rune(a), []rune(b)
	var before []int
	last := make([]int, len(rb)+1)
	for j := range last {
		last[j] = j
	}
	for i := range ra {
		row := make([]int, len(rb)+1)
		row[0] = i + 1
		for j := range rb {
			cost := 1
			if ra[i] == rb[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && ra[i] == rb[j-1] && ra[i-1] == rb[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(rb)]
}

// DidYouMean is the end of a sentence, with its blank, or nothing.
func DidYouMean(got string, names []string) string {
	if s := Suggest(got, names); s != "" {
		return "; did you mean " + s + "?"
	}
	return ""
}

// List writes names as "a, b or c".
func List(names []string, word string) string {
	names = slices.Clone(names)
	switch len(names) {
	case 0:
		return "nothing"
	case 1:
		return names[0]
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " " + word + " " + names[last]
}
