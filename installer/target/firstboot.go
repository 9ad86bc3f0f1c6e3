package target

import (
	"fmt"
	"os"

	"imgbuild/image"
	"imgbuild/installer/firstboot"
	"imgbuild/installer/scripts"
)

// FirstBoot makes the installed system run the image's first-boot scripts and report to its server, once. program is this
// program's own file, which is copied. Where there is neither a script nor a server, nothing is added.
func FirstBoot(root *os.Root, c firstboot.Config, program string) (added bool, err error) {
	names, err := scripts.List(root.FS(), image.FirstBootScripts)
	if err != nil || len(names) == 0 && c.Server == "" {
		return false, err
	}
	if err := firstBoot(root, c, program); err != nil {
		return false, fmt.Errorf("prepare the first boot: %w", err)
	}
	return true, nil
}

func firstBoot(root *os.Root, c firstboot.Config, program string) error {
	w, err := newWriter(root)
	if err != nil {
		return err
	}
	in, err := os.Open(program)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := w.copy(firstboot.Program, in, meta{mode: 0o755}); err != nil {
		return err
	}
	config, err := c.Encode()
	if err != nil {
		return err
	}
	if err := w.mkdir(firstboot.StateDir, meta{mode: 0o700}); err != nil {
		return err
	}
	if err := w.write(firstboot.ConfigFile, config, meta{mode: 0o600}); err != nil {
		return err
	}
	if err := w.write(firstboot.UnitFile, []byte(firstboot.Unit()), meta{mode: 0o644}); err != nil {
		return err
	}
	return w.symlink(firstboot.UnitTarget, firstboot.WantsLink)
}
