//go:build integration

package target

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/installer/unpack"
)

// TestMountPointsShowWhatTheImageHasThere unpacks a labelled image over several mounted file systems, one below another, and
// unmounts them again.
func TestMountPointsShowWhatTheImageHasThere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip(err)
	}
	image, dest := t.TempDir(), t.TempDir()
	label := func(dir, name, text string) {
		t.Helper()
		if err := unix.Lsetxattr(filepath.Join(dir, name), selinux, append([]byte(text), 0), 0); err != nil {
			t.Skip("this file system takes no SELinux labels:", err)
		}
	}
	const policy = "/.*\tsystem_u:object_r:default_t:s0\n/var(/.*)?\tsystem_u:object_r:var_t:s0\n/data1\tsystem_u:object_r:data_t:s0\n"
	for _, d := range []struct {
		name  string
		mode  fs.FileMode
		label string
	}{
		{".", 0o555, "system_u:object_r:root_t:s0"}, {"var", 0o755, "system_u:object_r:var_t:s0"}, {"var/tmp", 0o777 | fs.ModeSticky, "system_u:object_r:tmp_t:s0"},
		{"var/log", 0o755, "system_u:object_r:var_log_t:s0"}, {"etc/selinux/targeted/contexts/files", 0o755, "system_u:object_r:etc_t:s0"},
	} {
		p := filepath.Join(image, d.name)
		if err := errors.Join(os.MkdirAll(p, 0o755), os.Chmod(p, d.mode)); err != nil {
			t.Fatal(err)
		}
		label(image, d.name, d.label)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(image, "etc/selinux/config"), []byte("SELINUXTYPE=targeted\n"), 0o644),
		os.WriteFile(filepath.Join(image, "etc/selinux/targeted/contexts/files/file_contexts"), []byte(policy), 0o644), os.Chown(filepath.Join(image, "var/log"), 0, 4)); err != nil {
		t.Fatal(err)
	}
	squash := filepath.Join(t.TempDir(), "rootfs")
	if out, err := exec.Command("mksquashfs", image, squash, "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mounts := []string{"var", "var/tmp", "var/log", "var/log/audit", "data1"} // the image has no directory for the last two
	for _, m := range mounts {
		p := filepath.Join(dest, m)
		if err := errors.Join(os.MkdirAll(p, 0o755), unix.Mount("tmpfs", p, "tmpfs", 0, "size=1m,mode=755")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(p, unix.MNT_DETACH) })
	}
	f, err := os.Open(squash)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unpack.Unpack(t.Context(), f, st.Size(), dest, unpack.Options{}); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dest)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	want := map[string]string{
		"var": "drwxr-xr-x 0 system_u:object_r:var_t:s0", "var/tmp": "dtrwxrwxrwx 0 system_u:object_r:tmp_t:s0", "var/log": "drwxr-xr-x 4 system_u:object_r:var_log_t:s0",
		"var/log/audit": "drwx------ 0 system_u:object_r:var_t:s0", "data1": "drwxr-xr-x 0 system_u:object_r:data_t:s0",
	}
	shows := func(name string) string {
		t.Helper()
		p := filepath.Join(dest, name)
		st, err := os.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		var raw unix.Stat_t
		b := make([]byte, 256)
		n, err := unix.Lgetxattr(p, selinux, b)
		if err = errors.Join(err, unix.Lstat(p, &raw)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return st.Mode().String() + " " + string(rune('0'+raw.Gid)) + " " + strings.TrimRight(string(b[:max(n, 0)]), "\x00")
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		m := mounts[i]
		p, err := TakeMountPoint(root, "/"+m)
		if err != nil {
			t.Fatal(err)
		}
		if got := shows(m); got != want[m] {
			t.Errorf("/%s shows %q while it is mounted, want %q", m, got, want[m])
		}
		if err := unix.Unmount(filepath.Join(dest, m), 0); err != nil {
			t.Fatal(err)
		}
		if err := p.Give(root); err != nil {
			t.Fatal(err)
		}
		if got := shows(m); got != want[m] {
			t.Errorf("/%s shows %q below, want %q", m, got, want[m])
		}
	}
}
