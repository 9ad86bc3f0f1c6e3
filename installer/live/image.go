package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"imgbuild/image"
	"imgbuild/installer/blob"
)

// Image is the root file system as a file in memory. It is a blob.Store, so that others get chunks from it as soon as they are here,
// and all methods may be called from several goroutines.
type Image struct {
	f    *os.File
	size int64

	mu   sync.Mutex
	here []bool // by chunk
}

// NewImage makes an empty image in a directory of a file system in memory that has room for it.
func NewImage(dir string, size int64) (*Image, error) {
	f, err := os.OpenFile(filepath.Join(dir, image.RootfsFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return nil, fmt.Errorf("make the place for the root file system: %w", err)
	}
	return &Image{f: f, size: size, here: make([]bool, (size+image.ChunkSize-1)/image.ChunkSize)}, nil
}

// Put implements blob.Store. The chunk is as long as chunks are.
func (i *Image) Put(n int, data []byte) error {
	off, _ := image.Chunk(i.size, n)
	if _, err := i.f.WriteAt(data, off); err != nil {
		return fmt.Errorf("keep the root file system in memory: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.here[n] = true
	return nil
}

// Has implements blob.Store.
func (i *Image) Has(n int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.here[n]
}

// ReadChunk implements blob.Store.
func (i *Image) ReadChunk(n int, p []byte) (int, error) {
	off, length := image.Chunk(i.size, n)
	return i.f.ReadAt(p[:length], off)
}

// Fill copies all of the blob into the image, each chunk once.
func (i *Image) Fill(ctx context.Context, b *blob.Blob) error {
	buf := make([]byte, image.ChunkSize)
	for n := range i.here {
		off, length := image.Chunk(i.size, n)
		if _, err := b.ReadAt(buf[:length], off); err != nil && !errors.Is(err, io.EOF) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("get the root file system: %w", err)
		}
		if !i.Has(n) {
			if err := i.Put(n, buf[:length]); err != nil {
				return err
			}
		}
		b.Release(off, length)
		if ctx.Err() != nil {
			return fmt.Errorf("get the root file system: %w", context.Cause(ctx))
		}
	}
	return nil
}
