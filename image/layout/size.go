package layout

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const (
	kib = 1 << 10
	mib = 1 << 20

	// maxSize bounds what is read, so that sums of many sizes do not overflow.
	maxSize = int64(1) << 53
)

// amount is a Size that has been read: bytes, a percentage or the rest.
type amount struct {
	bytes   int64
	percent int
	rest    bool
}

func (a amount) absolute() bool { return !a.rest && a.percent == 0 }

func (s Size) read() (amount, error) {
	if s == Rest {
		return amount{rest: true}, nil
	}
	if digits, ok := strings.CutSuffix(string(s), "%"); ok {
		n, err := number(digits)
		if err != nil || n < 1 || n > 100 {
			return amount{}, fmt.Errorf("%s is not a percentage from 1%% to 100%%", clip(string(s)))
		}
		return amount{percent: int(n)}, nil
	}
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		digits, ok := strings.CutSuffix(string(s), unit)
		if !ok {
			continue
		}
		shift := 10 * (i + 1)
		n, err := number(digits)
		if err != nil || n < 1 || n > maxSize>>shift {
			return amount{}, fmt.Errorf("%s is not a size from 1KiB to 8192TiB", clip(string(s)))
		}
		return amount{bytes: n << shift}, nil
	}
	return amount{}, fmt.Errorf("%s is not a size; write it as 512MiB or 20GiB, 30%% or rest", clip(string(s)))
}

// Bytes is the size in bytes of one that is neither a percentage nor the rest.
func (s Size) Bytes() (int64, error) {
	a, err := s.read()
	if err == nil && !a.absolute() {
		err = fmt.Errorf("%s is not a fixed size; write it as 512MiB or 20GiB", clip(string(s)))
	}
	return a.bytes, err
}

// fixed is Bytes of a size that Problems has passed; 0 for none.
func (s Size) fixed() int64 {
	if s == "" {
		return 0
	}
	n, err := s.Bytes()
	if err != nil {
		return 0
	}
	return n
}

// number reads digits and nothing else.
func number(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(s, 10, 64)
}

// ParseBytes reads the size of a disk as people and makers write it: 480G and 480GB are 480·10⁹ bytes, 447GiB is 447·2³⁰, 1.92TB has a
// decimal point, and digits alone are bytes.
func ParseBytes(s string) (int64, error) {
	bad := fmt.Errorf("%s is not the size of a disk; write it as 480GB or 447GiB", clip(s))
	digits := strings.TrimRight(s, "KMGTPiB")
	factor := 1.0
	if unit := s[len(digits):]; unit != "" && unit != "B" {
		at := strings.IndexByte("KMGTP", unit[0])
		switch {
		case at < 0:
			return 0, bad
		case unit[1:] == "iB":
			factor = math.Pow(1024, float64(at+1))
		case unit[1:] == "" || unit[1:] == "B":
			factor = math.Pow(1000, float64(at+1))
		default:
			return 0, bad
		}
	}
	if digits == "" || strings.Trim(digits, "0123456789.") != "" {
		return 0, bad
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || f <= 0 || f*factor > float64(maxSize) || f*factor < 1 {
		return 0, bad
	}
	return int64(f * factor), nil
}

// FormatBytes writes a size for people, with at most one decimal: 20 GiB, 447.1 GiB.
func FormatBytes(n int64) string {
	if n < kib {
		return fmt.Sprintf("%d bytes", n)
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, i := float64(n)/1024, 0
	for f >= 1023.95 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + units[i]
}

// up and down round to whole units.
func up(n, unit int64) int64   { return (n + unit - 1) / unit * unit }
func down(n, unit int64) int64 { return n / unit * unit }

// share is percent of n without overflowing.
func share(n int64, percent int) int64 {
	p := int64(percent)
	return n/100*p + n%100*p/100
}

// clip quotes what people wrote, shortened.
func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return strconv.Quote(s)
}
