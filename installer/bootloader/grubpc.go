package bootloader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/image/layout"
)

// GRUBPC is GRUB for BIOS. Sector 0 loads core.img from the BIOS boot partition (GPT), or from the gap before the first
// partition (MBR); core.img has all modules that reading /boot and booting a kernel take.
type GRUBPC struct{}

const (
	mkimage  = "grub2-mkimage" // its name in the initramfs
	platform = "i386-pc"
	grubMods = grubDir + "/" + platform
	// gapEnd is where the gap of MBR disks ends: the first MiB less the seal, which lies in its last 8 KiB.
	gapEnd = 1<<20 - 8<<10
)

// Name implements Loader.
func (GRUBPC) Name() string { return "GRUB (BIOS)" }

// Probe implements Loader.
func (GRUBPC) Probe(t Target) error {
	if t.Manifest.BootLoader.GRUBPC == nil || t.Manifest.Arch != "x86_64" {
		return ErrNotInImage
	}
	if _, err := t.Run.Find(mkimage); err != nil {
		return fmt.Errorf("prepare GRUB for BIOS: %w", err)
	}
	if err := checkBIOSDisks(t.Scheme); err != nil {
		return fmt.Errorf("prepare GRUB for BIOS: %w", err)
	}
	for _, d := range bootDisks(t.Scheme) {
		if _, _, err := corePlace(d); err != nil {
			return fmt.Errorf("prepare GRUB for BIOS: %w", err)
		}
	}
	if _, err := coreModules(t); err != nil {
		return fmt.Errorf("prepare GRUB for BIOS: %w", err)
	}
	if n := len(strings.Join(t.Args, " ")); n > maxAppend {
		return fmt.Errorf("prepare GRUB for BIOS: the kernel arguments have %d bytes and x86 kernels take %d", n, maxAppend)
	}
	return nil
}

// corePlace is where core.img goes on a disk, in bytes: the BIOS boot partition, or the gap.
func corePlace(d layout.SchemeDisk) (start, size int64, err error) {
	if d.Table == layout.MBR {
		end := int64(gapEnd)
		for _, p := range d.Parts {
			end = min(end, p.Start)
		}
		if end <= sector {
			return 0, 0, fmt.Errorf("%s has no room before its first partition for GRUB's core", d.Path)
		}
		return sector, end - sector, nil
	}
	p, ok := biosBoot(d)
	if !ok {
		return 0, 0, fmt.Errorf("%s has no BIOS boot partition for GRUB's core; give the layout a partition of 1MiB with role biosboot on every disk that boots", d.Path)
	}
	return p.Start, p.Size, nil
}

func biosBoot(d layout.SchemeDisk) (layout.Part, bool) {
	i := slices.IndexFunc(d.Parts, func(p layout.Part) bool { return p.Role == layout.RoleBIOSBoot })
	if i < 0 {
		return layout.Part{}, false
	}
	return d.Parts[i], true
}

// coreModules are the modules of core.img: what reads /boot where the scheme puts it, and what grub.cfg uses.
func coreModules(t Target) ([]string, error) {
	f, err := t.bootFS()
	if err != nil {
		return nil, err
	}
	out := []string{"biosdisk"}
	add := func(names ...string) {
		for _, n := range names {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	s := t.Scheme
	for _, d := range s.Disks {
		switch d.Table {
		case layout.GPT:
			add("part_gpt")
		case layout.MBR:
			add("part_msdos")
		}
	}
	if group, name, ok := volumeOf(f.Device); ok {
		if v := volume(s, group, name); v == nil || v.Thin != "" {
			return nil, fmt.Errorf("/boot is on the thin volume %s and GRUB does not read thin pools; give the layout another volume or a partition for /boot", f.Device)
		}
		add("lvm")
	}
	for _, d := range below(s, f.Device) {
		name, ok := arrayOf(d)
		if !ok {
			continue
		}
		add("diskfilter", "mdraid1x")
		switch a := array(s, name); {
		case a == nil:
			return nil, fmt.Errorf("/boot is on the array %s, which the scheme does not have", name)
		case a.Level == 5:
			add("raid5rec")
		case a.Level == 6:
			add("raid6rec")
		}
	}
	switch f.FS {
	case "ext4":
		add("ext2")
	case "xfs":
		add("xfs")
	default:
		return nil, fmt.Errorf("/boot is on %s and GRUB is to read ext4 or XFS there; change the file system", f.FS)
	}
	add("search_fs_uuid", "normal", "configfile", "search", "test", "loadenv", "serial", "terminal", "echo", "linux")
	if linux, _ := words(t.Manifest, false); linux == "linux16" {
		add("linux16")
	}
	if readsBLS(t.Manifest, s) {
		add("blscfg")
	}
	return out, nil
}

// earlyConf is what core.img does first. It finds /boot by the UUID of its file system, on whatever disk and in whatever order
// BIOS counts them, then reads grub.cfg in its prefix.
func earlyConf(t Target, boot *layout.Filesystem) string {
	return fmt.Sprintf("search.fs_uuid %s root\nset prefix=($root)%s/grub2\n", t.FSUUID(boot.Mount), t.BootPrefix)
}

// Install implements Loader.
func (GRUBPC) Install(ctx context.Context, t Target) error {
	if err := installPC(ctx, t); err != nil {
		return fmt.Errorf("write GRUB for BIOS: %w", err)
	}
	return nil
}

func installPC(ctx context.Context, t Target) error {
	if err := copyModules(t); err != nil {
		return err
	}
	core, err := makeCore(ctx, t)
	if err != nil {
		return err
	}
	// As grub2-install leaves them: what is embedded can be compared with them.
	if err := writeFile(t.Root, grubMods+"/core.img", core, 0o644); err != nil {
		return err
	}
	if err := copyFile(t.Root, rel(t.Manifest.BootLoader.GRUBPC.BootImage), t.Root, grubMods+"/boot.img"); err != nil {
		return err
	}
	if _, err := (GRUBPC{}).Code(t); err != nil {
		return err // nothing is embedded that could not be started
	}
	for _, d := range bootDisks(t.Scheme) {
		p, ok := biosBoot(d)
		if d.Table == layout.MBR || !ok {
			continue
		}
		data, err := patchCore(core, uint64(p.Start/sector))
		if err != nil {
			return err
		}
		if err := writePartition(t.Node(part(d, p)), data); err != nil {
			return fmt.Errorf("write core.img to the BIOS boot partition of %s: %w", d.Path, err)
		}
	}
	return writeGRUB(t)
}

// copyModules fills /boot/grub2/i386-pc, from where GRUB loads what is not in core.img.
func copyModules(t Target) error {
	dir := rel(t.Manifest.BootLoader.GRUBPC.ModuleDir)
	list, err := fs.ReadDir(t.Root.FS(), dir)
	if err != nil {
		return err
	}
	if err := mkdirs(t.Root, grubMods, 0o700); err != nil {
		return err
	}
	n := 0
	for _, e := range list {
		switch path.Ext(e.Name()) {
		case ".mod":
			n++
		case ".lst":
			// Some lists are empty, as fdt.lst, which is for other machines.
			if st, err := e.Info(); err != nil || st.Size() == 0 {
				if err != nil {
					return err
				}
				continue
			}
		default:
			continue
		}
		if err := copyFile(t.Root, path.Join(dir, e.Name()), t.Root, path.Join(grubMods, e.Name())); err != nil {
			return err
		}
	}
	if n == 0 {
		return fmt.Errorf("/%s of the image has no modules; it was not built completely", dir)
	}
	return nil
}

// makeCore runs grub2-mkimage with the modules of the image.
func makeCore(ctx context.Context, t Target) ([]byte, error) {
	modules, err := coreModules(t)
	if err != nil {
		return nil, err
	}
	boot, err := t.bootFS()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(t.Scratch, "grub-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	early, out := filepath.Join(dir, "load.cfg"), filepath.Join(dir, "core.img")
	if err := os.WriteFile(early, []byte(earlyConf(t, boot)), 0o600); err != nil {
		return nil, err
	}
	argv := mkimageArgs(filepath.Join(t.Dir, rel(t.Manifest.BootLoader.GRUBPC.ModuleDir)), early, t.BootPrefix+"/grub2", out, modules)
	if err := t.Run.Run(ctx, nil, argv...); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

func mkimageArgs(modules, early, prefix, out string, names []string) []string {
	return append([]string{mkimage, "-O", platform, "-d", modules, "-c", early, "-p", prefix, "-o", out}, names...)
}

// writePartition writes data to the beginning of a partition and reads it back.
func writePartition(node string, data []byte) error {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	back := make([]byte, len(data))
	if err == nil {
		_, err = f.ReadAt(back, 0)
	}
	if err == nil && !bytes.Equal(back, data) {
		err = errors.New("what is read back is not what was written")
	}
	return errors.Join(err, f.Close())
}

// Code implements Loader. It reads what Install left in /boot.
func (GRUBPC) Code(t Target) (map[string]BootCode, error) {
	boot, _, err := readLoader(t.Root, grubMods+"/boot.img")
	if err != nil {
		return nil, fmt.Errorf("prepare GRUB for BIOS: %w", err)
	}
	core, _, err := readLoader(t.Root, grubMods+"/core.img")
	if err != nil {
		return nil, fmt.Errorf("prepare GRUB for BIOS: %w", err)
	}
	out := map[string]BootCode{}
	for _, d := range bootDisks(t.Scheme) {
		c, err := diskCode(d, boot, core)
		if err != nil {
			return nil, fmt.Errorf("prepare GRUB for BIOS on %s: %w", d.Path, err)
		}
		out[d.Name] = c
	}
	return out, nil
}

func diskCode(d layout.SchemeDisk, boot, core []byte) (BootCode, error) {
	start, size, err := corePlace(d)
	if err != nil {
		return BootCode{}, err
	}
	first := uint64(start / sector)
	var c BootCode
	if c.MBR, err = patchBoot(boot, first); err != nil {
		return BootCode{}, err
	}
	data, err := patchCore(core, first)
	if err != nil {
		return BootCode{}, err
	}
	if int64(len(data)) > size {
		return BootCode{}, fmt.Errorf("GRUB's core has %d bytes and there is room for %d; make the BIOS boot partition 1MiB", len(data), size)
	}
	if d.Table == layout.MBR {
		c.Gap = data
	}
	return c, nil
}

// Revert implements Loader: without grub.cfg GRUB boots nothing.
func (GRUBPC) Revert(t Target) error {
	if err := removeFile(t.Root, rel(grubFile)); err != nil {
		return fmt.Errorf("remove GRUB for BIOS: %w", err)
	}
	return nil
}
