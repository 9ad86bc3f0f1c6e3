// Package export writes the root file system of a release as a tree that an NFS server gives to machines without disks.
//
// A release's directory and the keys that it is trusted by come in; a directory goes out, whole or not at all. It never changes a tree
// that is there: machines run from it, and a new version is a new tree beside it. It does not configure an NFS server.
package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/builder/progress"
	"imgbuild/image"
)

// Unpacker writes the squashfs in src, so many bytes long, into an empty directory, with owners, modes, extended attributes and links.
// Step is called with how many bytes of file data have been written, of how many.
type Unpacker func(ctx context.Context, src io.ReaderAt, size int64, dest string, step func(done, total int64)) error

// Options say what is written where.
type Options struct {
	// Release is the directory of the release.
	Release string
	// Dir is the directory of trees; the new one is Dir/NAME-VERSION. It is made, for root's eyes only, if it is not there.
	Dir string
	// Keys are those whose releases are trusted.
	Keys   []image.PublicKey
	Unpack Unpacker
	Report progress.Reporter
}

// Tree is what was written.
type Tree struct {
	Path     string // absolute
	Manifest *image.Manifest
	// Capabilities are the programs that have some (capabilities(7)), by their paths below the root: NFS does not carry those.
	Capabilities []string
}

// spare is what a file system keeps for itself, and what directories and partly filled blocks take: one part in so many.
const spare = 8

// job is one tree on its way.
type job struct {
	Options
	raw, signature []byte
	manifest       *image.Manifest
	rootfs         *os.File
	partial        string // the directory that is removed at the end, whatever happens
	stages         []progress.StageTime
	wrote          int64 // bytes of file data
}

// Run checks the release's signature, and writes its root file system, each chunk of which is checked as it is read. Whatever goes wrong,
// or when ctx ends, nothing is left behind.
func Run(ctx context.Context, o Options) (_ Tree, err error) {
	if os.Geteuid() != 0 {
		return Tree{}, errors.New("write the tree: its files have owners and modes that only root can give them; run it with sudo")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return Tree{}, fmt.Errorf("write the tree: %w", err)
	}
	j := &job{Options: o}
	began := time.Now()
	if err := j.open(); err != nil {
		return Tree{}, err
	}
	defer j.rootfs.Close()
	t := Tree{Path: filepath.Join(o.Dir, j.manifest.Name+"-"+j.manifest.Version), Manifest: j.manifest}
	if err := j.claim(t.Path); err != nil {
		return Tree{}, err
	}
	release, err := j.makePartial()
	if err != nil {
		return Tree{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	root := filepath.Join(j.partial, "root")
	for n, s := range []struct {
		name, what string
		do         func() error
	}{
		{"unpack", fmt.Sprintf("write the root file system of %s %s, and check each chunk", j.manifest.Name, j.manifest.Version), func() error { return j.unpack(ctx, root) }},
		{"look", "look for what does not go over NFS", func() (err error) { t.Capabilities, err = capable(ctx, root); return err }},
		{"sync", "wait until all of it is on the disk", func() error { return syncTree(root) }},
		{"publish", "give the tree its name", func() error { return j.publish(ctx, root, t.Path) }},
	} {
		j.Report.Start(progress.Stage{N: n + 1, Of: 4, Name: s.name, What: s.what})
		start := time.Now()
		if err := s.do(); err != nil {
			return Tree{}, err
		}
		done := progress.StageTime{Name: s.name, Duration: time.Since(start)}
		if s.name == "unpack" {
			done.Bytes = j.wrote
		}
		j.stages = append(j.stages, done)
		j.Report.Done(done)
	}
	j.Report.Finish(progress.Summary{Name: j.manifest.Name, Version: j.manifest.Version, Dir: t.Path, Total: time.Since(began), Stages: j.stages})
	return t, nil
}

// open reads what is signed.
func (j *job) open() (err error) {
	fail := func(err error) error { return fmt.Errorf("open the release %s: %w", j.Release, err) }
	if j.raw, err = readSmall(filepath.Join(j.Release, image.ManifestFile), image.MaxManifestSize); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w; name the directory of a release, as out/NAME/VERSION", err)
		}
		return fail(err)
	}
	if j.signature, err = readSmall(filepath.Join(j.Release, image.SignatureFile), 4096); err != nil {
		return fail(err)
	}
	if j.manifest, err = image.Open(j.raw, j.signature, j.Keys); err != nil {
		return fail(err)
	}
	if j.rootfs, err = os.Open(filepath.Join(j.Release, image.RootfsFile)); err != nil {
		return fail(err)
	}
	st, err := j.rootfs.Stat()
	if want := j.manifest.Files[image.RootfsFile].Size; err == nil && st.Size() != want {
		err = fmt.Errorf("%s has %d bytes and the manifest says %d; copy the release again", image.RootfsFile, st.Size(), want)
	}
	if err != nil {
		return fail(errors.Join(err, j.rootfs.Close()))
	}
	return nil
}

// readSmall reads a file that is not larger than limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, err
}

// claim checks what can be checked before anything is written.
func (j *job) claim(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("write the tree %s: it is there already, and machines may run from it; build a new version, or remove it when none does", path)
	}
	if err := os.MkdirAll(j.Dir, 0o700); err != nil { // the image's setuid programs are not for the server's own users
		return fmt.Errorf("write the tree %s: %w", path, err)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(j.Dir, &s); err != nil {
		return fmt.Errorf("write the tree %s: look at the file system: %w", path, err)
	}
	need := j.manifest.UnpackedBytes + j.manifest.UnpackedBytes/spare
	if free := int64(s.Bavail) * s.Bsize; free < need {
		return fmt.Errorf("write the tree %s: it needs %s and the file system has %s free; make room, or take another directory", path, progress.Bytes(need), progress.Bytes(free))
	}
	return nil
}

// makePartial makes the directory that holds the tree until it is whole, which nobody but root can look into. One that a killed run has
// left is emptied; one that another run works in is an error.
func (j *job) makePartial() (release func() error, err error) {
	j.partial = filepath.Join(j.Dir, "."+j.manifest.Name+"-"+j.manifest.Version+".partial")
	fail := func(err error) (func() error, error) {
		return nil, fmt.Errorf("write the tree in %s: %w", j.partial, err)
	}
	if err := os.Mkdir(j.partial, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fail(err)
	}
	d, err := os.Open(j.partial)
	if err != nil {
		return fail(err)
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		return nil, fmt.Errorf("write the tree in %s: another imgbuild export writes the same one; wait until it is done", j.Dir)
	}
	release = func() error {
		// What was whole is gone from there by then.
		if err := errors.Join(os.RemoveAll(j.partial), d.Close()); err != nil {
			return fmt.Errorf("remove %s: %w", j.partial, err)
		}
		return nil
	}
	root := filepath.Join(j.partial, "root")
	if err := errors.Join(os.RemoveAll(root), os.Mkdir(root, 0o755)); err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

func (j *job) unpack(ctx context.Context, root string) error {
	src := &checked{f: j.rootfs, file: j.manifest.Files[image.RootfsFile]}
	err := j.Unpack(ctx, src, src.file.Size, root, func(done, total int64) {
		j.wrote = done
		j.Report.Step(progress.Step{Text: "written", Done: done, Total: total, Bytes: true})
	})
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("write the tree: interrupted; nothing was left behind: %w", context.Cause(ctx))
		}
		return err
	}
	return j.sign(root)
}

// sign leaves in the tree what a machine compares with its own release. Only root may read it: a machine whose server takes root for
// somebody else finds out at once, and not by what breaks later.
func (j *job) sign(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("write the release's name into the tree: %w", err)
	}
	defer root.Close()
	err = root.MkdirAll(filepath.Dir(image.TreeManifest), 0o755)
	for name, data := range map[string][]byte{image.TreeManifest: j.raw, image.TreeManifest + ".sig": j.signature} {
		if err == nil {
			err = root.WriteFile(name, data, 0o600)
		}
		if err == nil {
			err = root.Chmod(name, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("write the release's name into the tree: %w", err)
	}
	return nil
}

// capable finds the programs with capabilities.
func capable(ctx context.Context, root string) ([]string, error) {
	var list []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		switch n, err := unix.Lgetxattr(path, "security.capability", nil); {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		case err != nil:
			return &fs.PathError{Op: "look at", Path: path, Err: err}
		case n > 0:
			list = append(list, strings.TrimPrefix(path, root))
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("write the tree: interrupted; nothing was left behind: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("look for capabilities: %w", err)
	}
	return list, nil
}

// syncTree waits until the file system of a directory has all that was written to it.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("wait for the disk: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("wait for the disk: %w", err)
	}
	return nil
}

// publish gives the whole tree its name, unless there is something of that name.
func (j *job) publish(ctx context.Context, root, path string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("write the tree: interrupted; nothing was left behind: %w", context.Cause(ctx))
	}
	if err := unix.Renameat2(unix.AT_FDCWD, root, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("give the tree the name %s: %w", path, err)
	}
	return syncTree(j.Dir)
}
