package releases

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"imgbuild/image"
)

// rescanEvery bounds how often a request for what is not there makes the catalogue look again.
const rescanEvery = time.Second

// rescan looks again, unless that was done just now.
func (c *Catalogue) rescan() error {
	c.scanning.Lock()
	defer c.scanning.Unlock()
	if time.Since(c.scanned) < rescanEvery {
		return nil
	}
	return c.scan()
}

// Scan looks at the directory again. Of a release whose files' metadata has not changed nothing is read.
func (c *Catalogue) Scan() error {
	c.scanning.Lock()
	defer c.scanning.Unlock()
	return c.scan()
}

func (c *Catalogue) scan() error {
	defer func() { c.scanned = time.Now() }()
	root, err := c.currentRoot()
	if err != nil {
		return fmt.Errorf("read releases: %w: give the directory that imgbuild writes releases to", err)
	}
	names, err := directories(root, ".", image.ValidName)
	if err != nil {
		return fmt.Errorf("read releases in %s: %w", c.o.Dir, err)
	}
	var errs []error
	found := map[string]*entry{}
	for _, name := range names {
		versions, err := directories(root, name, image.ValidVersion)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read releases in %s: %w", c.o.Dir, err))
		}
		for _, version := range versions {
			ref := name + "/" + version
			if e := read(root, name, version, c.o.Trust, c.entries[ref]); e != nil {
				c.say(e, c.entries[ref])
				found[ref] = e
			}
		}
	}
	for ref := range c.entries {
		if found[ref] == nil {
			c.o.Log.Info("release is gone", "release", ref)
		}
	}
	c.mu.Lock()
	c.root, c.entries = root, found
	c.mu.Unlock()
	return errors.Join(errs...)
}

// say logs what is new about a release.
func (c *Catalogue) say(e, old *entry) {
	if e == old || old != nil && e.release.Problem != "" && e.release.Problem == old.release.Problem {
		return
	}
	if e.release.Problem != "" {
		c.o.Log.Warn("release is not served", "release", e.ref(), "problem", e.release.Problem)
		return
	}
	c.o.Log.Info("release", "release", e.ref(), "arch", e.release.Arch, "bytes", e.release.Bytes(), "key", e.release.Key)
}

// currentRoot returns the directory that has the name now: somebody may have put another in its place. Entries keep the
// root that they were found in, so what is being served goes on.
func (c *Catalogue) currentRoot() (*os.Root, error) {
	root, err := os.OpenRoot(c.o.Dir)
	if err != nil || c.root == nil {
		return root, err
	}
	now, err1 := root.Stat(".")
	then, err2 := c.root.Stat(".")
	if err1 == nil && err2 == nil && os.SameFile(now, then) {
		return c.root, root.Close()
	}
	return root, nil
}

// directories returns the real directories in dir whose names are valid. Unfinished releases begin with a dot.
func directories(root *os.Root, dir string, valid func(string) bool) ([]string, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range all {
		if d.IsDir() && valid(d.Name()) {
			names = append(names, d.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// read catalogues one directory. It returns old if nothing has changed, and nil for a directory without a manifest, which
// is no release.
func read(root *os.Root, name, version string, trust []image.PublicKey, old *entry) *entry {
	if old != nil && old.root == root && old.print == fingerprint(root, old) {
		return old
	}
	e := &entry{root: root, release: Release{Name: name, Version: version}, files: map[string]file{}, checked: map[string]bool{}}
	manifest, err := e.readFile(image.ManifestFile, image.MaxManifestSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = e.readManifest(manifest, trust)
	}
	if err != nil {
		e.release.Problem = err.Error()
	}
	e.print = fingerprint(root, e)
	return e
}

// readFile reads a small file and enters it, with what it is now.
func (e *entry) readFile(name string, most int64) ([]byte, error) {
	e.files[name] = file{}
	f, err := e.root.Open(e.release.Ref() + "/" + name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", name, most)
	}
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	sum := sha256.Sum256(data)
	e.files[name] = file{size: int64(len(data)), sha256: hex.EncodeToString(sum[:]), stamp: stampOf(info)}
	return data, nil
}

// readManifest checks and enters what the manifest says.
func (e *entry) readManifest(data []byte, trust []image.PublicKey) error {
	sig, err := e.readFile(image.SignatureFile, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("it is not signed: %s is missing, and no machine would install it", image.SignatureFile)
	}
	if err != nil {
		return err
	}
	if len(trust) > 0 {
		if err := image.Verify(data, sig, trust); err != nil {
			return err
		}
		i := slices.IndexFunc(trust, func(k image.PublicKey) bool { return image.Verify(data, sig, []image.PublicKey{k}) == nil })
		e.release.Key = trust[i].ID()
	}
	m, err := image.Parse(data)
	if err != nil {
		return err
	}
	if m.Name != e.release.Name || m.Version != e.release.Version {
		return fmt.Errorf("its manifest is that of %s/%s: a release lies in <name>/<version>", m.Name, m.Version)
	}
	e.release.Arch, e.release.Distro, e.release.KernelRelease = m.Arch, m.Distro.Name, m.KernelRelease
	e.release.Layout, e.release.Tools = m.Layout, m.Tools
	e.release.NetworkFormat, e.release.KernelArgs, e.release.Created = m.NetworkFormat, m.KernelArgs, time.Unix(m.Created, 0).UTC()
	e.release.LinuxEFI = m.BootLoader.GRUB != nil && m.BootLoader.GRUB.LinuxEFI
	return e.enterFiles(m.Files)
}

// enterFiles enters the manifest's files, if they are there and as long as it says.
func (e *entry) enterFiles(files map[string]image.File) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		if name == image.ManifestFile || name == image.SignatureFile {
			errs = append(errs, fmt.Errorf("its manifest lists %s, which cannot be in it", name))
			continue
		}
		e.release.Files = append(e.release.Files, File{Name: name, Size: f.Size, SHA256: f.SHA256})
		e.files[name] = file{size: f.Size, sha256: f.SHA256}
		info, err := e.root.Lstat(e.release.Ref() + "/" + name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("%s is missing", name))
		case err != nil:
			errs = append(errs, fmt.Errorf("look at %s: %w", name, err))
		case !info.Mode().IsRegular():
			errs = append(errs, fmt.Errorf("%s is not a regular file", name))
		case info.Size() != f.Size:
			errs = append(errs, fmt.Errorf("%s has %d bytes and the manifest says %d", name, info.Size(), f.Size))
		default:
			e.files[name] = file{size: f.Size, sha256: f.SHA256, stamp: stampOf(info)}
		}
	}
	for _, name := range bootFiles() {
		if _, ok := files[name]; !ok {
			errs = append(errs, fmt.Errorf("its manifest does not list %s", name))
		}
	}
	return errors.Join(errs...)
}

// fingerprint is made of the metadata of all files that the entry knows, there or not.
func fingerprint(root *os.Root, e *entry) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(e.files)) {
		info, err := root.Lstat(e.release.Ref() + "/" + name)
		if err != nil {
			fmt.Fprintf(h, "%s\x00%v\n", name, err)
			continue
		}
		s := stampOf(info)
		fmt.Fprintf(h, "%s\x00%v %d %d %d %d\n", name, info.Mode(), s.size, s.inode, s.changed.UnixNano(), s.mod.UnixNano())
	}
	return string(h.Sum(nil))
}
