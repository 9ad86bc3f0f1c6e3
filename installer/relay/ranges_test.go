package relay

import "testing"

func TestRangesOfAFile(t *testing.T) {
	for _, c := range []struct {
		text       string
		first, end int64
		ok         bool
	}{
		{"bytes=0-99", 0, 100, true},
		{"bytes=0-98", 0, 99, true},
		{"BYTES= 7-7 ", 7, 8, true},
		{"bytes=7-", 7, 100, true},
		{"bytes=7-1000", 7, 100, true},
		{"bytes=-1", 99, 100, true},
		{"bytes=-1000", 0, 100, true},
		{"bytes=00-018446744073709551616", 0, 100, true},
		{"bytes=100-", 0, 0, false},
		{"bytes=18446744073709551616-", 0, 0, false},
		{"bytes=-0", 0, 0, false},
		{"bytes=5-4", 0, 0, false},
		{"bytes=-", 0, 0, false},
		{"bytes=", 0, 0, false},
		{"bytes", 0, 0, false},
		{"", 0, 0, false},
		{"bytes=1-2,4-5", 0, 0, false},
		{"bytes=+1-2", 0, 0, false},
		{"bytes=1--2", 0, 0, false},
		{"bytes=0x1-2", 0, 0, false},
		{"bits=1-2", 0, 0, false},
	} {
		first, end, partial, err := parseRange([]string{c.text}, 100)
		if first != c.first || end != c.end || !partial || (err == nil) != c.ok {
			t.Errorf("%q: %d to %d, %v, %v", c.text, first, end, partial, err)
		}
	}
	if first, end, partial, err := parseRange(nil, 100); first != 0 || end != 100 || partial || err != nil {
		t.Error("none:", first, end, partial, err)
	}
	if _, _, _, err := parseRange([]string{"bytes=0-1", "bytes=2-3"}, 100); err == nil {
		t.Error("two headers were taken")
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-99", "bytes=7-", "bytes=-5", "bytes=1-2,3-4", "bytes=18446744073709551616-"} {
		f.Add(s, int64(100))
	}
	f.Fuzz(func(t *testing.T, text string, size int64) {
		if size <= 0 {
			return
		}
		first, end, _, err := parseRange([]string{text}, size)
		if err == nil && (first < 0 || first >= end || end > size) {
			t.Errorf("%q of %d: %d to %d", text, size, first, end)
		}
	})
}
