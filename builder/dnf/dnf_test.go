package dnf

import (
	"slices"
	"strings"
	"testing"

	"imgbuild/profiles"
)

func scan(lines string) (*Scanner, []Progress) {
	var seen []Progress
	s := &Scanner{Progress: func(p Progress) { seen = append(seen, p) }}
	read := s.Reader()
	for l := range strings.Lines(lines) {
		read(strings.TrimRight(l, "\n"))
	}
	return s, seen
}

func TestProgressIsReadFromDnfsLines(t *testing.T) {
	_, got := scan(`(12/193): bash-4.2.46-31.el7.x86_64.rpm          1.2 MB/s | 1.0 MB     00:00
(3-4/193): coreutils-8.22-23.el7.x86_64.rpm      1.2 MB/s | 1.0 MB     00:00
Running transaction
  Preparing        :                                                        1/1
  Installing       : popt-1.13-16.el7.x86_64                             18/193
  Running scriptlet: gmp-1:6.0.0-15.el7.x86_64                           35/193
install-info: No such file or directory for /usr/share/info/sed.info.gz
  Verifying        : gmp-1:6.0.0-15.el7.x86_64                         193/193
Complete!
`)
	want := []Progress{
		{"downloading", "bash-4.2.46-31.el7.x86_64", 12, 193}, {"downloading", "coreutils-8.22-23.el7.x86_64", 3, 193}, {"checking", "", 1, 1},
		{"installing", "popt-1.13-16.el7.x86_64", 18, 193}, {"configuring", "gmp-1:6.0.0-15.el7.x86_64", 35, 193}, {"verifying", "gmp-1:6.0.0-15.el7.x86_64", 193, 193},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestDnfsComplaintsBecomeSentences(t *testing.T) {
	for name, c := range map[string]struct {
		lines   string
		says    []string
		unknown []string
	}{
		"packages that nobody has": {
			"No match for argument: htpd\nNo match for argument: bsh\nError: Unable to find a match: htpd bsh\n",
			[]string{"no enabled repository has htpd, bsh"}, []string{"htpd", "bsh"},
		},
		"a group that nobody has": {"Module or Group 'corre' is not available.\nError: Nothing to do.\n", []string{"@corre"}, []string{"@corre"}},
		"unsigned packages": {
			"Package alpha-1.0-1.noarch.rpm is not signed\nError: GPG check FAILED\n", []string{"alpha-1.0-1.noarch", "are not signed"}, nil,
		},
		"another key": {
			"Public key for alpha-1.0-1.noarch.rpm is not installed. Failing package is: alpha-1.0-1.noarch\n GPG Keys are configured as: file:///k\nError: GPG check FAILED\n",
			[]string{"alpha-1.0-1.noarch", "not signed by any key that the profile trusts"}, nil,
		},
		"a repository that is away": {
			"Errors during downloading metadata for repository 'baseos':\n  - Curl error (6)\nError: Failed to download metadata for repo 'baseos': Cannot download repomd.xml: All mirrors were tried\n",
			[]string{"repository baseos does not answer: Cannot download repomd.xml"}, nil,
		},
		"packages that exclude each other": {
			"Error: \n Problem 1: package lvm2 requires kmod, but none of the providers can be installed\n  - conflicting requests\n  - package kmod is filtered out by exclude filtering\n Problem 2: package x requires y\n",
			[]string{"cannot be installed together: Problem 1: package lvm2 requires kmod, but none of the providers can be installed, conflicting requests, package kmod is filtered out", "; Problem 2: package x"}, nil,
		},
		"something never seen": {"Error: the moon is full\n  and so am I\n", []string{"the moon is full"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := scan(c.lines)
			got := strings.Join(s.Reasons(), "; ")
			for _, w := range c.says {
				if !strings.Contains(got, w) {
					t.Errorf("it does not say %q: %s", w, got)
				}
			}
			if !slices.Equal(s.Unknown(), c.unknown) {
				t.Errorf("unknown are %q", s.Unknown())
			}
		})
	}
}

func TestChoicesAreReadFromTheLog(t *testing.T) {
	log := `2026-11-21T07:28:14+0000 DEBUG ---> Package NetworkManager.x86_64 1:1.12.0-6.el7 will be installed
2026-11-21T07:28:14+0000 DEBUG ---> Package java-1.8.0-openjdk.x86_64 1:1.8.0.191-1.el7 will be installed
2026-11-21T07:28:14+0000 DEBUG ---> Package bash.x86_64 4.2.46-31.el7 will be installed
2026-11-21T07:28:14+0000 DEBUG ---> Package bash.x86_64 4.2.46-31.el7 will be installed
2026-11-21T07:28:14+0000 DEBUG ---> Package old.x86_64 1-1 will be erased
2026-11-21T07:28:14+0000 INFO Complete!
`
	var got []string
	for _, c := range Choices(log) {
		got = append(got, c.String())
	}
	want := []string{"NetworkManager-1:1.12.0-6.el7.x86_64", "java-1.8.0-openjdk-1:1.8.0.191-1.el7.x86_64", "bash-4.2.46-31.el7.x86_64"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func sampleLock() *Lock {
	return &Lock{Schema: LockSchema, Inputs: "i", Date: 7, Packages: []Package{
		{NEVRA: "bash-4.2.46-31.el7.x86_64", Repo: "os", SHA256: strings.Repeat("a", 64), Size: 10},
		{NEVRA: "gmp-1:6.0.0-15.el7.x86_64", Repo: "os", SHA256: strings.Repeat("b", 64), Size: 20},
	}}
}

func TestALockComesBackAsItWas(t *testing.T) {
	data, err := sampleLock().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseLock(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Marshal()
	if err != nil || string(again) != string(data) {
		t.Errorf("the lock changed on its way: %v\n%s\n%s", err, data, again)
	}
	if strings.Count(string(data), "\n") != 4 {
		t.Errorf("there is not one package a line:\n%s", data)
	}
	if back.Bytes() != 30 {
		t.Errorf("it has %d bytes", back.Bytes())
	}
	other := sampleLock()
	other.Packages[1].SHA256 = strings.Repeat("c", 64)
	if n := back.Difference(other); n != 2 {
		t.Errorf("one changed package is a difference of %d entries", n)
	}
	for name, bad := range map[string]string{
		"another schema": `{"schema": 2, "packages": []}`, "trailing bytes": string(data) + "{}", "no digest": `{"schema": 1, "packages": [{"nevra": "a-1-1.noarch"}]}`,
		"an unknown field": `{"schema": 1, "x": 1}`, "no JSON": "lock",
	} {
		if _, err := ParseLock([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestNamesAndReleasesAreCutFromNEVRAs(t *testing.T) {
	for nevra, want := range map[string][2]string{
		"kernel-core-5.14.0-503.el9.x86_64": {"kernel-core", "5.14.0-503.el9.x86_64"}, "gmp-1:6.0.0-15.el7.x86_64": {"gmp", "6.0.0-15.el7.x86_64"}, "odd": {"odd", "odd"},
	} {
		if got := [2]string{Name(nevra), Release(nevra)}; got != want {
			t.Errorf("%s gives %q", nevra, got)
		}
	}
}

func TestVariablesInAddressesAreReplaced(t *testing.T) {
	c := Config{Arch: "x86_64", Distro: profiles.Distro{Release: "9", Vars: map[string]string{"stream": "9-stream"}}}
	if got := c.Expand("http://m/$stream/${basearch}/$releasever"); got != "http://m/9-stream/x86_64/9" {
		t.Errorf("got %s", got)
	}
}

func FuzzParseLock(f *testing.F) {
	data, err := sampleLock().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLock(data)
		if err != nil {
			return
		}
		again, err := l.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseLock(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}

func FuzzScanner(f *testing.F) {
	f.Add("  Installing       : a-1-1.x86_64    1/2\nError: x\n  y\n")
	f.Add("Problem: a\n  - b\n   c")
	f.Fuzz(func(t *testing.T, text string) {
		s, _ := scan(text)
		s.Reasons()
		Choices(text)
	})
}
