package iso

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"imgbuild/builder/tool"
)

// removable are the names under which firmware and shim look for their next program in EFI/BOOT.
func removable(arch string) (first, grub, mok string) {
	suffix := map[string]string{"x86_64": "x64", "aarch64": "aa64"}[arch]
	return "BOOT" + strings.ToUpper(suffix) + ".EFI", "grub" + suffix + ".efi", "mm" + suffix + ".efi"
}

// systemFile is a file of the EFI system partition.
type systemFile struct {
	name string // from the partition's root
	data []byte
}

// systemFiles are the files of the EFI system partition. There is no fallback loader: shim would start it in the place of GRUB, to
// make boot entries for a system that is not there.
func (m Medium) systemFiles() []systemFile {
	first, grub, mok := removable(m.Manifest.Arch)
	boot := func(name string) string { return path.Join("EFI/BOOT", name) }
	config := []byte(finder(Label(m.Manifest.Name, m.Manifest.Version)))
	files := []systemFile{{boot(first), m.UEFI.Loader}, {boot("grub.cfg"), config}}
	if len(m.UEFI.Shim) > 0 {
		files = append([]systemFile{{boot(first), m.UEFI.Shim}, {boot(grub), m.UEFI.Loader}}, files[1:]...)
	}
	if len(m.UEFI.MokManager) > 0 {
		files = append(files, systemFile{boot(mok), m.UEFI.MokManager})
	}
	for _, dir := range m.configDirs()[1:] {
		files = append(files, systemFile{path.Join(dir, "grub.cfg"), config})
	}
	return files
}

// configDirs are where EFI GRUBs look for their configuration: some beside themselves, some where they are installed. On a CD, GRUB
// takes the whole medium for the place that it was started from, so that they are there too.
func (m Medium) configDirs() []string {
	dirs := []string{"EFI/BOOT"}
	if dir := m.Manifest.BootLoader.GRUB.ConfigDir; !strings.EqualFold(dir, dirs[0]) {
		dirs = append(dirs, dir)
	}
	return dirs
}

// Bounds of the EFI system partition, in bytes: FAT16 has 4085 clusters of one sector at least.
const (
	leastSystem = 4 << 20
	spareSystem = 1 << 20
	mostSystem  = 31 << 20
)

// systemPartition makes the EFI system partition with mkfs.vfat and mtools.
func (m Medium) systemPartition(ctx context.Context, run *tool.Runner, work string) error {
	files := m.systemFiles()
	size := int64(spareSystem)
	for _, f := range files {
		size += int64(len(f.data)+4095) &^ 4095
	}
	size = max((size+1<<20-1)&^(1<<20-1), leastSystem)
	if size > mostSystem {
		return fmt.Errorf("make its EFI system partition: the image's EFI loaders have %d bytes, and no more than %d fit; what is in its directory of the ESP?", size, int64(mostSystem))
	}
	image := filepath.Join(work, workESP)
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err == nil {
		err = f.Truncate(size)
		if e := f.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		return fmt.Errorf("make its EFI system partition: %w", err)
	}
	sum := sha256.Sum256([]byte(diskGUID(m.Manifest)))
	argvs := [][]string{{"mkfs.vfat", "--invariant", "-F", "16", "-s", "1", "-i", fmt.Sprintf("%x", sum[:4]), "-n", "EFI", image}}
	made := map[string]bool{}
	for i, f := range files {
		for _, dir := range parents(f.name) {
			if !made[strings.ToUpper(dir)] {
				argvs = append(argvs, []string{"mmd", "-i", image, "::/" + dir})
				made[strings.ToUpper(dir)] = true
			}
		}
		source := filepath.Join(work, "efi-"+strconv.Itoa(i))
		if err := os.WriteFile(source, f.data, 0o644); err != nil {
			return fmt.Errorf("make its EFI system partition: %w", err)
		}
		argvs = append(argvs, []string{"mcopy", "-i", image, source, "::/" + f.name})
	}
	for _, argv := range argvs {
		if err := run.Run(ctx, tool.Command{Argv: argv, Env: m.env()}); err != nil {
			return fmt.Errorf("make its EFI system partition: %w", err)
		}
	}
	return nil
}

// parents are the directories above a file, the uppermost first.
func parents(name string) []string {
	var out []string
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
		out = append([]string{dir}, out...)
	}
	return out
}
