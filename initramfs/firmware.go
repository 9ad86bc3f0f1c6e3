package initramfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// firmwareDirs are where the kernel looks for firmware (drivers/base/firmware_loader/main.c, fw_path), first match wins;
// the release's own directory comes before the common one.
func firmwareDirs(release string) []string {
	return []string{"lib/firmware/updates/" + release, "lib/firmware/updates", "lib/firmware/" + release, "lib/firmware"}
}

// storeFirmware adds the firmware that the chosen modules name and the image has, and what the extra patterns match.
// It returns the names, sorted, and those that modules name but the image has not: many drivers name firmware for every
// device they ever served, so that is no error.
func storeFirmware(ctx context.Context, a *archive, t *tree, s *selection, extra []string) (stored, missing []string, err error) {
	wanted := map[string]string{} // pattern -> who wants it
	for _, name := range s.names() {
		for _, pattern := range s.modules[name].info.firmware {
			wanted[pattern] = "module " + name
		}
	}
	for _, pattern := range extra {
		wanted[strings.TrimPrefix(strings.TrimPrefix(pattern, "/"), "lib/firmware/")] = ""
	}
	release := path.Base(s.from.dir)
	done := map[string]bool{}
	for _, pattern := range sortedKeys(wanted) {
		if err := context.Cause(ctx); err != nil {
			return nil, nil, fmt.Errorf("choose firmware: %w", err)
		}
		found := false
		for _, dir := range firmwareDirs(release) {
			names, err := firmwareNames(t, dir, pattern)
			if err != nil {
				return nil, nil, fmt.Errorf("choose firmware %q: %w", pattern, err)
			}
			for _, name := range names {
				plain := strings.TrimSuffix(name, firmwareSuffix(name))
				added := done[plain]
				if !added {
					if added, err = storeFirmwareFile(a, t, path.Join(dir, name), plain); err != nil {
						return nil, nil, err
					}
				}
				if added {
					found, done[plain] = true, true
				}
			}
		}
		if !found && wanted[pattern] == "" {
			return nil, nil, fmt.Errorf("choose firmware: nothing below /lib/firmware of %s matches %q: install the package that has it in the image, or leave it out of the profile", t.dir, pattern)
		}
		if !found {
			missing = append(missing, pattern)
		}
	}
	return sortedKeys(done), missing, nil
}

// firmwareSuffix is the suffix of a compression that the kernel's firmware loader knows; gzip is not one of them.
func firmwareSuffix(name string) string {
	if suffix := packedSuffix(name); suffix != ".gz" {
		return suffix
	}
	return ""
}

// firmwareNames are the files below dir that a name or pattern stands for, compressed ones included.
func firmwareNames(t *tree, dir, pattern string) ([]string, error) {
	if !fs.ValidPath(pattern) {
		return nil, fmt.Errorf("%q is not a path below /lib/firmware", pattern)
	}
	var names []string
	for _, suffix := range []string{"", ".xz", ".zst"} {
		found, err := t.glob(dir, pattern+suffix)
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	return names, nil
}

// storeFirmwareFile adds one file, uncompressed: the archive's own compression does better, and the kernel need not
// know the file's. Directories that a pattern matches are passed over; so are links that lead nowhere.
func storeFirmwareFile(a *archive, t *tree, name, plain string) (bool, error) {
	found, err := t.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find firmware %s: %w", name, err)
	}
	base := "usr/lib/firmware"
	suffix := firmwareSuffix(found.path)
	if suffix == "" {
		return true, a.addFile(sectionFirmware, path.Join(base, plain), 0o644, t, found)
	}
	packed, err := t.root.ReadFile(found.path)
	if err != nil {
		return false, fmt.Errorf("read firmware %s: %w", name, err)
	}
	data, err := unpack(suffix, packed)
	if err != nil {
		return false, fmt.Errorf("unpack firmware %s: %w", name, err)
	}
	return true, a.addUnpacked(sectionFirmware, path.Join(base, plain), t, found, data)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
