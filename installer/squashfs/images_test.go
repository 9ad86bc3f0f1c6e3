//go:build integration

package squashfs_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "make the images in testdata anew")

// It makes the images in testdata with -update, and otherwise reads what this host's mksquashfs makes of the
// same tree.
func TestTheImagesOfThisHostsMksquashfsCanBeRead(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make devices and owners")
	}
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("mksquashfs is not installed")
	}
	dir := sampleTree(t)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want := ""
	for _, c := range []struct{ name, args string }{
		{"zstd", "-comp zstd"}, {"gzip", "-comp gzip -Xcompression-level 6"}, {"lz4", "-comp lz4"}, {"xz", "-comp xz"},
		{"plain", "-comp gzip -noI -noD -noF -noX -no-exports"},
		{"lzo", "-comp lzo"}, {"lzma", "-comp lzma"}, {"bcj", "-comp xz -Xbcj x86"},
	} {
		out := filepath.Join(t.TempDir(), c.name+".squashfs")
		if *update {
			out = filepath.Join("testdata", c.name+".squashfs")
		}
		args := append([]string{dir, out, "-b", "4096", "-noappend", "-nopad", "-no-progress", "-quiet", "-mkfs-time", "1000000000",
			"-all-time", "1000000000"}, strings.Fields(c.args)...)
		if msg, err := exec.Command("mksquashfs", args...).CombinedOutput(); err != nil {
			t.Fatalf("mksquashfs %s: %v\n%s", c.args, err, msg)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(b)
		switch {
		case c.name == "lzo" || c.name == "lzma" || c.name == "bcj":
			if err == nil {
				t.Errorf("%s was not refused", c.name)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case want == "":
			want = got
		case got != want:
			t.Errorf("%s gives\n%s\nand not\n%s", c.name, got, want)
		}
	}
}

// sampleTree makes a small tree with one of everything that changes how an image is laid out.
func sampleTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, data string, mode os.FileMode) {
		t.Helper()
		p := filepath.Join(dir, name)
		check(os.MkdirAll(filepath.Dir(p), 0o755))
		check(os.WriteFile(p, []byte(data), 0o600))
		check(os.Chmod(p, mode))
	}
	write("bin/su", strings.Repeat("su", 100), 0o755|os.ModeSetuid)
	check(os.Link(filepath.Join(dir, "bin/su"), filepath.Join(dir, "bin/sg")))
	write("bin/copy", strings.Repeat("su", 100), 0o755)
	write("etc/shadow", strings.Repeat("root:*:19000:0\n", 300), 0)
	write("etc/block", strings.Repeat("b", 4096), 0o640)
	write("etc/two", strings.Repeat("tw", 4096), 0o640)
	write("empty", "", 0)
	write("hole", strings.Repeat("\x00", 8192)+strings.Repeat("x", 4096)+strings.Repeat("\x00", 8192), 0o644)
	check(os.Symlink("bin/su", filepath.Join(dir, "link")))
	check(os.MkdirAll(filepath.Join(dir, "dev"), 0o755))
	check(unix.Mknod(filepath.Join(dir, "dev/null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	check(unix.Mknod(filepath.Join(dir, "dev/sda9"), unix.S_IFBLK|0o600, int(unix.Mkdev(8, 9))))
	check(os.Chmod(filepath.Join(dir, "dev/null"), 0o666))
	check(os.Chmod(filepath.Join(dir, "dev/sda9"), 0o660))
	check(os.Chown(filepath.Join(dir, "dev/sda9"), 0, 6))
	check(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	check(os.Chown(filepath.Join(dir, "fifo"), 70000, 80000))
	check(unix.Setxattr(filepath.Join(dir, "etc/two"), "user.comment", []byte("hello"), 0))
	big := bytes.Repeat([]byte("x"), 300) // long and shared values are stored out of line
	check(unix.Setxattr(filepath.Join(dir, "etc/two"), "trusted.big", big, 0))
	check(unix.Setxattr(filepath.Join(dir, "etc/block"), "trusted.big", big, 0))
	check(unix.Lsetxattr(filepath.Join(dir, "link"), "trusted.link", []byte("l"), 0))
	check(os.Chmod(dir, 0o755))
	stamp := time.Unix(1000000000, 0)
	check(os.Chtimes(dir, stamp, stamp))
	return dir
}
