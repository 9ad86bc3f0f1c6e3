package swarmnet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/installer/blob"
	"imgbuild/installer/transfer"
	"imgbuild/installer/unpack"
)

// bring runs the transfer and writes what it brings. It returns when nobody needs this machine any more.
func (m *machine) bring(ctx context.Context, c *transfer.Transfer, f image.File) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- c.Run(running) }() // ends with Close
	quiet := m.watch(running, c.Blob())
	err := m.write(ctx, c.Blob(), f)
	close(quiet)
	if err == nil {
		cpu, memory := used()
		m.say(event{Kind: done, Got: f.Size, Total: f.Size, Sources: c.Sources(), CPU: cpu, Memory: memory})
		c.Linger(ctx)
	}
	err = errors.Join(err, c.Close())
	stop()
	if e := <-ran; e != nil && !errors.Is(e, blob.ErrClosed) && !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	return err
}

// watch says how far the blob is, until the channel that it returns is closed.
func (m *machine) watch(ctx context.Context, b *blob.Blob) chan struct{} {
	quiet := make(chan struct{})
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for last := int64(-1); ; {
			select {
			case <-tick.C:
			case <-quiet:
				return
			case <-ctx.Done():
				return
			}
			if s := b.Stats(); s.Arrived != last {
				last = s.Arrived
				m.say(event{Kind: progress, Got: s.Arrived, Total: s.Size})
			}
		}
	}()
	return quiet
}

// write reads all of the blob, in the order in which the unpacker does, and checks it against the manifest.
func (m *machine) write(ctx context.Context, b *blob.Blob, f image.File) error {
	if m.config.Tree != "" {
		if err := os.MkdirAll(m.config.Tree, 0o755); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		_, err := unpack.Unpack(ctx, b, f.Size, m.config.Tree, unpack.Options{})
		return err
	}
	out, err := os.OpenFile(m.config.File, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the root file system: %w", err)
	}
	defer out.Close()
	if err := m.copy(ctx, out, b, f); err != nil {
		return fmt.Errorf("write the root file system: %w", err)
	}
	return out.Close()
}

// tail is how long the metadata at the end of a squashfs of this size is, about.
func tail(size int64) int64 { return min(size, max(size/100, 128<<10)) }

// step is how much the unpacker reads at a time.
const step = 1 << 20

// behind is how much of a file that is not kept stays on the disk.
const behind = 32 << 20

// copy reads the metadata first, then what is before it.
func (m *machine) copy(ctx context.Context, out *os.File, b *blob.Blob, f image.File) error {
	data := f.Size - tail(f.Size)
	meta := make([]byte, f.Size-data)
	if err := m.piece(ctx, out, b, meta, data); err != nil {
		return err
	}
	whole := sha256.New()
	buf := make([]byte, step)
	for off := int64(0); off < data; off += step {
		p := buf[:min(step, data-off)]
		if err := m.piece(ctx, out, b, p, off); err != nil {
			return err
		}
		whole.Write(p)
		if old := off - behind; !m.config.Keep && old >= 0 {
			if err := unix.Fallocate(int(out.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, old, step); err != nil {
				return fmt.Errorf("give back what was written: %w", err)
			}
		}
	}
	whole.Write(meta)
	if sum := fmt.Sprintf("%x", whole.Sum(nil)); sum != f.SHA256 {
		return fmt.Errorf("its SHA-256 is %s and the manifest's %s", sum, f.SHA256)
	}
	if !m.config.Keep {
		return nil
	}
	again := sha256.New()
	if _, err := io.Copy(again, io.NewSectionReader(out, 0, f.Size)); err != nil {
		return fmt.Errorf("read it again: %w", err)
	}
	if sum := fmt.Sprintf("%x", again.Sum(nil)); sum != f.SHA256 {
		return fmt.Errorf("the file's SHA-256 is %s and the manifest's %s", sum, f.SHA256)
	}
	return nil
}

// piece reads one piece of the blob, and writes it.
func (m *machine) piece(ctx context.Context, out *os.File, b *blob.Blob, p []byte, off int64) error {
	begun := time.Now()
	if _, err := b.ReadAt(p, off); err != nil && err != io.EOF {
		return err
	}
	b.Release(off, int64(len(p)))
	if _, err := out.WriteAt(p, off); err != nil {
		return err
	}
	if m.config.WriteRate <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(time.Until(begun.Add(time.Duration(len(p)) * time.Second / time.Duration(m.config.WriteRate))))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
