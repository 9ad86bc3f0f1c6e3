// Package spill keeps verified chunks of a file that memory has no place for in an unlinked file on a disk, from where
// other machines still get them. Chunks come in and go out by their number; nobody else can open the file, and it is gone
// when it is closed or the machine stops.
//
// It never fills the disk beyond its limit and never takes what is to stay free, never writes anything that has to reach
// the disk, and never gives a byte back that its chunk's SHA-256 does not vouch for.
package spill

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/installer/report"
)

// ErrFull is what Put returns when the limit is reached or nothing more may be taken from the file system.
var ErrFull = errors.New("there is no more room for what other machines may need")

// Options say where chunks are kept.
type Options struct {
	Dir    string            // of the file system that has room
	Size   int64             // of the whole file, in bytes
	Chunks *image.ChunkTable // of the whole file
	Limit  int64             // the most to be kept, in bytes; 0 is all that there is room for
	// Reserve is what stays free on the file system, in bytes: it has to cover what is still to be written there.
	Reserve int64
	Report  report.Reporter
}

// Store is a blob.Store. Its methods may be called from several goroutines.
type Store struct {
	o    Options
	file *os.File

	mu      sync.Mutex
	has     []bool
	kept    int64
	err     error // why it takes no more
	spoiled bool  // it was reported that it does not give back what it was given
}

// New returns an empty store.
func New(o Options) (*Store, error) {
	if o.Chunks == nil || o.Size <= 0 || int64(len(o.Chunks.Digests)) != (o.Size+image.ChunkSize-1)/image.ChunkSize {
		return nil, fmt.Errorf("make room for chunks in %s: the chunk table does not fit %d bytes", o.Dir, o.Size)
	}
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("make room for chunks: %w", err)
	}
	defer root.Close()
	// A file that never has a name, where the file system can make one (open(2), O_TMPFILE).
	file, err := root.OpenFile(".", unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		file, err = unlinked(root)
	}
	if err != nil {
		return nil, fmt.Errorf("make room for chunks in %s: %w", o.Dir, err)
	}
	return &Store{o: o, file: file, has: make([]bool, len(o.Chunks.Digests))}, nil
}

// unlinked makes a file and takes its name away.
func unlinked(root *os.Root) (*os.File, error) {
	name := ".imgbuild-" + rand.Text()
	file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := root.Remove(name); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// Put keeps the bytes of chunk i. The first error, which is ErrFull or one of the disk's, is reported, and returned ever after.
func (s *Store) Put(i int, data []byte) error {
	if i < 0 || i >= len(s.has) {
		return fmt.Errorf("keep chunk %d: there are only %d", i, len(s.has))
	}
	off, length := image.Chunk(s.o.Size, i)
	if int64(len(data)) != length {
		return fmt.Errorf("keep chunk %d: it has %d bytes and not %d", i, len(data), length)
	}
	if s.Has(i) {
		return nil
	}
	s.mu.Lock()
	err, kept := s.err, s.kept
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.put(off, data, kept); err != nil {
		return s.refuse(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has[i] = true
	s.kept += length
	return nil
}

func (s *Store) put(off int64, data []byte, kept int64) error {
	if s.o.Limit > 0 && kept+int64(len(data)) > s.o.Limit {
		return fmt.Errorf("keep chunks in %s: the limit of %s is reached: %w", s.o.Dir, report.Bytes(s.o.Limit), ErrFull)
	}
	free, err := s.free()
	if err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", s.o.Dir, err)
	}
	if free < s.o.Reserve+int64(len(data)) {
		return fmt.Errorf("keep chunks in %s: %s are free and %s have to stay so: %w", s.o.Dir, report.Bytes(free), report.Bytes(s.o.Reserve), ErrFull)
	}
	if _, err = s.file.WriteAt(data, off); errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("keep chunks in %s: the file system is full: %w", s.o.Dir, ErrFull)
	}
	if err != nil {
		return fmt.Errorf("keep chunks in %s: %w", s.o.Dir, err)
	}
	return nil
}

// free is what a file system has left for those without privilege, in bytes.
func (s *Store) free() (int64, error) {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Statfs_t
	var statErr error
	if err := conn.Control(func(fd uintptr) { statErr = unix.Fstatfs(int(fd), &st) }); err != nil {
		return 0, err
	}
	return int64(min(st.Bavail*uint64(st.Bsize), 1<<62)), statErr
}

// refuse makes err the answer to every Put from now on.
func (s *Store) refuse(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		s.o.Report.Info("%v; beyond the %s that were kept, other machines get here what memory holds", err, report.Bytes(s.kept))
	}
	return s.err
}

// Has reports whether chunk i was kept.
func (s *Store) Has(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return i >= 0 && i < len(s.has) && s.has[i]
}

// ReadChunk reads chunk i into p, which has room for any, checks it and returns its length. That a disk does not give back what it
// was given is reported once.
func (s *Store) ReadChunk(i int, p []byte) (int, error) {
	if !s.Has(i) {
		return 0, fmt.Errorf("read chunk %d from %s: it was not kept", i, s.o.Dir)
	}
	off, length := image.Chunk(s.o.Size, i)
	if int64(len(p)) < length {
		return 0, fmt.Errorf("read chunk %d from %s: %w", i, s.o.Dir, io.ErrShortBuffer)
	}
	_, err := s.file.ReadAt(p[:length], off)
	if err == nil {
		err = s.o.Chunks.Verify(i, p[:length])
	}
	if err == nil {
		return int(length), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.spoiled && !errors.Is(err, os.ErrClosed) {
		s.spoiled = true
		s.o.Report.Warn("the disk below %s does not give back what was written to it, and may be broken: %v", s.o.Dir, err)
	}
	return 0, fmt.Errorf("read back from %s: %w", s.o.Dir, err)
}

// Close frees what is kept.
func (s *Store) Close() error {
	s.mu.Lock()
	s.err = fmt.Errorf("keep chunks in %s: %w", s.o.Dir, os.ErrClosed)
	s.mu.Unlock()
	return s.file.Close()
}
