package squashfs_test

import (
	"bytes"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"
	"testing"

	"imgbuild/installer/squashfs"
	"imgbuild/installer/squashfs/squashtest"
)

// The images are what mksquashfs makes of the tree in images_test.go, which makes them anew with -update.
//
//go:embed testdata/*.squashfs
var images embed.FS

func image(t testing.TB, comp string) []byte {
	t.Helper()
	b, err := images.ReadFile("testdata/" + comp + ".squashfs")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// maxRead bounds what readAll opens, so that a fuzzer's image with huge files ends.
const maxRead = 4 << 20

// readAll reads everything that there is to read in an image and returns a description of it, a line for each name.
func readAll(img []byte) (string, error) {
	r, err := squashfs.Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		return "", err
	}
	tree, err := r.Tree()
	if err != nil {
		return "", err
	}
	dec, err := r.NewDecompressor()
	if err != nil {
		return "", err
	}
	budget := maxRead
	open := func(b squashfs.Block) ([]byte, error) {
		src := img[b.Offset : b.Offset+int64(b.Size)]
		if b.Raw {
			return src, nil
		}
		return dec.Decompress(src)
	}
	var s strings.Builder
	for i := range tree.Entries {
		in := tree.Entries[i].Inode
		fmt.Fprintf(&s, "%s %s %o %d:%d %d links=%d", tree.Path(i), in.Type, in.Mode, in.UID, in.GID, in.MTime, in.Nlink)
		switch in.Type {
		case squashfs.Symlink:
			fmt.Fprintf(&s, " -> %s", in.Target())
		case squashfs.BlockDevice, squashfs.CharDevice:
			fmt.Fprintf(&s, " %d,%d", in.Rdev>>32, uint32(in.Rdev))
		case squashfs.Regular:
			h := fnv.New32a()
			at, c := 0, in.Cursor()
			for n, b, ok := c.Next(); ok && budget > 0; n, b, ok = c.Next() {
				data, err := open(b)
				if err != nil {
					return "", err
				}
				budget -= len(data) + 100
				fmt.Fprintf(&s, " block%d+%d", n, n-at)
				h.Write(data)
				at = n + 1
			}
			if f, off, n := in.Tail(); n > 0 && budget > 0 {
				b, err := r.Fragment(f)
				if err != nil {
					return "", err
				}
				data, err := open(b)
				if err != nil {
					return "", err
				}
				budget -= len(data) + 100
				if int(off)+n > len(data) {
					return "", fmt.Errorf("%w: tail outside its fragment", squashfs.ErrDamaged)
				}
				h.Write(data[off : int(off)+n])
				s.WriteString(" tail")
			}
			fmt.Fprintf(&s, " %d bytes, sum %08x", in.Size, h.Sum32())
		}
		if id, ok := in.XattrID(); ok {
			list, err := r.Xattrs(id)
			if err != nil {
				return "", err
			}
			for _, x := range list {
				fmt.Fprintf(&s, " %s=%q", x.Name, x.Value)
			}
		}
		s.WriteByte('\n')
	}
	return s.String(), nil
}

func TestEveryCompressorGivesTheSameTree(t *testing.T) {
	want, err := readAll(image(t, "zstd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"dev/null character device 666 0:0 1000000000 links=1 1,3\n",
		"dev/sda9 block device 660 0:6 1000000000 links=1 8,9\n",
		"bin/su file 4755 0:0 1000000000 links=2",
		"link symbolic link 777 0:0 1000000000 links=1 -> bin/su trusted.link=\"l\"\n",
		`user.comment="hello"`,
		`trusted.big="xxxxxxxx`,
		"fifo FIFO 600 70000:80000",
		"empty file 0 0:0 1000000000 links=1 0 bytes",
		"hole file 644 0:0 1000000000 links=1 block2+2 20480 bytes",
	} {
		if !strings.Contains(want, line) {
			t.Errorf("the tree lacks %q:\n%.3000s", line, want)
		}
	}
	for _, comp := range []string{"gzip", "lz4", "xz", "plain"} {
		got, err := readAll(image(t, comp))
		if err != nil {
			t.Errorf("%s: %v", comp, err)
		} else if got != want {
			t.Errorf("%s gives\n%.2000s\nand zstd gives\n%.2000s", comp, got, want)
		}
	}
}

func TestWhatCannotBeDecompressedIsRefusedByName(t *testing.T) {
	for comp, word := range map[string]string{"lzo": "lzo", "lzma": "lzma", "bcj": "BCJ"} {
		_, err := readAll(image(t, comp))
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", comp, err)
		}
	}
}

// clean says whether an error is one that the package promises.
func clean(err error) bool {
	return err == nil || errors.Is(err, squashfs.ErrDamaged) || errors.Is(err, errors.ErrUnsupported)
}

func TestEveryDamageEndsInAnError(t *testing.T) {
	for _, comp := range []string{"gzip", "lz4", "xz", "zstd", "plain"} {
		good := image(t, comp)
		t.Run(comp+" cut short anywhere", func(t *testing.T) {
			for n := range good {
				if _, err := readAll(good[:n]); !errors.Is(err, squashfs.ErrDamaged) {
					t.Fatalf("cut to %d of %d bytes: %v", n, len(good), err)
				}
			}
		})
		t.Run(comp+" with any byte changed", func(t *testing.T) {
			step := 1
			if testing.Short() {
				step = 7
			}
			b := slices.Clone(good)
			for n := 0; n < len(b); n += step {
				for _, x := range []byte{0x01, 0x80, 0xff} {
					b[n] ^= x
					if _, err := readAll(b); !clean(err) {
						t.Fatalf("byte %d xor %#x: %v", n, x, err)
					}
					b[n] ^= x
				}
			}
		})
	}
}

func TestHostileTreesAreRefused(t *testing.T) {
	file := func() *squashtest.Node { return &squashtest.Node{Type: squashfs.Regular, Data: []byte("x")} }
	dir := func(e ...squashtest.Entry) *squashtest.Node {
		return &squashtest.Node{Type: squashfs.Directory, Entries: e}
	}
	twice := dir(squashtest.Entry{Name: "f", Node: file()})
	deep := dir()
	for range 20 {
		deep = dir(squashtest.Entry{Name: strings.Repeat("d", 250), Node: deep})
	}
	for name, c := range map[string]struct {
		root *squashtest.Node
		want string
	}{
		"a name that leads upward":                 {dir(squashtest.Entry{Name: "..", Node: file()}), "not a file's name"},
		"a name that is the directory itself":      {dir(squashtest.Entry{Name: ".", Node: dir()}), "not a file's name"},
		"a name with a slash":                      {dir(squashtest.Entry{Name: "a/b", Node: file()}), "not a file's name"},
		"an absolute name":                         {dir(squashtest.Entry{Name: "/etc", Node: file()}), "not a file's name"},
		"a name with a NUL":                        {dir(squashtest.Entry{Name: "a\x00b", Node: file()}), "not a file's name"},
		"a name that is too long":                  {dir(squashtest.Entry{Name: strings.Repeat("n", 256), Node: file()}), "at most 255"},
		"a name twice":                             {dir(squashtest.Entry{Name: "a", Node: file()}, squashtest.Entry{Name: "a", Node: dir()}), "in order and different"},
		"names out of order":                       {dir(squashtest.Entry{Name: "b", Node: file()}, squashtest.Entry{Name: "a", Node: file()}), "in order and different"},
		"a directory with two names":               {dir(squashtest.Entry{Name: "a", Node: twice}, squashtest.Entry{Name: "b", Node: twice}), "already somewhere else"},
		"a path that is too long":                  {dir(squashtest.Entry{Name: "a", Node: deep}), "its path has"},
		"a symbolic link to nowhere":               {dir(squashtest.Entry{Name: "l", Node: &squashtest.Node{Type: squashfs.Symlink}}), "target has 0 bytes"},
		"a symbolic link that is too long":         {dir(squashtest.Entry{Name: "l", Node: &squashtest.Node{Type: squashfs.Symlink, Target: strings.Repeat("t", 4096)}}), "target has 4096 bytes"},
		"a symbolic link with a NUL in its target": {dir(squashtest.Entry{Name: "l", Node: &squashtest.Node{Type: squashfs.Symlink, Target: "a\x00"}}), "holds a NUL"},
		"a root that is a file":                    {file(), "it is a file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readAll(squashtest.Image(c.root, squashtest.Options{}))
			if !errors.Is(err, squashfs.ErrDamaged) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestTheSuperblockIsChecked(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		change func(b []byte)
		want   string
	}{
		"another file":                  {func(b []byte) { copy(b, "PK\x03\x04") }, "begins with"},
		"an older version":              {func(b []byte) { le.PutUint16(b[28:], 3) }, "version 3.0"},
		"a block size of nothing":       {func(b []byte) { le.PutUint32(b[12:], 0) }, "block size is 0"},
		"a block size of 2 MiB":         {func(b []byte) { le.PutUint32(b[12:], 2<<20); le.PutUint16(b[22:], 21) }, "block size is 2097152"},
		"two block sizes":               {func(b []byte) { le.PutUint16(b[22:], 13) }, "both"},
		"more bytes than there are":     {func(b []byte) { le.PutUint64(b[40:], 1<<40) }, "fetch it again"},
		"tables in the wrong order":     {func(b []byte) { le.PutUint64(b[64:], le.Uint64(b[72:])) }, "directory table at"},
		"no inodes":                     {func(b []byte) { le.PutUint32(b[4:], 0) }, "0 inodes"},
		"an unknown compressor":         {func(b []byte) { le.PutUint16(b[20:], 99) }, "unknown compressor 99"},
		"more fragments than there are": {func(b []byte) { le.PutUint32(b[16:], 1<<31) }, "fragment table"},
		"a root that is nowhere":        {func(b []byte) { le.PutUint64(b[32:], 1<<40) }, "root directory"},
	} {
		t.Run(name, func(t *testing.T) {
			b := slices.Clone(image(t, "zstd"))
			c.change(b)
			if _, err := readAll(b); !clean(err) || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// failing is a source that breaks at an offset.
type failing struct {
	b  []byte
	at int64
}

var errLine = errors.New("the line is dead")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, errLine
	}
	return copy(p, f.b[off:]), nil
}

func TestAnErrorOfTheSourceIsKept(t *testing.T) {
	b := image(t, "zstd")
	for _, at := range []int64{0, int64(len(b) - 1)} {
		if _, err := squashfs.Open(failing{b, at}, int64(len(b))); !errors.Is(err, errLine) {
			t.Errorf("broken at %d: %v", at, err)
		}
	}
}

// ascending is a source that notes where it is read.
type ascending struct {
	io.ReaderAt
	offs []int64
}

func (a *ascending) ReadAt(p []byte, off int64) (int, error) {
	a.offs = append(a.offs, off)
	return a.ReaderAt.ReadAt(p, off)
}

func TestMetadataIsReadOnceAndInOrder(t *testing.T) {
	b := image(t, "zstd")
	src := &ascending{ReaderAt: bytes.NewReader(b)}
	r, err := squashfs.Open(src, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Tree(); err != nil {
		t.Fatal(err)
	}
	if want := []int64{0, r.Superblock().DataEnd}; !slices.Equal(src.offs, want) {
		t.Errorf("read at %d, want %d", src.offs, want)
	}
}

func FuzzImage(f *testing.F) {
	for _, comp := range []string{"gzip", "lz4", "xz", "zstd", "plain", "lzo", "bcj"} {
		f.Add(image(f, comp))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := readAll(b); !clean(err) {
			t.Error(err)
		}
	})
}
