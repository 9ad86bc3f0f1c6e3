package initramfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Values of Options.Compression and Report.Compression.
const (
	Zstd = "zstd"
	XZ   = "xz"
	Gzip = "gzip"
)

// chooseCompression is the best that the image's kernel can unpack, by its configuration: zstd (facts: four times
// faster to boot than xz under emulation), else xz, else gzip, which every kernel since 2.6 has.
func chooseCompression(t *tree, release string) (string, error) {
	for _, name := range []string{"lib/modules/" + release + "/config", "boot/config-" + release} {
		config, err := t.readIfPresent(name)
		if err != nil {
			return "", fmt.Errorf("read the kernel's configuration /%s of %s: %w", name, t.dir, err)
		}
		if config == nil {
			continue
		}
		options := lines(config)
		switch {
		case slices.Contains(options, "CONFIG_RD_ZSTD=y"):
			return Zstd, nil
		case slices.Contains(options, "CONFIG_RD_XZ=y"):
			return XZ, nil
		}
		return Gzip, nil
	}
	return Gzip, nil
}

// HostProgram is the program of the build host that a compression runs, "" when it runs none. It is for checking
// before a build that the program is there.
func HostProgram(compression string, small bool) string {
	if argv := hostArgv(compression, small); argv != nil {
		return argv[0]
	}
	return ""
}

// hostArgv is the command of a compression that another program does, nil for one that we do.
//
// Measured on 92 MB (server classes) and 35 MB (virtual): our zstd encoder needs 5 s for 22.6 MB, "zstd -19" 40 s for
// 19.6 MB: so it is for releases. The xz encoder that there is in Go makes 10.1 MB of the 35 MB, "xz" 7.9 MB, at the
// same speed: so that is always the host's. One thread, so that the output does not depend on the machine.
func hostArgv(compression string, small bool) []string {
	switch {
	case compression == XZ:
		// The kernel checks CRC32 only (Documentation/staging/xz.rst).
		return []string{"xz", "--compress", "--stdout", "--quiet", "--threads=1", "--check=crc32", "--lzma2=preset=6,dict=8MiB"}
	case compression == Zstd && small:
		return []string{"zstd", "--compress", "--stdout", "--quiet", "--single-thread", "-19"}
	}
	return nil
}

// compressor wraps w; closing it ends the compressed stream and leaves w open. The same input gives the same output
// on every machine with the same versions.
func compressor(ctx context.Context, compression string, small bool, w io.Writer) (io.WriteCloser, error) {
	if argv := hostArgv(compression, small); argv != nil {
		return startHost(ctx, argv, w)
	}
	switch compression {
	case Zstd:
		// The kernel unpacks windows up to 128 MiB (lib/decompress_unzstd.c) and needs that much memory beside the
		// content; 8 MiB costs small machines nothing, and 64 MiB would save less than one per cent.
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.BestCompression)
	}
	return nil, fmt.Errorf("unknown compression %q; there are: %s", compression, strings.Join([]string{Zstd, XZ, Gzip}, ", "))
}

// hostCompressor is a running program that compresses its standard input.
type hostCompressor struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	stderr bytes.Buffer
}

func startHost(ctx context.Context, argv []string, w io.Writer) (*hostCompressor, error) {
	h := &hostCompressor{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	h.cmd.Env = []string{"LC_ALL=C"} // XZ_OPT and ZSTD_CLEVEL would change the output
	h.cmd.Stdout, h.cmd.Stderr = w, &h.stderr
	var err error
	if h.input, err = h.cmd.StdinPipe(); err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s to compress the initramfs (is it installed on this host?): %w", argv[0], err)
	}
	return h, nil
}

func (h *hostCompressor) Write(p []byte) (int, error) { return h.input.Write(p) }

// Close ends the input and waits for the program's end.
func (h *hostCompressor) Close() error {
	closed := h.input.Close()
	if err := h.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(h.cmd.Args, " "), err, bytes.TrimSpace(h.stderr.Bytes()))
	}
	return closed
}
