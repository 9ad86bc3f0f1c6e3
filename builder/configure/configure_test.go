package configure

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgbuild/builder/tree"
	"imgbuild/profiles"
)

// anImage makes a small image that this test's user owns.
func anImage(t *testing.T, files map[string]string) *tree.Tree {
	t.Helper()
	return anImageIn(t, t.TempDir(), files)
}

func anImageIn(t *testing.T, dir string, files map[string]string) *tree.Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("files get owners, which needs root")
	}
	base := map[string]string{
		"etc/passwd":             "root:x:0:0:root:/root:/bin/bash\nsshd:x:74:74:Privilege-separated SSH:/usr/share/empty.sshd:/sbin/nologin\n",
		"etc/shadow":             "root:*:18353:0:99999:7:::\nsshd:!!:19000::::::\n",
		"etc/group":              "root:x:0:\nwheel:x:10:\nsshd:x:74:\n",
		"etc/gshadow":            "root:::\nwheel:::\nsshd:!::\n",
		"etc/skel/.bashrc":       "alias",
		"etc/subuid":             "",
		"etc/sudoers":            "x",
		"usr/share/zoneinfo/UTC": "tz",
		"usr/lib/systemd/system/multi-user.target": "[Unit]\n",
	}
	for name, text := range files {
		base[name] = text
	}
	for name, text := range base {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := tree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

func read(t *testing.T, tr *tree.Tree, name string) string {
	t.Helper()
	data, err := tr.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAccountsAreWrittenAsUseraddWould(t *testing.T) {
	tr := anImage(t, nil)
	yes, uid := true, 1500
	p := &profiles.Profile{
		Groups: map[string]profiles.Group{"ops": {}, "daemons": {System: true}},
		Users: map[string]profiles.User{
			"anna": {Groups: []string{"wheel", "ops"}, Password: "$6$x$y", SSHKeys: []string{"ssh-ed25519 AAAA anna"}, Sudo: "nopasswd", Comment: "Anna"},
			"bob":  {UID: &uid, Group: "ops"},
			"job":  {System: true},
			"sshd": {Groups: []string{"ops"}},
		},
		Root: profiles.Root{Password: "$6$r$s", Locked: &yes, SSHKeys: []string{"ssh-ed25519 BBBB root"}},
		Sudo: map[string]string{"ops": "%ops ALL=(ALL) ALL"},
	}
	if err := Accounts(tr, p, time.Unix(86400*20000, 0)); err != nil {
		t.Fatal(err)
	}
	passwd := read(t, tr, "/etc/passwd")
	for _, line := range []string{
		"anna:x:1001:1001:Anna:/home/anna:/bin/bash", "bob:x:1500:1000::/home/bob:/bin/bash", "job:x:998:998::/home/job:/sbin/nologin", "sshd:x:74:74:Privilege-separated SSH:",
	} {
		if !strings.Contains(passwd, line) {
			t.Errorf("passwd has no %s:\n%s", line, passwd)
		}
	}
	shadow := read(t, tr, "/etc/shadow")
	for _, line := range []string{"root:!$6$r$s:20000:0:99999:7:::", "anna:$6$x$y:20000:0:99999:7:::", "bob:!!:20000:", "sshd:!!:19000:"} {
		if !strings.Contains(shadow, line) {
			t.Errorf("shadow has no %s:\n%s", line, shadow)
		}
	}
	if group := read(t, tr, "/etc/group"); !strings.Contains(group, "wheel:x:10:anna\n") || !strings.Contains(group, "ops:x:1000:anna,sshd\n") || !strings.Contains(group, "daemons:x:999:\n") {
		t.Errorf("group is:\n%s", group)
	}
	if got := read(t, tr, "/etc/sudoers.d/90-imgbuild-users"); got != "anna ALL=(ALL) NOPASSWD: ALL\n" {
		t.Errorf("sudo rules are %q", got)
	}
	if got := read(t, tr, "/home/anna/.ssh/authorized_keys"); got != "ssh-ed25519 AAAA anna\n" {
		t.Errorf("keys are %q", got)
	}
	st, err := tr.Stat("/home/anna/.bashrc")
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o644 {
		t.Errorf("the copy of /etc/skel has mode %v", st.Mode())
	}
	if got := read(t, tr, "/etc/subuid"); got != "anna:100000:65536\nbob:165536:65536\n" && got != "bob:100000:65536\nanna:165536:65536\n" {
		t.Errorf("subuid is %q", got)
	}
	if tr.Exists("/home/job") {
		t.Error("a system account got a home directory")
	}
}

func TestAccountsThatContradictThePackagesAreRefused(t *testing.T) {
	zero, one := 0, 1
	for name, c := range map[string]struct {
		p    profiles.Profile
		says string
	}{
		"a group nobody makes":       {profiles.Profile{Users: map[string]profiles.User{"a": {Groups: []string{"none"}}}}, "neither a package nor the profile makes that group"},
		"a primary group of nobody":  {profiles.Profile{Users: map[string]profiles.User{"a": {Group: "none"}}}, "neither a package nor the profile"},
		"another number for a group": {profiles.Profile{Groups: map[string]profiles.Group{"wheel": {GID: &one}}}, "a package made it with GID 10"},
		"another number for a user":  {profiles.Profile{Users: map[string]profiles.User{"sshd": {UID: &one}}}, "a package made it with UID 74"},
		"a number that is taken":     {profiles.Profile{Groups: map[string]profiles.Group{"x": {GID: &zero}}}, "is the group root's"},
		"a colon in a field":         {profiles.Profile{Users: map[string]profiles.User{"a": {Comment: "x:y"}}}, "colon"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Accounts(anImage(t, nil), &c.p, time.Unix(0, 0))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something that says %q", err, c.says)
			}
		})
	}
}

func TestSystemSettingsKeepWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	tr := anImageIn(t, dir, map[string]string{
		"etc/selinux/config":                   "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n",
		"etc/vconsole.conf":                    "KEYMAP=de\nFONT=eurlatgr\n",
		"usr/lib/firewalld/zones/public.xml":   "<zone>\n  <short>Public</short>\n  <service name=\"ssh\"/>\n</zone>\n",
		"usr/lib/firewalld/services/ssh.xml":   "x",
		"usr/lib/firewalld/services/https.xml": "x",
		"etc/firewalld/firewalld.conf":         "DefaultZone=public\nLogDenied=off\n",
	})
	yes := true
	p := &profiles.Profile{
		Distro:   profiles.Distro{Major: 9},
		Services: profiles.Services{Target: "multi-user.target"},
		System: profiles.System{
			Timezone: "UTC", Locale: "C.UTF-8", Keyboard: "us", Hostname: "node", SELinux: "permissive", Sysctl: map[string]string{"vm.swappiness": "10"},
			Firewall: profiles.Firewall{Enabled: &yes, Zone: "public", Services: []string{"ssh", "https"}, Ports: []string{"8080/tcp"}},
		},
		Kernel: profiles.Kernel{Args: []string{`dyndbg="x"`}, Modules: []string{"br_netfilter"}, Blacklist: []string{"nouveau"}, Options: map[string]string{"kvm": "a=1"}, Serial: "ttyS1,9600"},
	}
	if err := System(tr, p); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/etc/selinux/config":               "# comment\nSELINUX=permissive\nSELINUXTYPE=targeted\n",
		"/etc/vconsole.conf":                "KEYMAP=us\nFONT=eurlatgr\n",
		"/etc/locale.conf":                  "LANG=C.UTF-8\n",
		"/etc/hostname":                     "node\n",
		"/etc/sysctl.d/90-imgbuild.conf":    "vm.swappiness = 10\n",
		"/etc/modules-load.d/imgbuild.conf": "br_netfilter\n",
		"/etc/modprobe.d/imgbuild.conf":     "blacklist nouveau\noptions kvm a=1\n",
		"/etc/firewalld/zones/public.xml":   "<zone>\n  <short>Public</short>\n  <service name=\"ssh\"/>\n  <service name=\"https\"/>\n  <port protocol=\"tcp\" port=\"8080\"/>\n</zone>\n",
		"/etc/firewalld/firewalld.conf":     "DefaultZone=public\nLogDenied=off\n",
	} {
		if got := read(t, tr, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if grub := read(t, tr, "/etc/default/grub"); !strings.Contains(grub, `GRUB_CMDLINE_LINUX="dyndbg=\"x\" console=tty0 console=ttyS1,9600"`) {
		t.Errorf("grub's defaults are:\n%s", grub)
	}
	if to, err := os.Readlink(filepath.Join(dir, "etc/localtime")); err != nil || to != "../usr/share/zoneinfo/UTC" {
		t.Errorf("localtime is %s, %v", to, err)
	}
	p.System.Timezone, p.Services.Target, p.System.Firewall.Services = "Europe/Nowhere", "graphical.target", []string{"gopher"}
	err := System(tr, p)
	for _, s := range []string{"Europe/Nowhere", "graphical.target", "gopher"} {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("it does not say %s: %v", s, err)
		}
	}
}

func TestKernelArgumentsAreCompletedAndNotDoubled(t *testing.T) {
	for name, c := range map[string]struct {
		p    profiles.Profile
		want []string
	}{
		"a serial console":             {profiles.Profile{Kernel: profiles.Kernel{Serial: "ttyS0,115200n8"}}, []string{"console=tty0", "console=ttyS0,115200n8"}},
		"consoles of the profile's":    {profiles.Profile{Kernel: profiles.Kernel{Serial: "ttyS0", Args: []string{"console=tty1"}}}, []string{"console=tty1"}},
		"SELinux off, on EL9":          {profiles.Profile{Distro: profiles.Distro{Major: 9}, System: profiles.System{SELinux: "disabled"}}, []string{"selinux=0"}},
		"SELinux off, on EL7":          {profiles.Profile{Distro: profiles.Distro{Major: 7}, System: profiles.System{SELinux: "disabled"}}, nil},
		"SELinux off, and said before": {profiles.Profile{Distro: profiles.Distro{Major: 9}, System: profiles.System{SELinux: "disabled"}, Kernel: profiles.Kernel{Args: []string{"selinux=0"}}}, []string{"selinux=0"}},
	} {
		if got := Arguments(&c.p); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestFilesOfTheProfileAreWritten(t *testing.T) {
	tr := anImage(t, nil)
	source := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(source, []byte("bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := func(s string) *string { return &s }
	p := &profiles.Profile{
		Name: "web",
		Files: map[string]profiles.File{
			"/etc/motd":        {Content: text("hello\n")},
			"/usr/local/bin/x": {Content: text("#!/bin/sh\n")},
			"/etc/zone":        {Template: text("{{.Profile.Name}} {{.Vars.zone}}\n"), Vars: map[string]string{"zone": "a"}, Mode: "4640", Owner: "sshd", Group: "wheel"},
			"/srv/data":        {Directory: true, Mode: "2775"},
			"/etc/link":        {Link: "motd"},
			"/opt/tool":        {Source: source},
		},
	}
	if err := Files(tr, p); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{
		"/etc/motd": 0o644, "/usr/local/bin/x": 0o755, "/etc/zone": 0o640 | os.ModeSetuid, "/srv/data": 0o775 | os.ModeSetgid | os.ModeDir, "/opt/tool": 0o755, "/etc/link": 0o777 | os.ModeSymlink,
	} {
		st, err := tr.Lstat(name)
		if err != nil || st.Mode() != want {
			t.Errorf("%s has mode %v, %v", name, st.Mode(), err)
		}
	}
	if got := read(t, tr, "/etc/zone"); got != "web a\n" {
		t.Errorf("the template gave %q", got)
	}
	for name, f := range map[string]profiles.File{
		"an owner that nobody is":       {Content: text(""), Owner: "nobody-here"},
		"a template's missing variable": {Template: text("{{.Vars.none}}")},
		"a broken template":             {Template: text("{{")},
		"a mode that is not octal":      {Content: text(""), Mode: "0999"},
		"a source that is gone":         {Source: source + "-gone"},
	} {
		if err := Files(tr, &profiles.Profile{Files: map[string]profiles.File{"/x": f}}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestScriptsForTheMachineAreStoredInTheirOrder(t *testing.T) {
	tr := anImage(t, nil)
	source := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(source, []byte("#!/usr/bin/python3\nprint()"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &profiles.Profile{
		InstallScripts:   []profiles.MachineScript{{Name: "set up", Run: "echo a\n"}, {Name: "agent", File: source}},
		FirstBootScripts: []profiles.MachineScript{{Name: "join", Run: "#!/bin/bash\njoin\n"}},
	}
	if err := Scripts(tr, p); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/usr/lib/imgbuild/install.d/001-set-up":  "#!/bin/sh -e\necho a\n",
		"/usr/lib/imgbuild/install.d/002-agent":   "#!/usr/bin/python3\nprint()\n",
		"/usr/lib/imgbuild/first-boot.d/001-join": "#!/bin/bash\njoin\n",
	} {
		if got := read(t, tr, name); got != want {
			t.Errorf("%s is %q", name, got)
		}
		if st, err := tr.Stat(name); err != nil || st.Mode() != 0o755 {
			t.Errorf("%s has mode %v, %v", name, st.Mode(), err)
		}
	}
	p.InstallScripts[1].File = source + "-gone"
	if err := Scripts(tr, p); err == nil || !strings.Contains(err.Error(), "agent") {
		t.Errorf("got %v", err)
	}
}

func TestCleaningLeavesWhatPackagesOwn(t *testing.T) {
	tr := anImage(t, map[string]string{
		"etc/machine-id": "abc\n", "etc/ssh/ssh_host_rsa_key": "k", "etc/ssh/sshd_config": "c", "run/x": "", "tmp/y/z": "", "var/log/messages": "line\n",
		"var/log/dnf.log": "x", "var/log/hawkey.log-2": "x", "var/cache/dnf/a/b": "x", "var/lib/systemd/random-seed": "x", "var/lib/rpm/rpmdb.sqlite": "db", "var/lib/rpm/__db.001": "x",
	})
	if err := Clean(tr); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"/etc/ssh/ssh_host_rsa_key", "/run/x", "/tmp/y", "/var/log/dnf.log", "/var/log/hawkey.log-2", "/var/cache/dnf/a", "/var/lib/systemd/random-seed", "/var/lib/rpm/__db.001"} {
		if tr.Exists(gone) {
			t.Errorf("%s is still there", gone)
		}
	}
	for name, want := range map[string]string{"/etc/machine-id": "", "/var/log/messages": "", "/etc/ssh/sshd_config": "c", "/var/lib/rpm/rpmdb.sqlite": "db"} {
		if got := read(t, tr, name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	for _, dir := range []string{"/run", "/tmp", "/var/cache/dnf"} {
		if !tr.Exists(dir) {
			t.Errorf("the directory %s is gone", dir)
		}
	}
}
