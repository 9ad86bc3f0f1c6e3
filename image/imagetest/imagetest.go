// Package imagetest makes files with chunk tables for tests.
package imagetest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"imgbuild/image"
)

// Random makes a file of so many bytes, always the same ones for a seed, and its chunk table.
func Random(t testing.TB, size int, seed byte) ([]byte, *image.ChunkTable) {
	t.Helper()
	data := make([]byte, size)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(data); err != nil {
		t.Fatal(err)
	}
	f, err := image.Describe(bytes.NewReader(data), true)
	if err != nil {
		t.Fatal(err)
	}
	return data, f.Chunks
}

// Chunk is the bytes of chunk i of a file.
func Chunk(data []byte, i int) []byte {
	off, n := image.Chunk(int64(len(data)), i)
	return data[off : off+n]
}
