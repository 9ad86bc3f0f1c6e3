package installer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"imgbuild/image"
	"imgbuild/image/seal"
	"imgbuild/installer/blob"
	"imgbuild/installer/bootloader"
	"imgbuild/installer/bootloader/nvram"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/fetch"
	"imgbuild/installer/hw"
	"imgbuild/installer/kexec"
	"imgbuild/installer/storage"
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
		Dir: r.rootDir(), Manifest: r.manifest, Scheme: r.scheme, FSUUID: r.idOf, Args: r.args(),
		Run: r.System.Tools, Syslinux: r.System.Syslinux, Scratch: r.scratch(),
	}
	if r.made != nil {
		t.Node = r.made.Node
	}
	if r.scheme.On("/boot") == nil {
		t.BootPrefix = "/boot"
	}
	return t
}

// args are all arguments of the installed kernel.
func (r *run) args() []string { return bootloader.Arguments(r.manifest, r.scheme, r.ids) }

// idOf is the identifier of the file system that is mounted at a mount point; empty if none is.
func (r *run) idOf(mount string) string {
	if f := r.scheme.On(mount); f != nil {
		return r.ids.FS(f.Device)
	}
	return ""
}

// configure makes the tree the system of these disks, and of this host.
func (r *run) configure(ctx context.Context) error {
	if err := r.mountKept(); err != nil {
		return err
	}
	t, done, err := r.openTarget()
	if err != nil {
		return err
	}
	defer done()
	if err := bootloader.CheckKernel(t.Root, r.manifest); err != nil {
		return err
	}
	c := target.Config{
		Manifest: r.manifest, Raw: r.raw, Signature: r.signature, Scheme: r.scheme, IDs: r.ids, Args: t.Args, BootPrefix: t.BootPrefix,
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

// installLoaders writes the boot loaders that the scheme needs, takes what the disks start with from them, and loads the
// installed kernel where it is to be started without the firmware.
func (r *run) installLoaders(ctx context.Context) error {
	t, done, err := r.openTarget()
	if err != nil {
		return err
	}
	defer done()
	if r.code, err = r.seals(); err != nil {
		return err
	}
	for _, l := range r.loaders {
		err := l.Install(ctx, t)
		if err == nil {
			err = r.takeCode(l, t)
		}
		if err != nil {
			return errors.Join(err, l.Revert(t))
		}
		r.Report.Info("boot loader: %s", l.Name())
	}
	r.loadKernel(t)
	if t.ESP == nil {
		return nil
	}
	return target.ClearESP(t.Root)
}

// takeCode adds what the disks start with by a boot loader.
func (r *run) takeCode(l bootloader.Loader, t bootloader.Target) error {
	code, err := l.Code(t)
	if err != nil {
		return err
	}
	for name, c := range code {
		b := r.code[name]
		b.MBR, b.Gap = c.MBR, c.Gap
		r.code[name] = b
	}
	return nil
}

// seals are the boot disks' seals, by the disk's name.
func (r *run) seals() (map[string]storage.BootCode, error) {
	record := r.Seal
	if record == nil {
		var err error
		record, err = seal.Unsigned(seal.Record{Serial: r.Machine.Serial, Image: r.manifest.Name + "/" + r.manifest.Version, Time: time.Now()})
		if err != nil {
			return nil, err
		}
	}
	code := map[string]storage.BootCode{}
	for _, d := range r.scheme.Disks {
		if d.Boot {
			code[d.Name] = storage.BootCode{Seal: record}
		}
	}
	return code, nil
}

// loadKernel prepares to start the installed kernel without the firmware. Where that cannot be done, the machine reboots.
func (r *run) loadKernel(t bootloader.Target) {
	r.done = r.Args.Done
	if r.done != cmdline.DoneKexec {
		return
	}
	if err := r.kexec(t); err != nil {
		r.Report.Warn("the installed kernel cannot be started without the firmware, so the machine reboots: %v", err)
		r.done = cmdline.DoneReboot
	}
}

func (r *run) kexec(t bootloader.Target) error {
	if err := kexec.Allowed(r.manifest.NoKexec, r.Machine); err != nil {
		return err
	}
	if err := kexec.Supported(); err != nil {
		return err
	}
	kernel, err := t.Root.Open("boot/vmlinuz-" + r.manifest.KernelRelease)
	if err != nil {
		return fmt.Errorf("open kernel: %w", err)
	}
	defer kernel.Close()
	initrd, err := t.Root.Open("boot/initramfs-" + r.manifest.KernelRelease + ".img")
	if err != nil {
		return fmt.Errorf("open initramfs: %w", err)
	}
	defer initrd.Close()
	return kexec.Load(kernel, initrd, strings.Join(t.Args, " "))
}

// finish unmounts everything, and makes the kernel forget arrays, volumes and partitions, which it only does when nothing
// uses them any more.
func (r *run) finish(ctx context.Context) error {
	if err := r.unmountTarget(); err != nil {
		return err
	}
	return r.made.Stop(ctx)
}

// bootEntries adds entries to the firmware's boot menu. Without them the disk still boots through the removable path.
func (r *run) bootEntries() {
	if r.Machine.Firmware != hw.UEFI || !r.scheme.Firmware.HasUEFI() {
		return
	}
	if err := r.writeEntries(); err != nil {
		r.Report.Warn("the firmware took no boot entry, so it has to find EFI/BOOT on the disk by itself: %v", err)
	}
}

func (r *run) writeEntries() error {
	list, err := bootloader.BootEntries(r.manifest, r.scheme, r.ids.Partition)
	if err != nil {
		return err
	}
	if err := r.showVariables(); err != nil {
		return err
	}
	res, err := nvram.Install(r.System.EFIVars, list, r.inUse())
	if err != nil {
		return err
	}
	for i, n := range res.Numbers {
		r.Report.Info("boot entry Boot%04X %q is number %d in the firmware's order", n, list[i].Label, i+1)
	}
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

// inUse returns a function that says whether a partition is on a disk of this machine: an entry that names it is in use. While a
// disk cannot be read, every partition may be on it.
func (r *run) inUse() func(uuid.UUID) bool {
	guids, all := map[uuid.UUID]bool{}, false
	for _, l := range r.looks {
		t, err := l.table()
		if err != nil && !errors.Is(err, gpt.ErrNone) {
			all = true
		}
		for _, p := range t.Partitions {
			guids[p.GUID] = true
		}
	}
	return func(g uuid.UUID) bool { return all || guids[g] }
}
