package layout

import (
	"path"
	"slices"
	"strings"
)

// content checks what a partition, an array or a volume holds.
func (s *structure) content(c Content, at func(string) []string, what string) {
	var holds []string
	for _, h := range []struct{ key, v string }{{"fs", c.FS}, {"volume_group", c.Group}, {"raid", c.Array}} {
		if h.v != "" {
			holds = append(holds, h.key)
		}
	}
	if len(holds) > 1 {
		s.add(at(holds[1]), "and %s are both there, and %s holds one thing; take one out", holds[0], what)
	}
	if !slices.Contains([]string{"", "xfs", "ext4", "vfat", "swap"}, c.FS) {
		s.add(at("fs"), "is %s, which is none of xfs, ext4, vfat, swap", clip(c.FS))
		return
	}
	if c.FS == "" {
		for _, k := range []struct {
			key string
			set bool
		}{{"label", c.Label != ""}, {"mkfs", len(c.Mkfs) > 0}, {"mount", c.Mount != ""}, {"options", c.Options != ""}} {
			if k.set {
				s.add(at(k.key), "belongs to a file system, and there is no fs")
			}
		}
		return
	}
	s.label(c, at)
	checkMkfs(s.problems, at("mkfs"), c.FS, c.Mkfs)
	checkOptions(s.problems, at("options"), c.Options)
	s.mount(c, at)
	if c.Keep {
		if why := cannotKeep(c); why != "" {
			s.add(at("keep"), "%s", why)
		}
	}
}

// cannotKeep says why a file system has to be made anew; empty if it may stay.
func cannotKeep(c Content) string {
	switch {
	case c.FS == "swap":
		return "is on swap space, in which nothing is that could be kept"
	case slices.Contains([]string{"/", "/boot", espMount, "/usr", "/var", "/opt", "/root", "/tmp", "/var/lib"}, c.Mount) || strings.HasPrefix(c.Mount, "/usr/"):
		return "is on " + c.Mount + ", which the image brings; keep what it does not bring, as /home or /srv, and put it on a file system of its own"
	}
	return ""
}

// labelLimit is the longest label in bytes.
func labelLimit(fs string) int {
	return map[string]int{"xfs": 12, "ext4": 16, "vfat": 11, "swap": 15}[fs]
}

func (s *structure) label(c Content, at func(string) []string) {
	switch {
	case c.Label == "":
		return
	case len(c.Label) > labelLimit(c.FS):
		s.add(at("label"), "%s is longer than %d bytes, which is what %s has place for", clip(c.Label), labelLimit(c.FS), c.FS)
	case c.FS == "vfat" && strings.ContainsAny(c.Label, `*?.,;:/\|+=<>[]"`):
		s.add(at("label"), "%s has a character that labels of vfat cannot have", clip(c.Label))
	case c.FS != "swap" && s.labels[c.Label]:
		s.add(at("label"), "%s is the label of another file system too", clip(c.Label))
	}
	checkPrintable(s.problems, at("label"), c.Label)
	s.labels[c.Label] = true
}

func checkPrintable(p *problems, path []string, v string) {
	if strings.HasPrefix(v, "-") || strings.TrimSpace(v) != v || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' || r == '/' || r == '\\' || r == '"' }) {
		p.add(path, "%s is not made of printable ASCII characters without / \\ and quotes, or begins with a dash or blank", clip(v))
	}
}

func (s *structure) mount(c Content, at func(string) []string) {
	switch {
	case c.Mount == "":
		if c.Options != "" && c.FS != "swap" {
			s.add(at("options"), "are there without a mount point; add mount")
		}
		return
	case c.FS == "swap":
		s.add(at("mount"), "is on swap space, which is not mounted; take it out")
		return
	case !checkMount(s.problems, at("mount"), c.Mount):
		return
	case s.mounts[c.Mount]:
		s.add(at("mount"), "%s is the mount point of another file system too", clip(c.Mount))
	case c.Mount == "/" && c.FS == "vfat", c.Mount == "/boot" && c.FS == "vfat", c.FS == "vfat" && strings.HasPrefix(c.Mount, "/usr"), c.FS == "vfat" && strings.HasPrefix(c.Mount, "/var"):
		s.add(at("mount"), "is %s, and vfat has neither owners nor modes; take xfs or ext4", c.Mount)
	case c.Mount == espMount && c.FS != "vfat":
		s.add(at("mount"), "is %s, where the EFI system partition is mounted; give the partition role: esp and vfat", espMount)
	}
	if d := s.l.Data; d != nil {
		if n := strings.TrimPrefix(c.Mount, d.Mount); n != c.Mount && n != "" && strings.Trim(n, "0123456789") == "" {
			s.add(keys("data", "mount"), "is %s, and so a data disk may be mounted at %s, where another file system is", clip(d.Mount), c.Mount)
		}
	}
	s.mounts[c.Mount] = true
}

// checkMount checks a mount point for what fstab and EL make of it.
func checkMount(p *problems, at []string, m string) bool {
	under := func(dirs ...string) string {
		for _, d := range dirs {
			if m == d || strings.HasPrefix(m, d+"/") {
				return d
			}
		}
		return ""
	}
	switch {
	case !strings.HasPrefix(m, "/") || path.Clean(m) != m || len(m) > 200:
		p.add(at, "%s is not an absolute path without // . and ..", clip(m))
	case strings.ContainsFunc(m, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`\#"'`, r) }):
		p.add(at, "%s has a character that a mount point in fstab cannot have", clip(m))
	case under("/proc", "/sys", "/dev", "/run") != "":
		p.add(at, "%s is in %s, which the kernel and systemd make at each start", clip(m), under("/proc", "/sys", "/dev", "/run"))
	case under("/etc", "/bin", "/sbin", "/lib", "/lib64") != "":
		p.add(at, "%s has to be on the root file system: it is needed to mount any other", clip(m))
	default:
		return true
	}
	return false
}

// checkOptions checks mount options: one field of fstab.
func checkOptions(p *problems, at []string, o string) {
	switch {
	case o == "":
	case strings.ContainsFunc(o, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' || r == '\\' }):
		p.add(at, "%s has a blank or another character that cannot be in fstab", clip(o))
	case slices.Contains(strings.Split(o, ","), ""):
		p.add(at, "%s has an empty option between commas", clip(o))
	}
}

// mkfsArguments are the options of the programs that make file systems which change how one is laid out: those with a value first.
// Options for label, identifier, other devices and files are ours, or none of a layout's business.
func mkfsArguments(fs string) (valued, plain string) {
	switch fs {
	case "xfs":
		return "bdimnslr", "K"
	case "ext4":
		return "bCEeGgIiJmNOorT", "jK"
	case "vfat":
		return "abDfghMRrSs", "v"
	case "swap":
		return "p", "v"
	}
	return "", ""
}

// checkMkfs checks further arguments of mkfs.
func checkMkfs(p *problems, at []string, fs string, args []string) {
	valued, plain := mkfsArguments(fs)
	wants := ""
	for i, a := range args {
		where := keys(at, i)
		if a == "" || strings.ContainsFunc(a, func(r rune) bool { return r < ' ' || r > '~' }) {
			p.add(where, "%s is empty or has a character that is not printable ASCII", clip(a))
			wants = ""
			continue
		}
		value := a
		if wants == "" {
			if len(a) < 2 || a[0] != '-' {
				p.add(where, "%s is neither an option, which begins with a dash, nor the value of one", clip(a))
				continue
			}
			switch letter := a[1]; {
			case strings.IndexByte(valued, letter) >= 0:
				wants, value = a[:2], a[2:]
				if value == "" {
					continue
				}
			case strings.IndexByte(plain, letter) >= 0 && len(a) == 2:
				continue
			default:
				p.add(where, "%s is not an option of mkfs for %s that a layout can have; those are -%s", clip(a), fs, strings.Join(strings.Split(valued+plain, ""), " -"))
				continue
			}
		}
		if why := badMkfsValue(wants, value); why != "" {
			p.add(where, "%s %s", clip(a), why)
		}
		wants = ""
	}
	if wants != "" {
		p.add(keys(at, len(args)-1), "%s has no value", wants)
	}
}

func badMkfsValue(flag, v string) string {
	for _, word := range strings.Split(v, ",") {
		name, _, _ := strings.Cut(word, "=")
		switch {
		case strings.Contains(word, "/"):
			return "has a path in it, and mkfs is given only the device that the layout says"
		case slices.Contains([]string{"uuid", "name", "logdev", "rtdev", "file", "device", "hash_seed", "label"}, name):
			return "sets " + name + ", which is not the layout's to set"
		case flag == "-r" && name == "rtdev", flag == "-d" && name == "size", flag == "-r" && name == "size":
			return "sets " + name + "; the file system has the size of what it is on"
		}
	}
	return ""
}
