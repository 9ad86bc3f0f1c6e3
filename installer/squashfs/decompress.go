package squashfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// Compressor is the number by which a superblock names how its blocks are compressed.
type Compressor uint16

// The compressors of squashfs 4.0. LZMA and LZO are named so that they can be refused by name.
const (
	Gzip Compressor = 1 // zlib streams (RFC 1950)
	LZMA Compressor = 2
	LZO  Compressor = 3
	XZ   Compressor = 4
	LZ4  Compressor = 5 // bare LZ4 blocks
	Zstd Compressor = 6 // one or more frames (RFC 8878)
)

// String returns the name by which mksquashfs -comp takes it.
func (c Compressor) String() string {
	switch c {
	case Gzip:
		return "gzip"
	case LZMA:
		return "lzma"
	case LZO:
		return "lzo"
	case XZ:
		return "xz"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("unknown compressor %d", uint16(c))
}

func (c Compressor) supported() error {
	switch c {
	case Gzip, XZ, LZ4, Zstd:
		return nil
	}
	return fmt.Errorf("the image is compressed with %s, which this reader does not have; make it with mksquashfs -comp zstd: %w",
		c, errors.ErrUnsupported)
}

// checkOptions refuses, before any data is read, what the decompressors would refuse later.
func (c Compressor) checkOptions(b []byte) error {
	le := binary.LittleEndian
	want := map[Compressor]int{Gzip: 8, XZ: 8, LZ4: 8, Zstd: 4}[c]
	if len(b) < want {
		return fmt.Errorf("%w: the options of %s have %d bytes and not %d", ErrDamaged, c, len(b), want)
	}
	switch {
	case c == XZ && le.Uint32(b[4:]) != 0:
		return errBCJ
	case c == LZ4 && le.Uint32(b) != 1:
		return fmt.Errorf("the image has LZ4 format %d; only 1 can be read: %w", le.Uint32(b), errors.ErrUnsupported)
	}
	return nil
}

// errTooMuch is what a block that decompresses to more than it may ends in.
var errTooMuch = errors.New("it decompresses to more than a block")

// zstdSlack is how much room, in bytes, zstd wants behind what it decodes: its fast copies go 16 bytes at a time and may write
// beyond the end. Without it they are made byte for byte, and decoding takes half as long again.
const zstdSlack = 16

// Decompressor opens blocks. It keeps its buffers from block to block and is for one goroutine at a time.
type Decompressor struct {
	comp  Compressor
	limit int    // bytes in an opened block
	out   []byte // the opened block, with limit+zstdSlack bytes of room
	src   bytes.Reader
	zlib  io.ReadCloser
	zstd  *zstd.Decoder
}

func newDecompressor(c Compressor, limit int) (*Decompressor, error) {
	d := &Decompressor{comp: c, limit: limit, out: make([]byte, limit+zstdSlack)}
	if c == Zstd {
		// One block at a time, decoded straight into out and never beyond it; no window is allocated.
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(uint64(len(d.out))))
		if err != nil {
			return nil, fmt.Errorf("make zstd decoder: %w", err)
		}
		d.zstd = z
	}
	return d, c.supported()
}

// Decompress opens the compressed block src. What it returns is good until the next call. A block that holds more than the
// image's block size is an error.
func (d *Decompressor) Decompress(src []byte) ([]byte, error) {
	n, err := d.decompress(d.out[:d.limit:d.limit], src)
	if err == nil && n > d.limit {
		err = errTooMuch
	}
	if err != nil {
		return nil, fmt.Errorf("%w: open %d bytes of %s: %w", ErrDamaged, len(src), d.comp, err)
	}
	return d.out[:n:n], nil
}

// decompress opens src into dst, but for zstd, which wants all of the room.
func (d *Decompressor) decompress(dst, src []byte) (int, error) {
	switch d.comp {
	case Zstd:
		out, err := d.zstd.DecodeAll(src, d.out[:0])
		return len(out), err
	case LZ4:
		return lz4.UncompressBlock(src, dst)
	case Gzip:
		return d.gzip(dst, src)
	case XZ:
		return d.xz(dst, src)
	}
	return 0, errors.ErrUnsupported
}

func (d *Decompressor) gzip(dst, src []byte) (int, error) {
	d.src.Reset(src)
	if d.zlib == nil {
		z, err := zlib.NewReader(&d.src)
		if err != nil {
			return 0, err
		}
		d.zlib = z
	} else if err := d.zlib.(zlib.Resetter).Reset(&d.src, nil); err != nil {
		return 0, err
	}
	return readAll(d.zlib, dst)
}

func (d *Decompressor) xz(dst, src []byte) (int, error) {
	if err := checkXZ(src); err != nil {
		return 0, err
	}
	d.src.Reset(src)
	x, err := xz.ReaderConfig{SingleStream: true}.NewReader(&d.src)
	if err != nil {
		return 0, err
	}
	return readAll(x, dst)
}

// readAll reads r to its end, where its checksum is verified, into dst.
func readAll(r io.Reader, dst []byte) (int, error) {
	var one [1]byte
	n, idle := 0, 0
	for {
		to := dst[n:]
		if len(to) == 0 {
			to = one[:]
		}
		k, err := r.Read(to)
		if k > 0 && n == len(dst) {
			return n, errTooMuch
		}
		n += k
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		case k > 0:
			idle = 0
		case idle > 100:
			return n, io.ErrNoProgress
		default:
			idle++
		}
	}
}
