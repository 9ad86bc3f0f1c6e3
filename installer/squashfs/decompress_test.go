package squashfs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// compressible returns n bytes that zstd makes sequences of, and in whose last bytes a match ends.
func compressible(n int) []byte {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	var b []byte
	for len(b) < n {
		if k := len(b); k > 64 && rnd.IntN(3) > 0 {
			from, length := rnd.IntN(k-32), 8+rnd.IntN(24)
			b = append(b, b[from:min(from+length, k)]...)
			continue
		}
		for range rnd.IntN(20) {
			b = append(b, byte(rnd.IntN(64)))
		}
	}
	return b[:n]
}

func TestABlockMayBeAsLargeAsTheImagesBlocksAndNoLarger(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	// A frame that was streamed does not say how long its content is.
	streamed := func(b []byte) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, zstd.WithWindowSize(metadataSize), zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			n, err := w.Write(b[:min(1000, len(b))])
			if err == nil {
				err = w.Flush()
			}
			if err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	frames := func(b []byte) []byte {
		return append(enc.EncodeAll(b[:len(b)/2], nil), enc.EncodeAll(b[len(b)/2:], nil)...)
	}
	kinds := map[string]func([]byte) []byte{
		"one frame": func(b []byte) []byte { return enc.EncodeAll(b, nil) }, "a streamed frame": streamed, "two frames": frames,
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			for _, limit := range []int{metadataSize, 128 << 10} {
				d, err := newDecompressor(Zstd, limit)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range []int{1, limit - zstdSlack, limit - 1, limit} {
					want := compressible(n)
					if got, err := d.Decompress(kind(want)); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d of at most %d bytes: got %d, %v", n, limit, len(got), err)
					}
				}
				for _, n := range []int{limit + 1, limit + zstdSlack, limit + zstdSlack + 1, 3 * limit} {
					if got, err := d.Decompress(kind(compressible(n))); !errors.Is(err, ErrDamaged) || got != nil {
						t.Errorf("%d of at most %d bytes: got %d, %v", n, limit, len(got), err)
					}
				}
			}
		})
	}
}
