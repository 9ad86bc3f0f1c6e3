package standin

import (
	"encoding/xml"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/rpmpack"
)

func shippedRecipe(t *testing.T) *recipe {
	t.Helper()
	raw, err := assets.ReadFile("recipe.txt")
	if err != nil {
		t.Fatal(err)
	}
	rc, err := parseRecipe(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return rc
}

func TestOverlayAndScriptletsBelongToPackages(t *testing.T) {
	names := map[string]bool{}
	for _, p := range shippedRecipe(t).Packages {
		names[p.Name] = true
	}
	for _, dir := range []string{"overlay", "scriptlets"} {
		entries, err := fs.ReadDir(assets, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := e.Name()
			if dir == "scriptlets" {
				name = name[:strings.LastIndexByte(name, '.')]
			}
			if !names[name] {
				t.Errorf("%s/%s belongs to no package of the recipe", dir, e.Name())
			}
		}
	}
}

func TestCompsNamesPackagesOfTheRecipe(t *testing.T) {
	raw, err := assets.ReadFile("comps.xml")
	if err != nil {
		t.Fatal(err)
	}
	var comps struct {
		Groups []struct {
			ID       string   `xml:"id"`
			Packages []string `xml:"packagelist>packagereq"`
		} `xml:"group"`
	}
	if err := xml.Unmarshal(raw, &comps); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, p := range shippedRecipe(t).Packages {
		names[p.Name] = true
	}
	for _, g := range comps.Groups {
		if len(g.Packages) == 0 {
			t.Errorf("group %s is empty", g.ID)
		}
		for _, p := range g.Packages {
			if !names[p] {
				t.Errorf("group %s has %s, which the recipe does not make", g.ID, p)
			}
		}
	}
}

func TestRecipeSaysWhatIsWrong(t *testing.T) {
	_, err := parseRecipe(strings.NewReader(`deb early
package a
  attr 9999 root root /x
  colour blue
  move one
  omit [
package a
package b
  split nowhere
rename x
`))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"line 1", "line 3", "line 4", "line 5", "line 6", "line 7", "nowhere", "line 10"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %q in: %v", want, err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		glob, name string
		want       bool
	}{
		{"/usr/share/doc/**", "/usr/share/doc/x/y", true},
		{"/usr/share/doc/**", "/usr/share/doc", true},
		{"/usr/share/doc/**", "/usr/share/docs/x", false},
		{"/lib/*/kernel/**", "/lib/6.1/kernel/a/b.ko", true},
		{"/lib/*/kernel/**", "/lib/6.1/build/a", false},
		{"/etc/*.conf", "/etc/x.conf", true},
		{"/etc/*.conf", "/etc/a/x.conf", false},
		{"/**", "/anything/at/all", true},
	} {
		if got := match(c.glob, c.name); got != c.want {
			t.Errorf("%s on %s: %v", c.glob, c.name, got)
		}
	}
}

func TestResolve(t *testing.T) {
	rc, err := parseRecipe(strings.NewReader(`drop debconf perl
rename libfoo1 foo-libs
rename libfoo-common foo-libs
package foo
  deb foo
package kernel-core
  via linux-image linux-image-[0-9]*
package kernel-modules
  split kernel-core
  take /lib/**
package odd
  deb not-in-archive
  optional
package filesystem
`))
	if err != nil {
		t.Fatal(err)
	}
	index, err := parseIndex(strings.NewReader(`Package: foo
Version: 1-1
Architecture: amd64
Depends: libfoo1, debconf | debconf-2.0, absent | mta, bus

Package: libfoo1
Version: 1-1
Architecture: amd64
Depends: libfoo-common

Package: libfoo-common
Version: 1-1
Architecture: all

Package: postfix
Version: 3-1
Architecture: amd64
Provides: mta

Package: dbus
Version: 3-1
Architecture: amd64
Provides: bus

Package: linux-image
Version: 6.1-1
Architecture: amd64
Depends: linux-image-6.1.0-1 (= 6.1-1)

Package: linux-image-6.1.0-1
Version: 6.1-1
Architecture: amd64
`), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	res, err := resolve(rc, index)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, u := range res.Units {
		got[u.Name] = u.Needs
	}
	want := map[string][]string{
		"foo": {"dbus", "foo-libs", "postfix"}, "foo-libs": nil, "postfix": nil, "dbus": nil,
		"kernel-core": nil, "kernel-modules": nil, "filesystem": nil,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	delete(index, "libfoo-common")
	if _, err := resolve(rc, index); err == nil || !strings.Contains(err.Error(), "libfoo1 depends on libfoo-common") {
		t.Errorf("a dependency that is not in the archive: %v", err)
	}
	delete(index, "foo")
	if _, err := resolve(rc, index); err == nil || !strings.Contains(err.Error(), "no package foo") {
		t.Errorf("a package that is not in the archive: %v", err)
	}
}

func TestScriptletMakesAccountsAndPresetsUnits(t *testing.T) {
	u := &unit{pkg: &pkg{Name: "x", Users: []user{{"xd", "/run/x", "The X's daemon"}}, Groups: []group{{"xtra"}}}}
	s, err := scriptsOf(u, tree{
		"/usr/lib/systemd/system/x.service": {Mode: modeRegular, Body: []byte("[Unit]\n\n[Install]\nWantedBy=a\n")},
		"/usr/lib/systemd/system/y.service": {Mode: modeRegular, Body: []byte("[Unit]\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"groupadd -r xtra", "groupadd -r xd", "useradd -r -M -g xd -d /run/x -s /usr/sbin/nologin -c 'The Xs daemon' xd"} {
		if !strings.Contains(s.pre, want) {
			t.Errorf("%%pre lacks %q:\n%s", want, s.pre)
		}
	}
	if !strings.Contains(s.post, "preset x.service ||") {
		t.Errorf("%%post: %s", s.post)
	}
	req := requires(u, s, true)
	if !slices.ContainsFunc(req, func(r *rpmpack.Relation) bool { return r.Name == "shadow-utils" && r.Sense&sensePre != 0 }) {
		t.Error("shadow-utils is not required before the scriptlet")
	}
}
