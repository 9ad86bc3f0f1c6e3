package builder

import (
	"fmt"
	"strings"

	"imgbuild/builder/tree"
)

// squashfsOption is the kernel's option that lets it mount what a compressor packed (fs/squashfs/Kconfig).
func squashfsOption(compressor string) string {
	if compressor == "gzip" {
		return "CONFIG_SQUASHFS_ZLIB"
	}
	return "CONFIG_SQUASHFS_" + strings.ToUpper(compressor)
}

// kernelMounts says whether the image's kernel can mount a squashfs of that compressor, by its configuration; true where nothing says
// how it was configured.
func kernelMounts(t *tree.Tree, release, compressor string) (bool, error) {
	config := kernelConfig(t, release)
	if config == "" {
		return true, nil
	}
	data, err := t.ReadFile(config)
	if err != nil {
		return false, fmt.Errorf("read how the kernel was configured: %w", err)
	}
	return strings.Contains("\n"+string(data), "\n"+squashfsOption(compressor)+"=y\n"), nil
}

// checkMountable refuses, before anything is packed, a live medium whose kernel cannot mount its root file system. An image that is only
// installed is unpacked by the installer itself.
func (b *build) checkMountable() error {
	compressor := b.o.Profile.Pack.Compressor
	can, err := kernelMounts(b.tree, b.release, compressor)
	if err != nil || can {
		return err
	}
	if withISO(b.o.Profile) {
		return fmt.Errorf("pack the root file system: the image's kernel %s mounts no squashfs that is packed with %s (%s is not set), so it could not run from live.iso or from memory; set pack.compressor to xz or gzip, or iso: false if it is only installed",
			b.release, compressor, squashfsOption(compressor))
	}
	b.note("the image can be installed, and not run from memory: its kernel %s mounts no squashfs that is packed with %s", b.release, compressor)
	return nil
}
