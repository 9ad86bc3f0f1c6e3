// Package releases is the catalogue of a directory of releases, <name>/<version>/, as imgbuild makes them. Files come in;
// what may be installed, and the files themselves over HTTP, go out.
//
// It never serves a file that no manifest names, never one of a release whose manifest or boot files fail a check, and
// never anything outside the directory. It writes nothing.
package releases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"imgbuild/image"
	"imgbuild/image/layout"
)

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("there is no such release") // nothing of that name and version
	ErrRefused  = errors.New("it may not be used")       // it is there; Release.Problem says what is wrong with it
)

// Options say what to catalogue. Dir is required.
type Options struct {
	Dir string
	// Trust are the keys that releases must be signed with, one of them each. Without any, a signature must be there, and
	// whose it is, is left to the machines: their initramfs has the key.
	Trust []image.PublicKey
	// Every is how often Run looks for changes; 5 s.
	Every time.Duration
	Log   *slog.Logger // slog.Default()
}

// Release is one release as people and other packages see it. It is a copy: nobody changes it.
type Release struct {
	Name          string              `json:"name"`
	Version       string              `json:"version"`
	Arch          string              `json:"arch,omitempty"`
	Distro        string              `json:"distro,omitempty"` // PRETTY_NAME
	KernelRelease string              `json:"kernel,omitempty"`
	NetworkFormat image.NetworkFormat `json:"network_format,omitempty"`
	Created       time.Time           `json:"created,omitzero"`
	// KernelArgs are the installed system's.
	KernelArgs []string `json:"kernel_args,omitempty"`
	// LinuxEFI is true if its own GRUB starts kernels with linuxefi and initrdefi (EL7).
	LinuxEFI bool `json:"linux_efi,omitempty"`
	// Layout is what becomes of the disks where nobody says otherwise, and Tools are the programs that its initramfs has for it
	// and for others, by the names of layout.Tools.
	Layout layout.Layout `json:"layout"`
	Tools  []string      `json:"tools,omitempty"`
	Files  []File        `json:"files,omitempty"` // by name
	// Key is the ID of the trusted key that signed it; empty if no keys are configured.
	Key string `json:"key,omitempty"`
	// Problem says why it may not be installed; empty if it may.
	Problem string `json:"problem,omitempty"`
	// Verified is true when every file has been read and has the SHA-256 that the manifest says.
	Verified bool `json:"verified"`
}

// File is one file of a release.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Ref is the release's full name: name/version.
func (r *Release) Ref() string { return r.Name + "/" + r.Version }

// Bytes is the size of all files.
func (r *Release) Bytes() int64 {
	var n int64
	for _, f := range r.Files {
		n += f.Size
	}
	return n
}

// Catalogue knows the releases of a directory. It is safe for use from many goroutines.
type Catalogue struct {
	o Options

	scanning sync.Mutex // one scan at a time; guards scanned
	scanned  time.Time

	mu      sync.RWMutex
	root    *os.Root
	entries map[string]*entry // by name/version
}

// Open reads the directory once. That it is empty is no error; that it is not there is one.
func Open(o Options) (*Catalogue, error) {
	if o.Every <= 0 {
		o.Every = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	c := &Catalogue{o: o, entries: map[string]*entry{}}
	if err := c.Scan(); err != nil && c.root == nil {
		return nil, err
	} else if err != nil {
		o.Log.Error("look for releases", "err", err)
	}
	return c, nil
}

// Run looks for changes until the context ends, and reads the files of new releases to check them. A directory that
// cannot be read for a while keeps what was known of it.
func (c *Catalogue) Run(ctx context.Context) error {
	t := time.NewTicker(c.o.Every)
	defer t.Stop()
	said := ""
	for {
		err := c.Scan()
		switch {
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			c.o.Log.Error("look for releases", "err", err)
		}
		c.verify(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// verify reads every file of every release that has not been read yet, newest release first.
func (c *Catalogue) verify(ctx context.Context) {
	c.mu.RLock()
	entries := slices.Collect(maps.Values(c.entries))
	c.mu.RUnlock()
	slices.SortFunc(entries, func(a, b *entry) int { return b.release.Created.Compare(a.release.Created) })
	for _, e := range entries {
		if ctx.Err() != nil {
			return
		}
		if r := e.view(); r.Problem != "" || r.Verified {
			continue
		}
		if err := e.checkAll(ctx); err != nil && ctx.Err() == nil {
			c.o.Log.Error("check release", "release", e.ref(), "err", err)
		}
	}
}

// List returns all releases, by name, the newest version first; those with a problem too.
func (c *Catalogue) List() []Release {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]Release, 0, len(c.entries))
	for _, e := range c.entries {
		all = append(all, e.view())
	}
	slices.SortFunc(all, func(a, b Release) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), CompareVersions(b.Version, a.Version))
	})
	return all
}

// Resolve returns the release of a reference: name/version, or name for the newest version that may be installed. The
// boot files of what it returns have been checked. Errors are ErrNotFound and ErrRefused.
func (c *Catalogue) Resolve(ctx context.Context, ref string) (*Release, error) {
	name, version, exact := strings.Cut(ref, "/")
	if !image.ValidName(name) || exact && !image.ValidVersion(version) {
		return nil, fmt.Errorf("find release %q: it is neither a name nor name/version: %w", ref, ErrNotFound)
	}
	found := c.find(name, version)
	if len(found) == 0 {
		if err := c.rescan(); err != nil {
			return nil, fmt.Errorf("find release %s: %w", ref, err)
		}
		if found = c.find(name, version); len(found) == 0 {
			return nil, fmt.Errorf("find release %s: %w", ref, ErrNotFound)
		}
	}
	var refused error
	for _, e := range found {
		r, err := e.usable(ctx)
		if err == nil {
			return r, nil
		}
		refused = cmp.Or(refused, err) // of the newest
	}
	return nil, refused
}

// Newest returns the release that was made last of those that may be installed on an architecture; empty for any. It is
// what a machine is inspected with that nobody has chosen a release for.
func (c *Catalogue) Newest(ctx context.Context, arch string) (*Release, error) {
	c.mu.RLock()
	var found []*entry
	for _, e := range c.entries {
		if r := e.view(); r.Problem == "" && (arch == "" || r.Arch == arch) {
			found = append(found, e)
		}
	}
	c.mu.RUnlock()
	slices.SortFunc(found, func(a, b *entry) int {
		return cmp.Or(b.release.Created.Compare(a.release.Created), strings.Compare(a.release.Name, b.release.Name), CompareVersions(b.release.Version, a.release.Version))
	})
	for _, e := range found {
		if r, err := e.usable(ctx); err == nil {
			return r, nil
		}
	}
	return nil, fmt.Errorf("find a release to boot with: %w: build one into %s", ErrNotFound, c.o.Dir)
}

// find returns one version, or all with the newest first.
func (c *Catalogue) find(name, version string) []*entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if version != "" {
		if e := c.entries[name+"/"+version]; e != nil {
			return []*entry{e}
		}
		return nil
	}
	var found []*entry
	for _, e := range c.entries {
		if e.release.Name == name {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *entry) int { return CompareVersions(b.release.Version, a.release.Version) })
	return found
}
