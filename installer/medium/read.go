package medium

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"

	"imgbuild/image"
)

// ErrGone is wrapped by what the medium's files answer when the medium is not there any more.
var ErrGone = errors.New("connect it again, or put it back in, and start once more")

// Open opens a file of the release. What it reads fails with what became of the medium.
func (m *Medium) Open(name string) (fs.File, error) {
	f, err := m.files.Open(name)
	if err != nil {
		return nil, m.explain(name, 0, err)
	}
	return &file{File: f, m: m, name: name}, nil
}

// file is one of the release.
type file struct {
	*os.File
	m    *Medium
	name string
}

// Read implements fs.File.
func (f *file) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err != nil && err != io.EOF {
		at, _ := f.Seek(0, io.SeekCurrent) // a number in the kernel; it needs no medium
		err = f.m.explain(f.name, at, err)
	}
	return n, err
}

// explain says what became of the medium when a file could not be read from an offset on. A file that is not there stays one.
func (m *Medium) explain(name string, at int64, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case volume(m.Device) != m.label:
		return fmt.Errorf("the medium %s, which was %s, is gone: it was pulled out or lost its connection while %s was read from it; %w", m.label, m.Device, name, ErrGone)
	}
	return fmt.Errorf("read %s of the medium %s, chunk %d: %w: the medium or its drive is damaged; %w", name, m.label, at/image.ChunkSize, err, ErrDamaged)
}

// RoundTripper answers requests for the release's files, ranges too. lost is told why a file cannot be read, once or more often:
// whoever asks hears no more of it than that an answer ended too early.
func (m *Medium) RoundTripper(lost func(error)) http.RoundTripper {
	return http.NewFileTransportFS(told{m, lost})
}

// told is the medium as a file system that tells what fails.
type told struct {
	m    *Medium
	lost func(error)
}

// Open implements fs.FS.
func (t told) Open(name string) (fs.File, error) {
	f, err := t.m.Open(name)
	if err != nil {
		t.tell(err)
		return nil, err
	}
	return &toldFile{File: f, t: t}, nil
}

func (t told) tell(err error) {
	if errors.Is(err, ErrGone) || errors.Is(err, ErrDamaged) {
		t.lost(err)
	}
}

type toldFile struct {
	fs.File
	t told
}

// Read implements fs.File.
func (f *toldFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err != nil {
		f.t.tell(err)
	}
	return n, err
}

// Seek implements io.Seeker, which answers with ranges need.
func (f *toldFile) Seek(offset int64, whence int) (int64, error) {
	return f.File.(io.Seeker).Seek(offset, whence) // Medium.Open's files have it
}

// small reads a file that is no larger than most bytes.
func (m *Medium) small(name string, most int64) ([]byte, error) {
	f, err := m.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return data, err
}
