package initramfs

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseLdConf(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []ldDirective
	}{
		{"directories by line, space, comma and colon", "/a\n/b /c,/d:/e\n", []ldDirective{{value: "/a"}, {value: "/b"}, {value: "/c"}, {value: "/d"}, {value: "/e"}}},
		{"includes and comments", "include ld.so.conf.d/*.conf # all\n# none\n", []ldDirective{{include: true, value: "ld.so.conf.d/*.conf"}}},
		{"history is passed over", "hwcap 1 nosegneg\n/usr/lib=libc5\n", []ldDirective{{value: "/usr/lib"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := parseLdConf([]byte(test.text)); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestLibrarySearchFollowsIncludes(t *testing.T) {
	root := rootWith(t, map[string][]byte{
		"etc/ld.so.conf":          []byte("include ld.so.conf.d/*.conf\n/opt/last\n"),
		"etc/ld.so.conf.d/b.conf": []byte("/opt/b\n"),
		"etc/ld.so.conf.d/a.conf": []byte("/opt/a/\nrelative/is/nothing\n"),
		"etc/ld.so.conf.d/README": []byte("/opt/readme\n"),
		"etc/loop.conf":           []byte("include loop.conf\n"),
	})
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	dirs, err := librarySearch(t.Context(), tr)
	if err != nil || len(dirs) < 4 || !slices.Equal(dirs[:4], []string{"/opt/a", "/opt/b", "/opt/last", "/lib64"}) {
		t.Errorf("got %v, %v", dirs, err)
	}
	loop, err := openTree(rootWith(t, map[string][]byte{"etc/ld.so.conf": []byte("include ld.so.conf\n")}))
	if err != nil {
		t.Fatal(err)
	}
	defer loop.close()
	if _, err := librarySearch(t.Context(), loop); err == nil || !strings.Contains(err.Error(), "include each other") {
		t.Errorf("a file that includes itself gives %v", err)
	}
}

func TestParseModinfo(t *testing.T) {
	got, err := readModinfo(module("depends=a, b,", "alias=pci:*", "firmware=x/y.bin", "softdep=ignored pre: c d post: e", "weakdep=f g", "description=a=b", "novalue", "depends="))
	want := modinfo{
		depends: []string{"a", "b"}, aliases: []string{"pci:*"}, firmware: []string{"x/y.bin"},
		softdeps: []softdep{{pre: []string{"c", "d"}, post: []string{"e"}}, {post: []string{"f", "g"}}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := readModinfo(staticProgram()); err == nil || !strings.Contains(err.Error(), "not a kernel module") {
		t.Errorf("a program gives %v", err)
	}
}

func TestUnpackRefusesDamage(t *testing.T) {
	for _, suffix := range []string{".xz", ".zst", ".gz"} {
		whole := packed(t, suffix, bytes.Repeat([]byte("module "), 1000))
		if _, err := unpack(suffix, whole[:len(whole)/2]); err == nil {
			t.Errorf("%s: half a file was taken for a whole one", suffix)
		}
		if _, err := unpack(suffix, nil); suffix != ".zst" && err == nil {
			t.Errorf("%s: an empty file was taken for a whole one", suffix)
		}
	}
}

func FuzzModulesDep(f *testing.F) {
	f.Add([]byte("kernel/a.ko.xz: kernel/b.ko kernel/c-d.ko.zst\n# x\n\nkernel/b.ko:\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		deps, err := parseModulesDep(data)
		for name, needs := range deps {
			if err != nil || strings.Contains(name, "/") || len(needs) == 0 {
				t.Errorf("%q needs %q, %v", name, needs, err)
			}
		}
	})
}

func FuzzModulesAlias(f *testing.F) {
	f.Add([]byte("# x\nalias pci:v*d* a-b\nalias of:N*T(null) with space c\nalias\nalias x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, a := range parseModulesAlias(data) {
			if a.pattern == "" || strings.ContainsAny(a.module, "/ ") {
				t.Errorf("%q", a)
			}
		}
	})
}

func FuzzModulesSoftdep(f *testing.F) {
	f.Add([]byte("softdep a pre: b c post: d\nsoftdep x\nsoftdep y pre:\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, deps := range parseModulesSoftdep(data) {
			for _, dep := range deps {
				for _, word := range append(dep.pre, dep.post...) {
					if word == "" || word == "pre:" || word == "post:" {
						t.Errorf("%s: %q", name, dep)
					}
				}
			}
		}
	})
}

func FuzzModule(f *testing.F) {
	f.Add(module("depends=a,b", "alias=pci:*", "softdep=pre: c", "firmware=d"))
	f.Add(staticProgram())
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := readModinfo(data)
		if err != nil {
			return
		}
		for _, line := range append(info.aliases, info.depends...) {
			if line == "" || strings.Contains(line, "\n") {
				t.Errorf("%q", line)
			}
		}
	})
}

func FuzzLdConf(f *testing.F) {
	f.Add([]byte("include /etc/x/*.conf\n/usr/lib64 # c\nhwcap 0 x\n/a:/b=c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, d := range parseLdConf(data) {
			if d.value == "" || strings.ContainsAny(d.value, " #\n=:,") {
				t.Errorf("%q", d.value)
			}
		}
	})
}

func FuzzProgram(f *testing.F) {
	f.Add(staticProgram())
	f.Add(module("depends="))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := readProgram(bytes.NewReader(data))
		if err != nil {
			return
		}
		for _, dir := range p.searchDirs("/usr/lib") {
			if !strings.HasPrefix(dir, "/") {
				t.Errorf("%q", dir)
			}
		}
	})
}
