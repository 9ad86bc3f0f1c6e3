package hw

import "strings"

// match says whether s matches a pattern of modules.alias: fnmatch(3) without flags, as kmod uses it. "*" is any text,
// also with slashes, "?" one byte, "[...]" a set with ranges and "!" or "^" for its complement, "\" takes the next byte
// as it is. It takes time proportional to len(pattern)*len(s) at worst.
func match(pattern, s string) bool {
	// The usual way to match one star at a time: on a mismatch, the last star takes one byte more.
	starP, starS := -1, 0
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				starP, starS = p, i
				p++
				continue
			}
			if n, ok := matchByte(pattern[p:], s[i]); ok {
				p += n
				i++
				continue
			}
		}
		if starP < 0 {
			return false
		}
		starS++
		p, i = starP+1, starS
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchByte matches one element of a pattern that is no star, and returns its length.
func matchByte(pattern string, c byte) (int, bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '\\':
		if len(pattern) > 1 {
			return 2, pattern[1] == c
		}
		return 1, c == '\\'
	case '[':
		if n, ok, closed := matchSet(pattern, c); closed {
			return n, ok
		}
		return 1, c == '['
	default:
		return 1, pattern[0] == c
	}
}

// matchSet matches "[...]"; closed is false if there is no closing bracket, and the "[" stands for itself.
func matchSet(pattern string, c byte) (n int, ok, closed bool) {
	i := 1
	negate := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negate {
		i++
	}
	found := false
	for first := true; i < len(pattern); first = false {
		lo := pattern[i]
		if lo == ']' && !first {
			return i + 1, found != negate, true
		}
		if lo == '\\' && i+1 < len(pattern) {
			i++
			lo = pattern[i]
		}
		i++
		hi := lo
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			hi = pattern[i+1]
			i += 2
			if hi == '\\' && i < len(pattern) {
				hi = pattern[i]
				i++
			}
		}
		found = found || lo <= c && c <= hi
	}
	return 0, false, false
}
