package cmdline

import "strings"

// nearest returns the candidate that a misspelt word was probably meant to be, or "".
func nearest(word string, candidates []string) string {
	best, bestDistance := "", 3
	if len(word) > 64 {
		return ""
	}
	for _, c := range candidates {
		d := distance(strings.ToLower(word), c)
		if d < bestDistance && d*2 < max(len(c), 3) {
			best, bestDistance = c, d
		}
	}
	return best
}

// nearPrefix finds arguments whose prefix is misspelt: imgbiuld.disk, imgbuild_disk, imgbuild-disk, "img.disk" not.
func nearPrefix(key string) string {
	cut := strings.IndexAny(key, "._-:")
	if cut < 0 || cut > 16 {
		return ""
	}
	name, rest := key[:cut+1], key[cut+1:]
	if distance(strings.ToLower(name), Prefix) > 2 {
		return ""
	}
	for _, k := range keys() {
		if strings.EqualFold(rest, k) {
			return Prefix + k
		}
	}
	return ""
}

// distance is the number of letters to insert, delete, replace or swap with their neighbour to make b of a (optimal
// string alignment).
func distance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			replace := prev[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			cur[j] = min(replace, prev[j]+1, cur[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
