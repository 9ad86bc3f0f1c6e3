package installer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"imgbuild/image"
	"imgbuild/installer/blob"
	"imgbuild/installer/bootloader"
	"imgbuild/installer/bootloader/nvram"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/fetch"
	"imgbuild/installer/hw"
	"imgbuild/installer/target"
	"imgbuild/installer/unpack"
)

// unpack streams the root file system: one goroutine fetches into the blob, the unpacker reads from it.
func (r *run) unpack(ctx context.Context) error {
	f := r.manifest.Files[image.RootfsFile]
	b, err := blob.New(f.Size, f.Chunks, r.memory.blob)
	if err != nil {
		return err
	}
	url, err := fetch.Beside(r.Args.Manifest, image.RootfsFile)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.fetcher.Blob(gctx, []string{url}, b) })
	var stats unpack.Stats
	group.Go(func() error {
		var err error
		stats, err = unpack.Unpack(gctx, b, f.Size, r.rootDir(), unpack.Options{MaxMemory: r.memory.unpack})
		if err == nil {
			return b.Close() // the fetcher ends without an error
		}
		if cause := b.Err(); cause != nil {
			return cause // the unpacker only saw what went wrong elsewhere
		}
		b.Fail(err)
		return err
	})
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("install root file system: %w", err)
	}
	r.Report.Info("%d files, %d directories, %d links: %s written in %d s", stats.Files, stats.Dirs, stats.Symlinks+stats.HardLinks,
		probe.Bytes(stats.BytesWritten), int(stats.Elapsed.Seconds()+0.5))
	return nil
}

// openTarget opens the mounted tree and the ESP, if there is one.
func (r *run) openTarget() (bootloader.Target, func(), error) {
	t := r.target()
	var err error
	if t.Root, err = os.OpenRoot(r.rootDir()); err != nil {
		return t, nil, fmt.Errorf("open installed tree: %w", err)
	}
	if slices.Contains(r.mounts, r.espDir()) {
		if t.ESP, err = os.OpenRoot(r.espDir()); err != nil {
			t.Root.Close()
			return t, nil, fmt.Errorf("open EFI system partition: %w", err)
		}
	}
	return t, func() {
		t.Root.Close()
		if t.ESP != nil {
			t.ESP.Close()
		}
	}, nil
}

// target is what boot loaders are told.
func (r *run) target() bootloader.Target {
	t := bootloader.Target{
		Dir: r.rootDir(), Manifest: r.manifest, RootUUID: r.idOf("/"), BootUUID: r.idOf("/boot"),
		Run: r.System.Tools, BootCode: r.bootCode,
	}
	if !r.separate("/boot") {
		t.BootPrefix = "/boot"
	}
	return t
}

// configure makes the tree the system of this disk, and of this host.
func (r *run) configure(ctx context.Context) error {
	t, done, err := r.openTarget()
	if err != nil {
		return err
	}
	defer done()
	if err := bootloader.CheckKernel(t.Root, r.manifest); err != nil {
		return err
	}
	c := target.Config{Manifest: r.manifest, Raw: r.raw, Signature: r.signature, RootUUID: t.RootUUID, BootPrefix: t.BootPrefix}
	for i, p := range r.parts {
		if p.Mount != "" {
			c.FileSystems = append(c.FileSystems, target.FileSystem{UUID: r.ids[i], Mount: p.Mount, FS: p.FS, Options: p.Options})
		}
	}
	if err := target.Configure(t.Root, c); err != nil {
		return err
	}
	if err := r.configureHost(ctx, t.Root); err != nil {
		return err
	}
	if t.ESP == nil {
		return nil
	}
	_, err = target.CopyESP(t.Root, t.ESP)
	return err
}

// installLoaders writes all boot loaders that the image has, for either firmware.
func (r *run) installLoaders(ctx context.Context) error {
	t, done, err := r.openTarget()
	if err != nil {
		return err
	}
	defer done()
	for _, l := range r.loaders {
		if err := l.Install(ctx, t); err != nil {
			return errors.Join(err, l.Revert(t))
		}
		r.Report.Info("boot loader: %s", l.Name())
	}
	if t.ESP == nil {
		return nil
	}
	return target.ClearESP(t.Root)
}

// finish unmounts everything, gives mount points the attributes of what was mounted on them, and makes the kernel forget
// the partitions, which it only does when nothing uses them any more.
func (r *run) finish() error {
	t, done, err := r.openTarget()
	if err != nil {
		return err
	}
	var boot target.Attributes
	separate := r.separate("/boot")
	if separate {
		boot, err = target.TakeAttributes(t.Root, "boot")
	}
	done()
	if err != nil {
		return err
	}
	for len(r.mounts) > 1 {
		if err := r.mounts.unmount(r.System.Mounter); err != nil {
			return err
		}
	}
	if separate {
		root, err := os.OpenRoot(r.rootDir())
		if err != nil {
			return fmt.Errorf("open installed tree: %w", err)
		}
		err = target.GiveAttributes(root, "boot", boot)
		root.Close()
		if err != nil {
			return err
		}
	}
	if err := r.mounts.unmount(r.System.Mounter); err != nil {
		return err
	}
	return disk.DeletePartitions(r.System.Sys, r.disk)
}

// bootEntry adds an entry to the firmware's boot menu. Without it the disk still boots through the removable path.
func (r *run) bootEntry() {
	g := r.manifest.BootLoader.GRUB
	if r.Machine.Firmware != hw.UEFI || g == nil {
		return
	}
	file, err := bootloader.FirstStage(r.manifest)
	if err == nil {
		err = r.writeEntry(g.Label, file)
	}
	if err != nil {
		r.Report.Warn("the firmware took no boot entry, so it has to find EFI/BOOT on the disk by itself: %v", err)
	}
}

func (r *run) writeEntry(label, file string) error {
	e := nvram.Entry{Label: label, File: file}
	for i, p := range r.parts {
		if p.Role == image.RoleESP {
			t := r.table.Partitions[i]
			e.Partition, e.First, e.Sectors, e.GUID = t.Number, t.First, t.Last-t.First+1, t.GUID
		}
	}
	guids, err := r.partitionGUIDs()
	if err != nil {
		return err
	}
	if err := r.showVariables(); err != nil {
		return err
	}
	res, err := nvram.Install(r.System.EFIVars, e, func(g uuid.UUID) bool { return guids[g] })
	if err != nil {
		return err
	}
	r.Report.Info("boot entry Boot%04X %q is first in the firmware's order", res.Number, label)
	for _, n := range res.Removed {
		r.Report.Info("boot entry Boot%04X of an earlier installation was removed", n)
	}
	return nil
}

// showVariables mounts efivarfs where nobody has done so.
func (r *run) showVariables() error {
	mounted, err := nvram.Mounted(r.System.EFIVars)
	if err != nil || mounted || r.System.EFIVars != nvram.Dir {
		return err
	}
	if err := r.System.Mounter.Supports("efivarfs"); err != nil {
		return err
	}
	return r.System.Mounter.Mount("efivarfs", nvram.Dir, "efivarfs", "")
}

// partitionGUIDs are those of all disks of the machine: an entry that names one of them is in use.
func (r *run) partitionGUIDs() (map[uuid.UUID]bool, error) {
	out := map[uuid.UUID]bool{}
	for _, d := range r.disks {
		f, err := os.Open(d.Path)
		if err != nil {
			return nil, fmt.Errorf("look for partitions: %w", err)
		}
		t, err := gpt.Read(f, d.Size)
		f.Close()
		if err != nil && !errors.Is(err, gpt.ErrNone) {
			return nil, fmt.Errorf("look for partitions on %s: %w", d.Path, err)
		}
		for _, p := range t.Partitions {
			out[p.GUID] = true
		}
	}
	return out, nil
}
