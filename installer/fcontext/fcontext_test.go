package fcontext

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const contexts = `# a remark
/.*	system_u:object_r:default_t:s0
/	-d	system_u:object_r:root_t:s0
/etc(/.*)?	system_u:object_r:etc_t:s0
/etc/hostname	--	system_u:object_r:hostname_etc_t:s0
/etc/ho.*	system_u:object_r:other_t:s0
/etc/\.pwd\.lock	--	system_u:object_r:shadow_t:s0
/etc/[gs]?shadow.*	--	system_u:object_r:shadow_t:s0
/usr/lib/systemd/system(/.*)?	system_u:object_r:systemd_unit_file_t:s0
/usr/(.*/)?libexec(/.*)?	system_u:object_r:bin_t:s0
/tmp/.*	<<none>>
/a|/b	system_u:object_r:either_t:s0
/odd(?!x)	system_u:object_r:never_t:s0
`

func files(m map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if s, ok := m[name]; ok {
			return []byte(s), nil
		}
		return nil, fs.ErrNotExist
	}
}

const base = "etc/selinux/targeted/contexts/files/file_contexts"

func TestAFilesLabelIsTheLastThatMatchesAndPathsComeFirst(t *testing.T) {
	p, err := Load(files(map[string]string{
		config: "# x\nSELINUX=enforcing\nSELINUXTYPE=targeted\n", base: contexts,
		base + ".homedirs":  "/home/[^/]+/\\.ssh(/.*)?\tunconfined_u:object_r:ssh_home_t:s0\n",
		base + ".local":     "/srv/mine(/.*)?\tsystem_u:object_r:mine_t:s0\n",
		base + ".subs":      "/data/home /home\n",
		base + ".subs_dist": "# x\n/etc/systemd/system /usr/lib/systemd/system\n/run/x /\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/etc/hostname": "hostname_etc_t", "/etc/hosts": "other_t", "/etc/fstab": "etc_t", "/etc/.pwd.lock": "shadow_t", "/etc/apwd.lock": "etc_t", "/etc/gshadow-": "shadow_t",
		"/etc/systemd/system/a.service": "systemd_unit_file_t", "/usr/libexec/x/y": "bin_t", "/usr/a/b/libexec": "bin_t", "/tmp/x": "", "/a": "either_t", "/b": "either_t",
		"/home/anna/.ssh/authorized_keys": "ssh_home_t", "/data/home/anna/.ssh": "ssh_home_t", "/srv/mine/x": "mine_t", "/oddy": "default_t", "/run/x/etc/fstab": "etc_t", "//etc//fstab": "etc_t",
	} {
		got, ok := p.Label(name, 0)
		if ok != (want != "") || want != "" && !strings.Contains(got, ":"+want+":") {
			t.Errorf("%s is %q, %v; want %s", name, got, ok, want)
		}
	}
	if got, _ := p.Label("/etc/hostname", fs.ModeDir); !strings.Contains(got, "other_t") {
		t.Errorf("a directory has a file's label: %s", got)
	}
	if got, _ := p.Label("/", fs.ModeDir|0o755); !strings.Contains(got, "root_t") {
		t.Errorf("/ is %s", got)
	}
}

func TestAnImageWithoutAPolicyHasNone(t *testing.T) {
	for name, m := range map[string]map[string]string{"nothing": {}, "a configuration without a policy": {config: "SELINUX=disabled\n"}} {
		if p, err := Load(files(m)); p != nil || err != nil {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	for name, text := range map[string]string{"a kind that is none": "/x -z a:b:c:d\n", "too many words": "/x -- a:b:c:d e\n", "one word": "/x\n"} {
		if _, err := Load(files(map[string]string{config: "", base: text})); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	broken := errors.New("broken")
	if _, err := Load(func(string) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// TestLabelsAreThoseOfMatchpathcon compares with libselinux, by a real policy.
func TestLabelsAreThoseOfMatchpathcon(t *testing.T) {
	tool, err := exec.LookPath("matchpathcon")
	if err != nil {
		t.Skip("matchpathcon (selinux-utils) is not installed")
	}
	p, err := Load(func(name string) ([]byte, error) { return os.ReadFile("/" + name) })
	if err != nil {
		t.Fatal(err)
	}
	if p == nil {
		t.Skip("no SELinux policy is installed (selinux-policy-default)")
	}
	for kind, paths := range map[string][]string{
		"file": {
			"/etc/hostname", "/etc/passwd", "/etc/shadow", "/etc/gshadow", "/etc/group", "/etc/subuid", "/etc/fstab", "/etc/machine-id", "/etc/sudoers.d/90-x",
			"/etc/NetworkManager/system-connections/eth0.nmconnection", "/etc/sysconfig/network-scripts/ifcfg-eth0", "/etc/resolv.conf", "/etc/systemd/system/x.service",
			"/etc/imgbuild/host.json", "/usr/libexec/imgbuild/firstboot", "/usr/lib/imgbuild/install.d/10-x", "/var/lib/imgbuild/firstboot.json", "/home/anna/.ssh/authorized_keys",
			"/home/anna/.bashrc", "/root/.ssh/authorized_keys", "/root/.bashrc", "/usr/bin/passwd", "/usr/bin/su", "/usr/sbin/sshd", "/boot/vmlinuz-5", "/boot/grub/grub.cfg",
			"/etc/ssh/ssh_host_rsa_key", "/var/log/messages", "/var/log/audit/audit.log", "/srv/x", "/opt/a/b.so", "/tmp/x", "/usr/lib64/libc.so.6", "/etc/cron.d/x", "/var/spool/cron/root",
			"/lib/modules/5/kernel/x.ko", "/usr/local/bin/x", "/nowhere",
		},
		"dir": {"/", "/etc", "/home", "/home/anna", "/root", "/root/.ssh", "/home/anna/.ssh", "/etc/imgbuild", "/usr/libexec/imgbuild", "/var/lib/imgbuild", "/etc/NetworkManager", "/mnt/x", "/proc", "/tmp", "/boot"},
	} {
		out, err := exec.Command(tool, append([]string{"-n", "-m", kind}, paths...)...).CombinedOutput()
		if err != nil {
			t.Skipf("matchpathcon: %v\n%s", err, out)
		}
		mode := fs.FileMode(0)
		if kind == "dir" {
			mode = fs.ModeDir
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != len(paths) {
			t.Fatalf("%d paths and %d labels:\n%s", len(paths), len(lines), out)
		}
		for i, name := range paths {
			got, ok := p.Label(name, mode)
			if !ok {
				got = "<<none>>"
			}
			if got != strings.TrimSpace(lines[i]) {
				t.Errorf("%s is %s, and by libselinux %s", name, got, lines[i])
			}
		}
	}
	bad := 0
	for _, s := range p.specs {
		s.matches(s.prefix)
		if !s.exact && s.re == nil {
			bad++
			t.Logf("not read: %s", s.expr)
		}
	}
	t.Logf("%d expressions, %d of them not read", len(p.specs), bad)
	if bad*100 > len(p.specs) {
		t.Errorf("%d of %d expressions are not read", bad, len(p.specs))
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(contexts, "/etc/hostname")
	f.Add("/x{ a:b\n/[ a:b\n/( a:b\n/\\ a:b\n? a:b\n/a[]|]b|c a:b\n", "/x")
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := Load(files(map[string]string{config: "", base: text}))
		if err != nil || p == nil {
			return
		}
		p.Label(name, 0)
		for _, s := range p.specs {
			re, err := regexp.Compile(`^(?s:` + s.expr + `)$`)
			if err == nil && re.MatchString(name) != s.matches(name) {
				t.Errorf("%q and %q: the prefix %q lies", s.expr, name, s.prefix)
			}
		}
	})
}
