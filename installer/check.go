package installer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"imgbuild/image"
	"imgbuild/installer/blob"
	"imgbuild/installer/bootloader"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/fetch"
	"imgbuild/installer/hw"
	"imgbuild/installer/target"
)

// getManifest fetches the manifest and believes it only with a signature.
func (r *run) getManifest(ctx context.Context) error {
	r.fetcher = fetch.New(fetch.Options{Report: r.Report, Transport: r.System.Transport})
	var err error
	r.manifest, r.raw, r.signature, err = r.fetcher.Manifest(ctx, r.Args.Manifest, r.Keys)
	if err != nil {
		return err
	}
	m := r.manifest
	f := m.Files[image.RootfsFile]
	r.Report.Info("release %s %s: %s for %s, kernel %s, %s in %s", m.Name, m.Version, m.Distro.Name, m.Arch, m.KernelRelease,
		probe.Bytes(m.UnpackedBytes), probe.Bytes(f.Size))
	if arch := machineArch(); m.Arch != arch {
		return fmt.Errorf("check release: it is for %s and this machine is %s; give the URL of a release for this machine", m.Arch, arch)
	}
	if r.Host == nil {
		return nil
	}
	// The boot loaders read the host's console from here; what is kept in the installed system is the manifest as it was signed.
	m.KernelArgs = target.WithConsole(m.KernelArgs, r.Host.SerialConsole)
	return r.Host.Check(m)
}

// machineArch is RPM's name for the architecture that this program was made for.
func machineArch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// budget is what the installation may use of the machine's memory, in bytes.
type budget struct {
	blob   int64 // chunks of the image
	unpack int64 // blocks that are being decompressed
}

const (
	mib = 1 << 20
	// unpackMemory is unpack's default for blocks in flight.
	unpackMemory = 32 * mib
	// reserve is for the program itself, mkfs (mkfs.xfs touches some 30 MiB on large disks) and the kernel's dirty pages.
	reserve = 96 * mib
)

// plan computes the budget. The squashfs tree is held whole: some 400 bytes an entry, at an average of 16 KiB of data
// an entry or less, is a fortieth of the unpacked size.
func plan(m *image.Manifest, total, available int64) (budget, error) {
	fixed := reserve + unpackMemory + m.UnpackedBytes/40
	least := min(int64(blob.MinMemory), m.Files[image.RootfsFile].Size)
	if need := fixed + least; available < need {
		return budget{}, fmt.Errorf("check memory: the installation needs %d MiB of free memory and this machine has %d MiB free of %d MiB; add memory, or use a smaller image",
			(need+mib-1)/mib, available/mib, total/mib)
	}
	// Half of what is free stays for the page cache, which makes writing fast.
	most := max(least, min(blob.DefaultMemory(total), (available-fixed)/2))
	return budget{blob: most, unpack: unpackMemory}, nil
}

// memory reads MemTotal and MemAvailable in bytes (proc_meminfo(5)); the initramfs is no longer in the latter.
func memory(file string) (total, available int64, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, fmt.Errorf("check memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	if total == 0 || available == 0 {
		return 0, 0, fmt.Errorf("check memory: %s does not say how much there is", file)
	}
	return total, available, nil
}

// checkMachine asks for everything that the steps after the first write will need.
func (r *run) checkMachine() error {
	total, available, err := memory(r.System.MemInfo)
	if err != nil {
		return err
	}
	if r.memory, err = plan(r.manifest, total, available); err != nil {
		return err
	}
	for _, p := range r.manifest.FixedLayout.Partitions {
		if p.FS == "" {
			continue
		}
		if _, err := r.System.Tools.Find("mkfs." + p.FS); err != nil {
			return fmt.Errorf("check tools: %w; rebuild the release", err)
		}
		if p.Mount == "" {
			continue
		}
		if p.Mount != "/" && p.Mount != "/boot" && p.Role != image.RoleESP {
			return fmt.Errorf("check layout: partition %q is to be mounted at %s, which this installer does not fill", p.Name, p.Mount)
		}
		if err := r.System.Mounter.Supports(p.FS); err != nil {
			return fmt.Errorf("check file systems: %w", err)
		}
	}
	return nil
}

// chooseDisk decides on the disk and makes sure that it may be written to and is large enough. It only reads.
func (r *run) chooseDisk() error {
	var err error
	if r.disks, err = disk.Inventory(r.System.Sys, r.System.MountInfo); err != nil {
		return err
	}
	look := func(d disk.Disk) ([]probe.Finding, error) {
		found, _, err := disk.Inspect(d)
		return found, err
	}
	want := ""
	if len(r.Args.Disks) > 0 {
		want = r.Args.Disks[0]
	}
	d, err := disk.Choose(r.disks, want, look)
	if err != nil {
		return err
	}
	r.disk = d
	found, old, err := disk.Inspect(d)
	if err != nil {
		return err
	}
	if err := disk.MayWrite(d, r.disks, found, r.Args.Wipe); err != nil {
		return err
	}
	r.oldParts = old
	if r.parts, err = disk.Place(r.manifest.FixedLayout, d.Size, d.Sector, disk.RootMin(r.manifest.UnpackedBytes)); err != nil {
		return err
	}
	if r.table, err = disk.Table(d, r.parts, r.manifest.Arch); err != nil {
		return err
	}
	for _, p := range r.parts {
		r.ids = append(r.ids, disk.NewFSID(p.FS))
	}
	if len(found) > 0 {
		r.Report.Info("%s holds %s; imgbuild.wipe= allows that to be destroyed", d.Path, disk.Findings(found))
	}
	return nil
}

// checkLoaders finds out which boot loaders can be installed. There is at least one that this machine's firmware starts.
func (r *run) checkLoaders() error {
	if r.manifest.BootLoader.Extlinux != nil && r.manifest.Arch == "x86_64" {
		b, err := os.ReadFile(r.System.BootCode)
		if err != nil {
			return fmt.Errorf("read MBR code: %w; rebuild the release", err)
		}
		r.bootCode = b
	}
	t := r.target()
	for _, l := range bootloader.All() {
		switch err := l.Probe(t); {
		case errors.Is(err, bootloader.ErrNotInImage):
		case err != nil:
			return err
		default:
			r.loaders = append(r.loaders, l)
		}
	}
	bios, uefi := r.bootCode != nil, r.manifest.BootLoader.GRUB != nil
	fw := r.Machine.Firmware
	if fw == hw.BIOS && !bios || fw == hw.UEFI && !uefi {
		return fmt.Errorf("check boot loaders: this machine was started by %s and the image has no boot loader for that; add one to the profile",
			strings.ToUpper(string(fw)))
	}
	if len(r.loaders) == 0 {
		return errors.New("check boot loaders: the image has none; the installed system could not start")
	}
	return nil
}

// idOf is the identifier of the file system that is mounted at a place, or of the one that holds it.
func (r *run) idOf(mount string) string {
	best, id := "", ""
	for i, p := range r.parts {
		if p.Mount == mount || p.Mount == "/" && best == "" {
			best, id = p.Mount, r.ids[i]
		}
	}
	return id
}

// separate reports whether a mount point is a file system of its own.
func (r *run) separate(mount string) bool {
	for _, p := range r.parts {
		if p.Mount == mount {
			return true
		}
	}
	return false
}

func (r *run) scratch() string { return path.Join(r.System.Work, "scratch") }
