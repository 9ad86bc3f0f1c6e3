package kexec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"imgbuild/image/within"
)

// candidate is one kernel that a boot loader's configuration names.
type candidate struct {
	id, title string
	version   string
	kernel    string
	initrds   []string
	args      string
}

// menu is what a configuration offers, in its order. start is the index of what starts when nobody chooses, or -1 where that is
// no Linux kernel.
type menu struct {
	list  []candidate
	start int
}

// What may be read of a boot loader's configuration, in bytes. A variable's value may be used in many places, and made of others.
const (
	maxConfig  = 256 << 10
	maxEntry   = 4 << 10
	maxEntries = 64 // files
	maxValue   = 1 << 10
)

// readFile returns nil for what is not there or cannot be a configuration file, and no more than limit bytes.
func readFile(root *os.Root, name string, limit int64) []byte {
	p, err := within.Resolve(root, name, true)
	if err != nil {
		return nil
	}
	f, err := root.Open(p)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil
	}
	return b
}

// entryFiles are the boot loader entries in a directory, by name.
func entryFiles(root *os.Root, dir string) map[string][]byte {
	p, err := within.Resolve(root, dir, true)
	if err != nil {
		return nil
	}
	list, err := fs.ReadDir(root.FS(), p)
	if err != nil {
		return nil
	}
	out := map[string][]byte{}
	for _, e := range list {
		if name, ok := strings.CutSuffix(e.Name(), ".conf"); ok && len(out) < maxEntries {
			if b := readFile(root, path.Join(p, e.Name()), maxEntry); b != nil {
				out[name] = b
			}
		}
	}
	return out
}

// choose looks for the boot loaders' configurations of one disk: entries first, which EL8 and later have whatever reads them,
// then GRUB's, then extlinux's. /boot is a file system of its own, or in the one of the root.
func choose(roots []*os.Root) (*Entry, error) {
	env := environment(roots)
	var errs []error
	for _, read := range []func(*os.Root, string, map[string]string) menu{entriesOf, grubOf, extlinuxOf} {
		for _, root := range roots {
			for _, prefix := range []string{"", "boot"} {
				m := read(root, prefix, env)
				e, err := m.first(root, prefix)
				if err == nil {
					return e, nil
				}
				if len(m.list) > 0 {
					errs = append(errs, err)
				}
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return nil, ErrNone
}

// first is what starts when nobody chooses, or, where that is gone, the next that can start.
func (m menu) first(root *os.Root, prefix string) (*Entry, error) {
	if len(m.list) == 0 || m.start < 0 {
		return nil, ErrNone
	}
	var errs []error
	for i := range m.list {
		c := m.list[(m.start+i)%len(m.list)]
		switch {
		case c.kernel == "":
			continue
		case !slices.ContainsFunc(strings.Fields(c.args), func(a string) bool { return strings.HasPrefix(a, "root=") }):
			errs = append(errs, fmt.Errorf("the entry %q does not say what its root is", c.title))
			continue
		}
		e, err := load(root, prefix, c)
		if err == nil {
			return e, nil
		}
		errs = append(errs, fmt.Errorf("the entry %q: %w", c.title, err))
	}
	return nil, errors.Join(append(errs, ErrNone)...)
}

// environment is GRUB's environment of a disk: in /boot, or on the EFI system partition.
func environment(roots []*os.Root) map[string]string {
	env := map[string]string{}
	for _, root := range roots {
		files := []string{"grub2/grubenv", "grub/grubenv", "boot/grub2/grubenv", "boot/grub/grubenv"}
		if list, err := fs.Glob(root.FS(), "EFI/*/grubenv"); err == nil {
			files = append(files, list...)
		}
		for _, f := range files {
			for k, v := range parseEnv(readFile(root, f, maxEntry)) {
				if env[k] == "" {
					env[k] = v
				}
			}
		}
	}
	return env
}

func entriesOf(root *os.Root, prefix string, env map[string]string) menu {
	list := parseEntries(entryFiles(root, path.Join(prefix, "loader/entries")), env)
	if len(list) == 0 {
		return menu{}
	}
	m := menu{list: list}
	want := env["saved_entry"]
	for i, c := range list {
		if want != "" && (want == c.id || want == c.title || want == strconv.Itoa(i)) {
			m.start = i
			break
		}
	}
	return m
}

func grubOf(root *os.Root, prefix string, env map[string]string) menu {
	for _, name := range []string{"grub2/grub.cfg", "grub/grub.cfg"} {
		if m := parseGRUB(string(readFile(root, path.Join(prefix, name), maxConfig)), env); len(m.list) > 0 {
			return m
		}
	}
	return menu{}
}

func extlinuxOf(root *os.Root, prefix string, _ map[string]string) menu {
	for _, name := range []string{"extlinux/extlinux.conf", "syslinux/extlinux.conf", "syslinux/syslinux.cfg", "extlinux.conf"} {
		name = path.Join(prefix, name)
		if m := parseExtlinux(string(readFile(root, name, maxConfig)), "/"+path.Dir(name)); len(m.list) > 0 {
			return m
		}
	}
	return menu{}
}

// compareVersions orders versions as people do: runs of digits by their number, everything else by its bytes, and a version
// before those that it begins.
func compareVersions(a, b string) int {
	isDigit := func(c byte) bool { return c >= '0' && c <= '9' }
	run := func(s string) int {
		n := 1
		for n < len(s) && isDigit(s[n]) == isDigit(s[0]) {
			n++
		}
		return n
	}
	for a != "" && b != "" {
		na, nb := run(a), run(b)
		x, y := a[:na], b[:nb]
		if isDigit(x[0]) && isDigit(y[0]) {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
		}
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
		a, b = a[na:], b[nb:]
	}
	return len(a) - len(b)
}
