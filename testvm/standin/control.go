package standin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// deb is one Debian package as the package index describes it.
type deb struct {
	Name, Version, Arch string
	Summary             string
	Homepage            string
	Filename            string // in the archive; its last element names nothing local
	SHA256              string
	Size                int64
	// Depends are Depends and Pre-Depends: each element is satisfied by any one of its names.
	Depends [][]string
	// Provides are virtual names.
	Provides []string
}

// file is the name that apt-get download gives the package.
func (d *deb) file() string {
	return d.Name + "_" + strings.ReplaceAll(d.Version, ":", "%3a") + "_" + d.Arch + ".deb"
}

// maxIndexLine bounds one line of an index; the longest Depends and Provides are some tens of KiB.
const maxIndexLine = 8 << 20

// parseIndex reads a Debian package index (deb822, as apt-cache dumpavail writes it) and gives the packages by name.
// Of two stanzas of one name the first counts. Foreign architectures are left out.
func parseIndex(r io.Reader, arch string) (map[string]*deb, error) {
	out := map[string]*deb{}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxIndexLine)
	fields := map[string]string{}
	last, number := "", 0
	flush := func() error {
		if len(fields) == 0 {
			return nil
		}
		d, err := newDeb(fields)
		if err != nil {
			return fmt.Errorf("package index, stanza that ends on line %d: %w", number, err)
		}
		if _, have := out[d.Name]; !have && (d.Arch == arch || d.Arch == "all") {
			out[d.Name] = d
		}
		clear(fields)
		last = ""
		return nil
	}
	for sc.Scan() {
		number++
		line := sc.Text()
		switch {
		case strings.TrimSpace(line) == "":
			if err := flush(); err != nil {
				return nil, err
			}
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return nil, fmt.Errorf("package index, line %d: a continuation of nothing", number)
			}
			if last == "Depends" || last == "Pre-Depends" || last == "Provides" {
				fields[last] += line
			}
		default:
			key, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("package index, line %d: no colon in %q", number, line)
			}
			last = key
			fields[key] = strings.TrimSpace(value)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read the package index after line %d: %w", number, err)
	}
	return out, flush()
}

func newDeb(f map[string]string) (*deb, error) {
	d := &deb{
		Name: f["Package"], Version: f["Version"], Arch: f["Architecture"], Homepage: f["Homepage"],
		Filename: f["Filename"], SHA256: f["SHA256"], Summary: f["Description"],
	}
	if d.Summary == "" {
		d.Summary = f["Description-en"]
	}
	if d.Name == "" || d.Version == "" {
		return nil, errors.New("it has no Package or no Version")
	}
	if strings.ContainsAny(d.Name+d.Version+d.Arch, "/ \t") {
		return nil, fmt.Errorf("bad name, version or architecture: %q %q %q", d.Name, d.Version, d.Arch)
	}
	if s := f["Size"]; s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s has the size %q", d.Name, s)
		}
		d.Size = n
	}
	d.Depends = append(parseDepends(f["Pre-Depends"]), parseDepends(f["Depends"])...)
	for _, group := range parseDepends(f["Provides"]) {
		d.Provides = append(d.Provides, group...)
	}
	return d, nil
}

// parseDepends reads a dependency field: groups between commas, alternatives between bars. Versions, architecture
// qualifiers and restrictions are dropped: everything in the stand-in is of one release.
func parseDepends(s string) [][]string {
	var out [][]string
	for part := range strings.SplitSeq(s, ",") {
		var group []string
		for alt := range strings.SplitSeq(part, "|") {
			name := strings.TrimSpace(alt)
			if i := strings.IndexAny(name, " \t([<"); i >= 0 {
				name = name[:i]
			}
			name, _, _ = strings.Cut(name, ":")
			if name != "" {
				group = append(group, name)
			}
		}
		if group != nil {
			out = append(out, group)
		}
	}
	return out
}

// evr is an RPM version: epoch, version, release.
type evr struct {
	Epoch            uint32
	Version, Release string
}

// translateVersion makes an RPM version of a Debian one (deb-version(7)): the epoch and the revision are kept, and
// what RPM does not allow in a version becomes a dot. A native package's release is 1.
func translateVersion(v string) (evr, error) {
	var e evr
	if epoch, rest, ok := strings.Cut(v, ":"); ok {
		n, err := strconv.ParseUint(epoch, 10, 32)
		if err != nil {
			return evr{}, fmt.Errorf("the epoch of the Debian version %q is no number", v)
		}
		e.Epoch, v = uint32(n), rest
	}
	e.Version, e.Release = v, "1"
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		e.Version, e.Release = v[:i], v[i+1:]
	}
	e.Version, e.Release = rpmVersionChars(e.Version), rpmVersionChars(e.Release)
	if e.Version == "" || e.Release == "" {
		return evr{}, fmt.Errorf("a part of the Debian version %q is empty", v)
	}
	return e, nil
}

// rpmVersionChars replaces what rpm's version grammar does not have.
func rpmVersionChars(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', strings.ContainsRune(".+~^_", r):
			return r
		}
		return '.'
	}, s)
}
