//go:build integration

package builder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cavaliergopher/rpm"
	"golang.org/x/sys/unix"

	"imgbuild/builder/tree"
	"imgbuild/installer/unpack"
	"imgbuild/profiles"
)

// el7Packages is what the real CentOS 7 packages' README asks dnf for: 193 packages with their dependencies.
const el7Packages = "basesystem bash coreutils filesystem systemd util-linux openssh-server lvm2 xfsprogs dracut grub2-pc grub2-efi-x64 shim-x64 " +
	"kernel yum rpm passwd iproute iputils NetworkManager chrony rsyslog sudo vim-minimal"

// el7Options are options for the real packages. The five that were remade unsigned are signed with a key of the test's.
func el7Options(t *testing.T, dir string) Options {
	t.Helper()
	bridge, home := t.TempDir(), t.TempDir()
	runTool(t, nil, "cp", "-r", filepath.Join(dir, "bridge/Packages"), bridge)
	env := []string{"GNUPGHOME=" + home, "HOME=" + home}
	runTool(t, env, "gpg", "--batch", "--passphrase", "", "--quick-gen-key", "Bridge <bridge@example.invalid>", "rsa2048", "sign", "never")
	key := filepath.Join(bridge, "key.asc")
	runTool(t, env, "gpg", "--batch", "--armor", "--output", key, "--export")
	rpms, err := filepath.Glob(filepath.Join(bridge, "Packages/*.rpm"))
	if err != nil || len(rpms) == 0 {
		t.Fatalf("no packages in %s: %v", bridge, err)
	}
	gpg := strings.TrimSpace(runTool(t, nil, "which", "gpg"))
	sign := []string{"rpmsign", "--define", "_gpg_name Bridge", "--define", "__gpg " + gpg, "--define", "_gpg_digest_algo sha256", "--addsign"}
	runTool(t, env, append(sign, rpms...)...)
	runTool(t, nil, "createrepo_c", "-q", bridge)

	o := testOptions(t, "", key, strings.Fields(el7Packages)...)
	p := o.Profile
	p.Name, p.Distro = "el7", profiles.Distro{ID: "centos", Release: "7", Major: 7}
	p.Kernel.Package = "kernel"
	yes := true
	p.Packages.Docs = &yes // EL7's rpm cannot be told that documentation was left out, so it would be missed
	p.Packages.Exclude = []string{"dosfstools", "e2fsprogs", "syslinux-extlinux"}
	p.Repositories = map[string]profiles.Repository{
		"os": {BaseURL: []string{"file://" + dir + "/os"}, Priority: 99, GPGKeys: []profiles.GPGKey{{
			File: filepath.Join(dir, "RPM-GPG-KEY-CentOS-7"), Fingerprint: "6341 AB27 53D7 8A78 A7C2 7BB1 24C6 A8A7 F4A8 0EB5",
		}}},
		"bridge": {BaseURL: []string{"file://" + bridge}, Priority: 99, GPGKeys: []profiles.GPGKey{{File: key}}},
	}
	return o
}

func TestRealCentOS7PackagesSurviveInstallationAndPacking(t *testing.T) {
	dir := os.Getenv("IMGBUILD_EL7")
	if dir == "" {
		t.Skip("IMGBUILD_EL7 names no directory with real CentOS 7 packages")
	}
	needRoot(t, "dnf", "rpm", "rpmsign", "gpg", "createrepo_c", "mksquashfs", "unsquashfs")
	b, err := runStages(t.Context(), t, el7Options(t, dir), StagePackages)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(b.lock.Packages); n != 193 {
		t.Errorf("%d packages are locked and 193 expected", n)
	}
	installed := filepath.Join(b.treeDir, "root")
	var files, setuid, caps, links int
	for _, p := range b.lock.Packages {
		c := compareWithHeader(t, installed, p.Path)
		files, setuid, caps, links = files+c.files, setuid+c.setuid, caps+c.caps, links+c.links
	}
	t.Logf("%d files are as their packages' headers say; %d of them setuid or setgid, %d with capabilities, %d hard links", files, setuid, caps, links)
	if files < 10000 || setuid < 10 || caps < 2 || links < 2 {
		t.Errorf("that is too little to have compared everything")
	}
	b.root = installed
	if b.tree, err = tree.Open(installed); err != nil {
		t.Fatal(err)
	}
	defer b.tree.Close()
	squash, err := b.squashfs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("squashfs: %d bytes, %s", squash.bytes, squash.note)
	unpacked := filepath.Join(t.TempDir(), "unpacked")
	runTool(t, nil, "unsquashfs", "-no-progress", "-d", unpacked, filepath.Join(b.work, "rootfs.squashfs"))
	compareTrees(t, installed, unpacked)
	for _, mkfs := range [][]string{{"mkfs.xfs", "-q"}, {"mkfs.ext4", "-q", "-F"}} {
		t.Run("installed on what "+mkfs[0]+" makes", func(t *testing.T) {
			disk := diskWith(t, mkfs)
			unpackLikeTheInstaller(t, filepath.Join(b.work, "rootfs.squashfs"), disk)
			compareTrees(t, installed, disk)
		})
	}
}

// diskWith mounts a new file system on a loop device until the test ends.
func diskWith(t *testing.T, mkfs []string) string {
	t.Helper()
	needRoot(t, mkfs[0], "mount", "umount")
	image, at := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<30); err != nil {
		t.Fatal(err)
	}
	runTool(t, nil, append(slices.Clone(mkfs), image)...)
	runTool(t, nil, "mount", "-o", "loop", image, at)
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
	// What mkfs.ext4 made is not of the image.
	if err := os.Remove(filepath.Join(at, "lost+found")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return at
}

func unpackLikeTheInstaller(t *testing.T, squashfs, dest string) {
	t.Helper()
	f, err := os.Open(squashfs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unpack.Unpack(t.Context(), f, fi.Size(), dest, unpack.Options{}); err != nil {
		t.Fatal(err)
	}
}

type compared struct{ files, setuid, caps, links int }

// Tags of an RPM header (rpm's rpmtag.h).
const (
	tagModes, tagFlags, tagUsers, tagGroups, tagInodes          = 1030, 1037, 1039, 1040, 1096
	tagDirIndexes, tagBaseNames, tagDirNames, tagCaps, tagSizes = 1116, 1117, 1118, 5010, 1028
	flagGhost                                                   = 1 << 6
)

// compareWithHeader holds what is installed against the header of the package.
func compareWithHeader(t *testing.T, root, file string) compared {
	t.Helper()
	p, err := rpm.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	ints := func(tag int) []int64 { return p.Header.GetTag(tag).Int64Slice() }
	texts := func(tag int) []string { return p.Header.GetTag(tag).StringSlice() }
	modes, flags, inodes, dirs := ints(tagModes), ints(tagFlags), ints(tagInodes), ints(tagDirIndexes)
	users, groups, base, dirNames := texts(tagUsers), texts(tagGroups), texts(tagBaseNames), texts(tagDirNames)
	capTexts := texts(tagCaps)
	uids, gids := ids(t, root, "etc/passwd"), ids(t, root, "etc/group")
	first := map[int64]string{}
	var c compared
	for i, name := range base {
		if flags[i]&flagGhost != 0 {
			continue
		}
		path := dirNames[dirs[i]] + name
		if path == "/proc" || path == "/sys" || path == "/dev" {
			continue // a file system was mounted there
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, path), &st); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		c.files++
		mode := uint32(modes[i]) & 0xffff
		if st.Mode != mode && !changedByScriptlet(path) {
			t.Errorf("%s has mode %o and the header says %o", path, st.Mode, mode)
		}
		if st.Uid != uids[users[i]] || st.Gid != gids[groups[i]] {
			if !changedByScriptlet(path) {
				t.Errorf("%s belongs to %d:%d and the header says %s:%s", path, st.Uid, st.Gid, users[i], groups[i])
			}
		}
		if mode&0o170000 == 0o100000 && mode&0o6000 != 0 {
			c.setuid++
		}
		if i < len(capTexts) && strings.TrimSpace(capTexts[i]) != "" && capTexts[i] != "=" {
			c.caps++
			if got, want := capabilities(t, filepath.Join(root, path)), wantedCapabilities(t, capTexts[i]); got != want {
				t.Errorf("%s has the capabilities %x and the header says %s (%x)", path, got, capTexts[i], want)
			}
		}
		if mode&0o170000 == 0o100000 && st.Nlink > 1 {
			if other, ok := first[inodes[i]]; ok {
				c.links++
				var o unix.Stat_t
				if err := unix.Lstat(filepath.Join(root, other), &o); err != nil || o.Ino != st.Ino {
					t.Errorf("%s and %s are not the same file: %v", path, other, err)
				}
			}
			first[inodes[i]] = path
		}
	}
	return c
}

// changedByScriptlet are files that scriptlets of CentOS 7 change on purpose.
func changedByScriptlet(path string) bool {
	switch path {
	case "/var/log/journal", "/var/log/lastlog", "/var/log/wtmp", "/var/log/btmp", "/run", "/tmp":
		return true
	}
	return false
}

func ids(t *testing.T, root, file string) map[string]uint32 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]uint32{}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(line, ":")
		var n uint32
		if _, err := fmt.Sscan(f[2], &n); err != nil {
			t.Fatal(err)
		}
		out[f[0]] = n
	}
	return out
}

// capabilities returns the permitted set of a file's capabilities (linux/capability.h, struct vfs_cap_data).
func capabilities(t *testing.T, path string) uint64 {
	t.Helper()
	data := make([]byte, 64)
	n, err := unix.Lgetxattr(path, "security.capability", data)
	if err != nil || n < 20 {
		t.Errorf("%s has no capabilities: %v", path, err)
		return 0
	}
	return uint64(binary.LittleEndian.Uint32(data[4:])) | uint64(binary.LittleEndian.Uint32(data[12:]))<<32
}

func wantedCapabilities(t *testing.T, text string) uint64 {
	t.Helper()
	numbers := map[string]int{
		"cap_chown": 0, "cap_dac_override": 1, "cap_dac_read_search": 2, "cap_setgid": 6, "cap_setuid": 7, "cap_net_bind_service": 10,
		"cap_net_admin": 12, "cap_net_raw": 13, "cap_sys_admin": 21, "cap_sys_time": 25, "cap_audit_write": 29,
	}
	names, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(text), "= "), "+")
	names, _, _ = strings.Cut(names, "=")
	var out uint64
	for name := range strings.SplitSeq(names, ",") {
		n, ok := numbers[name]
		if !ok {
			t.Fatalf("the capability %s of %q is not in this test's table", name, text)
		}
		out |= 1 << n
	}
	return out
}

// compareTrees compares two trees entry for entry: type, mode, owner, size, time, link target, contents, extended
// attributes and which names are the same file.
func compareTrees(t *testing.T, a, b string) {
	t.Helper()
	first := map[uint64]string{}
	n := 0
	walk := func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(a, path)
		if err != nil {
			return err
		}
		other := filepath.Join(b, rel)
		oi, err := os.Lstat(other)
		if err != nil {
			t.Errorf("%s: %v", rel, err)
			return nil
		}
		n++
		s, o := info.Sys().(*syscall.Stat_t), oi.Sys().(*syscall.Stat_t)
		if s.Mode != o.Mode || s.Uid != o.Uid || s.Gid != o.Gid || s.Rdev != o.Rdev || !info.IsDir() && s.Size != o.Size || s.Nlink != o.Nlink && !info.IsDir() {
			t.Errorf("%s: %o %d:%d %d bytes %d links became %o %d:%d %d bytes %d links", rel, s.Mode, s.Uid, s.Gid, s.Size, s.Nlink, o.Mode, o.Uid, o.Gid, o.Size, o.Nlink)
		}
		if x, y := xattrs(t, path), xattrs(t, other); x != y {
			t.Errorf("%s: extended attributes %s became %s", rel, x, y)
		}
		if info.Mode().IsRegular() && s.Nlink > 1 {
			if seen, ok := first[s.Ino]; ok {
				si, err := os.Lstat(filepath.Join(b, seen))
				if err != nil || !os.SameFile(si, oi) {
					t.Errorf("%s and %s are no longer the same file", rel, seen)
				}
			}
			first[s.Ino] = rel
		}
		return sameContents(t, path, other, info)
	}
	if err := filepath.Walk(a, walk); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries are the same after packing and unpacking", n)
}

func sameContents(t *testing.T, a, b string, info os.FileInfo) error {
	t.Helper()
	switch {
	case info.Mode()&os.ModeSymlink != 0:
		x, err1 := os.Readlink(a)
		y, err2 := os.Readlink(b)
		if err1 != nil || err2 != nil || x != y {
			t.Errorf("%s: link to %s became %s", a, x, y)
		}
	case info.Mode().IsRegular():
		x, err := fileDigest(a)
		if err != nil {
			return err
		}
		if y, err := fileDigest(b); err != nil || x != y {
			t.Errorf("%s: contents differ: %v", a, err)
		}
	}
	return nil
}

func xattrs(t *testing.T, path string) string {
	t.Helper()
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var b strings.Builder
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		m, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		fmt.Fprintf(&b, "%s=%x ", name, value[:m])
	}
	return b.String()
}
