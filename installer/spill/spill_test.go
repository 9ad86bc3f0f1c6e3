package spill

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/image/imagetest"
	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
)

// open makes a store for a random file.
func open(t *testing.T, chunks int, change func(*Options)) (*Store, []byte, *reporttest.Lines) {
	t.Helper()
	data, table := imagetest.Random(t, chunks*image.ChunkSize-1000, 2)
	l := &reporttest.Lines{}
	o := Options{Dir: t.TempDir(), Size: int64(len(data)), Chunks: table, Report: report.New(l)}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, data, l
}

func TestChunksComeBackAsTheyWereAndTheFileHasNoName(t *testing.T) {
	s, data, l := open(t, 5, nil)
	if entries, err := os.ReadDir(s.o.Dir); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
	p := make([]byte, image.ChunkSize)
	for _, i := range []int{4, 0, 2, 2} {
		if err := s.Put(i, imagetest.Chunk(data, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		n, err := s.ReadChunk(i, p)
		if kept := i%2 == 0; s.Has(i) != kept || (err == nil) != kept || kept && !bytes.Equal(p[:n], imagetest.Chunk(data, i)) {
			t.Errorf("chunk %d: %v, %d bytes, %v", i, s.Has(i), n, err)
		}
	}
	if want := int64(2*image.ChunkSize + len(imagetest.Chunk(data, 4))); s.kept != want {
		t.Errorf("%d bytes are kept and not %d", s.kept, want)
	}
	if _, err := s.ReadChunk(0, p[:10]); !errors.Is(err, io.ErrShortBuffer) {
		t.Error(err)
	}
	for i, p := range map[int][]byte{-1: nil, 5: nil, 1: imagetest.Chunk(data, 4)} {
		if err := s.Put(i, p); err == nil {
			t.Errorf("%d bytes were taken as chunk %d", len(p), i)
		}
	}
	if s.Has(-1) || s.Has(5) || len(l.All()) != 0 {
		t.Errorf("it says %q", l.All())
	}
}

func TestItStopsAtItsLimitAndWhatItHasStays(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		says   string
		kept   int
	}{
		"a limit":                   {func(o *Options) { o.Limit = 2*image.ChunkSize + 5 }, "the limit of 2.0 MiB is reached", 2},
		"space that has to be free": {func(o *Options) { o.Reserve = 1 << 60 }, "1.0 EiB have to stay so", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, data, l := open(t, 4, c.change)
			for i := range 4 {
				if err := s.Put(i, imagetest.Chunk(data, i)); (err == nil) != (i < c.kept) || err != nil && !errors.Is(err, ErrFull) {
					t.Errorf("chunk %d: %v", i, err)
				}
				if s.Has(i) != (i < c.kept) {
					t.Errorf("chunk %d: %v", i, s.Has(i))
				}
			}
			for i := range c.kept {
				if n, err := s.ReadChunk(i, make([]byte, image.ChunkSize)); n != image.ChunkSize || err != nil {
					t.Error(n, err)
				}
			}
			if len(l.All()) != 1 || !strings.Contains(l.All()[0], c.says) || !strings.Contains(l.All()[0], s.o.Dir) {
				t.Errorf("it says %q", l.All())
			}
		})
	}
}

func TestADiskThatBreaksIsReportedOnceAndGivesNothingBack(t *testing.T) {
	s, data, l := open(t, 3, nil)
	for i := range 2 {
		if err := s.Put(i, imagetest.Chunk(data, i)); err != nil {
			t.Fatal(err)
		}
	}
	s.file.WriteAt([]byte("other bytes"), 77)
	s.file.Truncate(image.ChunkSize + 10)
	p := make([]byte, image.ChunkSize)
	if _, err := s.ReadChunk(0, p); !errors.Is(err, image.ErrChunk) {
		t.Errorf("changed: %v", err)
	}
	if _, err := s.ReadChunk(1, p); !errors.Is(err, io.EOF) {
		t.Errorf("cut: %v", err)
	}
	if len(l.All()) != 1 || !strings.Contains(l.All()[0], "warning: the disk below "+s.o.Dir) {
		t.Errorf("it says %q", l.All())
	}
	s.file.Close()
	var err error
	if s.file, err = os.OpenFile("/dev/full", os.O_RDWR, 0); err != nil {
		t.Skip("there is no /dev/full: ", err)
	}
	if err := s.Put(2, imagetest.Chunk(data, 2)); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "the file system is full") {
		t.Errorf("full: %v", err)
	}
	if err := s.Put(2, imagetest.Chunk(data, 2)); !errors.Is(err, ErrFull) || s.Has(2) || len(l.All()) != 2 {
		t.Errorf("again: %v; it says %q", err, l.All())
	}
}

func TestAClosedStoreSaysNothing(t *testing.T) {
	s, data, l := open(t, 2, nil)
	s.Put(0, imagetest.Chunk(data, 0))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(1, imagetest.Chunk(data, 1)); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, err := s.ReadChunk(0, make([]byte, image.ChunkSize)); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if len(l.All()) != 0 {
		t.Errorf("it says %q", l.All())
	}
}

func TestWithoutNamelessFilesTheNameIsTakenAway(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := unlinked(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 1<<20); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if info, err := f.Stat(); err != nil || info.Mode() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

func TestWhereNothingCanBeKeptIsAnErrorAtOnce(t *testing.T) {
	s, _, _ := open(t, 2, nil)
	for name, change := range map[string]func(*Options){
		"a folder that is not there":  func(o *Options) { o.Dir += "/none" },
		"a table of another file":     func(o *Options) { o.Size += image.ChunkSize },
		"no table":                    func(o *Options) { o.Chunks = nil },
		"a file system without files": func(o *Options) { o.Dir = "/proc" },
		"a file and not a folder":     func(o *Options) { o.Dir = "/dev/null" },
	} {
		o := s.o
		change(&o)
		if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "make room for chunks") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
