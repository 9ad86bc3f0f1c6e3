//go:build integration

package unpack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/installer/squashfs"
	"imgbuild/installer/squashfs/squashtest"
	"imgbuild/installer/unpack"
)

// nastyTree makes a tree with everything that has ever been lost on the way through an image.
func nastyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, data string, mode uint32) {
		t.Helper()
		check(os.MkdirAll(filepath.Dir(at(name)), 0o755))
		check(os.WriteFile(at(name), []byte(data), 0o600))
		check(unix.Chmod(at(name), mode))
	}
	write("bin/su", strings.Repeat("su", 5000), 0o4755)
	write("bin/wall", "wall", 0o2755)
	write("bin/ping", noise(9000), 0o755)
	tool(t, "setcap", "cap_net_raw,cap_net_admin=ep", at("bin/ping"))
	write("bin/newuidmap", noise(200), 0o4755)
	tool(t, "setcap", "cap_setuid=ep", at("bin/newuidmap"))
	check(os.Chown(at("bin/wall"), 0, 70001))
	check(unix.Chmod(at("bin/wall"), 0o2755)) // chown took it away
	write("etc/shadow", "root:*:1:0", 0)
	write("etc/acl", "acl", 0o640)
	tool(t, "setfacl", "-m", "u:12345:rw", at("etc/acl"))
	for _, n := range []int{0, 1, 4095, 4096, 4097, 131071, 131072, 131073, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 77} {
		write(fmt.Sprintf("sizes/%d", n), noise(n), 0o644)
		write(fmt.Sprintf("text/%d", n), strings.Repeat("compressible ", n/13+1)[:n], 0o600)
	}
	write("copies/a", noise(300000), 0o644)
	write("copies/b", noise(300000), 0o600)
	for i := range 700 {
		write(fmt.Sprintf("many/%s%d", strings.Repeat("n", i%240+1), i), fmt.Sprint(i), 0o644)
	}
	write("names/"+strings.Repeat("\xff", 255), "longest", 0o644)
	write("names/\x01\x02 \n\t\\\"'*?[", "odd", 0o644)
	write("names/caf\xe9", "latin", 0o644)
	write("names/..x", "dots", 0o644)
	for i, base := range []string{"bin/su", "sizes/131073", "etc/shadow"} {
		for k := range 3 {
			check(os.MkdirAll(at(fmt.Sprintf("links/%d", k)), 0o755))
			check(os.Link(at(base), at(fmt.Sprintf("links/%d/%d", k, i))))
		}
	}
	check(os.MkdirAll(at("dev"), 0o755))
	for name, n := range map[string]struct {
		mode         uint32
		major, minor uint32
	}{
		"dev/null": {unix.S_IFCHR | 0o666, 1, 3}, "dev/high": {unix.S_IFCHR | 0o600, 511, 1000000}, "dev/sda": {unix.S_IFBLK | 0o660, 8, 0},
		"dev/fifo": {unix.S_IFIFO | 0o622, 0, 0}, "dev/socket": {unix.S_IFSOCK | 0o777, 0, 0},
	} {
		check(unix.Mknod(at(name), n.mode, int(unix.Mkdev(n.major, n.minor))))
		check(unix.Chmod(at(name), n.mode&0o7777))
	}
	check(os.Chown(at("dev/sda"), 0, 6))
	check(os.Link(at("dev/null"), at("dev/zero")))
	check(os.Symlink("../bin/su", at("dev/link")))
	check(os.Link(at("dev/link"), at("dev/link2")))
	check(os.Symlink(strings.Repeat("t/", 2000), at("dev/long")))
	check(os.Lchown(at("dev/link"), 4000000000, 4000000001))
	check(unix.Lsetxattr(at("dev/link"), "security.selinux", []byte("system_u:object_r:bin_t:s0\x00"), 0))
	check(unix.Lsetxattr(at("dev/fifo"), "trusted.fifo", []byte("f"), 0))
	check(unix.Setxattr(at("bin/su"), "security.selinux", []byte("system_u:object_r:su_exec_t:s0\x00"), 0))
	check(unix.Setxattr(at("bin"), "security.selinux", []byte("system_u:object_r:bin_t:s0\x00"), 0))
	check(unix.Setxattr(at("sizes/4096"), "user.big", []byte(noise(2000)), 0))
	check(unix.Setxattr(at("sizes/4097"), "user.big", []byte(noise(2000)), 0))
	check(unix.Setxattr(at("sizes/0"), "user.empty", nil, 0))
	sparse := func(name string, size int64, data ...int64) {
		t.Helper()
		makeSparse(t, at(name), size, data...)
	}
	sparse("hole", 20<<20)
	sparse("hole-with-data", 20<<20+5, 10<<20, 20<<20)
	sparse("hole-tail", 2<<20, 0)
	check(os.MkdirAll(at("tmp/empty"), 0o755))
	check(unix.Chmod(at("tmp"), 0o1777))
	check(os.MkdirAll(at("locked/in"), 0o755))
	write("locked/in/f", "f", 0o400)
	check(unix.Chmod(at("locked"), 0))
	check(os.Chown(at("locked"), 1000, 1000))
	check(unix.Chmod(at("locked"), 0o2510))
	deep := "deep" + strings.Repeat("/d", 100)
	write(deep+"/f", "deep", 0o644)
	stamp := time.Unix(4102444800, 0) // 2100
	check(os.Chtimes(at("etc/acl"), stamp, stamp))
	check(os.Chtimes(at("tmp"), time.Unix(1, 0), time.Unix(1, 0)))
	// Mksquashfs reads the link, which sets its access time, and then takes its other name for another file; relatime
	// leaves alone a time in the future.
	soon := unix.NsecToTimespec(time.Now().Add(time.Hour).UnixNano())
	check(unix.UtimesNanoAt(unix.AT_FDCWD, at("dev/link"), []unix.Timespec{soon, {Sec: 1e9}}, unix.AT_SYMLINK_NOFOLLOW))
	check(unix.Chmod(dir, 0o751))
	return dir
}

// makeSparse makes a file that is a hole but for a few bytes at each of the offsets.
func makeSparse(t *testing.T, name string, size int64, data ...int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, o := range data {
		if _, err := f.WriteAt([]byte("data"), o); err != nil {
			t.Fatal(err)
		}
	}
}

func pack(t testing.TB, dir string, args ...string) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "image.squashfs")
	tool(t, "mksquashfs", append([]string{dir, img, "-noappend", "-no-progress", "-quiet"}, args...)...)
	return img
}

func unpackFile(t testing.TB, img, dest string, o unpack.Options) (unpack.Stats, error) {
	t.Helper()
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return unpack.Unpack(context.Background(), f, st.Size(), dest, o)
}

func TestEveryImageComesOutAsUnsquashfsAndTheKernelSayIt(t *testing.T) {
	needRoot(t, "mksquashfs", "unsquashfs", "setcap", "setfacl")
	tree := nastyTree(t)
	for _, args := range []string{
		"-comp gzip", "-comp xz", "-comp lz4", "-comp zstd", "-comp zstd -b 4096", "-comp zstd -b 1M", "-comp gzip -b 4096 -no-exports",
		"-comp gzip -tailends -b 1M", "-comp xz -b 1M -Xdict-size 50%", "-comp lz4 -b 4096 -Xhc", "-comp zstd -no-fragments",
		"-comp zstd -always-use-fragments", "-comp zstd -no-xattrs", "-comp zstd -noI -no-duplicates", "-comp zstd -noD", "-comp zstd -noF",
		"-comp zstd -noX -noId", "-comp gzip -noI -noD -noF -noX", "-comp zstd -no-sparse -b 1M",
	} {
		t.Run(args, func(t *testing.T) {
			img := pack(t, tree, strings.Fields(args)...)
			dest := t.TempDir()
			s, err := unpackFile(t, img, dest, unpack.Options{Workers: 3})
			if err != nil {
				t.Fatal(err)
			}
			got := describe(t, dest)
			kernel := mountImage(t, img)
			sameTrees(t, got, describe(t, kernel), "kernel")
			peer := filepath.Join(t.TempDir(), "peer")
			tool(t, "unsquashfs", "-n", "-quiet", "-d", peer, img)
			sameTrees(t, got, describe(t, peer), "unsquashfs")
			if s.HardLinks != 11 || s.Devices != 5 || s.Symlinks != 2 {
				t.Errorf("stats %+v", s)
			}
			if !strings.Contains(args, "no-xattrs") && (s.Xattrs != 9 || !strings.Contains(got["bin/ping"], "security.capability")) {
				t.Errorf("%d extended attributes; ping: %s", s.Xattrs, got["bin/ping"])
			}
			for name, most := range map[string]int64{"hole": 0, "hole-with-data": 3 << 20, "hole-tail": 1 << 20} {
				if strings.Contains(args, "no-sparse") {
					break
				}
				if st := lstat(t, filepath.Join(dest, name)); st.Blocks*512 > most {
					t.Errorf("%s takes %d bytes", name, st.Blocks*512)
				}
			}
		})
	}
}

func TestHolesOfGigabytesTakeNoRoom(t *testing.T) {
	needRoot(t, "mksquashfs")
	tree := t.TempDir()
	makeSparse(t, tree+"/all", 3<<30)
	makeSparse(t, tree+"/some", 2<<30+5, 1<<30, 2<<30)
	dest := t.TempDir()
	s, err := unpackFile(t, pack(t, tree, "-comp", "zstd", "-b", "1M"), dest, unpack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	all, some := lstat(t, dest+"/all"), lstat(t, dest+"/some")
	if all.Size != 3<<30 || all.Blocks != 0 || some.Size != 2<<30+5 || some.Blocks*512 > 3<<20 || s.BytesWritten > 3<<20 {
		t.Errorf("all: %d bytes in %d blocks; some: %d bytes in %d blocks; %+v", all.Size, all.Blocks, some.Size, some.Blocks, s)
	}
	f, err := os.Open(dest + "/some")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4)
	for _, at := range []int64{1 << 30, 2 << 30} {
		if _, err := f.ReadAt(b, at); err != nil || string(b) != "data" {
			t.Errorf("at %d: %q, %v", at, b, err)
		}
	}
}

func TestAMountPointInTheTree(t *testing.T) {
	needRoot(t)
	kernel := regular(noise(3*blockSize + 100))
	kernel.Nlink = 4
	img := squashtest.Image(directory(
		squashtest.Entry{Name: "boot", Node: &squashtest.Node{Type: squashfs.Directory, Mode: 0o555, MTime: 77, Entries: []squashtest.Entry{
			{Name: "vmlinuz", Node: kernel}, {Name: "vmlinuz.old", Node: kernel},
		}}},
		squashtest.Entry{Name: "lib", Node: directory(squashtest.Entry{Name: "one", Node: kernel}, squashtest.Entry{Name: "two", Node: kernel})},
	), own())
	dest := t.TempDir()
	if err := errors.Join(os.Mkdir(dest+"/boot", 0o700), os.Mkdir(dest+"/lost+found", 0o700)); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, dest+"/boot", "1m")
	if err := os.Mkdir(dest+"/boot/lost+found", 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := unpack.Unpack(context.Background(), bytes.NewReader(img), int64(len(img)), dest, unpack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ino := map[string]uint64{}
	for _, name := range []string{"boot/vmlinuz", "boot/vmlinuz.old", "lib/one", "lib/two"} {
		b, err := os.ReadFile(filepath.Join(dest, name))
		if err != nil || !bytes.Equal(b, kernel.Data) {
			t.Errorf("%s has other bytes: %v", name, err)
		}
		st := lstat(t, filepath.Join(dest, name))
		ino[name] = st.Ino
		if st.Nlink != 2 {
			t.Errorf("%s has %d names", name, st.Nlink)
		}
	}
	if ino["boot/vmlinuz"] != ino["boot/vmlinuz.old"] || ino["lib/one"] != ino["lib/two"] || s.HardLinks != 2 || s.Files != 2 {
		t.Errorf("links: %v, %+v", ino, s)
	}
	if st := lstat(t, dest+"/boot"); st.Mode != unix.S_IFDIR|0o555 || st.Mtim.Sec != 77 {
		t.Errorf("the root of the mounted file system: mode %o, time %d", st.Mode, st.Mtim.Sec)
	}
}

func TestAFullFileSystemSaysSo(t *testing.T) {
	needRoot(t)
	img := squashtest.Image(directory(squashtest.Entry{Name: "big", Node: regular(noise(2 << 20))}), own())
	dest := t.TempDir()
	mountTmpfs(t, dest, "1m")
	_, err := unpack.Unpack(context.Background(), bytes.NewReader(img), int64(len(img)), dest, unpack.Options{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "/big") || !strings.Contains(err.Error(), "larger") {
		t.Errorf("got %v", err)
	}
}

func TestAFileSystemWithoutExtendedAttributes(t *testing.T) {
	needRoot(t, "mksquashfs")
	tree := t.TempDir()
	if err := os.WriteFile(tree+"/f", []byte("f"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(tree+"/f", "security.selinux", []byte("system_u:object_r:etc_t:s0\x00"), 0); err != nil {
		t.Fatal(err)
	}
	img := pack(t, tree)
	for _, skip := range []bool{false, true} {
		dest := t.TempDir()
		if err := unix.Mount("ramfs", dest, "ramfs", 0, ""); err != nil {
			t.Skipf("cannot mount a ramfs: %v", err)
		}
		defer unix.Unmount(dest, unix.MNT_DETACH)
		s, err := unpackFile(t, img, dest, unpack.Options{SkipUnsupportedXattrs: skip})
		switch {
		case !skip && (!errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "security.selinux")):
			t.Errorf("got %v", err)
		case skip && (err != nil || s.XattrsSkipped != 1 || s.Xattrs != 0):
			t.Errorf("got %v, %+v", err, s)
		}
	}
}

func TestADamagedImageNeverWritesElsewhereOrHangs(t *testing.T) {
	needRoot(t, "mksquashfs", "setcap", "setfacl")
	tree := t.TempDir()
	for i := range 300 {
		name := filepath.Join(tree, fmt.Sprintf("d%d/f%d", i%7, i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(strings.Repeat(fmt.Sprint(i), i*7)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, comp := range []string{"gzip", "xz", "lz4", "zstd"} {
		t.Run(comp, func(t *testing.T) {
			good, err := os.ReadFile(pack(t, tree, "-comp", comp, "-b", "4096", "-nopad"))
			if err != nil {
				t.Fatal(err)
			}
			random := rand.New(rand.NewPCG(1, uint64(len(comp))))
			failed := 0
			for range 25 {
				b := bytes.Clone(good)
				for range 1 + random.IntN(3) {
					b[96+random.IntN(len(b)-96)] ^= byte(1 << random.IntN(8))
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				if _, err := unpack.Unpack(ctx, bytes.NewReader(b), int64(len(b)), t.TempDir(), unpack.Options{Workers: 2}); err != nil {
					failed++
				}
				if ctx.Err() != nil {
					t.Error("it does not end")
				}
				cancel()
			}
			if failed == 0 {
				t.Error("none of 25 damaged images was noticed")
			}
		})
	}
}
