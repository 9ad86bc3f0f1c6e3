//go:build integration

package standin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// need skips a test on a host that lacks what it runs for real.
func need(t *testing.T, tools ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: dnf and chroot")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, which is not installed", tool)
		}
	}
}

// made gives the repository in the shared cache.
func made(t *testing.T) Repo {
	t.Helper()
	need(t, "apt-get", "dpkg-deb", "createrepo_c", "dnf", "rpm")
	repo, err := Make(t.Context(), Options{Progress: logSteps(t)})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func logSteps(t *testing.T) func(Progress) {
	last := ""
	return func(p Progress) {
		if p.Step != last {
			last = p.Step
			t.Log(p.Step)
		}
	}
}

// dnf runs dnf on an own configuration for a repository and a key, in an own mount namespace with /proc and /dev of the
// root mounted, as an image builder does.
func dnf(t *testing.T, baseURL, key, root string, args ...string) (string, error) {
	t.Helper()
	work := t.TempDir()
	for _, d := range []string{"proc", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := fmt.Sprintf("[main]\ngpgcheck=1\nreposdir=/dev/null\npluginpath=/dev/null\ncachedir=%[1]s/cache\nlogdir=%[1]s\n"+
		"persistdir=%[1]s/persist\ninstall_weak_deps=0\n[standin]\nname=standin\nbaseurl=%[2]s\ngpgkey=file://%[3]s\ngpgcheck=1\nrepo_gpgcheck=1\n",
		work, baseURL, key)
	for name, text := range map[string]string{"dnf.conf": conf, ".rpmmacros": "%_dbpath /var/lib/rpm\n%_db_backend sqlite\n"} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	argv := append([]string{"-y", "-c", filepath.Join(work, "dnf.conf"), "--installroot", root, "--releasever=9"}, args...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dnf", argv...)
	cmd.Env = append(os.Environ(), "HOME="+work, "LC_ALL=C.UTF-8", "SYSTEMD_OFFLINE=1", "KERNEL_INSTALL_BYPASS=1")
	return confined(root, cmd)
}

// confined runs a command in a mount namespace of its own, with /proc, /dev and, when the root has it, /sys mounted
// in the root. The namespace belongs to one thread, which ends with the goroutine, and all mounts with it.
func confined(root string, cmd *exec.Cmd) (string, error) {
	var out []byte
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("make mounts private: %w", err)
			}
			if err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""); err != nil {
				return fmt.Errorf("mount proc: %w", err)
			}
			if err := unix.Mount("/dev", filepath.Join(root, "dev"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
				return fmt.Errorf("mount dev: %w", err)
			}
			sys := filepath.Join(root, "sys")
			if err := unix.Mount("sysfs", sys, "sysfs", 0, ""); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("mount sysfs: %w", err)
			}
			var err error
			out, err = cmd.CombinedOutput()
			return err
		}()
	}()
	err := <-done
	return string(out), err
}

// inRoot runs a command of the installed system in it.
func inRoot(t *testing.T, root string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "chroot", append([]string{root}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8", "HOME=/root"}
	return confined(root, cmd)
}

func TestSecondCallIsImmediate(t *testing.T) {
	first := made(t)
	t.Setenv("PATH", "/nonexistent") // no apt, no network, nothing
	start := time.Now()
	second, err := Make(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); !second.Reused || took > time.Second {
		t.Errorf("reused %v in %v", second.Reused, took)
	}
	if first.Fingerprint != second.Fingerprint || first.Digest != second.Digest || first.Packages != second.Packages {
		t.Errorf("%+v became %+v", first, second)
	}
}

func TestCallersAtTheSameTimeShareOneRepository(t *testing.T) {
	made(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if r, err := Make(t.Context(), Options{}); err != nil || !r.Reused {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	wg.Wait()
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(t.Context(), filepath.Join(dir, ".lock"), func(Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Make(ctx, Options{Dir: dir, Progress: func(p Progress) {
		if strings.HasPrefix(p.Step, "wait for another") {
			cancel()
		}
	}})
	cancel()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestInstalledSystemIsWhole(t *testing.T) {
	repo := made(t)
	root := filepath.Join(t.TempDir(), "root")
	out, err := dnf(t, repo.BaseURL, repo.KeyFile, root, "install", "@core", "kernel", "kernel-modules-extra", "shim-x64",
		"grub2-efi-x64", "grub2-pc", "grub2-tools", "efibootmgr", "syslinux-extlinux", "dosfstools", "lvm2", "mdadm")
	if err != nil {
		t.Fatalf("dnf: %v\n%s", err, out)
	}
	for _, bad := range []string{"scriptlet failed", "Error in", "error:", "does not exist - using", "warning:"} {
		if strings.Contains(out, bad) {
			t.Errorf("dnf wrote %q:\n%s", bad, out)
		}
	}
	t.Run("rpm verifies all but accounts", func(t *testing.T) {
		out, _ := inRoot(t, root, "rpm", "-Va") // exits 1 when anything differs
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) < 3 || f[1] != "c" {
				t.Errorf("rpm -Va: %s", line)
			}
		}
	})
	t.Run("no program lacks a library", func(t *testing.T) {
		for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/lib/systemd"} {
			out, _ := inRoot(t, root, append([]string{"ldd"}, elfs(t, root, dir)...)...) // exits 1 for static programs
			name := ""
			for line := range strings.Lines(out) {
				if !strings.HasPrefix(line, "\t") {
					name = strings.TrimSpace(line)
				}
				if strings.Contains(line, "not found") {
					t.Errorf("%s %s", name, line)
				}
			}
		}
	})
	t.Run("server modules need none of the extra ones", func(t *testing.T) { moduleClosure(t, root) })
	t.Run("owners, special modes and capabilities are there", func(t *testing.T) {
		out, err := inRoot(t, root, "stat", "-c", "%a %U %G %n", "/usr/bin/su", "/usr/sbin/unix_chkpwd", "/usr/bin/crontab",
			"/usr/bin/ssh-agent", "/usr/lib/dbus-1.0/dbus-daemon-launch-helper", "/etc/polkit-1/rules.d", "/tmp", "/etc/shadow")
		want := "4755 root root /usr/bin/su\n2755 root shadow /usr/sbin/unix_chkpwd\n2755 root crontab /usr/bin/crontab\n" +
			"2755 root _ssh /usr/bin/ssh-agent\n4750 root messagebus /usr/lib/dbus-1.0/dbus-daemon-launch-helper\n" +
			"700 polkitd root /etc/polkit-1/rules.d\n1777 root root /tmp\n0 root root /etc/shadow\n"
		if err != nil || out != want {
			t.Errorf("%v, got\n%swant\n%s", err, out, want)
		}
		if out, err := inRoot(t, root, "getcap", "/usr/bin/ping"); err != nil || !strings.Contains(out, "cap_net_raw=ep") {
			t.Errorf("ping: %q, %v", out, err)
		}
	})
	t.Run("units are enabled by preset", func(t *testing.T) {
		out, err := inRoot(t, root, "systemctl", "is-enabled", "sshd.service", "NetworkManager.service", "chronyd.service", "getty@tty1.service")
		if err != nil || strings.Count(out, "enabled\n") != 4 {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("a second kernel comes with its initramfs and its boot loader entry, and goes with them", func(t *testing.T) { secondKernel(t, repo, root) })
}

// secondKernel installs another kernel, and removes it again, as a person does on the installed system.
func secondKernel(t *testing.T, repo Repo, root string) {
	const id, args = "0123456789abcdef0123456789abcdef", "root=UUID=1234 ro"
	for name, text := range map[string]string{"etc/machine-id": id + "\n", "etc/kernel/cmdline": args + "\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := filepath.Glob(filepath.Join(repo.Dir, "Packages", "kernel-cloud-core-*.rpm"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "root/kernel.rpm"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := inRoot(t, root, "rpm", "-i", "/root/kernel.rpm"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dirs, err := filepath.Glob(filepath.Join(root, "usr/lib/modules/*cloud*"))
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	release := filepath.Base(dirs[0])
	made := []string{
		"boot/vmlinuz-" + release, "boot/System.map-" + release, "boot/config-" + release, "boot/initramfs-" + release + ".img",
		"boot/loader/entries/" + id + "-" + release + ".conf",
	}
	for _, f := range made {
		if st, err := os.Stat(filepath.Join(root, f)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	entry, err := os.ReadFile(filepath.Join(root, made[4]))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"version " + release, "linux /boot/vmlinuz-" + release, "initrd /boot/initramfs-" + release + ".img", "options " + args} {
		if !strings.Contains(string(entry), "\n"+line+"\n") {
			t.Errorf("the entry has no line %q:\n%s", line, entry)
		}
	}
	if out, err := inRoot(t, root, "rpm", "-e", "kernel-cloud-core"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, f := range made {
		if _, err := os.Stat(filepath.Join(root, f)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", f, err)
		}
	}
}

// elfs are the ELF files directly in a directory of the root.
func elfs(t *testing.T, root, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		f, err := os.Open(filepath.Join(root, dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		magic := make([]byte, 4)
		n, _ := f.Read(magic)
		f.Close()
		if string(magic[:n]) == "\x7fELF" {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

func moduleClosure(t *testing.T, root string) {
	out, err := inRoot(t, root, "rpm", "-ql", "kernel-modules-extra")
	if err != nil {
		t.Fatal(err)
	}
	extra := map[string]bool{}
	for _, name := range strings.Fields(out) {
		extra[name[strings.Index(name, "/kernel/")+1:]] = true
	}
	deps, err := filepath.Glob(filepath.Join(root, "usr/lib/modules/*/modules.dep"))
	if err != nil || len(deps) != 1 {
		t.Fatalf("modules.dep: %v, %v", deps, err)
	}
	text, err := os.ReadFile(deps[0])
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		module, needs, _ := strings.Cut(line, ":")
		for _, n := range strings.Fields(needs) {
			if !extra[module] && extra[n] {
				t.Errorf("%s needs %s of kernel-modules-extra", module, n)
			}
		}
	}
}

// copyRepo makes a repository of hard links to one package's closure, to be tampered with.
func copyRepo(t *testing.T, repo Repo, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "Packages"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		found, err := filepath.Glob(filepath.Join(repo.Dir, "Packages", name+"-[0-9]*.rpm"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "Packages", filepath.Base(found[0])), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTamperedAndForeignPackagesAreRefused(t *testing.T) {
	repo := made(t)
	sig, err := openSigner(DefaultDir)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := openSigner(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key, err := stranger.public()
	if err != nil {
		t.Fatal(err)
	}
	strangerKey := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(strangerKey, key, 0o644); err != nil {
		t.Fatal(err)
	}
	small := []string{"setup", "filesystem", "basesystem"}
	cases := map[string]struct {
		tamper func(rpm []byte)
		signer *signer
		key    string
		ok     bool
		want   []string
	}{
		"as it was made": {signer: sig, key: repo.KeyFile, ok: true},
		"a byte of the payload differs": {
			tamper: func(b []byte) { b[len(b)-20] ^= 1 }, signer: sig, key: repo.KeyFile,
			want: []string{"GPG check FAILED", "digest", "not signed"}},
		"another key is expected":        {signer: stranger, key: strangerKey, want: []string{"GPG", "not installed", "not correct"}},
		"the metadata are not the key's": {signer: stranger, key: repo.KeyFile, want: []string{"GPG", "signature", "Bad"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := copyRepo(t, repo, small...)
			if c.tamper != nil {
				rpms, err := filepath.Glob(filepath.Join(dir, "Packages", "setup-*.rpm"))
				if err != nil || len(rpms) != 1 {
					t.Fatal(rpms, err)
				}
				b, err := os.ReadFile(rpms[0])
				if err != nil {
					t.Fatal(err)
				}
				c.tamper(b)
				if err := os.WriteFile(rpms[0], b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := index(t.Context(), Options{Progress: func(Progress) {}}, c.signer, dir); err != nil {
				t.Fatal(err)
			}
			root := filepath.Join(t.TempDir(), "root")
			out, err := dnf(t, "file://"+dir, c.key, root, "install", "basesystem")
			if (err == nil) != c.ok {
				t.Fatalf("dnf: %v\n%s", err, out)
			}
			if !c.ok && !slices.ContainsFunc(c.want, func(w string) bool { return strings.Contains(out, w) }) {
				t.Errorf("dnf refused for another reason:\n%s", out)
			}
			if _, err := os.Stat(filepath.Join(root, "etc/passwd")); (err == nil) != c.ok {
				t.Errorf("/etc/passwd: %v", err)
			}
		})
	}
}
