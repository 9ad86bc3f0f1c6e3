package accounts

import (
	"strings"
	"testing"
	"time"
)

func image(t testing.TB) *Accounts {
	t.Helper()
	a, err := Parse(Files{
		Passwd:  "root:x:0:0:root:/root:/bin/bash\nsshd:x:74:74::/var/empty:/sbin/nologin\n# a remark\n",
		Shadow:  "root:*:18353:0:99999:7:::\nsshd:!!:19000::::::\n",
		Group:   "root:x:0:\nwheel:x:10:anna\nsshd:x:74:\nstray:x:1000:\n",
		Gshadow: "root:::\nwheel:::\n",
	}, time.Unix(86400*20000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAUserIsAddedAsUseraddWould(t *testing.T) {
	a := image(t)
	e, err := a.AddUser(User{Name: "bob", Groups: []string{"wheel"}, Password: "$6$a$b", Comment: "Bob"})
	if err != nil || e.UID != 1001 || e.GID != 1001 || e.Home != "/home/bob" || !e.Fresh {
		t.Fatalf("%+v, %v", e, err)
	}
	if e, err = a.AddUser(User{Name: "root", Password: "$6$c$d"}); err != nil || e.Fresh || e.UID != 0 || e.Home != "/root" {
		t.Fatalf("%+v, %v", e, err)
	}
	if e, err = a.AddUser(User{Name: "bob", Shell: "/bin/zsh"}); err != nil || e.Fresh {
		t.Fatalf("%+v, %v", e, err)
	}
	f := a.Files()
	for text, want := range map[string]string{
		f.Passwd:  "root:x:0:0:root:/root:/bin/bash\nsshd:x:74:74::/var/empty:/sbin/nologin\n# a remark\nbob:x:1001:1001:Bob:/home/bob:/bin/zsh\n",
		f.Shadow:  "root:$6$c$d:20000:0:99999:7:::\nsshd:!!:19000::::::\nbob:$6$a$b:20000:0:99999:7:::\n",
		f.Group:   "root:x:0:\nwheel:x:10:anna,bob\nsshd:x:74:\nstray:x:1000:\nbob:x:1001:\n",
		f.Gshadow: "root:::\nwheel:::bob\nbob:!::\n",
	} {
		if text != want {
			t.Errorf("got\n%s\nwant\n%s", text, want)
		}
	}
}

func TestWhatWouldBreakTheFilesIsRefused(t *testing.T) {
	uid := 5
	for name, f := range map[string]func(*Accounts) error{
		"a colon in a name":          func(a *Accounts) error { _, err := a.AddUser(User{Name: "a:b"}); return err },
		"a line break in a comment":  func(a *Accounts) error { _, err := a.AddUser(User{Name: "a", Comment: "x\nroot2:x:0:0"}); return err },
		"a line break in a password": func(a *Accounts) error { _, err := a.AddUser(User{Name: "a", Password: "x\ny"}); return err },
		"a line break in a group":    func(a *Accounts) error { return a.AddGroup("a\nb", nil, false) },
		"a group that is not there":  func(a *Accounts) error { _, err := a.AddUser(User{Name: "a", Groups: []string{"none"}}); return err },
		"another number":             func(a *Accounts) error { _, err := a.AddUser(User{Name: "sshd", UID: &uid}); return err },
	} {
		a := image(t)
		if f(a) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := Parse(Files{Passwd: "root:x:0:0:::\n"}, time.Now()); err == nil {
		t.Error("an image without groups was taken")
	}
}

func TestNamesAreLookedUp(t *testing.T) {
	a := image(t)
	for name, want := range map[string]int{"": 0, "root": 0, "wheel": 10, "42": 42} {
		if got, err := a.Lookup(name, true); err != nil || got != want {
			t.Errorf("%q: %d, %v", name, got, err)
		}
	}
	if _, err := a.Lookup("wheel", false); err == nil {
		t.Error("a group was taken for a user")
	}
}

func TestSubordinateNumbersDoNotOverlap(t *testing.T) {
	text := Subordinate(Subordinate("old:100000:65536", "anna"), "anna")
	if text != "old:100000:65536\nanna:165536:65536\n" {
		t.Errorf("%q", text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/bash\n", "root:x:0:\n", "bob")
	f.Add("\n:::\nroot", "::", "")
	f.Fuzz(func(t *testing.T, passwd, group, name string) {
		a, err := Parse(Files{Passwd: passwd, Group: group}, time.Unix(0, 0))
		if err != nil {
			return
		}
		before := strings.Count(a.Files().Passwd, "\n")
		if _, err := a.AddUser(User{Name: name}); err == nil && strings.Count(a.Files().Passwd, "\n") > before+1 {
			t.Errorf("one user %q became several lines", name)
		}
	})
}
