package builder

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/builder/dnf"
	"imgbuild/image"
)

// keepTrees is how many installed trees the cache keeps; the one used longest ago goes first.
const keepTrees = 4

// cache is the directory that is kept between builds:
//
//	dnf/       packages and metadata, as dnf keeps them
//	locks/     the lock of what was asked for, by its digest
//	trees/     installed packages, by the digest of lock and settings
//	boot/      the installed system's initramfs, by the digest of tree and configuration
//	releases/  what a release was built from, by the release's directory
//	work/      the run that is going on
//	log/       the log of each image's last build
type cache struct{ dir string }

func (c *cache) path(elements ...string) string {
	return filepath.Join(append([]string{c.dir}, elements...)...)
}

// lockCache waits until no other build uses the cache.
func (c *cache) lockCache(ctx context.Context, report Reporter) (unlock func(), err error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache: %w", err)
	}
	f, err := os.OpenFile(c.path("lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	unlock = func() { _ = f.Close() }
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		report.Note("another build uses the cache " + c.dir + "; waiting until it ends")
		locked := make(chan error, 1)
		// The goroutine ends when the other build does, at the latest with this process.
		go func() { locked <- unix.Flock(int(f.Fd()), unix.LOCK_EX) }()
		select {
		case err = <-locked:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another build that uses the cache %s: %w", c.dir, context.Cause(ctx))
		}
	}
	if err != nil {
		unlock()
		return nil, fmt.Errorf("lock the cache %s: %w", c.dir, err)
	}
	return unlock, nil
}

// workDir makes a new directory for a run and removes what runs that were killed have left.
func (c *cache) workDir() (string, error) {
	old, err := filepath.Glob(c.path("work", "*"))
	if err != nil {
		return "", err
	}
	unfinished, err := filepath.Glob(c.path("trees", ".new-*"))
	if err != nil {
		return "", err
	}
	for _, d := range append(old, unfinished...) {
		if err := os.RemoveAll(d); err != nil {
			return "", fmt.Errorf("remove what an earlier build left: %w", err)
		}
	}
	for _, d := range []string{"work", "trees", "locks", "releases", "boot", "dnf"} {
		if err := os.MkdirAll(c.path(d), 0o755); err != nil {
			return "", fmt.Errorf("make the cache: %w", err)
		}
	}
	dir, err := os.MkdirTemp(c.path("work"), "run-")
	if err != nil {
		return "", fmt.Errorf("make the build's directory: %w", err)
	}
	return dir, os.Chmod(dir, 0o755)
}

// loadLock returns the lock that was kept for what is asked for, or nil.
func (c *cache) loadLock(inputs string) (*dnf.Lock, error) {
	data, err := os.ReadFile(c.path("locks", inputs+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the kept lock: %w", err)
	}
	l, err := dnf.ParseLock(data)
	if err != nil {
		return nil, nil // written by another version: packages are chosen again
	}
	return l, nil
}

func (c *cache) saveLock(l *dnf.Lock) error {
	data, err := l.Marshal()
	if err != nil {
		return err
	}
	return writeFile(c.path("locks", l.Inputs+".json"), data)
}

// writeFile writes a file that is there whole or not at all.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	temp := path + ".new"
	if err := errors.Join(os.WriteFile(temp, data, 0o644), os.Rename(temp, path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// tree returns where the tree of that digest is, and whether it is there.
func (c *cache) tree(digest string) (string, bool) {
	dir := c.path("trees", digest)
	_, err := os.Stat(dir)
	return dir, err == nil
}

// touch marks a cached thing as used now.
func touch(path string) {
	now := time.Now()
	// The time only says what is pruned first.
	_ = os.Chtimes(path, now, now)
}

// prune keeps the newest entries of a directory of the cache.
func (c *cache) prune(dir string, keep int) error {
	entries, err := os.ReadDir(c.path(dir))
	if err != nil {
		return fmt.Errorf("prune the cache: %w", err)
	}
	type entry struct {
		name string
		used time.Time
	}
	var all []entry
	for _, e := range entries {
		if st, err := e.Info(); err == nil && !strings.HasPrefix(e.Name(), ".") {
			all = append(all, entry{e.Name(), st.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(b.used.UnixNano(), a.used.UnixNano()) })
	for _, e := range all[min(keep, len(all)):] {
		if err := os.RemoveAll(c.path(dir, e.name)); err != nil {
			return fmt.Errorf("prune the cache: %w", err)
		}
	}
	return nil
}

// record is what a release was built from.
type record struct {
	Inputs   string           `json:"inputs"`
	Manifest string           `json:"manifest"` // SHA-256
	Sizes    map[string]int64 `json:"sizes"`
}

func (c *cache) recordPath(dir string) (string, error) {
	d, err := digest(dir)
	return c.path("releases", d+".json"), err
}

// built reports whether the release in dir was made from these inputs and still is what it was.
func (c *cache) built(dir, inputs string) (bool, error) {
	path, err := c.recordPath(dir)
	if err != nil {
		return false, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return false, nil // nothing is known of it
	}
	var r record
	if json.Unmarshal(data, &r) != nil || r.Inputs != inputs {
		return false, nil
	}
	manifest, err := fileDigest(filepath.Join(dir, image.ManifestFile))
	if err != nil || manifest != r.Manifest {
		return false, nil
	}
	for name, size := range r.Sizes {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Size() != size {
			return false, nil
		}
	}
	return true, nil
}

func (c *cache) saveRecord(dir string, r record) error {
	path, err := c.recordPath(dir)
	if err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write what the release was built from: %w", err)
	}
	return writeFile(path, data)
}
