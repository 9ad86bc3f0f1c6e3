package hw

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Modules loads kernel modules. Each is loaded once, whoever asks, and modules that do not need each other are loaded in
// parallel. It is safe for use from several goroutines.
type Modules struct {
	index  *Index
	insert func(path string) error // puts one module into the kernel; replaced in tests

	mu    sync.Mutex
	done  map[string]*loading
	after []string // soft dependencies still to be loaded after others
}

type loading struct {
	ready chan struct{}
	err   error
}

// OpenModules reads the index of the running kernel's modules below /lib/modules or /usr/lib/modules.
func OpenModules() (*Modules, error) {
	release, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join("/lib/modules", release)
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Join("/usr/lib/modules", release)
	}
	x, err := OpenIndex(dir)
	if err != nil {
		return nil, fmt.Errorf("kernel %s is running: %w", release, err)
	}
	return NewModules(x), nil
}

// NewModules loads modules by an index.
func NewModules(x *Index) *Modules {
	return &Modules{index: x, insert: insertFile, done: map[string]*loading{}}
}

// Load loads modules by name or alias, with all that they need. What is built into the kernel or loaded already is fine.
// The error joins one for each module that is unknown or that the kernel refused.
func (m *Modules) Load(ctx context.Context, names ...string) error {
	var errs []error
	for _, n := range names {
		modules, known := m.index.Resolve(n)
		if !known {
			errs = append(errs, fmt.Errorf("load kernel module %s: it is neither in the initramfs nor built into the kernel: %w", n, os.ErrNotExist))
		}
		for _, module := range modules {
			if err := m.loadWith(ctx, module); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// loadWith loads one module with all that belongs to it. What is to come after a module may itself need that module
// (mlx4_en after mlx4_core), so it is loaded here, where nobody waits for this goroutine.
func (m *Modules) loadWith(ctx context.Context, name string) error {
	err := m.load(ctx, name)
	for {
		m.mu.Lock()
		if len(m.after) == 0 {
			m.mu.Unlock()
			return err
		}
		next := m.after[0]
		m.after = m.after[1:]
		m.mu.Unlock()
		_ = m.load(ctx, next) // a soft dependency that is not there, or that fails, is none
	}
}

// load loads one module after what it needs. Whoever comes second waits for the first. The waits cannot form a circle:
// hard dependencies have none, and soft ones that are part of one are left out (see reaches).
func (m *Modules) load(ctx context.Context, name string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	l, begun := m.done[name]
	if !begun {
		l = &loading{ready: make(chan struct{})}
		m.done[name] = l
	}
	m.mu.Unlock()
	if begun {
		select {
		case <-l.ready:
			return l.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	l.err = m.loadNew(ctx, name)
	if l.err == nil {
		m.mu.Lock()
		m.after = append(m.after, m.index.post[name]...)
		m.mu.Unlock()
	}
	close(l.ready)
	return l.err
}

// reaches says whether module n waits for module to, directly or not, when it is loaded.
func (m *Modules) reaches(n, to string, seen map[string]bool) bool {
	if n == to {
		return true
	}
	if seen[n] {
		return false
	}
	seen[n] = true
	for _, next := range [][]string{m.index.deps[n], m.index.pre[n]} {
		for _, k := range next {
			if m.reaches(k, to, seen) {
				return true
			}
		}
	}
	return false
}

func (m *Modules) loadNew(ctx context.Context, name string) error {
	file, ok := m.index.files[name]
	if !ok {
		if m.index.builtin[name] {
			return nil
		}
		return fmt.Errorf("load kernel module %s: it is not in the initramfs: %w", name, os.ErrNotExist)
	}
	for _, n := range m.index.pre[name] {
		if !m.reaches(n, name, map[string]bool{}) {
			_ = m.load(ctx, n) // a soft dependency that is not there, or that fails, is none
		}
	}
	deps := m.index.deps[name]
	for i := len(deps) - 1; i >= 0; i-- {
		if err := m.load(ctx, deps[i]); err != nil {
			return fmt.Errorf("load kernel module %s, which needs %s: %w", name, deps[i], err)
		}
	}
	if err := m.insert(filepath.Join(m.index.dir, file)); err != nil {
		return fmt.Errorf("load kernel module %s: %w", name, err)
	}
	return nil
}

// LoadAliases loads what serves the given modaliases, several at a time: modules that wait for their hardware do not
// hold up the others. It returns how many aliases a module serves, and the errors, joined.
func (m *Modules) LoadAliases(ctx context.Context, aliases []string) (served int, err error) {
	var mu sync.Mutex
	var errs []error
	var g errgroup.Group
	g.SetLimit(8)
	asked := map[string]bool{}
	for _, a := range aliases {
		modules, _ := m.index.Resolve(a)
		if len(modules) > 0 {
			served++
		}
		for _, module := range modules {
			if asked[module] {
				continue
			}
			asked[module] = true
			g.Go(func() error {
				if err := m.loadWith(ctx, module); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
				return nil
			})
		}
	}
	_ = g.Wait() // the functions return no errors
	return served, errors.Join(errs...)
}

// insertFile gives a module file to the kernel. Compressed modules are unpacked here: not every kernel does it itself.
func insertFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	switch filepath.Ext(path) {
	case ".ko":
		err = unix.FinitModule(int(f.Fd()), "", 0)
	default:
		var image []byte
		if image, err = unpack(path, f); err == nil {
			err = unix.InitModule(image, "")
		}
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("the kernel finds no device for it: %w", err)
	case errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EKEYREJECTED):
		return fmt.Errorf("the kernel does not accept its signature: %w", err)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("it does not fit the running kernel: %w", err)
	}
	return err
}

// maxModule bounds an unpacked module; the largest of today's (amdgpu) has 20 MiB.
const maxModule = 256 << 20

// unpack reads a module that is compressed as its name says.
func unpack(path string, r io.Reader) ([]byte, error) {
	var err error
	switch filepath.Ext(path) {
	case ".xz":
		r, err = xz.NewReader(r)
	case ".gz":
		r, err = gzip.NewReader(r)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			r = z
		}
	}
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", path, err)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, maxModule+1)); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", path, err)
	}
	if b.Len() > maxModule {
		return nil, fmt.Errorf("unpack %s: it is larger than %d bytes", path, maxModule)
	}
	return b.Bytes(), nil
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("ask for the kernel's release: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	if release == "" || strings.Contains(release, "/") {
		return "", fmt.Errorf("the kernel's release is %q, which is no name of a directory", release)
	}
	return release, nil
}
