package export

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"imgbuild/image"
	"imgbuild/image/imagetest"
)

// reader is a file of three chunks and a bit, and its bytes.
func reader(t *testing.T) (*checked, []byte, string) {
	t.Helper()
	data, chunks := imagetest.Random(t, 3*image.ChunkSize+77, 5)
	path := filepath.Join(t.TempDir(), image.RootfsFile)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &checked{f: f, file: image.File{Size: int64(len(data)), Chunks: chunks}}, data, path
}

func TestWhatIsReadIsWhatWasSigned(t *testing.T) {
	c, data, _ := reader(t)
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for _, r := range [][2]int64{{0, 10}, {image.ChunkSize - 3, 7}, {5, 2 * image.ChunkSize}, {3 * image.ChunkSize, 77}} {
				p := make([]byte, r[1])
				if n, err := c.ReadAt(p, r[0]); n != len(p) || err != nil || !bytes.Equal(p, data[r[0]:r[0]+r[1]]) {
					t.Errorf("%d bytes at %d: %d, %v", r[1], r[0], n, err)
				}
			}
		})
	}
	g.Wait()
	p := make([]byte, 100)
	if n, err := c.ReadAt(p, int64(len(data))-50); n != 50 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := c.ReadAt(p, int64(len(data))+5); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("beyond the end: %d, %v", n, err)
	}
}

func TestAFlippedByteIsFoundWhereItIs(t *testing.T) {
	c, data, path := reader(t)
	data[2*image.ChunkSize+9] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, len(data))
	n, err := c.ReadAt(p, 0)
	if n != 2*image.ChunkSize || !errors.Is(err, image.ErrChunk) || !strings.Contains(err.Error(), "chunk 2") {
		t.Errorf("%d, %v", n, err)
	}
}
