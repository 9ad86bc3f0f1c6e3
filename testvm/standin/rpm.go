package standin

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/rpmpack"
)

// Header tags that rpmpack does not write, or not as these packages need them (rpm's rpmtag.h).
const (
	tagFileSizes       = 1028
	tagFileDigests     = 1035
	tagFileVerifyFlags = 1045
	tagFileInodes      = 1096
	tagFileLangs       = 1097
	tagDirNames        = 1118
	tagFileCaps        = 5010
)

// Requirement flags (rpm's rpmds.h): needed before the scriptlet runs.
const (
	sensePre  = 1 << 9
	sensePost = 1 << 10
)

// verifyLoose is what is verified of a file on a file system without owners, modes and whole-second times: size,
// digest and link (rpmvf.h: VERIFY_FILEDIGEST, FILESIZE, LINKTO).
const verifyLoose = 1<<0 | 1<<1 | 1<<2

// scripts are the scriptlets of one RPM; empty ones are left out.
type scripts struct{ pre, post, preun, posttrans string }

// writeRPM writes the RPM of a unit into dir and gives its name.
func writeRPM(dir string, u *unit, t tree, built int64, sign func([]byte) ([]byte, error)) (string, error) {
	v, err := u.version()
	if err != nil {
		return "", fmt.Errorf("package %s: %w", u.Name, err)
	}
	scr, err := scriptsOf(u, t)
	if err != nil {
		return "", fmt.Errorf("package %s: %w", u.Name, err)
	}
	meta := rpmpack.RPMMetaData{
		Name: u.Name, Version: v.Version, Release: v.Release, Epoch: v.Epoch, Arch: archOf(u),
		Summary: u.summary(), Description: u.description(), Vendor: "imgbuild stand-in", Packager: "imgbuild stand-in",
		Group: "Unspecified", Licence: "See /usr/share/doc/*/copyright", BuildHost: "localhost", Compressor: "zstd:3",
		BuildTime: time.Unix(built, 0),
		Provides:  provides(u, v), Requires: requires(u, scr, len(t) > 0),
	}
	if v.Epoch == 0 {
		meta.Epoch = rpmpack.NoEpoch
	}
	if len(u.From) > 0 {
		meta.URL = u.From[0].Homepage
	}
	r, err := rpmpack.NewRPM(meta)
	if err != nil {
		return "", fmt.Errorf("package %s: %w", u.Name, err)
	}
	addFiles(r, t)
	r.AddPrein(scr.pre)
	r.AddPostin(scr.post)
	r.AddPreun(scr.preun)
	r.AddPosttrans(scr.posttrans)
	r.SetPGPSigner(sign)
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return "", fmt.Errorf("package %s: %w", u.Name, err)
	}
	name := fmt.Sprintf("%s-%s-%s.%s.rpm", u.Name, v.Version, v.Release, meta.Arch)
	if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write package %s: %w", u.Name, err)
	}
	return name, nil
}

// addFiles adds the files and the header tags that go beyond what rpmpack knows of them. Of hard links only the last
// name carries the content, as rpm unpacks them. In the payload names begin with a dot, as rpmbuild writes them:
// rpm2cpio and cpio must not unpack onto the running system.
func addFiles(r *rpmpack.RPM, t tree) {
	names := slices.Sorted(maps.Keys(t))
	if len(names) == 0 {
		return
	}
	lastOf := map[string]string{}
	inode := map[string]int32{}
	for _, name := range names {
		if h := t[name].head(); t[name].kind() == modeRegular {
			lastOf[h] = name
		}
	}
	var sizes []uint32
	var digests, langs, caps, dirs []string
	var verify, inodes []int32
	for i, name := range names {
		f := t[name]
		out := rpmpack.RPMFile{Name: "." + name, Mode: uint(f.Mode), Owner: f.Owner, Group: f.Group, MTime: uint32(f.MTime), Body: f.Body}
		size, digest, ino := uint32(len(f.Body)), "", int32(i+1)
		switch f.kind() {
		case modeRegular:
			digest = fmt.Sprintf("%x", sha256.Sum256(f.Body))
			if lastOf[f.head()] != name {
				out.Body = nil
			}
			if n, ok := inode[f.head()]; ok {
				ino = n
			}
			inode[f.head()] = ino
		case modeDir:
			size = 4096
		}
		// rpmpack numbers directories as they come, too.
		if dir, _ := path.Split(name); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		if f.Config {
			out.Type |= rpmpack.ConfigFile | rpmpack.NoReplaceFile
		}
		if f.Doc {
			out.Type |= rpmpack.DocFile
		}
		flags := int32(-1)
		if f.Loose {
			flags = verifyLoose
		}
		r.AddFile(out)
		sizes, digests, langs = append(sizes, size), append(digests, digest), append(langs, f.Lang)
		caps, verify, inodes = append(caps, f.Caps), append(verify, flags), append(inodes, ino)
	}
	r.AddCustomTag(tagDirNames, rpmpack.EntryStringSlice(dirs))
	r.AddCustomTag(tagFileSizes, rpmpack.EntryUint32(sizes))
	r.AddCustomTag(tagFileDigests, rpmpack.EntryStringSlice(digests))
	r.AddCustomTag(tagFileLangs, rpmpack.EntryStringSlice(langs))
	r.AddCustomTag(tagFileVerifyFlags, rpmpack.EntryInt32(verify))
	r.AddCustomTag(tagFileInodes, rpmpack.EntryInt32(inodes))
	if slices.ContainsFunc(caps, func(c string) bool { return c != "" }) {
		r.AddCustomTag(tagFileCaps, rpmpack.EntryStringSlice(caps))
	}
}

// head stands for all names of one file.
func (f *file) head() string {
	if f.Link != "" {
		return f.Link
	}
	return f.Path
}

func archOf(u *unit) string {
	for _, d := range u.From {
		if d.Arch != "all" {
			return "x86_64"
		}
	}
	if u.Split != "" {
		return "x86_64"
	}
	return "noarch"
}

func (u *unit) summary() string {
	if u.Summary != "" {
		return u.Summary
	}
	if len(u.From) > 0 {
		return u.From[0].Summary
	}
	return u.Name + " of the stand-in"
}

func (u *unit) description() string {
	if len(u.From) == 0 {
		return "Part of the stand-in for Enterprise Linux, made for tests of imgbuild."
	}
	var from []string
	for _, d := range u.From {
		from = append(from, d.Name+" "+d.Version)
	}
	return "Made for tests of imgbuild out of the Debian packages " + strings.Join(from, ", ") + "."
}

// provides gives the recipe's provides, deb(NAME) for each Debian package, and their virtual names.
func provides(u *unit, v evr) rpmpack.Relations {
	var out rpmpack.Relations
	seen := map[string]bool{u.Name: true}
	add := func(name, version string) {
		if !seen[name] {
			seen[name] = true
			rel := &rpmpack.Relation{Name: name, Version: version}
			if version != "" {
				rel.Sense = rpmpack.SenseEqual
			}
			out = append(out, rel)
		}
	}
	full := v.Version + "-" + v.Release
	if v.Epoch != 0 {
		full = fmt.Sprintf("%d:%s", v.Epoch, full)
		out = append(out, &rpmpack.Relation{Name: u.Name, Version: full, Sense: rpmpack.SenseEqual})
	}
	for _, p := range u.Provides {
		name, version, ok := strings.Cut(p, "=")
		if !ok && !strings.ContainsAny(p, "/()") {
			version = full
		}
		add(name, version)
	}
	for _, d := range u.From {
		add("deb("+d.Name+")", "")
		for _, p := range d.Provides {
			add(p, "")
		}
	}
	return out
}

// requires gives what the unit needs, what its scriptlets need before they run, and what rpm must be able to do.
func requires(u *unit, s scripts, files bool) rpmpack.Relations {
	var out rpmpack.Relations
	for _, n := range u.Needs {
		out = append(out, &rpmpack.Relation{Name: n})
	}
	if u.Name != "setup" && u.Name != "filesystem" && !slices.Contains(u.Needs, "filesystem") && files {
		out = append(out, &rpmpack.Relation{Name: "filesystem", Sense: rpmpack.SenseAny | sensePre})
	}
	early := func(flag int, names ...string) {
		for _, n := range names {
			rel := &rpmpack.Relation{Name: n}
			switch flag {
			case sensePre:
				rel.Sense |= sensePre
			default:
				rel.Sense |= sensePost
			}
			out = append(out, rel)
		}
	}
	if s.pre != "" {
		early(sensePre, "/bin/sh", "coreutils")
	}
	if len(u.Users)+len(u.Groups) > 0 {
		early(sensePre, "shadow-utils")
	}
	if s.post != "" && u.Name != "glibc" {
		early(sensePost, "/bin/sh", "coreutils")
	}
	for _, can := range []struct{ name, since string }{
		{"rpmlib(CompressedFileNames)", "3.0.4-1"}, {"rpmlib(FileDigests)", "4.6.0-1"}, {"rpmlib(PayloadIsZstd)", "5.4.18-1"},
	} {
		out = append(out, &rpmpack.Relation{Name: can.name, Version: can.since,
			Sense: rpmpack.SenseLess | rpmpack.SenseEqual | rpmpack.SenseRPMLIB})
	}
	return out
}

// scriptsOf puts a unit's scriptlets together: accounts first, then what scriptlets/ has, then presets for its units.
func scriptsOf(u *unit, t tree) (scripts, error) {
	var s scripts
	s.pre = accounts(u.pkg)
	for kind, to := range map[string]*string{"pre": &s.pre, "post": &s.post, "preun": &s.preun, "posttrans": &s.posttrans} {
		b, err := assets.ReadFile("scriptlets/" + u.Name + "." + kind)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return s, fmt.Errorf("read its scriptlet: %w", err)
		}
		*to += strings.ReplaceAll(string(b), "@RELEASE@", kernelRelease(t))
	}
	units := presetUnits(t)
	if len(units) > 0 && u.Name != "systemd" {
		list := strings.Join(units, " ")
		s.post += "if [ $1 -eq 1 ] && [ -x /usr/bin/systemctl ]; then\n" +
			"  /usr/bin/systemctl --no-reload preset " + list + " || :\nfi\n"
		s.preun += "if [ $1 -eq 0 ] && [ -x /usr/bin/systemctl ]; then\n" +
			"  /usr/bin/systemctl --no-reload disable --now " + list + " || :\nfi\n"
	}
	return s, nil
}

// kernelRelease is the release of the kernel whose modules a tree has, as EL's scriptlets of kernels have it in them.
func kernelRelease(t tree) string {
	const dir = "/usr/lib/modules/"
	for name := range t {
		if rest, ok := strings.CutPrefix(name, dir); ok {
			release, _, _ := strings.Cut(rest, "/")
			return release
		}
	}
	return ""
}

// accounts is the scriptlet that makes a package's groups and users.
func accounts(p *pkg) string {
	var b strings.Builder
	groups := map[string]bool{}
	addGroup := func(name string) {
		if !groups[name] {
			groups[name] = true
			fmt.Fprintf(&b, "getent group %[1]s >/dev/null || groupadd -r %[1]s || exit 1\n", name)
		}
	}
	for _, g := range p.Groups {
		addGroup(g.Name)
	}
	for _, u := range p.Users {
		addGroup(u.Name)
		fmt.Fprintf(&b, "getent passwd %[1]s >/dev/null || useradd -r -M -g %[1]s -d %[2]s -s /usr/sbin/nologin -c '%[3]s' %[1]s || exit 1\n",
			u.Name, u.Home, strings.ReplaceAll(u.Comment, "'", ""))
	}
	return b.String()
}

// presetUnits are the system units of a tree that can be enabled.
func presetUnits(t tree) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(t)) {
		unit, ok := strings.CutPrefix(name, "/usr/lib/systemd/system/")
		if ok && !strings.Contains(unit, "/") && t[name].kind() == modeRegular && bytes.Contains(t[name].Body, []byte("\n[Install]")) {
			out = append(out, unit)
		}
	}
	return out
}
