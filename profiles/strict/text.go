package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unicode/utf8"
)

// MaxSize bounds a file in bytes.
const MaxSize = 1 << 20

// Source is a file that values come from.
type Source struct {
	Name  string // as in errors
	Depth int    // 0 for the file that a person named, 1 for the one that it refers to, …
}

func (s *Source) whole() Pos { return Pos{Src: s} }

// ReadLimited reads a regular file of at most maxSize bytes.
func ReadLimited(path string) ([]byte, error) {
	// Stat first: opening a FIFO would wait for a writer.
	if st, err := os.Stat(path); err != nil {
		return nil, Plain(err)
	} else if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, Plain(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, Plain(err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	return data, nil
}

// Plain takes the path out of an error whose sentence names it already.
func Plain(err error) error {
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
			return line, col, fmt.Sprintf("the control character U+%04X cannot be in a text file", r)
		case r == '\n':
			line, col = line+1, 0
		}
		col++
		i += n
	}
	return 0, 0, ""
}
