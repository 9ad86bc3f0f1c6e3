package export

import (
	"fmt"
	"io"
	"os"
	"sync"

	"imgbuild/image"
)

// kept is how many chunks are kept after they have been checked: metadata is read in small pieces, and data in order.
const kept = 8

// checked reads a file of which every chunk is checked when it is read, so that nothing passes that was not signed, whoever else writes
// to the file. All methods may be called from several goroutines.
type checked struct {
	f    *os.File
	file image.File

	mu     sync.Mutex
	chunks []chunk // the last used is the last
}

type chunk struct {
	n    int
	data []byte
}

// ReadAt implements io.ReaderAt.
func (c *checked) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < c.file.Size {
		data, err := c.chunk(int(off / image.ChunkSize))
		if err != nil {
			return n, err
		}
		got := copy(p[n:], data[off%image.ChunkSize:])
		n, off = n+got, off+int64(got)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// chunk returns the bytes of a chunk, which nobody changes.
func (c *checked) chunk(n int) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, k := range c.chunks {
		if k.n == n {
			c.chunks = append(append(c.chunks[:i:i], c.chunks[i+1:]...), k)
			return k.data, nil
		}
	}
	off, length := image.Chunk(c.file.Size, n)
	data := make([]byte, length)
	if _, err := c.f.ReadAt(data, off); err != nil {
		return nil, fmt.Errorf("read %s at offset %d: %w", c.f.Name(), off, err)
	}
	if err := c.file.Chunks.Verify(n, data); err != nil {
		return nil, fmt.Errorf("read %s: %w; copy the release again", c.f.Name(), err)
	}
	if len(c.chunks) == kept {
		c.chunks = c.chunks[1:]
	}
	c.chunks = append(c.chunks, chunk{n, data})
	return data, nil
}
