package initramfs

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
)

// maxIncludes bounds how deep ld.so.conf files may include each other.
const maxIncludes = 8

// ldDirective is one line of an ld.so.conf file: a directory, or a pattern of files to include.
type ldDirective struct {
	include bool
	value   string
}

// parseLdConf reads ld.so.conf (ldconfig(8)): directories separated by space, comma, colon or line, "include pattern"
// lines, comments from "#". "hwcap" lines and "=type" suffixes are history and are passed over.
func parseLdConf(data []byte) []ldDirective {
	var found []ldDirective
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n,:", r) })
		if len(fields) == 0 || fields[0] == "hwcap" {
			continue
		}
		include := fields[0] == "include"
		if include {
			fields = fields[1:]
		}
		for _, value := range fields {
			value, _, _ = strings.Cut(value, "=")
			if value != "" {
				found = append(found, ldDirective{include: include, value: value})
			}
		}
	}
	return found
}

// librarySearch returns the directories in which ld.so finds libraries of a tree without RPATH: those of ld.so.conf,
// then the built-in ones of EL and of Debian.
func librarySearch(ctx context.Context, t *tree) ([]string, error) {
	var dirs []string
	put := func(dir string) {
		if dir = path.Clean("/" + dir); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	var read func(name string, depth int) error
	read = func(name string, depth int) error {
		if depth > maxIncludes {
			return fmt.Errorf("%s of %s: ld.so.conf files include each other more than %d deep", name, t.dir, maxIncludes)
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		data, err := t.readIfPresent(name)
		if err != nil {
			return fmt.Errorf("read %s of %s: %w", name, t.dir, err)
		}
		for _, d := range parseLdConf(data) {
			if !d.include {
				if path.IsAbs(d.value) {
					put(d.value)
				}
				continue
			}
			pattern := d.value
			if !path.IsAbs(pattern) {
				pattern = path.Join(path.Dir(name), pattern)
			}
			names, err := t.glob("", strings.TrimPrefix(path.Clean(pattern), "/"))
			if err != nil {
				return fmt.Errorf("%s of %s: %w", name, t.dir, err)
			}
			for _, included := range names {
				if err := read(included, depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := read("etc/ld.so.conf", 0); err != nil {
		return nil, err
	}
	for _, dir := range []string{
		"/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
		"/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib", "/usr/lib",
	} {
		put(dir)
	}
	return dirs, nil
}
