//go:build integration

package stick

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// loop makes a loop device of so many bytes of old content, with more options for losetup.
func loop(t testing.TB, size int64, options ...string) (node, file string) {
	t.Helper()
	return loopIn(t, t.TempDir(), size, options...)
}

// loopIn is loop with its file in a directory.
func loopIn(t testing.TB, dir string, size int64, options ...string) (node, file string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
	file = filepath.Join(dir, "disk")
	if err := os.WriteFile(file, bytes.Repeat([]byte{0xaa}, int(size)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", append(options, "--find", "--show", file)...).CombinedOutput()
	if err != nil {
		t.Skipf("losetup cannot make a loop device here: %v: %s", err, out)
	}
	node = strings.TrimSpace(string(out))
	t.Cleanup(func() { undo(t, "losetup", "--detach", node) })
	return node, file
}

// run runs a program, or skips the test where it is missing.
func run(t testing.TB, argv ...string) string {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("the test needs %s: %v", argv[0], err)
	}
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// undo runs a program when the test has ended.
func undo(t testing.TB, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

// setReadOnly lasts, on a loop device, longer than its file.
func setReadOnly(t *testing.T, node string) {
	t.Helper()
	run(t, "blockdev", "--setro", node)
	t.Cleanup(func() { undo(t, "blockdev", "--setrw", node) })
}

func randomImage(t *testing.T, size int) (*Image, []byte) {
	t.Helper()
	content := make([]byte, size)
	r := rand.NewChaCha8([32]byte{2})
	_, _ = r.Read(content)
	return imageOf(t, content), content
}

func imageOf(t *testing.T, content []byte) *Image {
	t.Helper()
	p := filepath.Join(t.TempDir(), "live.iso")
	if err := os.WriteFile(p, content, 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := OpenImage(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

// content is what a device has, read from its backing file.
func content(t *testing.T, node, file string) []byte {
	t.Helper()
	run(t, "blockdev", "--flushbufs", node)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestARealDeviceHoldsTheImage(t *testing.T) {
	for name, c := range map[string]struct {
		options []string
		size    int
	}{
		"sectors of 512 bytes":            {nil, 21<<20 + 1234},
		"sectors of 4096 bytes":           {[]string{"--sector-size", "4096"}, 21<<20 + 1234},
		"with partitions by the kernel":   {[]string{"--partscan"}, 5 << 20},
		"backed without the page cache":   {[]string{"--direct-io=on"}, 9<<20 + 1},
		"an image as large as the device": {nil, 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			node, file := loop(t, 64<<20, c.options...)
			image, want := randomImage(t, c.size)
			target, err := Host().Claim(image, node, true)
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			var e events
			if err := target.Write(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
			got := content(t, node, file)
			if !bytes.Equal(got[:c.size], want) {
				t.Error("the device holds something else")
			}
			if rest := got[max(c.size, len(got)-tail):]; !bytes.Equal(rest, make([]byte, len(rest))) {
				t.Error("the end of the device still has old content")
			}
			if len(e.notes) > 0 {
				t.Errorf("notes: %q", e.notes)
			}
			if target.Device.Bus != "virtual" || target.Device.Size != 64<<20 {
				t.Errorf("device: %+v", target.Device)
			}
		})
	}
}

func TestAStaleBackupTableIsGoneWithTheOldOne(t *testing.T) {
	node, file := loop(t, 64<<20)
	run(t, "sgdisk", "--zap-all", node)
	run(t, "sgdisk", "--new=1:2048:0", "--change-name=1:OLD", node)
	if old := content(t, node, file); string(old[len(old)-512:len(old)-504]) != gptSignature {
		t.Fatal("sgdisk wrote no backup table")
	}
	image := imageOf(t, make([]byte, 5<<20))
	target, err := Host().Claim(image, node, true)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if got := target.Device.Content(); !strings.HasPrefix(got, "GPT partition table") {
		t.Errorf("before, it holds %s", got)
	}
	if err := target.Write(t.Context(), &events{}); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content(t, node, file), []byte(gptSignature)) {
		t.Error("a table is left")
	}
	// The peer would restore the backup.
	if out, err := exec.Command("sgdisk", "--verify", node).CombinedOutput(); strings.Contains(string(out), "OLD") || strings.Contains(string(out), "backup") && !strings.Contains(string(out), "GPT: not present") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
}

func TestCorruptionBetweenWritingAndVerifyingIsNoticed(t *testing.T) {
	node, file := loop(t, 32<<20)
	image, want := randomImage(t, 13<<20)
	target, err := Host().Claim(image, node, true)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	const at = 9<<20 + 77
	target.disk = &spoiler{disk: target.disk, file: file, at: at}
	err = target.Write(t.Context(), &events{})
	if err == nil || !strings.Contains(err.Error(), "the byte at offset 9437261 is 0x") {
		t.Fatalf("got %v", err)
	}
	got := content(t, node, file)
	if !bytes.Equal(got[:block], make([]byte, block)) || got[at] != ^want[at] {
		t.Error("it starts something, or the test spoiled nothing")
	}
}

// spoiler turns a byte over below the device once all but the first block has been written to it.
type spoiler struct {
	disk
	file  string
	at    int64
	syncs int
}

func (s *spoiler) Sync() error {
	if err := s.disk.Sync(); err != nil {
		return err
	}
	if s.syncs++; s.syncs != 2 {
		return nil
	}
	f, err := os.OpenFile(s.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, rerr := f.ReadAt(b, s.at)
	b[0] = ^b[0]
	_, werr := f.WriteAt(b, s.at)
	return errors.Join(rerr, werr, f.Close())
}

func TestDevicesInUseAreRefusedAndStayAsTheyAre(t *testing.T) {
	for name, c := range map[string]struct {
		use  func(t *testing.T, node string)
		says []string
	}{
		"mounted": {func(t *testing.T, node string) {
			run(t, "mkfs.ext4", "-q", "-F", node)
			dir := t.TempDir()
			if err := unix.Mount(node, dir, "ext4", 0, ""); err != nil {
				t.Skipf("mount: %v", err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			})
		}, []string{"is mounted at ", "release it first"}},
		"swap": {func(t *testing.T, node string) {
			run(t, "mkswap", node)
			if out, err := exec.Command("swapon", node).CombinedOutput(); err != nil {
				t.Skipf("swapon: %v: %s", err, out)
			}
			t.Cleanup(func() { undo(t, "swapoff", node) })
		}, []string{"is used as swap", "name another"}},
		"a loop device on it": {func(t *testing.T, node string) {
			top := run(t, "losetup", "--find", "--show", node)
			t.Cleanup(func() { undo(t, "losetup", "--detach", top) })
		}, []string{"stands on loop"}},
		"open for somebody alone": {func(t *testing.T, node string) {
			f, err := os.OpenFile(node, os.O_RDWR|unix.O_EXCL, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		}, []string{"in use by something that the kernel does not name"}},
		"read-only": {func(t *testing.T, node string) {
			setReadOnly(t, node)
		}, []string{"is read-only"}},
	} {
		t.Run(name, func(t *testing.T) {
			node, file := loop(t, 16<<20)
			c.use(t, node)
			before := content(t, node, file)
			image, _ := randomImage(t, 1<<20)
			_, err := Host().Claim(image, node, true)
			var refused *refusal
			if !errors.As(err, &refused) {
				t.Fatalf("got %v", err)
			}
			for _, s := range append(c.says, "nothing was written: "+node) {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q is missing in: %v", s, err)
				}
			}
			if !bytes.Equal(before, content(t, node, file)) {
				t.Error("something was written")
			}
		})
	}
}

func TestEverythingAgainstADeviceIsSaidAtOnce(t *testing.T) {
	node, _ := loop(t, 1<<20)
	setReadOnly(t, node)
	image, _ := randomImage(t, 1<<20+1)
	link := filepath.Join(t.TempDir(), "by-id")
	if err := os.Symlink(node, link); err != nil {
		t.Fatal(err)
	}
	_, err := Host().Claim(image, link, false)
	want := "nothing was written: " + link + ` cannot be taken
  it is a virtual device; --force-internal takes it nevertheless
  it is read-only; take off its write protection
  it has 1.0 MiB, and the image 1.0 MiB (1 bytes too little); take a larger one`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestTheSystemsDiskIsNeverTaken(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("disks are opened by root")
	}
	image, _ := randomImage(t, 1000)
	all, err := Host().List(image)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range all {
		if d.System {
			found = true
			if _, err := Host().Claim(image, d.Path, true); err == nil || !strings.Contains(err.Error(), "is a disk of the running system") {
				t.Errorf("%s: %v", d.Path, err)
			}
		}
	}
	if !found {
		t.Skip("/ is on no disk here")
	}
}

func TestADeviceThatIsClaimedIsNobodyElses(t *testing.T) {
	node, _ := loop(t, 16<<20)
	run(t, "mkfs.ext4", "-q", "-F", node)
	image, _ := randomImage(t, 1000)
	target, err := Host().Claim(image, node, true)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount(node, dir, "ext4", 0, ""); !errors.Is(err, unix.EBUSY) {
		t.Errorf("mount: %v", err)
		_ = unix.Unmount(dir, 0)
	}
	if _, err := Host().Claim(image, node, true); err == nil || !strings.Contains(err.Error(), "in use by something") {
		t.Errorf("a second claim: %v", err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Host().Claim(image, node, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestContentsAreNamedAsBlkidNamesThem(t *testing.T) {
	for name, mkfs := range map[string][]string{
		"ext4":    {"mkfs.ext4", "-q", "-F", "-L", "my ext4"},
		"ext3":    {"mkfs.ext3", "-q", "-F", "-L", "three"},
		"ext2":    {"mkfs.ext2", "-q", "-F"},
		"xfs":     {"mkfs.xfs", "-q", "-f", "-L", "an-xfs"},
		"btrfs":   {"mkfs.btrfs", "-q", "-f", "-L", "butter"},
		"vfat":    {"mkfs.vfat", "-n", "STICK"},
		"fat32":   {"mkfs.vfat", "-F", "32", "-n", "LARGE"},
		"exfat":   {"mkfs.exfat"},
		"ntfs":    {"mkfs.ntfs", "-Q", "-F"},
		"f2fs":    {"mkfs.f2fs", "-q", "-f"},
		"swap":    {"mkswap", "-L", "swapped"},
		"nothing": {"true"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "fs")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(file, 320<<20); err != nil {
				t.Fatal(err)
			}
			run(t, append(mkfs, file)...)
			// blkid ends with 2 where there is nothing.
			kind, _ := exec.Command("blkid", "-p", "-o", "value", "-s", "TYPE", file).Output()
			label, _ := exec.Command("blkid", "-p", "-o", "value", "-s", "LABEL", file).Output()
			want := named(strings.TrimSpace(string(kind)), []byte(strings.TrimSpace(string(label))))
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := probe(f); got != want {
				t.Errorf("got %q, blkid says %q", got, want)
			}
		})
	}
}

func TestAHybridImageIsKnownAsOne(t *testing.T) {
	if _, err := exec.LookPath("xorriso"); err != nil {
		t.Skipf("the test needs xorriso: %v", err)
	}
	dir := t.TempDir()
	tree, efi, iso := filepath.Join(dir, "tree"), filepath.Join(dir, "efi"), filepath.Join(dir, "hybrid.iso")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "file"), make([]byte, 6<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(efi, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", "LIVE", "-partition_offset", "16", "-appended_part_as_gpt", "-append_partition", "2", "0xef", efi, "-o", iso, tree)
	image, err := OpenImage(iso)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if why := image.boots(512); why != "" {
		t.Error(why)
	}
	node, _ := loop(t, 32<<20)
	target, err := Host().Claim(image, node, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Write(t.Context(), &events{}); err != nil {
		t.Fatal(err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Host().Claim(image, node, true)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := again.Device.Content(); got != `GPT partition table, iso9660 "LIVE"` {
		t.Errorf("it holds %s", got)
	}
	// The image's own backup table is where the image ends, and is still what its primary says.
	head := peek(image.file, 512, 92)
	if at := int64(binary.LittleEndian.Uint64(head[32:])) * 512; string(peek(again.disk, at/4096*4096, 4096)[at%4096:][:8]) != gptSignature {
		t.Errorf("there is no backup table at %d", at)
	}
}
