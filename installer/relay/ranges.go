package relay

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

var (
	errRange       = errors.New("one range of bytes is needed, as bytes=0-1048575")
	errUnsatisfied = errors.New("the file has no such bytes")
)

// parseRange returns the part [first, end) of a file of size bytes that the Range header asks for (RFC 9110, 14.2), and whether it
// asks for a part. More than one range is an error.
func parseRange(values []string, size int64) (first, end int64, partial bool, err error) {
	if len(values) == 0 {
		return 0, size, false, nil
	}
	unit, spec, ok := strings.Cut(values[0], "=")
	from, to, dash := strings.Cut(strings.Trim(spec, " \t"), "-")
	if len(values) > 1 || !ok || !dash || !strings.EqualFold(unit, "bytes") {
		return 0, 0, true, errRange
	}
	a, b, none := int64(0), int64(math.MaxInt64), from == ""
	if !none {
		if a, err = position(from); err != nil {
			return 0, 0, true, err
		}
	}
	if to != "" || none {
		if b, err = position(to); err != nil {
			return 0, 0, true, err
		}
	}
	if none { // the last b bytes
		a, b = max(size-b, 0), math.MaxInt64
	}
	if a > b {
		return 0, 0, true, errRange
	}
	if a >= size {
		return 0, 0, true, errUnsatisfied
	}
	return a, min(b, size-1) + 1, true, nil
}

// position is a number in digits; one that no file has room for is as good as the largest.
func position(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errRange
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, nil
	}
	return n, nil
}
