package releases

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"imgbuild/image"
)

// entry is one release of the catalogue. What the scan found never changes; what reading the files found is added.
type entry struct {
	root    *os.Root
	release Release         // as the scan found it
	files   map[string]file // what may be served, by name
	print   string          // of all files' metadata: it changes when they do

	checking sync.Mutex // one reader of the files at a time
	mu       sync.Mutex
	checked  map[string]bool // files that were read and are as the manifest says
	problem  string          // found by reading
}

// file is one file that may be served.
type file struct {
	size   int64
	sha256 string // hex
	stamp  stamp
}

// stamp is what tells a file from what it was when it was checked.
type stamp struct {
	size         int64
	inode        uint64
	changed, mod time.Time
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mod: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.changed = st.Ino, time.Unix(st.Ctim.Unix())
	}
	return s
}

// bootFiles are what a machine runs before anything of ours could check it.
func bootFiles() []string { return []string{image.KernelFile, image.InitramfsFile} }

func (e *entry) ref() string { return e.release.Ref() }

// view is the release as it is known now.
func (e *entry) view() Release {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.release
	if r.Problem == "" {
		r.Problem = e.problem
	}
	r.Verified = r.Problem == "" && len(e.checked) == len(r.Files)
	return r
}

// usable returns the release if it may be installed; its boot files are read and checked the first time.
func (e *entry) usable(ctx context.Context) (*Release, error) {
	if e.release.Problem == "" {
		if err := e.check(ctx, bootFiles()); err != nil {
			return nil, err
		}
	}
	r := e.view()
	if r.Problem != "" {
		return nil, fmt.Errorf("release %s: %w: %s", r.Ref(), ErrRefused, r.Problem)
	}
	return &r, nil
}

// checkAll reads all files, the boot files first.
func (e *entry) checkAll(ctx context.Context) error {
	names := bootFiles()
	for _, f := range e.release.Files {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	return e.check(ctx, names)
}

// check reads files and compares them with the manifest. That they differ is the release's problem; the error is what kept
// it from reading.
func (e *entry) check(ctx context.Context, names []string) error {
	if e.isChecked(names) {
		return nil
	}
	e.checking.Lock()
	defer e.checking.Unlock()
	for _, name := range names {
		if e.isChecked([]string{name}) {
			continue
		}
		got, err := e.digest(ctx, name)
		if err != nil {
			return fmt.Errorf("read %s of release %s: %w", name, e.ref(), err)
		}
		e.mu.Lock()
		if got == e.files[name].sha256 {
			e.checked[name] = true
		} else if e.problem == "" {
			e.problem = fmt.Sprintf("%s has SHA-256 %s and the manifest says %s: copy the release again, or build it again", name, got, e.files[name].sha256)
		}
		e.mu.Unlock()
	}
	return nil
}

func (e *entry) isChecked(names []string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !slices.ContainsFunc(names, func(n string) bool { return !e.checked[n] })
}

// errChanged is returned for a file that is not the one that was catalogued.
var errChanged = errors.New("it has changed since it was catalogued")

// open returns a file of the release, if it still is what was catalogued.
func (e *entry) open(name string) (*os.File, error) {
	f, err := e.root.Open(e.release.Name + "/" + e.release.Version + "/" + name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || stampOf(info) != e.files[name].stamp) {
		err = errChanged
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (e *entry) digest(ctx context.Context, name string) (string, error) {
	f, err := e.open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h, buf := sha256.New(), make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", context.Cause(ctx)
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}
