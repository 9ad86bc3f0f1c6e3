package storage

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"imgbuild/installer/disk"
)

const mib = 1 << 20

// device is a disk that is written to. Sync returns when all earlier writes are on stable storage. A device node is one; so is
// a test's recorder of what is written in which order.
type device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// openNode opens a disk's node for writing, exclusively: it fails while anything on the disk is mounted or held, and where the
// kernel has another disk by that name now.
func openNode(sys string, d disk.Disk) (device, error) {
	f, err := os.OpenFile(d.Path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk for writing: %w", err)
	}
	if err := d.Check(sys, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// span is a piece of a disk, in bytes.
type span struct{ start, end int64 }

func (s span) overlaps(o span) bool { return s.start < o.end && o.start < s.end }

// without cuts holes out of spans, and returns what is left in order, merged.
func without(spans, holes []span) []span {
	spans = slices.Clone(spans)
	for _, h := range holes {
		var left []span
		for _, s := range spans {
			if !s.overlaps(h) {
				left = append(left, s)
				continue
			}
			if s.start < h.start {
				left = append(left, span{s.start, h.start})
			}
			if h.end < s.end {
				left = append(left, span{h.end, s.end})
			}
		}
		spans = left
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	var out []span
	for _, s := range spans {
		switch {
		case s.start >= s.end:
		case len(out) > 0 && s.start <= out[len(out)-1].end:
			out[len(out)-1].end = max(out[len(out)-1].end, s.end)
		default:
			out = append(out, s)
		}
	}
	return out
}

// fenced is a disk on which some pieces are kept. It refuses every write into them, whoever computed it.
type fenced struct {
	device
	kept []span
}

// WriteAt writes, but not into what is kept.
func (f fenced) WriteAt(p []byte, off int64) (int, error) {
	w := span{off, off + int64(len(p))}
	for _, k := range f.kept {
		if w.overlaps(k) {
			return 0, fmt.Errorf("write at byte %d: bytes %d to %d of the disk are kept", off, k.start, k.end)
		}
	}
	return f.device.WriteAt(p, off)
}

func zero(d device, spans []span) error {
	b := make([]byte, mib)
	for _, s := range spans {
		for s.start < s.end {
			n := min(s.end-s.start, int64(len(b)))
			if _, err := d.WriteAt(b[:n], s.start); err != nil {
				return fmt.Errorf("write zeros: %w", err)
			}
			s.start += n
		}
	}
	return nil
}

// allZero returns an error where something else is read.
func allZero(d device, spans []span) error {
	b, zeros := make([]byte, mib), make([]byte, mib)
	for _, s := range spans {
		for s.start < s.end {
			n := min(s.end-s.start, int64(len(b)))
			if k, err := d.ReadAt(b[:n], s.start); int64(k) < n {
				return fmt.Errorf("read zeros back: %w", err)
			}
			if !bytes.Equal(b[:n], zeros[:n]) {
				return fmt.Errorf("read zeros back: something else is in the %d bytes from byte %d on; the disk is broken or write-protected", n, s.start)
			}
			s.start += n
		}
	}
	return nil
}

// dropCache makes the next reads come from the disk itself where d is a device; it is only a stricter check.
func dropCache(d device) {
	if f, ok := d.(fenced); ok {
		d = f.device
	}
	if f, ok := d.(*os.File); ok {
		_ = unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)
	}
}
