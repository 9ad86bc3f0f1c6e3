// Package unpack writes the tree in a squashfs image into a directory, as fast as the image arrives.
//
// In comes an io.ReaderAt, which may be a blob that is still growing, and a directory that is empty but for mount points
// and lost+found. Out come files with their owners, modes, times, extended attributes, capabilities, hard links, devices
// and holes. Metadata, at the end of the image, is read first; after it, file data in one pass in the order in which it
// lies there, so that a sequential fetcher need run only a little ahead, while workers decompress and write behind it.
//
// The image is taken to be hostile: nothing is written outside the directory, no symbolic link is followed, and memory and
// open files are bounded. The package does not sync (whoever owns the file system does), does not remove what it
// has written when it fails, and does not know what the files are for.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"imgbuild/installer/squashfs"
)

// Options say how to unpack. The zero value is good.
type Options struct {
	// Workers is how many goroutines decompress and write; 0 is one for each CPU.
	Workers int
	// Progress, if set, is called often, never twice at a time, and must return quickly.
	Progress func(Progress)
	// MaxMemory bounds, in bytes, the blocks in flight: those read and those being decompressed. 0 is 32 MiB. There are
	// always two buffers to read into and one for each worker, each as large as the image's blocks, which is 1 MiB at most.
	MaxMemory int64
	// SkipUnsupportedXattrs counts, in Stats.XattrsSkipped, an extended attribute that the file system refuses with
	// EOPNOTSUPP. Without it that is an error: a system whose files miss their capabilities or SELinux labels does not
	// work, and would say so only when it runs.
	SkipUnsupportedXattrs bool
}

// Progress is how far the unpacking is.
type Progress struct {
	BytesWritten int64 // of file data, holes not counted
	BytesTotal   int64 // what BytesWritten will be at the end
	Files        int   // regular files finished
	FilesTotal   int
}

// Stats are what was unpacked.
type Stats struct {
	Files     int // regular files, each counted once however many names it has on one file system
	Dirs      int // directories, the root included
	Symlinks  int
	Devices   int // device nodes, FIFOs and sockets
	HardLinks int // further names of any of them
	Xattrs    int
	// XattrsSkipped are those that the file system does not support; see Options.
	XattrsSkipped int
	BytesWritten  int64 // of file data, holes not counted
	BytesRead     int64 // of the image
	Elapsed       time.Duration
}

// Releaser is a source that wants to know which of its bytes will not be read again.
type Releaser interface {
	// Release says that no more than what lies outside [off, off+n) will be read.
	Release(off, n int64)
}

// Wanter is a source that can fetch bytes before they are read.
type Wanter interface {
	// Want says that the n bytes from off on will be read soon. It does not wait.
	Want(off, n int64)
}

// tail is how many bytes at the end of an image are wanted from the start: its tables, or the largest part of them.
const tail = 1 << 20

// Unpack writes the image in src, size bytes long, into the directory dest. If src is a Releaser, ranges are released as soon
// as they have been read. When ctx ends, Unpack returns its cause at once, even if src.ReadAt does not: that call
// may end later, and what it reads is thrown away.
//
// Dest must exist, and hold nothing but empty directories and mount points. A file with names on both sides of a mount
// point becomes one file on each side. Dest must not be written to by anybody else meanwhile. Unpack wants root, and /proc
// mounted if symbolic links or nodes have extended attributes.
func Unpack(ctx context.Context, src io.ReaderAt, size int64, dest string, o Options) (Stats, error) {
	start := time.Now()
	u := &unpacker{opts: o, src: &source{ctx: ctx, src: src}, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	u.release, _ = src.(Releaser)
	err := u.run(ctx, size, dest)
	if err != nil {
		err = fmt.Errorf("unpack root file system into %s: %w", dest, err)
		if errors.Is(err, unix.ENOSPC) {
			err = fmt.Errorf("%w; give it a larger file system", err)
		}
	}
	u.stats.BytesRead = u.src.read.Load()
	u.stats.Elapsed = time.Since(start)
	return u.stats, err
}

// unpacker is one run of Unpack.
type unpacker struct {
	opts      Options
	src       *source
	release   Releaser
	img       *squashfs.Reader
	blockSize int64
	tree      *squashfs.Tree
	plan      plan
	dirs      *dirs
	files     *openFDs
	uid, gid  uint32 // whose the files are that this process makes, where the file system says nothing else

	xattrMu sync.Mutex
	xattrs  map[uint32][]squashfs.Xattr

	statMu sync.Mutex
	stats  Stats
	prog   Progress
}

func (u *unpacker) run(ctx context.Context, size int64, dest string) error {
	if w, ok := u.src.src.(Wanter); ok {
		w.Want(0, 1)
		w.Want(size-tail, tail)
	}
	img, err := squashfs.Open(u.src, size)
	if err != nil {
		return err
	}
	u.img, u.blockSize = img, int64(img.Superblock().BlockSize)
	if u.tree, err = img.Tree(); err != nil {
		return err
	}
	u.xattrs = make(map[uint32][]squashfs.Xattr)
	end := img.Superblock().DataEnd
	u.forget(end, size-end)
	limit, err := openLimit()
	if err != nil {
		return err
	}
	if u.dirs, err = openDirs(dest, u.tree, limit/4); err != nil {
		return err
	}
	defer u.dirs.close()
	u.files = newOpenFDs(limit/4, u.openFile)
	defer u.files.close()
	if err := u.dirs.make(ctx); err != nil {
		return err
	}
	u.makePlan()
	u.statMu.Lock()
	u.report()
	u.statMu.Unlock()
	if err := u.pour(ctx); err != nil {
		return err
	}
	if err := u.hardLinks(ctx); err != nil {
		return err
	}
	if err := u.finishDirs(ctx); err != nil {
		return err
	}
	u.statMu.Lock()
	defer u.statMu.Unlock()
	u.stats.BytesWritten = u.prog.BytesWritten
	u.report()
	return nil
}

// pour runs the reader and the workers: first the names without data, in batches, then the data.
func (u *unpacker) pour(ctx context.Context) error {
	workers := u.opts.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	ws := make([]*worker, workers)
	for i := range ws {
		w, err := u.newWorker()
		if err != nil {
			return err
		}
		ws[i] = w
	}
	g, gctx := errgroup.WithContext(ctx)
	u.src.ctx = gctx
	jobs := make(chan job, workers)
	g.Go(func() error {
		defer close(jobs)
		n, size := u.windows(workers)
		r := &reader{unpacker: u, jobs: jobs, size: size, free: make(chan *window, n)}
		return r.run(gctx)
	})
	for _, w := range ws {
		g.Go(func() error { return w.run(gctx, jobs) })
	}
	err := g.Wait()
	for j := range jobs { // what nobody does any more
		if j.win != nil {
			j.win.done()
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// forget tells the source that n bytes at off will not be read again.
func (u *unpacker) forget(off, n int64) {
	if u.release != nil && n > 0 {
		u.release.Release(off, n)
	}
}

// wrote adds to the progress. It calls Progress under the lock, so that calls do not overlap.
func (u *unpacker) wrote(bytes int64, files int) {
	u.statMu.Lock()
	defer u.statMu.Unlock()
	u.prog.BytesWritten += bytes
	u.prog.Files += files
	u.report()
}

// report wants statMu held.
func (u *unpacker) report() {
	if u.opts.Progress != nil {
		u.opts.Progress(u.prog)
	}
}

// xattrList returns a list of extended attributes, which many files share.
func (u *unpacker) xattrList(id uint32) ([]squashfs.Xattr, error) {
	u.xattrMu.Lock()
	defer u.xattrMu.Unlock()
	if l, ok := u.xattrs[id]; ok {
		return l, nil
	}
	l, err := u.img.Xattrs(id)
	if err == nil {
		u.xattrs[id] = l
	}
	return l, err
}
