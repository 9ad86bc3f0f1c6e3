package tftp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// maxFile bounds a boot loader, in bytes: what is larger is a mistake, and would be read into memory.
const maxFile = 64 << 20

// Files is the list of names that can be read and the files they stand for. A file is kept in memory and read again when a
// package's update has changed it: a transfer goes on with what it began with.
type Files struct {
	paths map[string]string

	mu     sync.Mutex
	loaded map[string]*loaded
}

type loaded struct {
	info fs.FileInfo
	data []byte
}

// NewFiles makes a list from names to paths. Names are cleaned as those from the network are.
func NewFiles(paths map[string]string) *Files {
	f := &Files{paths: map[string]string{}, loaded: map[string]*loaded{}}
	for name, p := range paths {
		f.paths[Clean(name)] = p
	}
	return f
}

// Names are the names in the list.
func (f *Files) Names() []string { return slices.Sorted(maps.Keys(f.paths)) }

// Read gives a file's bytes, which are not to be written to. A name that is not in the list is fs.ErrNotExist; a file that is
// missing though it is in the list is an error of its own.
func (f *Files) Read(name string) ([]byte, error) {
	b, _, err := f.read(name)
	return b, err
}

func (f *Files) read(name string) ([]byte, time.Time, error) {
	p, ok := f.paths[name]
	if !ok {
		return nil, time.Time{}, fmt.Errorf("read boot loader %q: %w", name, fs.ErrNotExist)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(p)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", p)
	}
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("%s has %d bytes; a boot loader has at most %d", p, info.Size(), maxFile)
	}
	if err != nil {
		// %v: that this file is not there is the server's fault, and not that of who asked.
		return nil, time.Time{}, fmt.Errorf("read boot loader %q: %v; install the package that has it, or remove it from the configuration", name, err)
	}
	if l := f.loaded[name]; l != nil && l.info.ModTime().Equal(info.ModTime()) && l.info.Size() == info.Size() && os.SameFile(l.info, info) {
		return l.data, info.ModTime(), nil
	}
	data, err := os.ReadFile(p)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read boot loader %q: %w", name, err)
	}
	f.loaded[name] = &loaded{info, data}
	return data, info.ModTime(), nil
}

// Check reads all files, and gives what is wrong with any.
func (f *Files) Check() error {
	var errs []error
	for _, n := range f.Names() {
		if _, err := f.Read(n); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ServeHTTP serves the list for UEFI HTTP boot. It is to be mounted with http.StripPrefix.
func (f *Files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "boot loaders can be read only", http.StatusMethodNotAllowed)
		return
	}
	b, changed, err := f.read(Clean(r.URL.Path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "there is no such boot loader", http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, "the boot loader cannot be read", http.StatusInternalServerError)
		return
	}
	// UEFI takes what it loads for a program by this type or by the name's .efi (UEFI 2.10, 24.7.3.1).
	w.Header().Set("Content-Type", "application/efi")
	http.ServeContent(w, r, "", changed, io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))))
}
