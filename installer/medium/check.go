package medium

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"imgbuild/image"
	"imgbuild/installer/report"
)

// ErrDamaged is wrapped by the error of Check when the medium is not as it was written.
var ErrDamaged = errors.New("write the medium again, or use another one")

// Check reads all of the release and compares it with its manifest, which has to be signed by one of the keys. It finds everything
// that is wrong, a chunk of the root file system by its number.
func (m *Medium) Check(ctx context.Context, keys []image.PublicKey, say report.Reporter) (*image.Manifest, error) {
	fail := func(err error) (*image.Manifest, error) {
		if errors.Is(err, ErrGone) || errors.Is(err, ErrDamaged) { // it says what to do
			return nil, fmt.Errorf("check the medium: %w", err)
		}
		return nil, fmt.Errorf("check the medium: %w; %w", err, ErrDamaged)
	}
	raw, err := m.small(image.ManifestFile, image.MaxManifestSize)
	if err != nil {
		return fail(err)
	}
	signature, err := m.small(image.SignatureFile, 4096)
	if err != nil {
		return fail(err)
	}
	manifest, err := image.Open(raw, signature, keys)
	if err != nil {
		return fail(err)
	}
	total := int64(0)
	for _, f := range manifest.Files {
		total += f.Size
	}
	c := &check{m: m, say: say, meter: report.NewMeter("medium", total)}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(manifest.Files)) {
		if err := c.file(ctx, name, manifest.Files[name]); err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("check the medium: %w", context.Cause(ctx))
			}
			if errors.Is(err, ErrGone) {
				return fail(err)
			}
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fail(errors.Join(errs...))
	}
	return manifest, nil
}

// check is one on its way.
type check struct {
	m     *Medium
	say   report.Reporter
	meter *report.Meter
	read  int64
}

// most is how many chunks that are wrong are named.
const most = 8

func (c *check) file(ctx context.Context, name string, want image.File) error {
	f, err := c.m.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := f.Stat()
	if err != nil {
		return err
	}
	if s.Size() != want.Size {
		return fmt.Errorf("%s has %d bytes, and was written with %d", name, s.Size(), want.Size)
	}
	whole := sha256.New()
	buf := make([]byte, image.ChunkSize)
	var bad []int
	for i := 0; ; i++ {
		off, length := image.Chunk(want.Size, i)
		if off >= want.Size {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := buf[:length]
		if _, err := io.ReadFull(f, p); err != nil {
			return err // it names the file and the chunk
		}
		whole.Write(p)
		if want.Chunks != nil && want.Chunks.Verify(i, p) != nil {
			bad = append(bad, i)
		}
		c.read += length
		c.meter.Set(c.read)
		c.say.Progress(c.meter.Progress())
	}
	switch {
	case len(bad) > most:
		return fmt.Errorf("%s is not as it was written: chunks %v and %d more are wrong", name, bad[:most], len(bad)-most)
	case len(bad) == 1:
		return fmt.Errorf("%s is not as it was written: chunk %d is wrong", name, bad[0])
	case len(bad) > 0:
		return fmt.Errorf("%s is not as it was written: chunks %v are wrong", name, bad)
	case hex.EncodeToString(whole.Sum(nil)) != want.SHA256:
		return fmt.Errorf("%s is not as it was written: its SHA-256 is another one", name)
	}
	return nil
}
