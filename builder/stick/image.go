package stick

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/builder/progress"
)

// Image is a file that is to be written, open for reading.
type Image struct {
	Path string
	Size int64 // bytes, as it was opened

	file     *os.File
	modified time.Time
	dev      string // number of the device on which its file system is
}

// OpenImage opens a file, which is usually an ISO and may be any other. The caller closes it.
func OpenImage(path string) (*Image, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open the image %s: there is no such file", path)
	case err != nil:
		return nil, fmt.Errorf("open the image: %w", err)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("open the image %s: it is no regular file; name the ISO first, then the device", path)
	case st.Size() == 0:
		return nil, fmt.Errorf("open the image %s: it is empty", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the image: %w", err)
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		return nil, errors.Join(fmt.Errorf("open the image %s: %w", path, err), f.Close())
	}
	return &Image{Path: path, Size: now.Size, file: f, modified: time.Unix(now.Mtim.Unix()), dev: numbers(now.Dev)}, nil
}

// Close closes the file.
func (i *Image) Close() error { return i.file.Close() }

// String is the image for people, as "live.iso (612 MiB)".
func (i *Image) String() string {
	return fmt.Sprintf("%s (%s)", filepath.Base(i.Path), progress.Bytes(i.Size))
}

// unchanged makes sure that the file is still what was opened: what was written is otherwise half of one file and half of another.
func (i *Image) unchanged() error {
	st, err := i.file.Stat()
	if err != nil {
		return fmt.Errorf("look at the image %s again: %w", i.Path, err)
	}
	if st.Size() != i.Size || !st.ModTime().Equal(i.modified) {
		return fmt.Errorf("the image %s was changed while it was written; wait until it is whole, and write it again", i.Path)
	}
	return nil
}

// boots says in one sentence why the image would not start a machine from a disk with such sectors; empty where it may.
func (i *Image) boots(sector int) string {
	iso := string(peek(i.file, 32769, 5)) == "CD001"
	switch t := table(i.file); {
	case t == "" && iso:
		return "the image is a CD's alone, with no partition table: it starts from CD, and hardly from a stick"
	case t == "":
		return "the image has no partition table, and will hardly start a machine; it is written as it is"
	case sector != 512 && string(peek(i.file, int64(sector), 8)) != gptSignature:
		return fmt.Sprintf("the device has sectors of %d bytes, for which the image's partition table is not: it will hardly start a machine", sector)
	}
	return ""
}
