package stick

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/builder/progress"
)

// fake is a device in memory that behaves as O_DIRECT does, and goes wrong where a test says.
type fake struct {
	mu     sync.Mutex
	data   []byte
	sector int64
	// writing and reading, if not nil, are asked before each; synced after each Sync, with how many there were.
	writing, reading func(off int64) error
	synced           func(n int)
	syncs            int
}

func (f *fake) check(n int, off int64) error {
	if int64(n)%f.sector != 0 || off%f.sector != 0 {
		return fmt.Errorf("%d bytes at %d: %w", n, off, unix.EINVAL)
	}
	return nil
}

func (f *fake) WriteAt(b []byte, off int64) (int, error) {
	if f.writing != nil {
		if err := f.writing(off); err != nil {
			return 0, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(len(b), off); err != nil {
		return 0, err
	}
	if off >= int64(len(f.data)) {
		return 0, unix.ENOSPC
	}
	return copy(f.data[off:], b), nil
}

func (f *fake) ReadAt(b []byte, off int64) (int, error) {
	if f.reading != nil {
		if err := f.reading(off); err != nil {
			return 0, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(len(b), off); err != nil {
		return 0, err
	}
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	return copy(b, f.data[off:]), nil
}

func (f *fake) Sync() error {
	f.syncs++
	if f.synced != nil {
		f.synced(f.syncs)
	}
	return nil
}

func (f *fake) Close() error { return nil }

// events keeps what a writer reports.
type events struct {
	stages  []string
	notes   []string
	last    progress.Step
	summary progress.Summary
	onStep  func(progress.Step)
}

func (e *events) Start(s progress.Stage)    { e.stages = append(e.stages, s.Name) }
func (e *events) Done(progress.StageTime)   {}
func (e *events) Note(s string)             { e.notes = append(e.notes, s) }
func (e *events) Finish(s progress.Summary) { e.summary = s }
func (e *events) Step(s progress.Step) {
	e.last = s
	if e.onStep != nil {
		e.onStep(s)
	}
}

// setup is an image of so many random bytes and a device full of old content.
func setup(t *testing.T, size, device, sector int64) (*Target, *fake, []byte) {
	t.Helper()
	tr := newTree(t)
	tr.stick(device)
	content := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(content)
	tr.file("live.iso", string(content))
	image, err := OpenImage(filepath.Join(tr.dir, "live.iso"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { image.Close() })
	f := &fake{data: bytes.Repeat([]byte{0xaa}, int(device)), sector: sector}
	d := list1(t, tr, image)["sdb"]
	d.Sector = int(sector)
	return &Target{Device: d, sys: tr.system(), image: image, disk: f, reread: func() error { return nil }}, f, content
}

func TestTheDeviceHoldsTheImageAndNothingOld(t *testing.T) {
	const device = 16 << 20
	for name, c := range map[string]struct{ size, sector int64 }{
		"an image of several blocks and a piece of a sector": {9<<20 + 100, 512},
		"large sectors":                      {9<<20 + 100, 4096},
		"an image of one sector":             {512, 512},
		"an image of one byte":               {1, 512},
		"an image of exactly one block":      {block, 512},
		"an image of exactly two blocks":     {2 * block, 512},
		"an image as large as the device":    {device, 512},
		"an image that ends within the tail": {device - 1000, 512},
	} {
		t.Run(name, func(t *testing.T) {
			target, f, content := setup(t, c.size, device, c.sector)
			var e events
			if err := target.Write(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.data[:c.size], content) {
				t.Error("the device holds something else")
			}
			if end := roundUp(c.size, c.sector); bytes.ContainsFunc(f.data[c.size:end], func(r rune) bool { return r != 0 }) {
				t.Error("the image's last sector is not filled up with zeros")
			}
			if rest := f.data[max(roundUp(c.size, c.sector), device-tail):]; !bytes.Equal(rest, make([]byte, len(rest))) {
				t.Error("the end of the device still has old content")
			}
			if want := fmt.Sprintf("sha256:%x", sha256.Sum256(content)); e.summary.Version != want || e.summary.Dir != "/dev/sdb" {
				t.Errorf("summary: %+v", e.summary)
			}
			if got := strings.Join(e.stages, " "); got != "write verify boot" {
				t.Errorf("stages %s", got)
			}
			if rest := c.size - min(c.size, block); rest > 0 && (e.last.Done != rest || e.last.Total != rest) {
				t.Errorf("progress ended with %+v", e.last)
			}
		})
	}
}

func TestADeviceThatIsNotWholeStartsNothing(t *testing.T) {
	const size, device = 9 << 20, 16 << 20
	afterWriting := func(do func(f *fake)) func(*Target, *fake, *events, context.CancelFunc) {
		return func(_ *Target, f *fake, _ *events, _ context.CancelFunc) {
			f.synced = func(n int) {
				if n == 2 { // all but the first block
					f.mu.Lock()
					defer f.mu.Unlock()
					do(f)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		fault func(*Target, *fake, *events, context.CancelFunc)
		says  string
	}{
		"a byte turns over on the device": {
			afterWriting(func(f *fake) { f.data[5<<20+7] ^= 1 }), "the byte at offset 5242887 is 0x",
		},
		"the first of several bad bytes is named": {
			afterWriting(func(f *fake) { f.data[8<<20+1] ^= 1; f.data[4<<20] ^= 1 }), "the byte at offset 4194304 is 0x",
		},
		"the device gives back other bytes only once": {
			func(_ *Target, f *fake, _ *events, _ context.CancelFunc) {
				f.reading = func(off int64) error {
					if off == 4<<20 {
						f.mu.Lock()
						f.data[off] ^= 1
						f.mu.Unlock()
					}
					return nil
				}
			}, "the right ones when asked again",
		},
		"the device cannot be read back": {
			func(_ *Target, f *fake, _ *events, _ context.CancelFunc) {
				f.reading = func(off int64) error {
					if off >= 8<<20 {
						return unix.EIO
					}
					return nil
				}
			}, "read back /dev/sdb at 8.0 MiB: it fails there",
		},
		"a write fails": {
			func(_ *Target, f *fake, _ *events, _ context.CancelFunc) {
				f.writing = func(off int64) error {
					if off == 4<<20 {
						return unix.EIO
					}
					return nil
				}
			}, "write to /dev/sdb at 4.0 MiB: it fails there; try another port, then another stick: input/output error",
		},
		"the device turns read-only": {
			func(_ *Target, f *fake, _ *events, _ context.CancelFunc) {
				f.writing = func(off int64) error {
					if off == 8<<20 {
						return unix.EPERM
					}
					return nil
				}
			}, "it takes no writes",
		},
		"the device ends before it should": {
			func(_ *Target, f *fake, _ *events, _ context.CancelFunc) {
				f.writing = func(off int64) error {
					if off == 8<<20 {
						return unix.ENOSPC
					}
					return nil
				}
			}, "it ends there, though it says that it has 16 MiB",
		},
		"the device is pulled out": {
			func(t *Target, f *fake, _ *events, _ context.CancelFunc) {
				f.writing = func(off int64) error {
					if off < 8<<20 || off >= device-tail {
						return nil
					}
					if err := os.Remove(filepath.Join(t.sys.Sys, "block/sdb")); err != nil {
						return err
					}
					return unix.EIO
				}
			}, "at 8.0 MiB: it was pulled out; plug it in and write it again",
		},
		"the image gets shorter": {
			func(t *Target, _ *fake, e *events, _ context.CancelFunc) {
				if err := os.Truncate(t.image.Path, 5<<20); err != nil {
					panic(err)
				}
			}, "it ends at 5242880 bytes and had 9437184",
		},
		"the image is replaced in place": {
			func(t *Target, _ *fake, e *events, _ context.CancelFunc) {
				if err := os.Chtimes(t.image.Path, time.Time{}, time.Unix(1, 0)); err != nil {
					panic(err)
				}
			}, "was changed while it was written",
		},
		"somebody presses Ctrl-C while it is written": {
			func(_ *Target, _ *fake, e *events, cancel context.CancelFunc) {
				e.onStep = func(progress.Step) { cancel() }
			}, "interrupted (context canceled); what is on /dev/sdb now is incomplete and does not start",
		},
		"somebody presses Ctrl-C when only the first block is missing": {
			func(_ *Target, _ *fake, e *events, cancel context.CancelFunc) {
				e.onStep = func(s progress.Step) {
					if s.Done == s.Total && len(e.stages) == 2 {
						cancel()
					}
				}
			}, "interrupted (context canceled)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			target, f, _ := setup(t, size, device, 512)
			var e events
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c.fault(target, f, &e, cancel)
			err := target.Write(ctx, &e)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "is incomplete and does not start") {
				t.Errorf("got %v", err)
			}
			if errors.Is(err, errInterrupted) != strings.Contains(name, "Ctrl-C") {
				t.Errorf("%v is an interruption: %v", err, errors.Is(err, errInterrupted))
			}
			if !bytes.Equal(f.data[:block], make([]byte, block)) {
				t.Error("the first block is there")
			}
			if e.summary.Name != "" {
				t.Error("it reports an end")
			}
		})
	}
}

func TestAFirstBlockThatIsBrokenIsNoticed(t *testing.T) {
	target, f, _ := setup(t, 5<<20, 16<<20, 512)
	f.synced = func(n int) {
		if n == 3 {
			f.data[446] ^= 0x80
		}
	}
	if err := target.Write(t.Context(), &events{}); err == nil || !strings.Contains(err.Error(), "the byte at offset 446 is") {
		t.Errorf("got %v", err)
	}
}

func TestAnInterruptionBeforeTheFirstByteLeavesTheDeviceAsItWas(t *testing.T) {
	target, f, _ := setup(t, 5<<20, 16<<20, 512)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := target.Write(ctx, &events{})
	if err == nil || !errors.Is(err, errInterrupted) || !strings.Contains(err.Error(), "nothing was written to /dev/sdb") {
		t.Errorf("got %v", err)
	}
	if f.data[0] != 0xaa {
		t.Error("something was written")
	}
}

func TestAKernelThatKeepsTheOldPartitionsIsANote(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		notes int
	}{
		"busy":                         {unix.EBUSY, 1},
		"no partitions on such a kind": {unix.EINVAL, 0},
	} {
		t.Run(name, func(t *testing.T) {
			target, _, _ := setup(t, 1000, 16<<20, 512)
			target.reread = func() error { return c.err }
			var e events
			if err := target.Write(t.Context(), &e); err != nil || len(e.notes) != c.notes {
				t.Errorf("%v, notes %q", err, e.notes)
			}
		})
	}
}
