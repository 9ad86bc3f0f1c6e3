package stick

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/builder/progress"
)

// disk is an open device. Tests stand between it and the real one.
type disk interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

const (
	// block is what is read and written at once: a whole number of erase blocks on most sticks.
	block = 4 << 20
	// tail is what is cleared at the end of a larger device. A backup GPT takes the last 33 sectors at most, of 4 KiB where they
	// are large; RAID superblocks and the labels of ZFS are in the last 512 KiB.
	tail = 1 << 20
)

// Write writes the image and reads it back. The first block comes last, when all others have been read back: until then the device has
// neither boot sector nor partition table, and whatever happens, it starts nothing. Where ctx
// ends first, the error says so, and whether anything was written. The summary that report gets has the SHA-256 of what is on the
// device as its version.
func (t *Target) Write(ctx context.Context, report progress.Reporter) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w; nothing was written to %s", interrupted(ctx), t.Device.Path)
	}
	began := time.Now()
	bufs, err := newBuffers()
	if err != nil {
		return err
	}
	defer bufs.free()
	j := &job{Target: t, report: report, bufs: bufs, sum: sha256.New()}
	if err := j.run(ctx); err != nil {
		return fmt.Errorf("%w; what is on %s now is incomplete and does not start", err, t.Device.Path)
	}
	// EINVAL is the answer of devices that never have partitions, as some loop devices.
	if err := t.reread(); err != nil && !errors.Is(err, unix.EINVAL) {
		report.Note(fmt.Sprintf("the kernel does not show the new partitions of %s yet (%v); unplug it and plug it in again", t.Device.Path, err))
	}
	name := filepath.Base(t.image.Path)
	report.Finish(progress.Summary{
		Name: name, Version: fmt.Sprintf("sha256:%x", j.sum.Sum(nil)), Dir: t.Device.Path, Total: time.Since(began), Stages: j.stages,
		Files: []progress.FileSize{{Name: name, Bytes: t.image.Size}},
	})
	return nil
}

// job is one image on its way.
type job struct {
	*Target
	report progress.Reporter
	bufs   *buffers
	// sum is over the image as it was read; first is its first block, filled up with zeros.
	sum    hash.Hash
	first  []byte
	stages []progress.StageTime
	moved  int64 // bytes of the stage
}

func (j *job) run(ctx context.Context) error {
	for n, s := range []struct {
		name, what string
		do         func(context.Context) error
	}{
		{"write", fmt.Sprintf("write %s to %s", j.image, j.Device.Path), j.writeRest},
		{"verify", "read it back from the device", j.verifyRest},
		{"boot", "write and verify the first block, with boot sector and partition table", j.writeFirst},
	} {
		j.report.Start(progress.Stage{N: n + 1, Of: 3, Name: s.name, What: s.what})
		began := time.Now()
		j.moved = 0
		if err := s.do(ctx); err != nil {
			return err
		}
		done := progress.StageTime{Name: s.name, Duration: time.Since(began), Bytes: j.moved}
		if seconds := done.Duration.Seconds(); j.moved > 0 && seconds > 0 {
			done.Note = progress.Bytes(int64(float64(j.moved)/seconds)) + "/s"
		}
		j.stages = append(j.stages, done)
		j.report.Done(done)
	}
	return nil
}

// writeRest clears what would be taken for the old content, and writes all but the first block.
func (j *job) writeRest(ctx context.Context) error {
	j.first = j.bufs.all[0]
	clear(j.first)
	if err := j.clearEnds(); err != nil {
		return err
	}
	n, err := j.readImage(j.first, 0)
	if err != nil {
		return err
	}
	clear(j.first[n:])
	j.sum.Write(j.first[:n])
	err = j.pipe(ctx, func(b []byte, off int64) (int, error) {
		n, err := j.readImage(b, off)
		if err != nil {
			return 0, err
		}
		j.sum.Write(b[:n])
		return n, nil
	}, func(b []byte, n int, off int64) error {
		return j.put(b, n, off)
	})
	if err != nil {
		return err
	}
	// What is in the device's own cache goes to the flash.
	if err := j.disk.Sync(); err != nil {
		return j.explain("finish writing to", j.image.Size, err)
	}
	return j.image.unchanged()
}

// clearEnds takes away the old boot sector and partition table, and whatever lies at the end of a larger device. The backup of an old
// GPT there would otherwise stay: firmware and partitioning tools that do not like the image's own table restore the old one from it
// (UEFI 2.10, 5.3.2), and tools for RAID and ZFS take the stick for a member. The image's own backup GPT ends where the image ends.
func (j *job) clearEnds() error {
	head := min(block, j.Device.Size)
	if err := j.put(j.first, int(head), 0); err != nil {
		return err
	}
	from := max(head, roundUp(j.image.Size, int64(j.Device.Sector)), j.Device.Size-tail)
	if n := j.Device.Size - from; n > 0 {
		if err := j.put(j.first, int(n), from); err != nil {
			return err
		}
	}
	if err := j.disk.Sync(); err != nil {
		return j.explain("clear", 0, err)
	}
	return nil
}

// verifyRest reads back all but the first block, and holds its SHA-256 with the first against the image's.
func (j *job) verifyRest(ctx context.Context) error {
	sum := sha256.New()
	sum.Write(j.first[:min(block, j.image.Size)])
	err := j.pipe(ctx, j.get, func(b []byte, n int, _ int64) error {
		sum.Write(b[:n])
		return nil
	})
	if err != nil {
		return err
	}
	if want := j.sum.Sum(nil); !bytes.Equal(want, sum.Sum(nil)) {
		return j.differs(ctx)
	}
	return nil
}

// differs looks for the first byte that is not the image's.
func (j *job) differs(ctx context.Context) error {
	want := make([]byte, block)
	err := j.pipe(ctx, j.get, func(b []byte, n int, off int64) error {
		if _, err := j.readImage(want, off); err != nil {
			return err
		}
		return j.compare(want[:n], b[:n], off)
	})
	if err != nil {
		return err
	}
	return fmt.Errorf("verify %s: it gave back other bytes than were written, and the right ones when asked again; it is not to be trusted: take another stick", j.Device.Path)
}

func (j *job) compare(want, got []byte, off int64) error {
	for i := range want {
		if want[i] != got[i] {
			return fmt.Errorf("verify %s: the byte at offset %d is 0x%02x and should be 0x%02x: the stick is broken or smaller than it says; take another",
				j.Device.Path, off+int64(i), got[i], want[i])
		}
	}
	return nil
}

// writeFirst makes the device what the image is.
func (j *job) writeFirst(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return interrupted(ctx)
	}
	n := int(min(block, j.image.Size))
	if err := j.put(j.first, n, 0); err != nil {
		return err
	}
	if err := j.disk.Sync(); err != nil {
		return j.explain("finish writing to", 0, err)
	}
	back := j.bufs.all[1]
	if _, err := j.get(back, 0); err != nil {
		return err
	}
	j.moved = int64(n)
	return j.compare(j.first[:n], back[:n], 0)
}

// readImage fills a block from the image's file, less at its end.
func (j *job) readImage(b []byte, off int64) (int, error) {
	n := int(min(int64(len(b)), j.image.Size-off))
	switch got, err := j.image.file.ReadAt(b[:n], off); {
	case got == n:
		return n, nil
	case errors.Is(err, io.EOF):
		return 0, fmt.Errorf("read the image %s: it ends at %d bytes and had %d when it was opened; wait until it is whole, and write it again", j.image.Path, off+int64(got), j.image.Size)
	default:
		return 0, fmt.Errorf("read the image %s at offset %d: %w", j.image.Path, off+int64(got), err)
	}
}

// put writes the first n bytes of a block, and zeros up to the end of the sector.
func (j *job) put(b []byte, n int, off int64) error {
	whole := int(roundUp(int64(n), int64(j.Device.Sector)))
	clear(b[n:whole])
	if _, err := j.disk.WriteAt(b[:whole], off); err != nil {
		return j.explain("write to", off, err)
	}
	return nil
}

// get reads the block that the device has at an offset, as far as the image goes.
func (j *job) get(b []byte, off int64) (int, error) {
	n := int(min(int64(len(b)), j.image.Size-off))
	got, err := j.disk.ReadAt(b[:roundUp(int64(n), int64(j.Device.Sector))], off)
	if got < n {
		return 0, j.explain("read back", off+int64(got), err)
	}
	return n, nil
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// explain makes one sentence of what the device answers.
func (j *job) explain(doing string, off int64, err error) error {
	doing = fmt.Sprintf("%s %s at %s", doing, j.Device.Path, progress.Bytes(off))
	switch {
	case j.gone(), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOMEDIUM):
		return fmt.Errorf("%s: it was pulled out; plug it in and write it again: %w", doing, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, io.EOF):
		return fmt.Errorf("%s: it ends there, though it says that it has %s; take another stick: %w", doing, progress.Bytes(j.Device.Size), err)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: it takes no writes; take off its write protection, or take another, as worn-out sticks do this too: %w", doing, err)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EREMOTEIO), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EILSEQ), errors.Is(err, unix.ENODATA):
		return fmt.Errorf("%s: it fails there; try another port, then another stick: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// gone reports whether the kernel no longer has the device that was claimed.
func (j *job) gone() bool {
	return text(j.sys.Sys, "block", j.Device.Name, "diskseq") != j.Device.seq || text(j.sys.Sys, "block", j.Device.Name, "dev") != j.Device.number
}
