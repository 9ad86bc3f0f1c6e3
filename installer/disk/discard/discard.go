// Package discard empties whole disks as their makers provide for it: TRIM, UNMAP or deallocate for every block, or erasing that
// the device itself calls secure.
//
// A disk and what the layout asks for come in; a Plan goes out, or the reason why this disk cannot, which is known before anything
// is written. Running the Plan destroys everything on the disk. What a device does with discarded blocks is its own affair:
// nothing here promises that they read as zeros.
package discard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgbuild/image/layout"
)

// ErrUnsupported is wrapped when the disk cannot do what is asked for. The layout says whether that matters.
var ErrUnsupported = errors.New("the device cannot do that")

// System is where the kernel shows itself.
type System struct {
	Sys string // /sys
	Dev string // /dev
}

type method int

const (
	none method = iota
	blocks
	secureBlocks
	format
)

// Plan is how one disk will be emptied. The zero value does nothing.
type Plan struct {
	method method
	size   int64 // of the disk, bytes
	piece  int64 // most bytes of one request
	// namespace and cdw10 are what NVMe's Format is told.
	namespace, cdw10 uint32
}

// String is the plan in words.
func (p Plan) String() string {
	switch p.method {
	case blocks:
		return "discard all blocks"
	case secureBlocks:
		return "discard all blocks securely"
	case format:
		return "NVMe format with user data erase"
	}
	return "nothing"
}

// maxPiece bounds one request, and with it how long a cancellation waits.
const maxPiece = 1 << 30

// nvmeRE are namespaces.
var nvmeRE = regexp.MustCompile(`^nvme\d+n\d+$`)

// Prepare decides how the disk with this kernel name will be emptied. It may open the disk for writing, but writes nothing.
// An error that is ErrUnsupported says in one sentence why the disk cannot.
func Prepare(s System, name string, how layout.Discard) (Plan, error) {
	if how == layout.DiscardNone || how == "" {
		return Plan{}, nil
	}
	queue := filepath.Join(s.Sys, "block", name, "queue")
	sectors, err := number(filepath.Join(s.Sys, "block", name, "size"))
	if err != nil {
		return Plan{}, fmt.Errorf("prepare to empty %s: %w", name, err)
	}
	most, err := number(filepath.Join(queue, "discard_max_bytes"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Plan{}, fmt.Errorf("prepare to empty %s: %w", name, err)
	}
	granularity, err := number(filepath.Join(queue, "discard_granularity"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Plan{}, fmt.Errorf("prepare to empty %s: %w", name, err)
	}
	p := Plan{size: sectors * 512, piece: piece(granularity)}
	switch how {
	case layout.DiscardBlocks:
		if most == 0 {
			return Plan{}, fmt.Errorf("prepare to discard all blocks of %s: %w: neither it nor its controller takes TRIM, UNMAP or deallocate; take the discard out of the layout",
				name, ErrUnsupported)
		}
		p.method = blocks
		return p, nil
	case layout.DiscardSecure:
		return secure(s, name, p)
	}
	return Plan{}, fmt.Errorf("prepare to empty %s: there is no way called %q; there are none, discard and secure", name, how)
}

// piece is the largest multiple of a device's granularity up to maxPiece, so that no request splits what it erases at once.
func piece(granularity int64) int64 {
	if granularity <= 0 || granularity > maxPiece {
		return maxPiece
	}
	return maxPiece / granularity * granularity
}

// secure prefers NVMe's own Format, and takes BLKSECDISCARD where there is that (eMMC, virtio).
func secure(s System, name string, p Plan) (Plan, error) {
	f, err := os.OpenFile(filepath.Join(s.Dev, strings.ReplaceAll(name, "!", "/")), os.O_RDWR, 0)
	if err != nil {
		return Plan{}, fmt.Errorf("prepare to erase %s securely: %w", name, err)
	}
	defer f.Close()
	why := "it is neither an NVMe namespace nor a device whose driver knows secure discard; take the discard out of the layout, or erase it with its maker's tool"
	if nvmeRE.MatchString(name) {
		if p.namespace, p.cdw10, err = prepareFormat(f); err == nil {
			p.method = format
			return p, nil
		}
		if !errors.Is(err, errFormat) {
			return Plan{}, fmt.Errorf("prepare to erase %s securely: %w", name, err)
		}
		why = err.Error()
	}
	switch ok, err := knowsSecureDiscard(f); {
	case err != nil:
		return Plan{}, fmt.Errorf("prepare to erase %s securely: %w", name, err)
	case !ok:
		return Plan{}, fmt.Errorf("prepare to erase %s securely: %w: %s", name, ErrUnsupported, why)
	}
	p.method = secureBlocks
	return p, nil
}

// knowsSecureDiscard asks for impossible ranges. A kernel since 5.19 looks at the device first and refuses an odd place after
// that; an older one refuses the odd place first and looks at the device when nothing is to be erased.
func knowsSecureDiscard(f *os.File) (bool, error) {
	for _, r := range [][2]uint64{{1, 512}, {0, 0}} {
		// The second, where it is taken, makes the kernel forget what it has cached of the disk.
		if err := f.Sync(); err != nil {
			return false, err
		}
		switch err := discard(f, unix.BLKSECDISCARD, r); {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY):
			return false, nil
		case err != nil && !errors.Is(err, unix.EINVAL):
			return false, err
		}
	}
	return true, nil
}

// discard has an offset and a length in bytes.
func discard(f *os.File, request uintptr, r [2]uint64) error {
	_, err := ioctlValue(f, request, unsafe.Pointer(&r))
	return err
}

// ioctlValue is for requests that return a number.
func ioctlValue(f *os.File, request uintptr, arg unsafe.Pointer) (uintptr, error) {
	value, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return 0, errno
	}
	return value, nil
}

func number(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s has %q, which is no size", file, b)
	}
	return n, nil
}

// Run empties the disk that f is open on for writing, which has to be the one that Prepare was asked about. progress is told of
// bytes done and bytes in all; it may be nil. A cancelled Run has emptied a part of the disk; NVMe's Format, once begun, is waited
// for.
func (p Plan) Run(ctx context.Context, f *os.File, progress func(done, total int64)) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	var request uintptr
	switch p.method {
	case none:
		return nil
	case format:
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("format %s: %w", f.Name(), err)
		}
		progress(0, p.size)
		if err := runFormat(f, p.namespace, p.cdw10); err != nil {
			return fmt.Errorf("format %s: %w", f.Name(), err)
		}
		progress(p.size, p.size)
		return nil
	case blocks:
		request = unix.BLKDISCARD
	case secureBlocks:
		request = unix.BLKSECDISCARD
	}
	progress(0, p.size)
	for _, r := range pieces(p.size, p.piece) {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("%s of %s: stopped after %d of %d bytes: %w", p, f.Name(), r[0], p.size, err)
		}
		if err := discard(f, request, r); err != nil {
			return fmt.Errorf("%s of %s: %d bytes at %d: %w", p, f.Name(), r[1], r[0], err)
		}
		progress(int64(r[0]+r[1]), p.size)
	}
	return nil
}

// pieces are the ranges that cover size bytes, each an offset and a length.
func pieces(size, piece int64) [][2]uint64 {
	var out [][2]uint64
	for off := int64(0); off < size; off += piece {
		out = append(out, [2]uint64{uint64(off), uint64(min(piece, size-off))})
	}
	return out
}
