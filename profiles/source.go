package profiles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxSize bounds a profile's file in bytes.
const maxSize = 1 << 20

// source is one file that a profile is made from.
type source struct {
	name    string // as in errors and in Profile.Sources
	id      string // the same for the same file, however it was named
	dir     string // absolute; empty for shipped profiles
	display string // dir as the person would write it
	depth   int    // 0 for the profile itself, 1 for the one that it extends, …
	shipped string // the name of a shipped profile
}

func (s *source) whole() pos { return pos{src: s} }

// isFile says whether a person means a file, and not a shipped profile's name.
func isFile(name string) bool {
	return strings.ContainsRune(name, '/') || strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// open finds the profile that name names, seen from the source from (nil for the command line), and reads it.
func open(name string, from *source) (*source, []byte, error) {
	if !isFile(name) {
		data, err := shippedFS.ReadFile("shipped/" + name + ".yaml")
		if err != nil {
			return nil, nil, notShipped(name, from)
		}
		id := "shipped:" + name
		return &source{name: id, id: id, shipped: name}, data, nil
	}
	display, path := name, name
	if from != nil && !filepath.IsAbs(name) {
		if from.shipped != "" {
			return nil, nil, errors.New("a shipped profile can extend shipped profiles only")
		}
		display, path = filepath.Join(from.display, name), filepath.Join(from.dir, name)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, fmt.Errorf("find profile %s: %w", display, err)
	}
	data, err := readLimited(path)
	if err != nil {
		return nil, nil, fmt.Errorf("the profile %s cannot be read: %w", display, err)
	}
	id := path
	if p, err := filepath.EvalSymlinks(path); err == nil {
		id = p
	}
	return &source{name: display, id: id, dir: filepath.Dir(path), display: filepath.Dir(display)}, data, nil
}

func notShipped(name string, from *source) error {
	dir := "."
	if from != nil {
		dir = from.dir
	}
	for _, p := range []string{name + ".yaml", name + ".yml", name} {
		if st, err := os.Stat(filepath.Join(dir, p)); err == nil && st.Mode().IsRegular() {
			return fmt.Errorf("there is no shipped profile %q; for the file write ./%s", name, p)
		}
	}
	if s := suggest(name, Shipped()); s != "" {
		return fmt.Errorf("there is no shipped profile %q; did you mean %s? A file's name ends in .yaml or has a slash", name, s)
	}
	return fmt.Errorf("there is no shipped profile %q; there are %s. A file's name ends in .yaml or has a slash", name, list(Shipped(), "and"))
}

// readLimited reads a regular file of at most maxSize bytes.
func readLimited(path string) ([]byte, error) {
	// Stat first: opening a FIFO would wait for a writer.
	if st, err := os.Stat(path); err != nil {
		return nil, plain(err)
	} else if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, plain(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, plain(err)
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("it has more than %d bytes", maxSize)
	}
	return data, nil
}

// plain takes the path out of an error whose sentence names it already.
func plain(err error) error {
	var pe *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("it does not exist")
	case errors.As(err, &pe):
		return pe.Err
	}
	return err
}

// checkText says why data is not text that can be YAML, and where.
func checkText(data []byte) (line, col int, problem string) {
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return 1, 1, "the file is UTF-16; save it as UTF-8"
	}
	line, col = 1, 1
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return line, col, fmt.Sprintf("the byte 0x%02x is not UTF-8; save the file as UTF-8", data[i])
		case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85, r == '\ufffe', r == '\uffff':
			return line, col, fmt.Sprintf("the control character U+%04X cannot be in a profile", r)
		case r == '\n':
			line, col = line+1, 0
		}
		col++
		i += n
	}
	return 0, 0, ""
}

// Shipped returns the names of the profiles that are shipped, sorted.
func Shipped() []string {
	files, err := shippedFS.ReadDir("shipped")
	if err != nil {
		return nil // the directory is in the binary
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}
