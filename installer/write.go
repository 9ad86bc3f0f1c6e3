package installer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/image/seal"
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
	"imgbuild/installer/transfer"
	"imgbuild/installer/unpack"
)

// unpack streams the root file system: the transfer feeds its blob, the unpacker reads from it. The transfer goes on
// afterwards, for other machines, until endTransfer.
func (r *run) unpack(ctx context.Context) error {
	t, err := r.newTransfer(ctx)
	if err != nil {
		return err
	}
	r.transfer = t
	go func() { // ends with the transfer
		_ = t.Run(ctx) // the blob has its error
	}()
	b := t.Blob()
	stats, err := unpack.Unpack(ctx, b, b.Size(), r.rootDir(), unpack.Options{MaxMemory: r.memory.unpack})
	if err != nil {
		switch cause := b.Err(); {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case cause != nil:
			err = cause // the unpacker only saw what went wrong elsewhere
		}
		return fmt.Errorf("install root file system: %w", err)
	}
	r.Report.Info("%d files, %d directories, %d links: %s written in %d s; %s", stats.Files, stats.Dirs, stats.Symlinks+stats.HardLinks,
		probe.Bytes(stats.BytesWritten), int(stats.Elapsed.Seconds()+0.5), t.Summary())
	return nil
}

// transferOptions are the transfer's of the root file system, without where it goes.
func (r *run) transferOptions(ctx context.Context) (transfer.Options, error) {
	f := r.manifest.Files[image.RootfsFile]
	o := transfer.Options{
		Report: r.Report, Fetcher: r.fetcher, Size: f.Size, Chunks: f.Chunks, Transport: r.Args.Transport, Memory: r.memory.blob,
		Server: r.Server, Token: r.Token, Ceiling: transfer.Ceiling{Link: transfer.Link(r.System.Sys)},
	}
	if r.Args.Medium != "" {
		o.Ceiling = transfer.Ceiling{From: "medium"}
	}
	url, err := fetch.Beside(r.Args.Manifest, image.RootfsFile)
	if err != nil {
		return o, err
	}
	o.URLs = []string{url}
	for _, m := range r.Args.Mirrors {
		o.URLs = append(o.URLs, m+image.RootfsFile)
	}
	if o.Transport == plan.TransportTorrent {
		if o.Metainfo, err = r.metainfo(ctx); err != nil {
			r.Report.Warn("%v; the root file system comes over HTTP", err)
			o.Transport = plan.TransportHTTP
		}
	}
	return o, nil
}

// newTransfer prepares the transfer of the root file system to the disks.
func (r *run) newTransfer(ctx context.Context) (*transfer.Transfer, error) {
	o, err := r.transferOptions(ctx)
	if err != nil {
		return nil, err
	}
	if o.Server != nil {
		o.Spill, o.SpillReserve = r.roomiest()
	}
	var names []string
	for _, d := range r.written() {
		names = append(names, filepath.Base(r.looks[d.ID].disk.Path))
	}
	o.Ceiling.Unpacked, o.Ceiling.Disk = r.manifest.UnpackedBytes, transfer.Disks(r.System.Sys, names)
	return transfer.New(o)
}

// metainfo gets rootfs.torrent, which the manifest vouches for.
func (r *run) metainfo(ctx context.Context) ([]byte, error) {
	f, ok := r.manifest.Files[image.TorrentFile]
	if !ok {
		return nil, errors.New("get the root file system by BitTorrent: the release has no rootfs.torrent")
	}
	url, err := fetch.Beside(r.Args.Manifest, image.TorrentFile)
	if err != nil {
		return nil, err
	}
	data, err := r.fetcher.Small(ctx, url, f.Size)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, fmt.Errorf("get %s: it is not the file that the manifest names", fetch.Shown(url))
	}
	return data, nil
}

// roomiest is the mounted directory that has the most room besides what the image needs, and how many bytes that are. The image
// goes to the root file system mostly; what goes to others is not known, so it is kept free in each.
func (r *run) roomiest() (dir string, reserve int64) {
	most := int64(0)
	reserve = r.manifest.UnpackedBytes + r.manifest.UnpackedBytes/8
	for _, m := range r.mounts {
		var s unix.Statfs_t
		if m == r.espDir() || unix.Statfs(m, &s) != nil {
			continue
		}
		if free := int64(s.Bavail)*s.Bsize - reserve; free > most {
			dir, most = m, free
		}
	}
	return dir, reserve
}

// endTransfer lets go of everything that the transfer has open, also on the disks.
func (r *run) endTransfer() {
	if r.transfer == nil {
		return
	}
	if err := r.transfer.Close(); err != nil {
		r.Report.Warn("end the transfer: %v", err)
	}
	r.transfer = nil
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
