package report

import (
	"fmt"
	"math"
	"time"
)

// String is the progress as people read it: "rootfs 43% 210 MiB of 480 MiB, 38 MiB/s, 7 s left". What is not known is
// left out.
func (p Progress) String() string {
	if p.Total <= 0 {
		s := fmt.Sprintf("%s %s", p.What, Bytes(p.Done))
		if p.Rate > 0 {
			s += ", " + Bytes(int64(p.Rate)) + "/s"
		}
		return s
	}
	done := min(max(p.Done, 0), p.Total)
	s := fmt.Sprintf("%s %d%% %s of %s", p.What, percent(done, p.Total), Bytes(done), Bytes(p.Total))
	if p.Rate > 0 {
		s += ", " + Bytes(int64(p.Rate)) + "/s"
	}
	if p.Left > 0 && done < p.Total {
		s += ", " + Duration(p.Left) + " left"
	}
	if p.Limit > 0 {
		s += fmt.Sprintf(", %.0f%% of what the %s can do", math.Floor(p.Limit*100), p.LimitBy)
	}
	return s + mix(p.Mix)
}

// mix is ", 90% relay, 10% origin".
func mix(shares []Share) string {
	all, s := int64(0), ""
	for _, m := range shares {
		all += m.Bytes
	}
	for _, m := range shares {
		if len(shares) > 1 && m.Bytes > 0 {
			s += fmt.Sprintf(", %d%% %s", percent(m.Bytes, all), m.From)
		}
	}
	return s
}

// percent is 100 only when all is done.
func percent(done, total int64) int64 {
	if done >= total {
		return 100
	}
	return min(int64(float64(done)/float64(total)*100), 99)
}

// Bytes writes a number of bytes with a binary unit and at most one decimal: 512 B, 4.5 KiB, 210 MiB, 3.7 TiB.
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for f >= 1023.95 && unit < len(units)-1 {
		f /= 1024
		unit++
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %s", f, units[unit])
	}
	return fmt.Sprintf("%.0f %s", f, units[unit])
}

// Duration writes a time to the second: 7 s, 2 min 5 s, 1 h 3 min.
func Duration(d time.Duration) string {
	s := int64((d + time.Second - 1) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	default:
		return fmt.Sprintf("%d h %d min", s/3600, s%3600/60)
	}
}
