package bootloader

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// rel makes a path of the installed system one below its root.
func rel(p string) string { return strings.TrimLeft(p, "/") }

// maxLoader bounds a boot loader's file: the largest real ones have some 4 MiB.
const maxLoader = 64 << 20

// copyFile copies a regular file with its time stamp. A destination that has the same bytes already is left alone, so
// that the package manager still finds it as it was.
func copyFile(from *os.Root, src string, to *os.Root, dst string) error {
	f, err := from.Open(src)
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	if !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > maxLoader {
		return fmt.Errorf("copy %s: it is not a file of 1 to %d bytes", src, maxLoader)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLoader))
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	if old, err := to.ReadFile(dst); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := to.WriteFile(dst, data, st.Mode().Perm()); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	if err := to.Chtimes(dst, st.ModTime(), st.ModTime()); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	return nil
}
