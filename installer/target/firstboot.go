package target

import (
	"fmt"
	"os"

	"imgbuild/image"
	"imgbuild/image/layout"
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
	config, err := c.Encode()
	if err != nil {
		return err
	}
	return install(root, program, firstboot.ConfigFile, config, firstboot.UnitFile, firstboot.Unit(), firstboot.UnitTarget, firstboot.WantsLink)
}

// install leaves the program with a configuration and a unit in the installed system.
func install(root *os.Root, program, configFile string, config []byte, unitFile, unit, unitTarget, wantsLink string) error {
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
	if err := w.mkdir(firstboot.StateDir, meta{mode: 0o700}); err != nil {
		return err
	}
	if err := w.write(configFile, config, meta{mode: 0o600}); err != nil {
		return err
	}
	if err := w.write(unitFile, []byte(unit), meta{mode: 0o644}); err != nil {
		return err
	}
	return w.symlink(unitTarget, wantsLink)
}

// DataDisks makes the installed system format, when it starts for the first time, the data disks that a scheme leaves to it. Where
// it leaves none, nothing is added.
func DataDisks(root *os.Root, s *layout.Scheme, ids firstboot.Identifiers, program string) (added bool, err error) {
	c := firstboot.Data(s, ids, func(f layout.Filesystem) string { return fstabLine(f, ids.FS(f.Device)) })
	if len(c.Disks) == 0 {
		return false, nil
	}
	if err := dataDisks(root, c, program); err != nil {
		return false, fmt.Errorf("prepare the data disks' first boot: %w", err)
	}
	return true, nil
}

func dataDisks(root *os.Root, c firstboot.DataConfig, program string) error {
	w, err := newWriter(root)
	if err != nil {
		return err
	}
	for _, d := range c.Disks {
		if err := w.mkdir(d.Mount, meta{mode: 0o755}); err != nil {
			return err
		}
	}
	config, err := c.Encode()
	if err != nil {
		return err
	}
	return install(root, program, firstboot.DataFile, config, firstboot.DataUnitFile, firstboot.DataUnit(), firstboot.DataUnitTarget, firstboot.DataWantsLink)
}
