package standin

import (
	"reflect"
	"strings"
	"testing"
)

const sampleIndex = `Package: libfoo1
Version: 1:2.3-4+deb12u1
Architecture: amd64
Pre-Depends: libc6 (>= 2.34)
Depends: libbar2:any (= 1) [amd64], default-mta | mail-transport-agent,
 python3 <!nocheck>
Provides: libfoo-abi (= 5), libfoo
Description: foo for tests
 A long text: with a colon,
 .
 and a dot.
Size: 1234
SHA256: abc

Package: libfoo1
Version: 1:2.2-1
Architecture: amd64

Package: libarm
Version: 1
Architecture: arm64
`

func TestIndex(t *testing.T) {
	got, err := parseIndex(strings.NewReader(sampleIndex), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]*deb{"libfoo1": {
		Name: "libfoo1", Version: "1:2.3-4+deb12u1", Arch: "amd64", Summary: "foo for tests", Size: 1234, SHA256: "abc",
		Depends:  [][]string{{"libc6"}, {"libbar2"}, {"default-mta", "mail-transport-agent"}, {"python3"}},
		Provides: []string{"libfoo-abi", "libfoo"},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got["libfoo1"], want["libfoo1"])
	}
	if f := got["libfoo1"].file(); f != "libfoo1_1%3a2.3-4+deb12u1_amd64.deb" {
		t.Errorf("apt-get download does not call it %s", f)
	}
}

func TestIndexSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"a continuation of nothing":      {" x\n", "line 1: a continuation"},
		"a line that is no field":        {"Package: a\nnonsense\n", "line 2: no colon"},
		"a stanza without a version":     {"Package: a\n\n", "no Package or no Version"},
		"a name that leaves the cache":   {"Package: ../a\nVersion: 1\n\n", "bad name"},
		"a size that is not a number":    {"Package: a\nVersion: 1\nSize: big\n\n", `size "big"`},
		"a size that is less than zero":  {"Package: a\nVersion: 1\nSize: -1\n\n", `size "-1"`},
		"the last stanza is looked at":   {"Package: a\n", "no Package or no Version"},
		"a version with a slash is none": {"Package: a\nVersion: 1/2\n\n", "bad name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseIndex(strings.NewReader(c.in), "amd64")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
}

func TestTranslateVersion(t *testing.T) {
	for in, want := range map[string]evr{
		"1.2":                    {0, "1.2", "1"},
		"1:9.2p1-2+deb12u10":     {1, "9.2p1", "2+deb12u10"},
		"252.39-1~deb12u2":       {0, "252.39", "1~deb12u2"},
		"6.1.192-2":              {0, "6.1.192", "2"},
		"2:1.0-rc1-3":            {2, "1.0.rc1", "3"},
		"1.51~1+deb12u1+16.1-2~": {0, "1.51~1+deb12u1+16.1", "2~"},
	} {
		if got, err := translateVersion(in); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x:1", "1-", "-1", ":"} {
		if got, err := translateVersion(in); err == nil {
			t.Errorf("%q became %v, want an error", in, got)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(sampleIndex)
	f.Fuzz(func(t *testing.T, in string) {
		got, err := parseIndex(strings.NewReader(in), "amd64")
		if err != nil {
			return
		}
		for name, d := range got {
			if name != d.Name || strings.ContainsAny(d.file(), "/\n") {
				t.Errorf("%q: file %q", name, d.file())
			}
		}
	})
}

func FuzzTranslateVersion(f *testing.F) {
	f.Add("1:9.2p1-2+deb12u10")
	f.Fuzz(func(t *testing.T, in string) {
		v, err := translateVersion(in)
		if err == nil && (v.Version == "" || v.Release == "" || strings.ContainsAny(v.Version+v.Release, "- :/\n")) {
			t.Errorf("%q became %+v", in, v)
		}
	})
}
