package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Rate is a number of bytes a second, written as people write one: 200MB, 190MiB, 1Gbit, or none.
type Rate int64

// A limit below the least would stop installations, and no network carries the most; in bytes a second.
const (
	leastRate = 1e3
	mostRate  = 1e13
)

var errRate = errors.New("write it as 200MB or 1Gbit, which is a second, or as none")

// UnmarshalText reads what MarshalText writes, and other units.
func (r *Rate) UnmarshalText(text []byte) error {
	s := strings.TrimSuffix(strings.TrimSpace(string(text)), "/s")
	if s == "none" || s == "0" {
		*r = 0
		return nil
	}
	end := strings.IndexFunc(s, func(c rune) bool { return (c < '0' || c > '9') && c != '.' })
	if end <= 0 {
		return errRate
	}
	n, err := strconv.ParseFloat(s[:end], 64)
	unit, ok := bytesOf(strings.TrimSpace(s[end:]))
	if err != nil || !ok {
		return errRate
	}
	v := math.Round(n * unit)
	if v != 0 && v < leastRate || v > mostRate {
		return fmt.Errorf("a rate is 1kB to 10TB a second, or none, and not %s", s)
	}
	*r = Rate(v)
	return nil
}

// bytesOf is how many bytes a unit has: k, M, G or T, perhaps with i for powers of 1024, and then B, bit or nothing, which is B.
func bytesOf(unit string) (bytes float64, ok bool) {
	rest, bytes := unit, 1.0
	if i := strings.IndexByte("kMGT", (unit + " ")[0]); i >= 0 {
		base := 1000.0
		if rest = unit[1:]; strings.HasPrefix(rest, "i") {
			base, rest = 1024, rest[1:]
		}
		bytes = math.Pow(base, float64(i+1))
	}
	switch rest {
	case "B":
		return bytes, true
	case "":
		return bytes, unit != ""
	case "bit":
		return bytes / 8, true
	}
	return 0, false
}

// MarshalText writes the rate in the largest unit of bytes in which it is a whole number.
func (r Rate) MarshalText() ([]byte, error) {
	if r <= 0 {
		return []byte("none"), nil
	}
	for _, name := range []string{"TB", "TiB", "GB", "GiB", "MB", "MiB", "kB", "kiB"} {
		if n, _ := bytesOf(name); int64(r)%int64(n) == 0 {
			return fmt.Appendf(nil, "%d%s", int64(r)/int64(n), name), nil
		}
	}
	return fmt.Appendf(nil, "%dB", int64(r)), nil
}
