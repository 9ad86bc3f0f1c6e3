package iso

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"imgbuild/builder/tool"
	"imgbuild/image"
)

// AnswerTools are the host's programs that WithAnswers runs.
func AnswerTools() []string { return []string{"xorriso"} }

// WithAnswers writes a copy of a medium to out that also has an answer file, in place of one that is there already. It returns the
// manifest of the medium's release, whose signature it does not check. Nobody but the file's owner can read the copy, as answers may have a password's hash. out is
// there whole or not at all, and the same medium and answers give the same bytes; work is a directory for what is made on the way.
func WithAnswers(ctx context.Context, run *tool.Runner, work, medium, out string, answers []byte) (manifest *image.Manifest, err error) {
	if err := differ(medium, out); err != nil {
		return nil, fmt.Errorf("write %s: %w", filepath.Base(out), err)
	}
	err = whole(work, out, func(work, part string) error {
		if manifest, err = manifestOf(ctx, run, work, medium); err != nil {
			return err
		}
		source := filepath.Join(work, image.AnswersFile)
		created := time.Unix(manifest.Created, 0)
		if err := errors.Join(os.WriteFile(source, answers, 0o600), os.Chtimes(source, created, created)); err != nil {
			return err
		}
		f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) // xorriso writes into what is there, with its mode
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		target := "/" + path.Join(image.MediumDir, image.AnswersFile)
		if err := run.Run(ctx, tool.Command{
			Argv: []string{"xorriso", "-abort_on", "FAILURE", "-indev", medium, "-outdev", part, "-boot_image", "any", "replay", "-map", source, target,
				"-chown", "0", target, "--", "-chgrp", "0", target, "--", "-chmod", "0400", target, "--"},
			Env: []string{"TZ=UTC0", "SOURCE_DATE_EPOCH=" + strconv.FormatInt(manifest.Created, 10)},
		}); err != nil {
			return err
		}
		return cutPadding(part)
	})
	if err != nil {
		return nil, err
	}
	return manifest, nil
}

// differ makes sure that a copy does not take the place of its source.
func differ(medium, out string) error {
	m, err := os.Stat(medium)
	if err != nil {
		return err
	}
	o, err := os.Stat(out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && os.SameFile(m, o):
		return errors.New("it is the medium itself; name another file for the copy")
	}
	return err
}

// manifestOf reads the manifest of the release on a medium.
func manifestOf(ctx context.Context, run *tool.Runner, work, medium string) (*image.Manifest, error) {
	file := filepath.Join(work, image.ManifestFile)
	fail := func(err error) (*image.Manifest, error) {
		return nil, fmt.Errorf("read %s: it is no %s that imgbuild wrote: %w", filepath.Base(medium), image.ISOFile, err)
	}
	if err := run.Run(ctx, tool.Command{Argv: []string{"xorriso", "-osirrox", "on", "-indev", medium, "-extract_single", "/" + path.Join(image.MediumDir, image.ManifestFile), file}}); err != nil {
		return fail(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fail(err)
	}
	m, err := image.Parse(data)
	if err != nil {
		return fail(err)
	}
	return m, nil
}

// cutPadding ends the file where its partition table ends: xorriso fills up the last of the blocks that it writes, and tools then miss
// the table's copy at the end. A medium without a GPT stays.
func cutPadding(file string) (err error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	header := make([]byte, 512)
	if _, err := f.ReadAt(header, 512); err != nil {
		return err
	}
	if string(header[:8]) != "EFI PART" {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if last := binary.LittleEndian.Uint64(header[32:]); last < uint64(st.Size()/512) { // of the header's copy (UEFI 2.10, 5.3.2)
		return f.Truncate(int64(last+1) * 512)
	}
	return nil
}
