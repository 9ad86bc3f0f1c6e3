package layout

import (
	"strings"
	"testing"
)

func TestSizesAreReadAsPeopleWriteThem(t *testing.T) {
	for s, want := range map[Size]int64{"1KiB": 1024, "512MiB": 512 << 20, "20GiB": 20 << 30, "8192TiB": 1 << 53, "0512MiB": 512 << 20} {
		if n, err := s.Bytes(); err != nil || n != want {
			t.Errorf("%s is %d (%v), and should be %d", s, n, err, want)
		}
	}
	for _, s := range []Size{"", "512", "512M", "512MB", "-1GiB", "+1GiB", "1.5GiB", " 1GiB", "1 GiB", "0GiB", "8193TiB", "9223372036854775807TiB", "rest", "30%", "GiB", "1e3GiB", "１GiB"} {
		if n, err := s.Bytes(); err == nil {
			t.Errorf("%q is taken for a fixed size of %d", s, n)
		}
	}
	for s, want := range map[Size]int{"1%": 1, "30%": 30, "100%": 100} {
		if a, err := s.read(); err != nil || a.percent != want || a.absolute() {
			t.Errorf("%s is %+v (%v)", s, a, err)
		}
	}
	for _, s := range []Size{"0%", "101%", "-1%", "%", "1.5%", "30 %"} {
		if a, err := s.read(); err == nil {
			t.Errorf("%q is taken for %+v", s, a)
		}
	}
	if a, err := Rest.read(); err != nil || !a.rest {
		t.Errorf("rest is %+v (%v)", a, err)
	}
}

func TestDiskSizesAreReadAsMakersWriteThem(t *testing.T) {
	for s, want := range map[string]int64{
		"480G": 480e9, "480GB": 480e9, "1.92TB": 1920e9, "447GiB": 447 << 30, "512": 512, "512B": 512, "1M": 1e6, "0.5KiB": 512, "2PiB": 2 << 50,
	} {
		if n, err := ParseBytes(s); err != nil || n != want {
			t.Errorf("%s is %d (%v), and should be %d", s, n, err, want)
		}
	}
	for _, s := range []string{"", "G", "-1G", "1..2G", "1,5G", "1GiBB", "1iB", "480 GB", "1E9", "NaN", "Inf", "9999999PB", "0", "0.1", "1GG", "1Bi"} {
		if n, err := ParseBytes(s); err == nil {
			t.Errorf("%q is taken for %d", s, n)
		}
	}
}

func TestBytesForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 512: "512 bytes", 1 << 20: "1 MiB", 480103981056: "447.1 GiB", 1<<40 - 1: "1 TiB", 1 << 60: "1 EiB"} {
		if got := FormatBytes(n); got != want {
			t.Errorf("%d is %q, and should be %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{480103981056: "480.1GB", 1920383410176: "1.9TB", 500: "500", 16e9: "16GB"} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d is %q, and should be %q", n, got, want)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"512MiB", "30%", "rest", "", "1.5GiB", "8192TiB", ">=400GiB <1TiB", "480G"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Size(s).read()
		if err == nil && !a.rest && a.percent == 0 && (a.bytes < 1024 || a.bytes > maxSize) {
			t.Errorf("%q is read as %d bytes", s, a.bytes)
		}
		if err == nil && (a.percent < 0 || a.percent > 100) {
			t.Errorf("%q is read as %d%%", s, a.percent)
		}
		if n, err := ParseBytes(s); err == nil && (n < 1 || n > maxSize) {
			t.Errorf("%q is read as %d bytes", s, n)
		}
	})
}

func FuzzHints(f *testing.F) {
	f.Add("S3Z*", "!PM*", ">=400GiB <1TiB", "/dev/sd[ab]", "smallest")
	f.Add("[", "!", "480G", "*", "first")
	f.Fuzz(func(t *testing.T, serial, model, size, path, prefer string) {
		h := Hints{Serial: serial, Model: model, Size: size, Path: path, Prefer: prefer}
		bad := 0
		h.problems(func(key, format string, a ...any) { bad++ })
		disk := Candidate{ID: "sda", Path: "/dev/sda", Serial: "S3Z", Model: "PM893", Size: 480103981056, ByPath: []string{"pci-0000:00:1f.2-ata-1"}}
		if _, err := parseSizeHint(size); err != nil && size != "" && (bad == 0 || h.Match(disk)) {
			t.Errorf("hints with the size %q are taken", size)
		}
		h.Match(disk)
		if h.names() && strings.HasPrefix(serial, "!") && path == "" && h.WWN == "" {
			t.Errorf("%v names a disk", h)
		}
	})
}
