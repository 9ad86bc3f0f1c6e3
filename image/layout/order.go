package layout

import (
	"cmp"
	"regexp"
	"strings"
)

var pciRE = regexp.MustCompile(`^pci-([0-9a-f]+):([0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])`)

// compareCandidates puts disks in the order of their buses and places on them; those without a place go by their names, after the
// others.
func compareCandidates(a, b Candidate) int {
	x, y := "", ""
	if len(a.ByPath) > 0 {
		x = a.ByPath[0]
	}
	if len(b.ByPath) > 0 {
		y = b.ByPath[0]
	}
	if (x == "") != (y == "") {
		return len(y) - len(x)
	}
	return cmp.Or(comparePaths(x, y), compareNatural(a.Path, b.Path), cmp.Compare(a.ID, b.ID))
}

// comparePaths compares PCI addresses, which are hexadecimal, and then what follows.
func comparePaths(a, b string) int {
	x, y := pciRE.FindStringSubmatch(a), pciRE.FindStringSubmatch(b)
	if x == nil || y == nil {
		return compareNatural(a, b)
	}
	return cmp.Or(len(x[1])-len(y[1]), cmp.Compare(x[1], y[1]), cmp.Compare(x[2], y[2]), compareNatural(a[len(x[0]):], b[len(y[0]):]))
}

// compareNatural compares texts with the numbers in them as numbers: sda, sdb, sdaa; nvme2n1, nvme10n1.
func compareNatural(a, b string) int {
	for a != "" && b != "" {
		x, y := chunk(a), chunk(b)
		a, b = a[len(x):], b[len(y):]
		c := 0
		if digit(x[0]) && digit(y[0]) {
			n, m := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			c = cmp.Or(len(n)-len(m), cmp.Compare(n, m))
		} else if strings.HasPrefix(x, "/dev/") && strings.HasPrefix(y, "/dev/") {
			// The names of one driver grow longer: sdz, sdaa.
			c = cmp.Compare(x, y)
			if len(x) != len(y) && len(x) > 6 && len(y) > 6 && x[:7] == y[:7] {
				c = len(x) - len(y)
			}
		} else {
			c = cmp.Compare(x, y)
		}
		if c != 0 {
			return c
		}
	}
	return len(a) - len(b)
}

// chunk is the digits, or what is not digits, that a text begins with.
func chunk(s string) string {
	for i := range len(s) {
		if digit(s[i]) != digit(s[0]) {
			return s[:i]
		}
	}
	return s
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func compareInt(a, b int64) int { return cmp.Compare(a, b) }

// joinAnd is a list for people: a, b and c.
func joinAnd(s []string) string {
	if len(s) < 2 {
		return strings.Join(s, "")
	}
	return strings.Join(s[:len(s)-1], ", ") + " and " + s[len(s)-1]
}
