package image

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

// ChunkSize is the size of a chunk in bytes: 1 MiB. The last chunk of a file may be shorter.
const ChunkSize = 1 << 20

// MaxFileSize bounds a chunked file: 256 GiB, so that a chunk table is at most 8 MiB.
const MaxFileSize = 256 << 30

// ChunkTable holds the SHA-256 of each chunk of a file. In JSON the digests are one base64 string: 44 bytes a chunk.
type ChunkTable struct {
	Size    int64 // bytes in each chunk but the last
	Digests [][sha256.Size]byte
}

type chunkTableJSON struct {
	Size    int64  `json:"size"`
	Digests string `json:"sha256"`
}

// MarshalJSON writes the digests one after the other as standard base64.
func (t ChunkTable) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, len(t.Digests)*sha256.Size)
	for i := range t.Digests {
		b = append(b, t.Digests[i][:]...)
	}
	return json.Marshal(chunkTableJSON{t.Size, base64.StdEncoding.EncodeToString(b)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (t *ChunkTable) UnmarshalJSON(data []byte) error {
	var j chunkTableJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("read chunk table: %w", err)
	}
	b, err := base64.StdEncoding.DecodeString(j.Digests)
	if err != nil {
		return fmt.Errorf("read chunk table: %w", err)
	}
	if len(b)%sha256.Size != 0 {
		return fmt.Errorf("read chunk table: %d bytes are not a whole number of SHA-256 digests", len(b))
	}
	t.Size, t.Digests = j.Size, make([][sha256.Size]byte, len(b)/sha256.Size)
	for i := range t.Digests {
		copy(t.Digests[i][:], b[i*sha256.Size:])
	}
	return nil
}

func (t *ChunkTable) validate(fileSize int64) error {
	if t.Size != ChunkSize {
		return fmt.Errorf("chunks have %d bytes and not %d", t.Size, ChunkSize)
	}
	if fileSize > MaxFileSize {
		return fmt.Errorf("it has %d bytes, more than the %d that are supported", fileSize, int64(MaxFileSize))
	}
	if want := (fileSize + t.Size - 1) / t.Size; int64(len(t.Digests)) != want {
		return fmt.Errorf("the chunk table has %d digests and %d bytes need %d", len(t.Digests), fileSize, want)
	}
	return nil
}

// Chunk returns the offset and length in bytes of chunk i of a file of size bytes.
func Chunk(size int64, i int) (off, n int64) {
	off = int64(i) * ChunkSize
	return off, min(ChunkSize, size-off)
}

// ErrChunk is returned, wrapped with the chunk's number, when bytes are not those that were signed.
var ErrChunk = errors.New("the bytes are not those of the signed manifest")

// Verify checks the bytes of chunk i.
func (t *ChunkTable) Verify(i int, data []byte) error {
	if i < 0 || i >= len(t.Digests) {
		return fmt.Errorf("check chunk %d: there are only %d chunks", i, len(t.Digests))
	}
	if sha256.Sum256(data) != t.Digests[i] {
		return fmt.Errorf("check chunk %d: %w", i, ErrChunk)
	}
	return nil
}

// Hasher makes the File of what is written to it: size, SHA-256 and chunk table in one pass.
type Hasher struct {
	whole, chunk hash.Hash
	size         int64
	inChunk      int
	digests      [][sha256.Size]byte
}

// NewHasher returns an empty Hasher.
func NewHasher() *Hasher { return &Hasher{whole: sha256.New(), chunk: sha256.New()} }

// Write never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	n := len(p)
	h.whole.Write(p)
	h.size += int64(n)
	for len(p) > 0 {
		k := min(len(p), ChunkSize-h.inChunk)
		h.chunk.Write(p[:k])
		h.inChunk += k
		p = p[k:]
		if h.inChunk == ChunkSize {
			h.endChunk()
		}
	}
	return n, nil
}

func (h *Hasher) endChunk() {
	var d [sha256.Size]byte
	h.chunk.Sum(d[:0])
	h.digests = append(h.digests, d)
	h.chunk.Reset()
	h.inChunk = 0
}

// File returns the description of what has been written. Nothing may be written afterwards.
func (h *Hasher) File(chunked bool) File {
	if h.inChunk > 0 {
		h.endChunk()
	}
	f := File{Size: h.size, SHA256: fmt.Sprintf("%x", h.whole.Sum(nil))}
	if chunked {
		f.Chunks = &ChunkTable{Size: ChunkSize, Digests: h.digests}
	}
	return f
}

// Describe reads r to its end and returns its File.
func Describe(r io.Reader, chunked bool) (File, error) {
	h := NewHasher()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, ChunkSize)); err != nil {
		return File{}, fmt.Errorf("hash file: %w", err)
	}
	return h.File(chunked), nil
}
