package dnf

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cavaliergopher/rpm"
	"golang.org/x/sync/errgroup"
)

// LockSchema is the version of the lock's form.
const LockSchema = 1

// Package is one package of a lock.
type Package struct {
	NEVRA  string `json:"nevra"`
	Repo   string `json:"repo"`
	SHA256 string `json:"sha256"` // of the whole RPM file, in hex
	Size   int64  `json:"size"`   // of the RPM file in bytes
	// Path is where the file lies on this host; it is not part of the lock.
	Path string `json:"-"`
	// Built is when the package was built, seconds since 1970; it is not part of the lock.
	Built int64 `json:"-"`
}

// Lock says exactly which packages an image is made of.
type Lock struct {
	Schema int `json:"schema"`
	// Inputs is the digest of what was asked for: repositories, packages, excludes and their like.
	Inputs string `json:"inputs"`
	// Date is when the newest of the packages was built, seconds since 1970: the time stamp of what the build makes when
	// nobody gives another.
	Date     int64     `json:"date"`
	Packages []Package `json:"packages"`
}

// Marshal returns the lock with one package a line, for people to compare. The same lock gives the same bytes.
func (l *Lock) Marshal() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"schema\": %d, \"inputs\": %q, \"date\": %d, \"packages\": [", l.Schema, l.Inputs, l.Date)
	for i, p := range l.Packages {
		line, err := json.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("write the lock: %w", err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n ")
		b.Write(line)
	}
	b.WriteString("\n]}\n")
	return b.Bytes(), nil
}

// ParseLock reads what Marshal writes.
func ParseLock(data []byte) (*Lock, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var l Lock
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("read the lock: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("read the lock: there is something after its end")
	}
	if l.Schema != LockSchema {
		return nil, fmt.Errorf("read the lock: it has schema %d and this program knows schema %d", l.Schema, LockSchema)
	}
	for _, p := range l.Packages {
		if p.NEVRA == "" || len(p.SHA256) != 2*sha256.Size {
			return nil, fmt.Errorf("read the lock: package %q has no digest", p.NEVRA)
		}
	}
	return &l, nil
}

// Bytes is the sum of the sizes of the RPM files.
func (l *Lock) Bytes() int64 {
	var n int64
	for _, p := range l.Packages {
		n += p.Size
	}
	return n
}

// Difference returns how many packages of the two locks are only in one of them.
func (l *Lock) Difference(o *Lock) int {
	count := map[string]int{}
	for _, p := range l.Packages {
		count[p.NEVRA+p.SHA256]++
	}
	for _, p := range o.Packages {
		count[p.NEVRA+p.SHA256]--
	}
	n := 0
	for _, c := range count {
		n += max(c, -c)
	}
	return n
}

// Find returns the package of that name, and whether there is one. Name is without version and architecture.
func (l *Lock) Find(name string) (Package, bool) {
	for _, p := range l.Packages {
		if Name(p.NEVRA) == name {
			return p, true
		}
	}
	return Package{}, false
}

// Name returns the name in a NEVRA: what is before the last two dashes.
func Name(nevra string) string {
	for range 2 {
		i := strings.LastIndexByte(nevra, '-')
		if i < 0 {
			return nevra
		}
		nevra = nevra[:i]
	}
	return nevra
}

// Release returns version-release.arch of a NEVRA, which for a kernel is what uname -r says.
func Release(nevra string) string {
	vra := strings.TrimPrefix(nevra, Name(nevra)+"-")
	if _, rest, ok := strings.Cut(vra, ":"); ok {
		return rest
	}
	return vra
}

// newLock makes the lock of packages whose Path is set: it reads each file's header and hashes it whole.
func newLock(ctx context.Context, inputs string, packages []Package) (*Lock, error) {
	var g errgroup.Group
	g.SetLimit(4)
	for i := range packages {
		g.Go(func() error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			return packages[i].describe()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(packages, func(a, b Package) int { return strings.Compare(a.NEVRA, b.NEVRA) })
	l := &Lock{Schema: LockSchema, Inputs: inputs, Packages: packages}
	for _, p := range packages {
		l.Date = max(l.Date, p.Built)
	}
	return l, nil
}

// describe fills in what the file itself says, and makes sure that it is the package that was asked for.
func (p *Package) describe() (err error) {
	f, err := os.Open(p.Path)
	if err != nil {
		return fmt.Errorf("read package %s: %w", p.NEVRA, err)
	}
	defer f.Close()
	header, err := rpm.Read(f)
	if err != nil {
		return fmt.Errorf("read package %s: %s is not an RPM: %w", p.NEVRA, p.Path, err)
	}
	if found := nevra(header); found != p.NEVRA {
		return fmt.Errorf("read package %s: %s holds %s", p.NEVRA, p.Path, found)
	}
	p.Built = header.BuildTime().Truncate(time.Second).Unix()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read package %s: %w", p.NEVRA, err)
	}
	h := sha256.New()
	if p.Size, err = io.Copy(h, f); err != nil {
		return fmt.Errorf("read package %s: %w", p.NEVRA, err)
	}
	p.SHA256 = fmt.Sprintf("%x", h.Sum(nil))
	return nil
}

func nevra(p *rpm.Package) string {
	s := p.Name() + "-"
	if p.Epoch() != 0 {
		s += fmt.Sprintf("%d:", p.Epoch())
	}
	return s + p.Version() + "-" + p.Release() + "." + p.Architecture()
}

// locate returns where the RPM file of a package lies: in a repository that is a directory of this host, or in dnf's
// cache.
func (s *Session) locate(repo, location string) (string, bool) {
	for _, u := range s.Config.Repositories[repo].BaseURL {
		if dir, ok := strings.CutPrefix(s.Config.Expand(u), "file://"); ok {
			p := filepath.Join(dir, filepath.FromSlash(location))
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
				return p, true
			}
		}
	}
	found, err := filepath.Glob(filepath.Join(s.Cache, repo+"-*", "packages", filepath.Base(location)))
	if err != nil || len(found) == 0 {
		return "", false
	}
	// A repository that has moved has a directory for each of its addresses; the newest file is of the present one.
	slices.SortFunc(found, func(a, b string) int { return modified(b).Compare(modified(a)) })
	return found[0], true
}

func modified(path string) time.Time {
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// Expand replaces dnf's variables in a URL.
func (c Config) Expand(url string) string {
	pairs := []string{}
	for name, value := range c.Variables() {
		pairs = append(pairs, "${"+name+"}", value, "$"+name, value)
	}
	for name, value := range map[string]string{"releasever": c.Distro.Release, "basearch": c.Arch, "arch": c.Arch} {
		pairs = append(pairs, "${"+name+"}", value, "$"+name, value)
	}
	return strings.NewReplacer(pairs...).Replace(url)
}
