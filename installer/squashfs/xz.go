package squashfs

import (
	"errors"
	"fmt"
)

var errBCJ = fmt.Errorf("the image is compressed by xz with a BCJ filter, which this reader does not have; make it without mksquashfs -Xbcj: %w",
	errors.ErrUnsupported)

// checkXZ looks at the header of the first block of an xz stream (section 3.1 of the .xz file format, version 1.1.0)
// before the decoder does, because the decoder allocates the dictionary that the header asks for, up to 4 GiB.
func checkXZ(b []byte) error {
	const streamHeader = 12
	if len(b) < streamHeader+4 {
		return errors.New("the stream is cut short")
	}
	b = b[streamHeader:]
	if b[0] == 0 {
		return nil // an index: a stream without blocks
	}
	size := (int(b[0]) + 1) * 4
	if size > len(b) {
		return errors.New("the stream is cut short")
	}
	flags, b := b[1], b[2:size-4]
	sizes := 0
	for _, bit := range []byte{0x40, 0x80} { // compressed size, uncompressed size
		if flags&bit != 0 {
			sizes++
		}
	}
	var ok bool
	for range sizes {
		if _, b, ok = xzInt(b); !ok {
			return errors.New("the block header is cut short")
		}
	}
	if flags&3 != 0 {
		return errBCJ
	}
	id, b, ok1 := xzInt(b)
	n, b, ok2 := xzInt(b)
	switch {
	case !ok1 || !ok2 || len(b) < 1:
		return errors.New("the block header is cut short")
	case id != 0x21 || n != 1:
		return errBCJ
	}
	// Section 5.3.1: 2^n or 2^n + 2^(n-1) bytes, from 4 KiB on.
	dict := uint64(2|b[0]&1) << (b[0]/2 + 11)
	if b[0] > 40 || dict > maxBlockSize {
		return fmt.Errorf("it asks for a dictionary of %d bytes where a block has at most %d", dict, maxBlockSize)
	}
	return nil
}

// xzInt reads an integer of up to 63 bits, 7 in each byte (section 1.2).
func xzInt(b []byte) (v uint64, rest []byte, ok bool) {
	for i := 0; i < len(b) && i < 9; i++ {
		v |= uint64(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return v, b[i+1:], true
		}
	}
	return 0, nil, false
}
