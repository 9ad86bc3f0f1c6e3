package initramfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
)

// Sections of the archive, the keys of Report.BySection.
const (
	sectionInstaller = "installer"
	sectionModules   = "modules"
	sectionFirmware  = "firmware"
	sectionTools     = "tools"
	sectionLibraries = "libraries"
	sectionFiles     = "files"
)

// source opens the bytes of a regular file; what it returns is closed once if it is an io.Closer.
type source func() (io.ReaderAt, error)

// entry is one name in the archive.
type entry struct {
	name         string // without a leading slash
	mode         uint64 // type and permissions, as in stat(2)
	size         int64
	major, minor uint64
	link         string
	open         source
	section      string
	from         string // where the bytes come from, for messages
}

// archive collects entries in any order and writes them in one.
type archive struct {
	entries map[string]entry
	stored  map[fileID]string // file of a tree -> its name in the archive, so that it is stored once
	trees   []*tree           // opened for the archive: its sources read from them until it is written
	host    *tree             // the build host's root directory, opened when something falls back to it
}

// openHost is the build host as a tree.
func (a *archive) openHost() (*tree, error) {
	if a.host != nil {
		return a.host, nil
	}
	host, err := openTree("/")
	if err != nil {
		return nil, err
	}
	a.host, a.trees = host, append(a.trees, host)
	return host, nil
}

// place is a file of one of the trees.
type place struct {
	tree *tree
	file file
	name string // as it was looked for: absolute, links not followed
}

// findFirst finds the first of the candidates that is a file in the image, or, if it may, on the build host. The error
// is fs.ErrNotExist when there is none.
func (a *archive) findFirst(image *tree, candidates []string, fallback bool) (place, error) {
	trees, where := []*tree{image}, "the image "+image.dir
	if fallback {
		host, err := a.openHost()
		if err != nil {
			return place{}, err
		}
		trees, where = append(trees, host), where+" and this host"
	}
	for _, t := range trees {
		for _, candidate := range candidates {
			found, err := t.find(candidate)
			if err == nil {
				return place{tree: t, file: found, name: candidate}, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return place{}, fmt.Errorf("look for %s in %s: %w", candidate, t.dir, err)
			}
		}
	}
	return place{}, &missingError{where: where, candidates: candidates}
}

// missingError is fs.ErrNotExist with a sentence.
type missingError struct {
	where      string
	candidates []string
}

func (e *missingError) Error() string {
	return fmt.Sprintf("none of %s is in %s: add the package that has it to the profile", strings.Join(e.candidates, ", "), e.where)
}

func (e *missingError) Unwrap() error { return fs.ErrNotExist }

// has says whether a name is taken.
func (a *archive) has(name string) bool {
	_, ok := a.entries[merged(name)]
	return ok
}

// close closes the trees that were opened for the archive.
func (a *archive) close() error {
	var err error
	for _, t := range a.trees {
		err = errors.Join(err, t.close())
	}
	return err
}

func newArchive() *archive {
	a := &archive{entries: map[string]entry{}, stored: map[fileID]string{}}
	for _, dir := range []string{"dev", "etc", "mnt", "proc", "run", "sys", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var"} {
		a.addDir(dir, 0o755)
	}
	a.addDir("root", 0o700)
	a.addDir("tmp", 0o1777)
	for _, name := range mergedDirs() {
		a.entries[name] = entry{name: name, mode: cpio.S_IFLNK | 0o777, link: "usr/" + name, section: sectionFiles}
	}
	// The kernel opens /dev/console for PID 1 before PID 1 can mount devtmpfs (Documentation/admin-guide/initrd.rst);
	// without it the installer would run mute. The Go runtime wants /dev/null for any standard stream that is closed.
	a.entries["dev/console"] = entry{name: "dev/console", mode: cpio.S_IFCHR | 0o600, major: 5, minor: 1, section: sectionFiles}
	a.entries["dev/null"] = entry{name: "dev/null", mode: cpio.S_IFCHR | 0o666, major: 1, minor: 3, section: sectionFiles}
	return a
}

// mergedDirs are the directories that are links into /usr.
func mergedDirs() []string { return []string{"bin", "lib", "lib64", "sbin"} }

// merged is name after the links of a merged /usr: lib/x becomes usr/lib/x.
func merged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains(mergedDirs(), first) {
		return "usr/" + name
	}
	return name
}

// addDir adds a directory and its parents, unless they are there.
func (a *archive) addDir(name string, perm uint64) {
	name = merged(name)
	if _, ok := a.entries[name]; ok || name == "" {
		return
	}
	a.addDir(parent(name), 0o755)
	a.entries[name] = entry{name: name, mode: cpio.S_IFDIR | perm, section: sectionFiles}
}

func (a *archive) add(e entry) error {
	e.name = merged(e.name)
	if old, ok := a.entries[e.name]; ok {
		return fmt.Errorf("put %s into the initramfs as /%s: that name is taken by %s", e.from, e.name, cmp.Or(old.from, "a directory or device"))
	}
	for dir := parent(e.name); dir != ""; dir = parent(dir) {
		if old, ok := a.entries[dir]; ok && old.mode&cpio.S_IFMT != cpio.S_IFDIR {
			return fmt.Errorf("put %s into the initramfs as /%s: /%s is not a directory", e.from, e.name, dir)
		}
	}
	a.addDir(parent(e.name), 0o755)
	a.entries[e.name] = e
	return nil
}

// addBytes adds a regular file whose content is in memory.
func (a *archive) addBytes(section, name string, perm uint64, data []byte, from string) error {
	return a.add(entry{
		name: name, mode: cpio.S_IFREG | perm, size: int64(len(data)), section: section, from: from,
		open: func() (io.ReaderAt, error) { return bytes.NewReader(data), nil },
	})
}

// addFile adds a regular file of a tree, read when the archive is written. A file that is already in the archive by
// another name becomes a symbolic link to it; the same file under the same name is added once.
func (a *archive) addFile(section, name string, perm uint64, t *tree, found file) error {
	return a.addContent(entry{
		name: name, mode: cpio.S_IFREG | perm, size: found.size, section: section, from: t.name(found),
		open: func() (io.ReaderAt, error) { return t.root.Open(found.path) },
	}, found)
}

// addUnpacked is addFile for a compressed file that is stored as data, its content.
func (a *archive) addUnpacked(section, name string, t *tree, found file, data []byte) error {
	return a.addContent(entry{
		name: name, mode: cpio.S_IFREG | 0o644, size: int64(len(data)), section: section, from: t.name(found),
		open: func() (io.ReaderAt, error) { return bytes.NewReader(data), nil },
	}, found)
}

func (a *archive) addContent(e entry, found file) error {
	e.name = merged(e.name)
	first, stored := a.stored[found.id]
	if stored && first == e.name {
		return nil
	}
	if stored {
		e = entry{name: e.name, mode: cpio.S_IFLNK | 0o777, link: relative(parent(e.name), first), section: e.section, from: e.from}
		if old := a.entries[e.name]; old.link == e.link {
			return nil
		}
	}
	if err := a.add(e); err != nil {
		return err
	}
	if !stored {
		a.stored[found.id] = e.name
	}
	return nil
}

// relative is the path from directory dir to name, both inside the archive.
func relative(dir, name string) string {
	from, to := strings.Split(dir, "/"), strings.Split(name, "/")
	if dir == "" {
		from = nil
	}
	for len(from) > 0 && len(to) > 1 && from[0] == to[0] {
		from, to = from[1:], to[1:]
	}
	return strings.Repeat("../", len(from)) + strings.Join(to, "/")
}

// write writes the archive as newc cpio (Documentation/driver-api/early-userspace/buffer-format.rst): entries sorted
// by name, so that every directory comes before what is in it, inode numbers counted from one, everything owned by
// root and dated date. It returns the bytes of each section, headers included.
func (a *archive) write(ctx context.Context, w io.Writer, date time.Time) (map[string]int64, error) {
	counted := &counter{w: w}
	records := cpio.Newc.Writer(counted)
	sections := map[string]int64{}
	for i, name := range sortedKeys(a.entries) {
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("write the initramfs: %w", err)
		}
		before := counted.n
		if err := writeEntry(records, a.entries[name], uint64(i+1), date); err != nil {
			return nil, err
		}
		sections[a.entries[name].section] += counted.n - before
	}
	if err := cpio.WriteTrailer(records); err != nil {
		return nil, fmt.Errorf("write the end of the initramfs: %w", err)
	}
	return sections, nil
}

func writeEntry(records cpio.RecordWriter, e entry, inode uint64, date time.Time) error {
	record := cpio.Record{Info: cpio.Info{
		Ino: inode, Mode: e.mode, NLink: 1, MTime: uint64(date.Unix()), Name: e.name, Rmajor: e.major, Rminor: e.minor,
	}}
	switch e.mode & cpio.S_IFMT {
	case cpio.S_IFDIR:
		record.NLink = 2
	case cpio.S_IFLNK:
		record.ReaderAt, record.FileSize = strings.NewReader(e.link), uint64(len(e.link))
	case cpio.S_IFREG:
		content, err := e.open()
		if err != nil {
			return fmt.Errorf("read %s for /%s of the initramfs: %w", e.from, e.name, err)
		}
		record.ReaderAt, record.FileSize = content, uint64(e.size)
	}
	if err := records.WriteRecord(record); err != nil {
		return fmt.Errorf("write /%s of the initramfs from %s: %w", e.name, e.from, err)
	}
	return nil
}

// counter counts what passes through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
