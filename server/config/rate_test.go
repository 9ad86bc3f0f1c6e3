package config

import (
	"strings"
	"testing"
)

func TestRatesAreWrittenAsPeopleWriteThem(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Rate
		back string
	}{
		{"200MB", 200e6, "200MB"}, {"1Gbit", 125e6, "125MB"}, {"190MiB", 190 << 20, "190MiB"}, {"1.5Gbit", 187.5e6, "187500kB"},
		{"none", 0, "none"}, {"0", 0, "none"}, {"10G", 10e9, "10GB"}, {"100 Mbit/s", 12.5e6, "12500kB"}, {"8kbit", 1000, "1kB"}, {"12345B", 12345, "12345B"}, {"1TiB", 1 << 40, "1TiB"},
	} {
		var r Rate
		if err := r.UnmarshalText([]byte(tt.text)); err != nil || r != tt.want {
			t.Errorf("%s: %d, %v", tt.text, r, err)
		}
		if back, err := r.MarshalText(); err != nil || string(back) != tt.back {
			t.Errorf("%s is written as %s, %v", tt.text, back, err)
		}
	}
	for _, text := range []string{"", "fast", "200", "200 mb", "-1MB", "1kbit", "1e9B", "99TB", "MB", "1.2.3MB", "200MBs", "1ki", "1GiBit"} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err == nil && text != "1ki" {
			t.Errorf("%q is taken for %d", text, r)
		}
	}
}

func FuzzRate(f *testing.F) {
	for _, s := range []string{"200MB", "1.5Gbit", "none", "0", "7kiB", "1bit"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var r Rate
		if r.UnmarshalText([]byte(s)) != nil {
			return
		}
		if r < 0 || r != 0 && (r < leastRate || r > mostRate) {
			t.Fatalf("%q is %d", s, r)
		}
		text, err := r.MarshalText()
		var again Rate
		if err != nil || again.UnmarshalText(text) != nil || again != r {
			t.Fatalf("%q is %d, written as %s and read as %d", s, r, text, again)
		}
	})
}

func TestTransportMirrorsAndRates(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"all good", "images: /srv\ntransport: torrent\nmirrors: [http://m.example.org/images, https://n.example.org/]\nrates: {global: 5Gbit, per_subnet: none, per_machine: 200MB}\n", ""},
		{"a transport that there is not", "images: /srv\ntransport: ftp\n", "transport"},
		{"a mirror that is none", "images: /srv\nmirrors: [ftp://x/]\n", "mirrors[0]"},
		{"a mirror with a password", "images: /srv\nmirrors: ['http://a:b@x/']\n", "has a user in it"},
		{"a rate that is none", "images: /srv\nrates: {global: fast}\n", "rates.global"},
		{"a rate that stops everything", "images: /srv\nrates: {per_machine: 5B}\n", "rates.per_machine"},
	} {
		c, err := load(t, tt.text)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want == "" && (c.Transport != "torrent" || len(c.Mirrors) != 2 || c.Rates.Global != 625e6 || c.Rates.PerSubnet != 0 || c.Rates.PerMachine != 200e6):
			t.Errorf("%s: %+v", tt.name, c)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
