package standin

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"
)

// The type bits of a mode, as stat(2) has them.
const (
	modeType    = 0o170000
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000
)

// file is one entry of an RPM to be.
type file struct {
	Path         string
	Mode         uint32 // with type bits
	Owner, Group string
	MTime        int64
	Body         []byte // content, or a symbolic link's target
	// Link is the same for all names of one file that has several, and empty for others.
	Link   string
	Config bool
	Doc    bool
	// Lang is the language that the file is only for.
	Lang string
	// Caps are file capabilities in the text form of cap_from_text(3).
	Caps string
	// Loose files are not verified: a file system without owners and modes holds them.
	Loose bool
}

func (f *file) kind() uint32 { return f.Mode & modeType }

// tree is a set of files by path.
type tree map[string]*file

// merged are the top directories that are symbolic links into /usr.
func mergedDirs() []string { return []string{"/bin", "/sbin", "/lib", "/lib64"} }

// remap moves a path of a Debian package to where it is after the merge into /usr.
func remap(p string) string {
	p = path.Clean("/" + p)
	for _, d := range mergedDirs() {
		if p == d || strings.HasPrefix(p, d+"/") {
			return "/usr" + p
		}
	}
	for _, d := range []string{"/var/run", "/var/lock"} {
		if strings.HasPrefix(p, d+"/") {
			return strings.TrimPrefix(p, "/var")
		}
	}
	return p
}

// remapLink adjusts a symbolic link's target: absolute targets are remapped, and relative ones that climb to the top
// get the /usr that they had before their link moved one directory down.
func remapLink(from, to, target string) string {
	if path.IsAbs(target) {
		return remap(target)
	}
	abs := path.Join(path.Dir(path.Clean("/"+from)), target)
	if from == to && remap(abs) == abs {
		return target
	}
	return relative(path.Dir(to), remap(abs))
}

// relative gives the path from one absolute directory to an absolute path.
func relative(dir, target string) string {
	a := strings.Split(strings.Trim(dir, "/"), "/")
	b := strings.Split(strings.Trim(target, "/"), "/")
	if a[0] == "" {
		a = nil
	}
	i := 0
	for i < len(a) && i < len(b)-1 && a[i] == b[i] {
		i++
	}
	return strings.Repeat("../", len(a)-i) + strings.Join(b[i:], "/")
}

// readData reads the files of the .deb in name. The host's dpkg-deb unpacks the data archive: Debian's are packed
// with xz, which it reads many times faster than Go can.
func readData(ctx context.Context, name string, conffiles []string) (tree, error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", name)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start dpkg-deb: %w", err)
	}
	t, terr := readTar(out, conffiles)
	if terr == nil {
		_, terr = io.Copy(io.Discard, out)
	}
	if terr != nil {
		out.Close() // ends dpkg-deb when the archive is not what it should be
	}
	if err := cmd.Wait(); err != nil && terr == nil {
		return nil, fmt.Errorf("unpack %s: %w: %s", path.Base(name), err, tail(errs.String()))
	}
	if terr != nil {
		return nil, fmt.Errorf("unpack %s: %w", path.Base(name), terr)
	}
	return t, nil
}

// readTar makes a tree of a data archive.
func readTar(r io.Reader, conffiles []string) (tree, error) {
	t := tree{}
	conf := map[string]bool{}
	for _, c := range conffiles {
		conf[remap(c)] = true
	}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		from := path.Clean("/" + h.Name)
		to := remap(from)
		f := &file{Path: to, Mode: uint32(h.Mode) & 0o7777, Owner: h.Uname, Group: h.Gname, MTime: h.ModTime.Unix()}
		if f.Owner == "" {
			f.Owner = "root"
		}
		if f.Group == "" {
			f.Group = "root"
		}
		switch h.Typeflag {
		case tar.TypeDir:
			f.Mode |= modeDir
		case tar.TypeSymlink:
			f.Mode = modeSymlink | 0o777
			f.Body = []byte(remapLink(from, to, h.Linkname))
			if path.Join(path.Dir(to), string(f.Body)) == to || string(f.Body) == to {
				continue // a link from /bin to its own place in /usr/bin
			}
		case tar.TypeReg:
			f.Mode |= modeRegular
			if f.Body, err = io.ReadAll(tr); err != nil {
				return nil, fmt.Errorf("read %s: %w", h.Name, err)
			}
		case tar.TypeLink:
			first := t[remap(h.Linkname)]
			if first == nil || first.kind() != modeRegular {
				return nil, fmt.Errorf("%s is a hard link to %s, which is no file before it", h.Name, h.Linkname)
			}
			if first.Link == "" {
				first.Link = first.Path
			}
			twin := *first
			twin.Path = to
			f = &twin
		default:
			return nil, fmt.Errorf("%s is of type %q, which packages have no use for", h.Name, h.Typeflag)
		}
		f.Config = conf[to] && f.kind() == modeRegular
		if to == "/" {
			continue
		}
		// A file wins over a compatibility link or a directory that the merge puts in its place.
		if old := t[to]; old != nil && (f.kind() == modeDir || f.kind() == modeSymlink && old.kind() == modeRegular) {
			continue
		}
		t[to] = f
	}
}

// classify marks documentation and languages.
func (f *file) classify() {
	for _, d := range []string{"/usr/share/doc/", "/usr/share/man/", "/usr/share/info/"} {
		if strings.HasPrefix(f.Path, d) && f.kind() != modeDir {
			f.Doc = true
		}
	}
	for _, d := range []string{"/usr/share/locale/", "/usr/share/man/"} {
		rest, ok := strings.CutPrefix(f.Path, d)
		lang, below, deep := strings.Cut(rest, "/")
		if ok && deep && below != "" && f.kind() != modeDir && !strings.HasPrefix(lang, "man") {
			f.Lang, _, _ = strings.Cut(lang, ".")
		}
	}
	if strings.HasPrefix(f.Path, "/boot/efi/") {
		f.Loose = true
	}
}
