package builder

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/builder/dnf"
	"imgbuild/profiles"
)

var update = flag.Bool("update", false, "write the golden files anew")

// planned makes a plan with functions that fail the test when they are called: a plan asks nobody.
func planned(t *testing.T, p *profiles.Profile, change func(*Options)) *Plan {
	t.Helper()
	o := Options{
		Profile: p, Out: "/out", Cache: "/cache", KeyFile: "/key",
		Installer: func(string, bool) ([]byte, error) { panic("the plan asked for the installer") },
	}
	if change != nil {
		change(&o)
	}
	plan, err := NewPlan(o)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func shipped(t *testing.T, name string) *profiles.Profile {
	t.Helper()
	p, err := profiles.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s has changed (go test -update writes it anew):\n%s", file, got)
	}
}

func TestPlansOfShippedProfilesAreTheGoldenOnes(t *testing.T) {
	for _, name := range []string{"centos-stream-10", "centos-stream-9", "rocky-9", "almalinux-9", "centos-7", "openstack-compute"} {
		t.Run(name, func(t *testing.T) {
			golden(t, "plan-"+name+".txt", planned(t, shipped(t, name), nil).String())
		})
	}
}

func TestDnfConfigurationIsTheGoldenOne(t *testing.T) {
	for _, name := range []string{"centos-7", "openstack-compute"} {
		t.Run(name, func(t *testing.T) {
			p := planned(t, shipped(t, name), nil)
			c := p.config
			c.Keys = map[string][]string{}
			for id := range c.Repositories {
				c.Keys[id] = []string{"/build/dnf/keys/" + id + ".asc"}
			}
			golden(t, "dnf-"+name+".txt", c.Text("/build/dnf")+"\n# ~/.rpmmacros\n"+c.Macros())
		})
	}
}

func TestARepositoryCanBeTakenFromElsewhere(t *testing.T) {
	p := shipped(t, "centos-stream-9")
	plan := planned(t, p, func(o *Options) { o.RepoOverride = map[string]string{"baseos": "http://mirror/baseos"} })
	if r := plan.config.Repositories["baseos"]; r.Metalink != "" || !slices.Equal(r.BaseURL, []string{"http://mirror/baseos"}) {
		t.Errorf("the repository is %+v", r)
	}
	if p.Repositories["baseos"].Metalink == "" {
		t.Error("the profile itself was changed")
	}
	_, err := NewPlan(Options{
		Profile: p, Out: "/o", Cache: "/c", KeyFile: "/k", Installer: func(string, bool) ([]byte, error) { return nil, nil },
		RepoOverride: map[string]string{"bseos": "http://mirror"},
	})
	if err == nil || !strings.Contains(err.Error(), "appstream, baseos") {
		t.Errorf("an unknown repository gives %v", err)
	}
}

func TestWhatIsPlannedNeedsItsOptions(t *testing.T) {
	_, err := NewPlan(Options{})
	if err == nil {
		t.Fatal("an empty plan was made")
	}
	for _, s := range []string{"profile", "output directory", "cache directory", "key file", "installer"} {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("it does not say that there is no %s: %v", s, err)
		}
	}
}

func TestTheResolveDigestChangesWithWhatDecidesPackages(t *testing.T) {
	base := func() *profiles.Profile { return shipped(t, "centos-stream-9") }
	digestOf := func(change func(*profiles.Profile)) string {
		p := base()
		change(p)
		d, err := planned(t, p, nil).resolveDigest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	same := digestOf(func(*profiles.Profile) {})
	yes := true
	for name, c := range map[string]struct {
		change  func(*profiles.Profile)
		changes bool
	}{
		"one more package":     {func(p *profiles.Profile) { p.Packages.Install = append(p.Packages.Install, "vim") }, true},
		"one less":             {func(p *profiles.Profile) { p.Packages.Exclude = append(p.Packages.Exclude, "tar") }, true},
		"weak dependencies":    {func(p *profiles.Profile) { p.Packages.WeakDeps = &yes }, true},
		"another dnf variable": {func(p *profiles.Profile) { p.Distro.Vars["stream"] = "9-next" }, true},
		"another address": {func(p *profiles.Profile) {
			r := p.Repositories["baseos"]
			r.Metalink += "&x"
			p.Repositories["baseos"] = r
		}, true},
		"another host name":       {func(p *profiles.Profile) { p.System.Hostname = "x" }, false},
		"another user":            {func(p *profiles.Profile) { p.Users = map[string]profiles.User{"x": {}} }, false},
		"another kernel argument": {func(p *profiles.Profile) { p.Kernel.Args = []string{"quiet"} }, false},
		"another compression":     {func(p *profiles.Profile) { p.Pack.CompressionLevel = 1 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := digestOf(c.change) != same; got != c.changes {
				t.Errorf("the digest changed: %v", got)
			}
		})
	}
}

func TestTheReleaseDigestChangesWithEverything(t *testing.T) {
	source := filepath.Join(t.TempDir(), "motd")
	write := func(s string) {
		if err := os.WriteFile(source, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	installer := "installer"
	p := shipped(t, "centos-stream-9")
	p.Files = map[string]profiles.File{"/etc/motd": {Source: source}}
	lock := []byte("lock")
	date := time.Time{}
	digestOf := func() string {
		plan := planned(t, p, func(o *Options) {
			o.Installer = func(string, bool) ([]byte, error) { return []byte(installer), nil }
			o.SourceDate = date
			o.KeyFile = filepath.Join(filepath.Dir(source), "key")
		})
		d, err := plan.releaseDigest(lock)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	before := digestOf()
	if digestOf() != before {
		t.Fatal("the same things give two digests")
	}
	for _, c := range []struct {
		name   string
		change func()
	}{
		{"a file that the profile names", func() { write("two") }},
		{"the installer", func() { installer = "another" }},
		{"the lock", func() { lock = []byte("newer") }},
		{"the time stamp", func() { date = time.Unix(1, 0) }},
	} {
		c.change()
		after := digestOf()
		if after == before {
			t.Errorf("%s changed and the digest did not", c.name)
		}
		before = after
	}
}

func TestTheTreeDigestIsTheLocksAndTheSettings(t *testing.T) {
	p := shipped(t, "centos-stream-9")
	lock := &dnf.Lock{Packages: []dnf.Package{{NEVRA: "a-1-1.noarch", SHA256: "x"}}}
	one, err := planned(t, p, nil).treeDigest(lock)
	if err != nil {
		t.Fatal(err)
	}
	lock.Inputs, lock.Packages[0].Path = "whatever", "/elsewhere"
	if same, _ := planned(t, p, nil).treeDigest(lock); same != one {
		t.Error("where the packages were found changes the tree")
	}
	lock.Packages[0].SHA256 = "y"
	if other, _ := planned(t, p, nil).treeDigest(lock); other == one {
		t.Error("a package with other bytes gives the same tree")
	}
}
