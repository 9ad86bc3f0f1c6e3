package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"imgbuild/installer/squashfs"
)

// worker opens pieces and writes them.
type worker struct {
	u   *unpacker
	dec *squashfs.Decompressor
}

func (u *unpacker) newWorker() (*worker, error) {
	dec, err := u.img.NewDecompressor()
	if err != nil {
		return nil, err
	}
	return &worker{u: u, dec: dec}, nil
}

func (w *worker) run(ctx context.Context, jobs <-chan job) error {
	for j := range jobs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.do(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) do(ctx context.Context, j job) error {
	for _, n := range j.nodes {
		if err := w.u.makeNode(n); err != nil {
			return fmt.Errorf("make %s /%s: %w", w.u.tree.Entries[n].Inode.Type, w.u.tree.Path(int(n)), err)
		}
	}
	if j.win == nil {
		return nil
	}
	defer j.win.done()
	targets := j.win.targets
	for i := range j.win.pieces {
		p := &j.win.pieces[i]
		if err := w.open(ctx, p, j.win.bytes(p), targets[:p.targets]); err != nil {
			return err
		}
		targets = targets[p.targets:]
	}
	return nil
}

// open opens a piece and writes it to where it belongs.
func (w *worker) open(ctx context.Context, p *piece, data []byte, targets []target) error {
	if !p.Raw {
		var err error
		if data, err = w.dec.Decompress(data); err != nil {
			return fmt.Errorf("block of the image at %d, in /%s: %w", p.Offset, w.u.filePath(targets[0].file), err)
		}
	}
	for _, t := range targets {
		if ctx.Err() != nil { // a fragment may hold thousands of files
			return context.Cause(ctx)
		}
		err := w.write(t, data)
		if err != nil {
			return fmt.Errorf("write /%s: %w", w.u.filePath(t.file), err)
		}
	}
	return nil
}

func (u *unpacker) filePath(file int32) string { return u.tree.Path(int(u.plan.files[file].entry)) }

// write writes the target's part of an opened block, and finishes the file if that was all it missed.
func (w *worker) write(t target, data []byte) error {
	u := w.u
	from, n := int(t.from), int(t.n)
	if n > len(data)-from || t.whole && n != len(data) {
		return fmt.Errorf("%w: %d bytes at %d of a block are needed and it has %d", squashfs.ErrDamaged, n, from, len(data))
	}
	data = data[from : from+n]
	f := &u.plan.files[t.file]
	if f.pieces == 1 {
		return u.writeWhole(f, t.at, data)
	}
	fd, err := u.files.acquire(t.file)
	if err != nil {
		return err
	}
	if err = pwrite(fd, data, t.at); err != nil {
		u.files.release(t.file)
		return err
	}
	if f.left.Add(-1) > 0 {
		u.files.release(t.file)
		u.wrote(int64(n), 0)
		return nil
	}
	err = u.finish(fd, f.inode)
	u.files.drop(t.file)
	u.wrote(int64(n), 1)
	return err
}

// writeWhole makes a file whose data is all in one piece.
func (u *unpacker) writeWhole(f *file, at int64, data []byte) error {
	e := &u.tree.Entries[f.entry]
	fd, err := u.create(e, unix.O_EXCL|unix.O_CREAT, u.firstMode(f.inode))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err = pwrite(fd, data, at); err != nil {
		return err
	}
	if at+int64(len(data)) < f.inode.Size {
		if err := unix.Ftruncate(fd, f.inode.Size); err != nil {
			return err
		}
	}
	if err = u.finish(fd, f.inode); err != nil {
		return err
	}
	u.wrote(int64(len(data)), 1)
	return nil
}

// openFile opens a file that is written in several pieces: the first time it is made, at its full length, so that
// pieces may come in any order; later, after its descriptor was closed to keep their number down, it is there.
func (u *unpacker) openFile(i int32) (int, error) {
	f := &u.plan.files[i]
	e := &u.tree.Entries[f.entry]
	if f.made {
		return u.create(e, 0, 0)
	}
	fd, err := u.create(e, unix.O_EXCL|unix.O_CREAT, 0o600)
	if err != nil {
		return -1, err
	}
	f.made = true
	if err := unix.Ftruncate(fd, f.inode.Size); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// create opens a regular file for writing. One that it makes gets a mode, of which the umask may take away.
func (u *unpacker) create(e *squashfs.Entry, flags int, mode uint32) (int, error) {
	dir, err := u.dirs.acquire(e.Parent)
	if err != nil {
		return -1, err
	}
	defer u.dirs.release(e.Parent)
	return openat(dir, e.Name, flags|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
}

func pwrite(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		if n > 0 {
			b, at = b[n:], at+int64(n)
		}
	}
	return nil
}

// makeNode makes an entry that has no data on the image.
func (u *unpacker) makeNode(n int32) error {
	e := &u.tree.Entries[n]
	in := e.Inode
	if in.Type == squashfs.Regular {
		fd, err := u.create(e, unix.O_EXCL|unix.O_CREAT, u.firstMode(in))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if in.Size > 0 {
			if err := unix.Ftruncate(fd, in.Size); err != nil {
				return err
			}
		}
		if err := u.finish(fd, in); err != nil {
			return err
		}
		u.wrote(0, 1)
		return nil
	}
	dir, err := u.dirs.acquire(e.Parent)
	if err != nil {
		return err
	}
	defer u.dirs.release(e.Parent)
	kind := map[squashfs.Type]uint32{
		squashfs.BlockDevice: unix.S_IFBLK, squashfs.CharDevice: unix.S_IFCHR, squashfs.FIFO: unix.S_IFIFO, squashfs.Socket: unix.S_IFSOCK,
	}[in.Type]
	if in.Type == squashfs.Symlink {
		err = unix.Symlinkat(in.Target(), dir, e.Name)
	} else {
		err = unix.Mknodat(dir, e.Name, kind|0o600, int(unix.Mkdev(uint32(in.Rdev>>32), uint32(in.Rdev))))
	}
	if err != nil {
		return err
	}
	return u.finishNode(dir, e.Name, in)
}

// hardLinks gives files their further names, when all of them are there.
func (u *unpacker) hardLinks(ctx context.Context) error {
	for _, l := range u.plan.links {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := u.hardLink(l); err != nil {
			from, to := u.tree.Path(int(l.of)), u.tree.Path(int(l.entry))
			if errors.Is(err, unix.EXDEV) {
				err = fmt.Errorf("%w: one file cannot be on both sides of a bind mount; mount it after the unpacking", err)
			}
			return fmt.Errorf("link /%s to /%s: %w", to, from, err)
		}
	}
	return nil
}

func (u *unpacker) hardLink(l link) error {
	of, to := &u.tree.Entries[l.of], &u.tree.Entries[l.entry]
	a, err := u.dirs.acquire(of.Parent)
	if err != nil {
		return err
	}
	defer u.dirs.release(of.Parent)
	b, err := u.dirs.acquire(to.Parent)
	if err != nil {
		return err
	}
	defer u.dirs.release(to.Parent)
	return unix.Linkat(a, of.Name, b, to.Name, 0)
}
