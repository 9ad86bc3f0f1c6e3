package profiles

import (
	"slices"
	"strconv"
	"strings"
)

// fillDefaults gives every key that was not written, and whose default is the same for everybody, its value. What is left
// empty is decided where it is known: user IDs, home directories and shells by useradd, the mode of a file that is copied
// by that file, the size of root by the image, firewalld by its package.
func (p *Profile) fillDefaults() {
	fill(&p.Version, "1")
	fill(&p.Arch, "x86_64")
	if p.Distro.Major == 0 {
		p.Distro.Major = releaseMajor(p.Distro.Release)
	}
	p.fillRepositories()
	fillBool(&p.Packages.WeakDeps, false)
	fillBool(&p.Packages.Docs, false)
	fillBool(&p.Root.Locked, p.Root.Password == "")
	fill(&p.Services.Target, "multi-user.target")
	p.System.fillDefaults(p.Distro.Major)
	fill(&p.Kernel.Package, "kernel")
	for path, f := range p.Files {
		f.fillDefaults()
		p.Files[path] = f
	}
	fillLayout(&p.Layout)
	p.Pack.fillDefaults(p.Distro.Major)
	if len(p.Initramfs.Network) == 0 {
		p.Initramfs.Network = []string{"server"}
	}
	if len(p.Initramfs.Storage) == 0 {
		p.Initramfs.Storage = []string{"server"}
	}
	fill(&p.Initramfs.Compression, "auto")
	fillBool(&p.Initramfs.Torrent, slices.Contains(p.Initramfs.Network, "server") || slices.Contains(p.Initramfs.Storage, "server"))
	fillBool(&p.Initramfs.Shell, false)
	fillBool(&p.ISO, true)
}

func (p *Profile) fillRepositories() {
	for id, r := range p.Repositories {
		fill(&r.Name, id)
		if r.Priority == 0 {
			r.Priority = 99
		}
		fillBool(&r.Enabled, true)
		p.Repositories[id] = r
	}
}

func (s *System) fillDefaults(major int) {
	fill(&s.Timezone, "UTC")
	if major == 7 {
		fill(&s.Locale, "en_US.UTF-8")
		fill(&s.Network, "ifcfg")
	}
	fill(&s.Locale, "C.UTF-8")
	fill(&s.Network, "nm-keyfile")
	fill(&s.Keyboard, "us")
	fill(&s.Hostname, "localhost.localdomain")
	fill(&s.SELinux, "enforcing")
	if f := &s.Firewall; f.Zone != "" || len(f.Services) > 0 || len(f.Ports) > 0 {
		fillBool(&f.Enabled, true)
	}
}

func (f *File) fillDefaults() {
	fill(&f.Owner, "root")
	fill(&f.Group, "root")
	switch {
	case f.Directory:
		fill(&f.Mode, "0755")
	case f.Content != nil:
		fill(&f.Mode, textMode(*f.Content))
	case f.Template != nil:
		fill(&f.Mode, textMode(*f.Template))
	}
}

// textMode makes scripts executable.
func textMode(text string) string {
	if strings.HasPrefix(text, "#!") {
		return "0755"
	}
	return "0644"
}

// fillDefaults follows the level; the figures are from packing a 1.4 GB tree (10, 34 and 176 CPU s; 473, 434 and 417 MiB).
func (k *Pack) fillDefaults(major int) {
	fill(&k.Level, "normal")
	if major == 7 {
		fill(&k.Compressor, "xz") // its kernel mounts no zstd
	}
	fill(&k.Compressor, "zstd")
	levels := map[string]struct {
		zstd, gzip int
		block      string
	}{"fast": {3, 1, "128KiB"}, "normal": {9, 6, "256KiB"}, "release": {15, 9, "1MiB"}}
	l := levels[k.Level]
	fill(&k.BlockSize, l.block)
	if k.CompressionLevel == 0 {
		switch k.Compressor {
		case "zstd":
			k.CompressionLevel = l.zstd
		case "gzip":
			k.CompressionLevel = l.gzip
		}
	}
}

// releaseMajor is the number that a release such as 9.6 or 9-stream begins with, or 0.
func releaseMajor(release string) int {
	digits, _, _ := strings.Cut(release, ".")
	digits, _, _ = strings.Cut(digits, "-")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

func fill[S ~string](s *S, value S) {
	if *s == "" {
		*s = value
	}
}

func fillBool(b **bool, value bool) {
	if *b == nil {
		*b = &value
	}
}
