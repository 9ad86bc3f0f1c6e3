package unpack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/installer/squashfs"
	"imgbuild/installer/squashfs/squashtest"
	"imgbuild/installer/unpack"
)

const blockSize = 4096

// own are the options of an image whose files belong to whoever runs the test, so that the test needs no root.
func own() squashtest.Options {
	return squashtest.Options{BlockSize: blockSize, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Fragments: true}
}

func regular(data string) *squashtest.Node {
	return &squashtest.Node{Type: squashfs.Regular, Mode: 0o644, MTime: 1e9, Data: []byte(data)}
}

func directory(e ...squashtest.Entry) *squashtest.Node {
	return &squashtest.Node{Type: squashfs.Directory, Mode: 0o755, MTime: 1e9, Entries: e}
}

func noise(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range b {
		b[i] = byte(r.Uint32() | 1)
	}
	return string(b)
}

func run(t *testing.T, img []byte, o unpack.Options) (string, unpack.Stats) {
	t.Helper()
	dest := t.TempDir()
	s, err := unpack.Unpack(context.Background(), bytes.NewReader(img), int64(len(img)), dest, o)
	if err != nil {
		t.Fatal(err)
	}
	return dest, s
}

func lstat(t *testing.T, name string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatalf("lstat %s: %v", name, err)
	}
	return st
}

func TestFilesComeOutAsTheyAreInTheImage(t *testing.T) {
	contents := map[string]string{"empty": ""}
	var entries []squashtest.Entry
	for _, n := range []int{0, 1, 17, blockSize - 1, blockSize, blockSize + 1, 3*blockSize - 1, 3 * blockSize, 300 * blockSize, 700*blockSize + 5} {
		name := fmt.Sprintf("f%09d", n)
		contents[name] = noise(n)
		entries = append(entries, squashtest.Entry{Name: name, Node: regular(contents[name])})
	}
	suid := regular("suid")
	suid.Mode, suid.Nlink = 0o4755, 2
	hole := regular("")
	hole.Hole = 1 << 18 // 1 GiB
	holes := regular(strings.Repeat("\x00", blockSize) + noise(blockSize) + strings.Repeat("\x00", blockSize))
	locked := directory(squashtest.Entry{Name: "in", Node: regular("in")})
	locked.Mode = 0o500
	root := directory(
		squashtest.Entry{Name: "a", Node: directory(squashtest.Entry{Name: "su", Node: suid})},
		squashtest.Entry{Name: "b", Node: directory(squashtest.Entry{Name: "sg", Node: suid})},
		squashtest.Entry{Name: "empty", Node: regular("")},
		squashtest.Entry{Name: "fifo", Node: &squashtest.Node{Type: squashfs.FIFO, Mode: 0o622, MTime: 7}},
		squashtest.Entry{Name: "files", Node: directory(entries...)},
		squashtest.Entry{Name: "hole", Node: hole},
		squashtest.Entry{Name: "holes", Node: holes},
		squashtest.Entry{Name: "link", Node: &squashtest.Node{Type: squashfs.Symlink, Mode: 0o777, MTime: 5, Target: "/no/such"}},
		squashtest.Entry{Name: "locked", Node: locked},
		squashtest.Entry{Name: "socket", Node: &squashtest.Node{Type: squashfs.Socket, Mode: 0o600, MTime: 1e9}},
	)
	img := squashtest.Image(root, own())
	var last unpack.Progress
	calls := 0
	dest, s := run(t, img, unpack.Options{Workers: 3, Progress: func(p unpack.Progress) {
		if p.BytesWritten < last.BytesWritten || p.Files < last.Files {
			t.Errorf("progress goes back from %+v to %+v", last, p)
		}
		last = p
		calls++
	}})
	for name, want := range contents {
		if name != "empty" {
			name = "files/" + name
		}
		got, err := os.ReadFile(filepath.Join(dest, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes and not %d, or others: %v", name, len(got), len(want), err)
		}
		if st := lstat(t, filepath.Join(dest, name)); st.Mode != unix.S_IFREG|0o644 || st.Mtim.Sec != 1e9 || st.Mtim.Nsec != 0 {
			t.Errorf("%s: mode %o, time %v", name, st.Mode, st.Mtim)
		}
	}
	su, sg := lstat(t, filepath.Join(dest, "a/su")), lstat(t, filepath.Join(dest, "b/sg"))
	if su.Ino != sg.Ino || su.Nlink != 2 || su.Mode != unix.S_IFREG|0o4755 {
		t.Errorf("hard links: %+v and %+v", su, sg)
	}
	if st := lstat(t, filepath.Join(dest, "hole")); st.Size != 1<<30 || st.Blocks > 64 {
		t.Errorf("hole: %d bytes in %d blocks", st.Size, st.Blocks)
	}
	if b, err := os.ReadFile(filepath.Join(dest, "holes")); err != nil || string(b) != string(holes.Data) {
		t.Errorf("holes: other bytes: %v", err)
	}
	if st := lstat(t, filepath.Join(dest, "fifo")); st.Mode != unix.S_IFIFO|0o622 || st.Mtim.Sec != 7 {
		t.Errorf("fifo: %+v", st)
	}
	if st := lstat(t, filepath.Join(dest, "socket")); st.Mode != unix.S_IFSOCK|0o600 {
		t.Errorf("socket: %+v", st)
	}
	if to, err := os.Readlink(filepath.Join(dest, "link")); to != "/no/such" || lstat(t, filepath.Join(dest, "link")).Mtim.Sec != 5 {
		t.Errorf("link to %q: %v", to, err)
	}
	for _, d := range []string{".", "files", "locked"} {
		if st := lstat(t, filepath.Join(dest, d)); st.Mtim.Sec != 1e9 {
			t.Errorf("directory %s: time %v", d, st.Mtim)
		}
	}
	if st := lstat(t, filepath.Join(dest, "locked")); st.Mode != unix.S_IFDIR|0o500 {
		t.Errorf("locked: mode %o", st.Mode)
	}
	if err := os.Chmod(filepath.Join(dest, "locked"), 0o700); err != nil { // so that it can be removed
		t.Error(err)
	}
	want := unpack.Stats{Files: 15, Dirs: 5, Symlinks: 1, Devices: 2, HardLinks: 1,
		BytesWritten: last.BytesTotal, BytesRead: s.BytesRead, Elapsed: s.Elapsed}
	if s != want {
		t.Errorf("stats %+v, want %+v", s, want)
	}
	if last.BytesWritten != last.BytesTotal || last.Files != 15 || last.FilesTotal != 15 || calls < 15 {
		t.Errorf("last of %d progress calls: %+v", calls, last)
	}
}

func TestFilesThatShareBlocksAllGetThem(t *testing.T) {
	// Equal files share all blocks; some makers of images let a file begin in the midst of another.
	long, same := regular(noise(10*blockSize)), regular(noise(10*blockSize))
	img := squashtest.Image(directory(squashtest.Entry{Name: "a", Node: long}, squashtest.Entry{Name: "b", Node: same}), own())
	// Point b's data at a's: both begin after the superblock.
	from, to := []byte{0, 0, 0, 0, 0, 0, 0, 0}, []byte{96, 0, 0, 0, 0, 0, 0, 0}
	from[0], from[1] = byte((96+10*blockSize)&0xff), byte((96+10*blockSize)>>8)
	at := bytes.LastIndex(img, from)
	copy(img[at:], to)
	dest, s := run(t, img, unpack.Options{})
	for _, name := range []string{"a", "b"} {
		if b, err := os.ReadFile(filepath.Join(dest, name)); err != nil || string(b) != string(long.Data) {
			t.Errorf("%s has other bytes: %v", name, err)
		}
	}
	if s.BytesWritten != 20*blockSize {
		t.Errorf("%d bytes written", s.BytesWritten)
	}
}

func TestADirectoryThatIsNotEmptyIsLeftAlone(t *testing.T) {
	img := squashtest.Image(directory(squashtest.Entry{Name: "etc", Node: directory()}), own())
	for name, prepare := range map[string]func(dir string) error{
		"a file": func(dir string) error { return os.WriteFile(dir+"/precious", nil, 0o600) },
		"a file further down": func(dir string) error {
			return errors.Join(os.MkdirAll(dir+"/boot/old", 0o700), os.WriteFile(dir+"/boot/old/precious", nil, 0o600))
		},
		"a symbolic link": func(dir string) error { return os.Symlink("/", dir+"/precious") },
	} {
		t.Run(name, func(t *testing.T) {
			dest := t.TempDir()
			if err := prepare(dest); err != nil {
				t.Fatal(err)
			}
			_, err := unpack.Unpack(context.Background(), bytes.NewReader(img), int64(len(img)), dest, unpack.Options{})
			if err == nil || !strings.Contains(err.Error(), "precious") {
				t.Errorf("got %v", err)
			}
			if _, err := os.Lstat(dest + "/etc"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something was written: %v", err)
			}
		})
	}
	t.Run("empty directories are no hindrance", func(t *testing.T) {
		dest := t.TempDir()
		if err := os.MkdirAll(dest+"/etc/lost+found", 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := unpack.Unpack(context.Background(), bytes.NewReader(img), int64(len(img)), dest, unpack.Options{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("a directory that does not exist", func(t *testing.T) {
		_, err := unpack.Unpack(context.Background(), bytes.NewReader(img), int64(len(img)), t.TempDir()+"/no", unpack.Options{})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
}

// growing is a source as the installer has it: bytes become readable in ascending order after the metadata, and
// are gone once released.
type growing struct {
	t    *testing.T
	img  []byte
	data int64 // where the metadata begins

	mu       sync.Mutex
	last     int64
	released int64 // everything of the data before it
	meta     bool  // the metadata too
	wanted   int64 // from there on, before anything was read
	begun    bool
}

func (b *growing) Want(off, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if end := int64(len(b.img)); !b.begun && off+n == end {
		b.wanted = max(off, 0)
	}
}

func (b *growing) ReadAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun = true
	switch {
	case off > 0 && off < b.data && off < b.last:
		b.t.Errorf("read at %d after %d", off, b.last)
	case off > 0 && off < b.released, off >= b.data && b.meta:
		b.t.Errorf("read at %d, which was released", off)
	}
	if off < b.data {
		b.last = off
	}
	return bytes.NewReader(b.img).ReadAt(p, off)
}

func (b *growing) Release(off, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if off == b.data {
		b.meta = off+n == int64(len(b.img))
		return
	}
	if off != b.released {
		b.t.Errorf("released at %d after everything before %d", off, b.released)
	}
	b.released = off + n
}

func TestDataIsReadInOrderAndReleasedAtOnce(t *testing.T) {
	var entries []squashtest.Entry
	for i := range 200 {
		entries = append(entries, squashtest.Entry{Name: fmt.Sprintf("f%03d", 199-(i*83)%200), Node: regular(noise(i * 997))})
	}
	byName := map[string]*squashtest.Node{}
	for _, e := range entries {
		byName[e.Name] = e.Node
	}
	var sorted []squashtest.Entry
	for i := range 200 {
		name := fmt.Sprintf("f%03d", i)
		sorted = append(sorted, squashtest.Entry{Name: name, Node: byName[name]})
	}
	img := squashtest.Image(directory(sorted...), own())
	r, err := squashfs.Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	src := &growing{t: t, img: img, data: r.Superblock().DataEnd, wanted: int64(len(img))}
	dest := t.TempDir()
	s, err := unpack.Unpack(context.Background(), src, int64(len(img)), dest, unpack.Options{MaxMemory: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !src.meta || src.released != src.data {
		t.Errorf("released: data up to %d of %d, metadata %v", src.released, src.data, src.meta)
	}
	if src.wanted > src.data {
		t.Errorf("the metadata, from %d on, was not asked for before it was read, but %d", src.data, src.wanted)
	}
	if s.BytesRead > int64(len(img))+16<<10 {
		t.Errorf("%d bytes read of an image of %d", s.BytesRead, len(img))
	}
	for _, e := range sorted {
		if b, err := os.ReadFile(filepath.Join(dest, e.Name)); err != nil || string(b) != string(e.Node.Data) {
			t.Errorf("%s has other bytes: %v", e.Name, err)
		}
	}
}

// lending is a source that has its bytes in memory, in chunks.
type lending struct {
	growing
	chunk int64
	out   sync.WaitGroup // lent and not given back
	read  int64          // of what was given back
}

func (b *lending) Lend(off, most int64) ([]byte, func(int), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if off < b.released || off >= b.data {
		b.t.Errorf("asked to lend at %d; the data before %d were released and end at %d", off, b.released, b.data)
	}
	lent := b.img[off:min(off+most, (off/b.chunk+1)*b.chunk, b.data)]
	b.out.Add(1)
	return lent, func(n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.read += int64(n)
		b.out.Done()
	}, nil
}

func TestWhatLiesInMemoryIsBorrowedAndGivenBack(t *testing.T) {
	var entries []squashtest.Entry
	for i := range 300 {
		entries = append(entries, squashtest.Entry{Name: fmt.Sprintf("f%03d", i), Node: regular(noise(i * 1999))})
	}
	img := squashtest.Image(directory(entries...), own())
	r, err := squashfs.Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	for _, chunk := range []int64{4 << 10, 200 << 10, 1 << 20, 1 << 30} {
		src := &lending{growing: growing{t: t, img: img, data: r.Superblock().DataEnd}, chunk: chunk}
		dest := t.TempDir()
		s, err := unpack.Unpack(context.Background(), src, int64(len(img)), dest, unpack.Options{})
		if err != nil {
			t.Fatal(err)
		}
		src.out.Wait()
		if src.released != src.data {
			t.Errorf("chunks of %d bytes: %d of %d bytes were released", chunk, src.released, src.data)
		}
		if s.BytesRead > int64(len(img))+16<<10 || chunk == 1<<20 && src.read < s.BytesRead*9/10 {
			t.Errorf("chunks of %d bytes: of an image of %d bytes %d were read, %d of them where they were", chunk, len(img), s.BytesRead, src.read)
		}
		for _, e := range entries {
			if b, err := os.ReadFile(filepath.Join(dest, e.Name)); err != nil || string(b) != string(e.Node.Data) {
				t.Errorf("chunks of %d bytes: %s has other bytes: %v", chunk, e.Name, err)
			}
		}
	}
	src := &lending{growing: growing{t: t, img: img, data: r.Superblock().DataEnd}, chunk: 100 << 10}
	dest := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := unpack.Unpack(ctx, src, int64(len(img)), dest, unpack.Options{Progress: func(p unpack.Progress) {
		if p.Files > 100 {
			cancel()
		}
	}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	src.out.Wait()
}

// stuck is a source whose data never comes.
type stuck struct {
	*bytes.Reader
	data    int64
	waiting chan struct{}
	end     chan struct{}
}

func (s *stuck) ReadAt(p []byte, off int64) (int, error) {
	if off > 0 && off < s.data {
		close(s.waiting)
		<-s.end
	}
	return s.Reader.ReadAt(p, off)
}

func TestCancellingEndsAReadThatWaits(t *testing.T) {
	img := squashtest.Image(directory(squashtest.Entry{Name: "f", Node: regular("data")}), own())
	r, err := squashfs.Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	src := &stuck{bytes.NewReader(img), r.Superblock().DataEnd, make(chan struct{}), make(chan struct{})}
	defer close(src.end)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("the operator said so")
	go func() {
		<-src.waiting
		cancel(why)
	}()
	if _, err = unpack.Unpack(ctx, src, int64(len(img)), t.TempDir(), unpack.Options{}); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// dead is a source that breaks at an offset.
type dead struct {
	*bytes.Reader
	at int64
}

var errLine = errors.New("the line is dead")

func (d dead) ReadAt(p []byte, off int64) (int, error) {
	if off > 0 && off < d.at {
		return 0, errLine
	}
	return d.Reader.ReadAt(p, off)
}

func TestAnErrorOfTheSourceEndsIt(t *testing.T) {
	img := squashtest.Image(directory(squashtest.Entry{Name: "f", Node: regular("data")}), own())
	r, err := squashfs.Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = unpack.Unpack(context.Background(), dead{bytes.NewReader(img), r.Superblock().DataEnd}, int64(len(img)), t.TempDir(), unpack.Options{})
	if !errors.Is(err, errLine) {
		t.Errorf("got %v", err)
	}
}

func TestABlockThatIsTooShortIsDamage(t *testing.T) {
	img := squashtest.Image(directory(squashtest.Entry{Name: "f", Node: regular(noise(2 * blockSize))}), own())
	at := bytes.LastIndex(img, []byte{0, 16, 0, 1, 0, 16, 0, 1}) // both blocks' size words
	img[at] = 255
	img[at+1] = 15
	_, err := unpack.Unpack(context.Background(), bytes.NewReader(img), int64(len(img)), t.TempDir(), unpack.Options{})
	if !errors.Is(err, squashfs.ErrDamaged) || !strings.Contains(err.Error(), "/f") {
		t.Errorf("got %v", err)
	}
}

// FuzzUnpack writes what the fuzzer makes of an image into a directory and looks whether anything beside it changed.
// Run it with -fuzzminimizetime 1x: what several workers cover differs from run to run, so that minimizing never ends.
func FuzzUnpack(f *testing.F) {
	f.Add(squashtest.Image(directory(
		squashtest.Entry{Name: "d", Node: directory(squashtest.Entry{Name: "f", Node: regular(noise(5000))})},
		squashtest.Entry{Name: "l", Node: &squashtest.Node{Type: squashfs.Symlink, Target: "../canary"}},
	), own()))
	f.Fuzz(func(t *testing.T, img []byte) {
		top := t.TempDir()
		dest, canary := filepath.Join(top, "dest"), filepath.Join(top, "canary")
		if err := errors.Join(os.Mkdir(dest, 0o755), os.WriteFile(canary, []byte("alive"), 0o600)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		unpack.Unpack(ctx, bytes.NewReader(img), int64(len(img)), dest, unpack.Options{Workers: 2})
		if ctx.Err() != nil {
			t.Error("it does not end")
		}
		b, err := os.ReadFile(canary)
		entries, err2 := os.ReadDir(top)
		if err := errors.Join(err, err2); err != nil || string(b) != "alive" || len(entries) != 2 {
			t.Errorf("outside of its directory: %q, %v, %v", b, entries, err)
		}
	})
}
