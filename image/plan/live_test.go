package plan

import (
	"reflect"
	"strings"
	"testing"
)

func TestLiveOptionsSayWhatIsWrongWithThem(t *testing.T) {
	for want, o := range map[string]LiveOptions{
		"":                           {},
		" ":                          {Size: "25%", Persist: []string{"/var=DATA", "/home/people=people-1"}, Root: "nfs:[2001:db8::1]:/srv/root"},
		"1% to 90%":                  {Size: "0%"},
		"too little":                 {Size: "1MiB"},
		"is not the size of a disk":  {Size: "much"},
		"says no file system's":      {Persist: []string{"/var"}},
		"\"/etc\" cannot be kept":    {Persist: []string{"/etc=X"}},
		"\"/var/../etc\" cannot":     {Persist: []string{"/var/../etc=X"}},
		"/var is given twice":        {Persist: []string{"/var=X", "/var=Y"}},
		"write nfs:SERVER:/PATH":     {Root: "nfs:here"},
		"no IPv6 address":            {Root: "nfs:[1.2.3.4]:/x"},
		"no server's name":           {Root: "nfs:a b:/x"},
		"character that cannot be m": {Root: "nfs:a:/x,rw"},
	} {
		err := o.Validate()
		if strings.TrimSpace(want) == "" {
			if err != nil {
				t.Errorf("%+v: %v", o, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %s", o, err, want)
		}
	}
}

func TestLiveOptionsAreRead(t *testing.T) {
	for s, want := range map[string]NFSRoot{"nfs:10.0.0.1:/srv/../x/": {"10.0.0.1", "/x"}, "nfs:[fe80::1]:/": {"fe80::1", "/"}, "nfs:a.b-c:/d:/e": {"a.b-c", "/d:/e"}} {
		if got, err := ParseNFSRoot(s); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", s, got, err)
		}
	}
	for s, want := range map[string]int64{"": 4 << 30, "10%": 8 << 30 / 100 * 10, "1GiB": 1 << 30} {
		if got, err := ParseLiveSize(s, 8<<30); err != nil || got != want {
			t.Errorf("%s: got %d, %v", s, got, err)
		}
	}
	if got, err := ParsePersistent("/var/lib=LIB"); err != nil || !reflect.DeepEqual(got, Persistent{"/var/lib", "LIB"}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzLiveOptions(f *testing.F) {
	f.Add("25%", "/var=X", "nfs:a:/b")
	f.Fuzz(func(t *testing.T, size, persist, root string) {
		o := LiveOptions{Size: size, Persist: []string{persist}, Root: root}
		if o.Validate() != nil {
			return
		}
		if root != "" {
			if r, err := ParseNFSRoot(root); err != nil || !strings.HasPrefix(r.Path, "/") || r.Server == "" {
				t.Errorf("%q: %+v, %v", root, r, err)
			}
		}
	})
}
