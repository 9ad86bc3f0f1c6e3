//go:build integration

package unpack_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// describe returns a line for each name below dir with everything that an unpacked tree is to have. Inode numbers are
// replaced by the first name of the file. Link counts of directories differ between file systems and are left out.
func describe(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	type group struct{ dev, ino uint64 }
	first := map[group]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		s := fmt.Sprintf("mode=%o owner=%d:%d mtime=%d.%d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			sum, err := sumFile(p)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" size=%d sha256=%s", st.Size, sum)
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" target=%q", to)
		case unix.S_IFBLK, unix.S_IFCHR:
			s += fmt.Sprintf(" rdev=%d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			g := group{st.Dev, st.Ino}
			if first[g] == "" {
				first[g] = name
			}
			s += fmt.Sprintf(" nlink=%d same=%q", st.Nlink, first[g])
		}
		x, err := xattrsOf(p)
		if err != nil {
			return err
		}
		out[name] = s + x
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sumFile(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:12]), nil
}

func xattrsOf(p string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if errors.Is(err, unix.EOPNOTSUPP) { // an image mounted by the kernel that has none at all
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("list extended attributes of %s: %w", p, err)
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	sort.Strings(names)
	s := ""
	for _, name := range names {
		n, err := unix.Lgetxattr(p, name, buf)
		if err != nil {
			return "", fmt.Errorf("read %s of %s: %w", name, p, err)
		}
		sum := sha256.Sum256(buf[:n])
		s += fmt.Sprintf(" %s=%d:%x", name, n, sum[:6])
	}
	return s, nil
}

// sameTrees compares two descriptions.
func sameTrees(t *testing.T, got, want map[string]string, peer string) {
	t.Helper()
	bad := 0
	names := map[string]bool{}
	for n := range got {
		names[n] = true
	}
	for n := range want {
		names[n] = true
	}
	sorted := make([]string, 0, len(names))
	for n := range names {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	for _, n := range sorted {
		if got[n] == want[n] {
			continue
		}
		if bad++; bad <= 5 {
			t.Errorf("%.60q:\n  unpack:  %s\n  %s: %s", n, got[n], peer, want[n])
		}
	}
	if bad > 5 {
		t.Errorf("and %d more of %d", bad-5, len(sorted))
	}
}

// needRoot skips tests that make devices and mounts, and those without their tools.
func needRoot(t testing.TB, tools ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make devices, owners and mounts")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

func tool(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
}

// mountImage mounts an image with the kernel's squashfs.
func mountImage(t *testing.T, img string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "squashfs", "-o", "loop,ro", img, dir).CombinedOutput(); err != nil {
		t.Skipf("this kernel does not mount the image: %v: %s", err, bytes.TrimSpace(out))
	}
	t.Cleanup(func() { tool(t, "umount", dir) })
	return dir
}

// mountTmpfs mounts a tmpfs on dir.
func mountTmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
