package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/builder/dnf"
	"imgbuild/builder/tool"
)

// treeVersion is part of every cached tree's digest: it changes when the builder installs packages differently.
const treeVersion = 1

// digest is the SHA-256, in hex, of values of any kind.
func digest(values ...any) (string, error) {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(values); err != nil {
		return "", fmt.Errorf("make a digest: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// keyTexts are the GPG keys of each repository, checked against their pinned fingerprints.
func (p *Plan) keyTexts() (map[string][]string, error) {
	out := map[string][]string{}
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(p.config.Repositories)) {
		for _, k := range p.config.Repositories[id].GPGKeys {
			text, err := k.Armored()
			if err != nil {
				errs = append(errs, fmt.Errorf("repository %s: %w", id, err))
				continue
			}
			out[id] = append(out[id], string(text))
		}
	}
	return out, errors.Join(errs...)
}

// toolStamp tells a program's version from its file, which is faster than asking it.
func toolStamp(name string) string {
	path, err := tool.Find(name)
	if err != nil {
		return name + " is missing"
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return name + " is missing"
	}
	st, err := os.Stat(path)
	if err != nil {
		return name + " is missing"
	}
	return fmt.Sprintf("%s %d %d", path, st.Size(), st.ModTime().UnixNano())
}

// localMetadata are the digests of the metadata of repositories that are directories of this host, which are cheap to
// ask. Repositories on the network count as unchanged until a build is forced.
func (p *Plan) localMetadata() map[string]string {
	out := map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(p.config.Repositories)) {
		for _, u := range p.config.Repositories[id].BaseURL {
			dir, ok := strings.CutPrefix(p.config.Expand(u), "file://")
			if !ok {
				continue
			}
			d, err := fileDigest(filepath.Join(dir, "repodata/repomd.xml"))
			if err != nil {
				d = err.Error()
			}
			out[u] = d
		}
	}
	return out
}

// resolveDigest is over everything that decides which packages are chosen: the same digest keeps the same lock.
func (p *Plan) resolveDigest() (string, error) {
	keys, err := p.keyTexts()
	if err != nil {
		return "", err
	}
	c := p.config
	c.Keys = nil
	return digest("resolve", treeVersion, c.Text("/"), c.Macros(), c.Specs(), c.Packages.Modules, c.Variables(), c.Distro, c.Arch, keys, p.localMetadata())
}

// treeDigest is over everything that decides what the installed packages look like.
func (p *Plan) treeDigest(lock *dnf.Lock) (string, error) {
	type pkg struct{ NEVRA, SHA256 string }
	var list []pkg
	for _, l := range lock.Packages {
		list = append(list, pkg{l.NEVRA, l.SHA256})
	}
	return digest("tree", treeVersion, list, p.config.Packages.Docs, p.config.Macros(), p.config.Packages.Modules, p.config.Distro, p.config.Arch, toolStamp("dnf"), toolStamp("rpm"))
}

// releaseDigest is over everything that decides what the release is: profile, files and scripts of the host, lock,
// installer, this program, the host's tools and the signing key.
func (p *Plan) releaseDigest(lock []byte) (string, error) {
	o := p.options
	resolve, err := p.resolveDigest()
	if err != nil {
		return "", err
	}
	text, err := o.Profile.YAML()
	if err != nil {
		return "", fmt.Errorf("make a digest of the profile: %w", err)
	}
	sources, err := p.sourcesDigest()
	if err != nil {
		return "", err
	}
	installer, err := o.Installer(o.Profile.Arch, withTorrent(o.Profile))
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err == nil {
		self, err = fileDigest(self)
	}
	if err != nil {
		return "", fmt.Errorf("make a digest of this program: %w", err)
	}
	key, err := fileDigest(o.KeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = "none", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the signing key: %w", err)
	}
	return digest("release", resolve, string(text), sources, sha256.Sum256(installer), self, key, lock, o.SourceDate.Unix(), toolStamp("mksquashfs"), toolStamp("extlinux"), isoStamps(o.Profile))
}

// sourcesDigest is over the files and scripts of the host that the profile names.
func (p *Plan) sourcesDigest() (string, error) {
	var all []any
	pr := p.options.Profile
	for _, name := range slices.Sorted(maps.Keys(pr.Files)) {
		source := pr.Files[name].Source
		if source == "" {
			continue
		}
		err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := os.Stat(path)
			if d.Type()&fs.ModeSymlink != 0 && path != source {
				to, err := os.Readlink(path)
				all = append(all, path, to)
				return err
			}
			if err != nil {
				return err
			}
			all = append(all, path, st.Mode())
			if !st.Mode().IsRegular() {
				return nil
			}
			sum, err := fileDigest(path)
			all = append(all, sum)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("read the source of the profile's file %s: %w", name, err)
		}
	}
	for _, c := range pr.Initramfs.CACerts {
		sum, err := fileDigest(c)
		if err != nil {
			return "", fmt.Errorf("read the profile's CA: %w", err)
		}
		all = append(all, c, sum)
	}
	for _, s := range pr.Scripts {
		if s.File == "" {
			continue
		}
		sum, err := fileDigest(s.File)
		if err != nil {
			return "", fmt.Errorf("read the profile's script %s: %w", s.Name, err)
		}
		all = append(all, s.Name, sum)
	}
	for _, s := range slices.Concat(pr.InstallScripts, pr.FirstBootScripts) {
		if s.File == "" {
			continue
		}
		sum, err := fileDigest(s.File)
		if err != nil {
			return "", fmt.Errorf("read the profile's script %s: %w", s.Name, err)
		}
		all = append(all, s.Name, sum)
	}
	return digest(all...)
}

// kernelDigest is over everything that dracut may put into the initramfs of the installed system; configuration that
// cannot be in there, such as users and services, is not part of it.
func (p *Plan) kernelDigest(tree string) (string, error) {
	sources, err := p.sourcesDigest()
	if err != nil {
		return "", err
	}
	pr := p.options.Profile
	return digest("kernel", treeVersion, tree, sources, pr.Files, pr.Scripts, pr.Kernel, needsOf(pr).dracutModules(), pr.Root, pr.System.Keyboard, pr.System.Locale, pr.System.Sysctl)
}
