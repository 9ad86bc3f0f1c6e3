package builder

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"imgbuild/builder/progress"
	"imgbuild/builder/tool"
	"imgbuild/image"
	"imgbuild/image/torrent"
	"imgbuild/profiles"
)

// squashfs packs the root file system into the release that is being made, and describes it.
func (b *build) squashfs(ctx context.Context) (outcome, error) {
	var err error
	if b.unpacked, err = unpackedBytes(b.root); err != nil {
		return outcome{}, err
	}
	if err := b.checkMountable(); err != nil {
		return outcome{}, err
	}
	out := filepath.Join(b.work, image.RootfsFile)
	argv, err := squashfsArgv(b.root, out, b.o.Profile.Pack, runtime.NumCPU())
	if err != nil {
		return outcome{}, err
	}
	bar := &squashfsOutput{report: b.o.Report, rest: func(line string) { b.runner.Note("%s", line) }}
	if err := b.runner.Run(ctx, tool.Command{Argv: argv, Env: b.env(), Stdout: bar}); err != nil {
		return outcome{}, fmt.Errorf("pack the root file system: %w", err)
	}
	pieces := torrent.NewHasher()
	file, err := b.describe(ctx, out, true, pieces)
	if err != nil {
		return outcome{}, err
	}
	b.files[image.RootfsFile], b.torrent = file, pieces.Metainfo()
	return outcome{bytes: file.Size, note: fmt.Sprintf("%s unpacked, %d %% left", progress.Bytes(b.unpacked), file.Size*100/max(b.unpacked, 1))}, nil
}

// squashfsArgv is mksquashfs's command line. The paths that are left out come last, because they end the options.
func squashfsArgv(root, out string, k profiles.Pack, processors int) ([]string, error) {
	block, err := profiles.ParseSize(k.BlockSize)
	if err != nil {
		return nil, fmt.Errorf("pack the root file system: pack.block_size: %w", err)
	}
	argv := []string{
		"mksquashfs", root, out, "-noappend", "-no-recovery", "-xattrs", "-progress",
		"-processors", strconv.Itoa(processors), "-b", strconv.FormatInt(block, 10), "-comp", k.Compressor,
	}
	switch k.Compressor {
	case "zstd", "gzip":
		if k.CompressionLevel != 0 {
			argv = append(argv, "-Xcompression-level", strconv.Itoa(k.CompressionLevel))
		}
	case "lz4":
		argv = append(argv, "-Xhc")
	}
	if len(k.Exclude) > 0 {
		argv = append(argv, "-wildcards", "-e")
		for _, e := range k.Exclude {
			argv = append(argv, strings.TrimPrefix(e, "/"))
		}
	}
	return argv, nil
}

// squashfsOutput reads mksquashfs's standard output: its bar becomes progress, the rest goes to the log.
type squashfsOutput struct {
	report Reporter
	rest   func(string)
	line   []byte
}

var squashfsBar = regexp.MustCompile(`^\[.*\]\s+(\d+)/(\d+)\s+\d+%$`)

// Write never fails.
func (o *squashfsOutput) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\r' && c != '\n' {
			o.line = append(o.line, c)
			continue
		}
		line := string(bytes.TrimSpace(o.line))
		o.line = o.line[:0]
		if m := squashfsBar.FindStringSubmatch(line); m != nil {
			done, _ := strconv.ParseInt(m[1], 10, 64) // the pattern has digits only
			total, _ := strconv.ParseInt(m[2], 10, 64)
			o.report.Step(progress.Step{Text: "blocks packed", Done: done, Total: total})
		} else if line != "" {
			o.rest(line)
		}
	}
	return len(p), nil
}

// unpackedBytes is the sum of the sizes of all regular files, each hard-linked one once and holes not counted.
func unpackedBytes(root string) (int64, error) {
	var sum int64
	seen := map[uint64]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("stat %s: no inode", path)
		}
		if st.Nlink > 1 {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		sum += min(info.Size(), max(st.Blocks*512, 0)+4096)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure the image: %w", err)
	}
	return sum, nil
}

// describe hashes a file in one pass, while its pages are still in memory. What it reads goes to others too.
func (b *build) describe(ctx context.Context, path string, chunked bool, others ...io.Writer) (image.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return image.File{}, fmt.Errorf("hash %s: %w", filepath.Base(path), err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return image.File{}, fmt.Errorf("hash %s: %w", filepath.Base(path), err)
	}
	r := &countingReader{r: f, ctx: ctx, step: func(done int64) {
		b.o.Report.Step(progress.Step{Text: "hashed", Done: done, Total: st.Size(), Bytes: true})
	}}
	return image.Describe(io.TeeReader(r, io.MultiWriter(others...)), chunked)
}

type countingReader struct {
	r    io.Reader
	ctx  context.Context
	n    int64
	step func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.step(c.n)
	return n, err
}
