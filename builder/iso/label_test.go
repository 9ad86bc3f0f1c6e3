package iso

import (
	"strings"
	"testing"
)

func TestLabelsAreNameAndVersionInCapitals(t *testing.T) {
	for name, c := range map[string]struct{ name, version, want string }{
		"a short one":                       {"web", "2026.11", "WEB-2026.11"},
		"underscores and dashes":            {"centos-stream_9", "1-2", "CENTOS-STREAM_9-1-2"},
		"one that just fits":                {strings.Repeat("a", 30), "1", strings.Repeat("A", 30) + "-1"},
		"one that is too long by one":       {strings.Repeat("a", 31), "1", strings.Repeat("A", 23) + "-E34D11B9"},
		"characters that a label has not":   {"web", "1+2~rc3", "WEB-1_2_RC3-519D0614"},
		"both, with a version that is lost": {strings.Repeat("a", 64), strings.Repeat("~", 64), strings.Repeat("A", 23) + "-A737718B"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Label(c.name, c.version)
			if got != c.want {
				t.Errorf("it is %s", got)
			}
			if len(got) > maxLabel || strings.Trim(got, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
				t.Errorf("%s is no label", got)
			}
		})
	}
}

func TestLabelsOfTwoReleasesDiffer(t *testing.T) {
	seen := map[string]string{}
	long := strings.Repeat("x", 40)
	for _, r := range [][2]string{{"web", "1"}, {"web", "1+1"}, {"web", "1~1"}, {"web", "1_1"}, {long, "1"}, {long, "2"}, {long + "y", "1"}} {
		l := Label(r[0], r[1])
		if other, ok := seen[l]; ok {
			t.Errorf("%s %s has the label of %s", r[0], r[1], other)
		}
		seen[l] = r[0] + " " + r[1]
	}
}
