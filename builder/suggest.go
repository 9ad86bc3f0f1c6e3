package builder

import "strings"

// nearest returns the candidate that was probably meant by name, or "" if none is near.
func nearest(name string, candidates []string) string {
	best, distance := "", len(name)/3+1
	for _, c := range candidates {
		if strings.EqualFold(c, name) {
			return c
		}
		if d := editDistance(name, c, distance); d < distance {
			best, distance = c, d
		}
	}
	if best != "" {
		return best
	}
	for _, c := range candidates {
		// "httpd-tool" for "httpd-tools", "NetworkManager-team-x" for "NetworkManager-team"
		if len(name) > 4 && (strings.HasPrefix(c, name) || strings.HasPrefix(name, c+"-")) && len(c) > 4 {
			return c
		}
	}
	return ""
}

// editDistance is the number of insertions, deletions, replacements and swaps of neighbours (optimal string alignment)
// between a and b, or limit if it is not less.
func editDistance(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		least := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
			least = min(least, cur[j])
		}
		if least >= limit {
			return limit
		}
		before, prev, cur = prev, cur, before
	}
	return min(prev[len(b)], limit)
}
