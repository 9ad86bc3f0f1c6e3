package standin

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// arMagic opens every ar archive (ar(5)); a .deb is one (deb(5)).
const arMagic = "!<arch>\n"

// maxControl bounds what is read of a control archive: the largest in the Debian archive are under a MiB.
const maxControl = 16 << 20

// arMember is one member of an ar archive; its content is the next Size bytes of the reader.
type arMember struct {
	Name  string
	MTime time.Time
	Size  int64
}

// arReader walks the members of an ar archive. It knows only what a .deb uses: short names, no symbol table.
type arReader struct {
	r    io.Reader
	left int64 // bytes of the present member, with padding, not yet read
	pad  int64
}

func newArReader(r io.Reader) (*arReader, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, fmt.Errorf("read the ar magic: %w", err)
	}
	if string(magic) != arMagic {
		return nil, fmt.Errorf("not an ar archive: it starts with %q", magic)
	}
	return &arReader{r: r}, nil
}

// Next goes to the next member; io.EOF after the last one.
func (a *arReader) Next() (arMember, error) {
	if _, err := io.CopyN(io.Discard, a.r, a.left+a.pad); err != nil {
		if errors.Is(err, io.EOF) && a.left == 0 {
			return arMember{}, io.EOF // the last member's padding byte may be missing
		}
		return arMember{}, fmt.Errorf("skip an ar member: %w", io.ErrUnexpectedEOF)
	}
	a.left, a.pad = 0, 0
	var h [60]byte
	if _, err := io.ReadFull(a.r, h[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return arMember{}, io.EOF
		}
		return arMember{}, fmt.Errorf("read an ar header: %w", err)
	}
	if h[58] != '`' || h[59] != '\n' {
		return arMember{}, fmt.Errorf("ar header ends in %q, not in the magic `\\n", h[58:])
	}
	field := func(from, to int) string { return strings.TrimRight(string(h[from:to]), " ") }
	size, err := strconv.ParseInt(field(48, 58), 10, 64)
	if err != nil || size < 0 {
		return arMember{}, fmt.Errorf("ar member has the size %q", field(48, 58))
	}
	var mtime int64
	if s := field(16, 28); s != "" {
		if mtime, err = strconv.ParseInt(s, 10, 64); err != nil || mtime < 0 {
			return arMember{}, fmt.Errorf("ar member has the time %q", s)
		}
	}
	a.left, a.pad = size, size%2
	return arMember{Name: strings.TrimSuffix(field(0, 16), "/"), MTime: time.Unix(mtime, 0), Size: size}, nil
}

// Read reads from the present member.
func (a *arReader) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > a.left {
		p = p[:a.left]
	}
	n, err := a.r.Read(p)
	a.left -= int64(n)
	if errors.Is(err, io.EOF) && a.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// control is what the control archive of a .deb says that the package index does not.
type control struct {
	// Conffiles are the absolute paths that dpkg treats as configuration.
	Conffiles []string
	// Built is when the package was built.
	Built time.Time
}

// readControl reads the control archive of the .deb in file.
func readControl(file string) (control, error) {
	f, err := os.Open(file)
	if err != nil {
		return control{}, err
	}
	defer f.Close()
	c, err := parseControlArchive(f)
	if err != nil {
		return control{}, fmt.Errorf("read the control archive of %s: %w", path.Base(file), err)
	}
	return c, nil
}

func parseControlArchive(r io.Reader) (control, error) {
	ar, err := newArReader(r)
	if err != nil {
		return control{}, err
	}
	for {
		m, err := ar.Next()
		if errors.Is(err, io.EOF) {
			return control{}, errors.New("there is no control.tar in it")
		}
		if err != nil {
			return control{}, err
		}
		if !strings.HasPrefix(m.Name, "control.tar") {
			continue
		}
		raw, err := decompressor(path.Ext(m.Name), ar)
		if err != nil {
			return control{}, err
		}
		c, err := parseControlTar(io.LimitReader(raw, maxControl))
		c.Built = m.MTime
		return c, err
	}
}

// decompressor opens what a member's extension says it is packed with.
func decompressor(ext string, r io.Reader) (io.Reader, error) {
	switch ext {
	case ".tar":
		return r, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.NewReader(r)
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxControl*4))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("unknown compression %q", ext)
}

func parseControlTar(r io.Reader) (control, error) {
	var c control
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return c, fmt.Errorf("read control.tar: %w", err)
		}
		if path.Clean(h.Name) != "conffiles" {
			continue
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, tr); err != nil {
			return c, fmt.Errorf("read conffiles: %w", err)
		}
		c.Conffiles = parseConffiles(b.String())
	}
}

// parseConffiles reads a conffiles list: a path a line, perhaps after a flag such as remove-on-upgrade, whose paths
// are not in the package and are left out.
func parseConffiles(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if f := strings.Fields(line); len(f) == 1 && path.IsAbs(f[0]) {
			out = append(out, f[0])
		}
	}
	return out
}
