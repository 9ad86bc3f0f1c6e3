package installer

import (
	"context"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/installer/blob"
	"imgbuild/installer/bootloader"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/fetch"
	"imgbuild/installer/hw"
	"imgbuild/installer/target"
)

// getManifest fetches the manifest and believes it only with a signature.
func (r *run) getManifest(ctx context.Context) error {
	r.fetcher = fetch.New(fetch.Options{Report: r.Report, Proxy: r.Args.Proxy, Transport: r.System.Transport, Mend: r.System.Mend})
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
	if r.Host != nil {
		// The boot loaders read the host's console from here; what is kept in the installed system is the manifest as it was signed.
		m.KernelArgs = target.WithConsole(m.KernelArgs, r.Host.SerialConsole)
		if err := r.Host.Check(m); err != nil {
			return err
		}
	}
	return r.takeLayout()
}

// takeLayout decides on the layout: the server's, else the preset that the arguments name, else the manifest's.
func (r *run) takeLayout() error {
	r.layout = r.manifest.Layout
	switch {
	case r.Layout != nil:
		r.layout = *r.Layout
	case r.Args.Preset != "":
		// What the manifest says of any preset and of data disks stays.
		r.layout.Preset, r.layout.Disks, r.layout.Arrays, r.layout.Groups = r.Args.Preset, nil, nil, nil
	}
	if err := r.layout.Validate(); err != nil {
		return fmt.Errorf("check layout: %w", err)
	}
	return nil
}

// firmware is the machine's own, as layouts have it.
func (r *run) firmware() layout.Firmware {
	if r.Machine.Firmware == hw.UEFI {
		return layout.UEFI
	}
	return layout.BIOS
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

// planMemory computes the budget. The squashfs tree is held whole: some 400 bytes an entry, at an average of 16 KiB of data
// an entry or less, is a fortieth of the unpacked size.
func planMemory(m *image.Manifest, total, available int64) (budget, error) {
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
func (r *run) checkMachine(ctx context.Context) error {
	total, available, err := memory(r.System.MemInfo)
	if err != nil {
		return err
	}
	if r.memory, err = planMemory(r.manifest, total, available); err != nil {
		return err
	}
	for _, t := range r.layout.Tools(r.firmware()) {
		if t == "extlinux" || t == "grub2-mkimage" {
			continue // of them the image has one at least; the loaders themselves ask for theirs
		}
		if _, err := r.System.Tools.Find(t); err != nil {
			return fmt.Errorf("check tools: the layout needs what the release does not carry: %w; rebuild the release with this layout in its profile", err)
		}
	}
	if r.System.LoadModule == nil {
		return nil
	}
	for _, m := range r.layout.Modules(r.firmware()) {
		if err := r.System.LoadModule(ctx, m); err != nil && !strings.HasPrefix(m, "nls_") { // see companions
			return fmt.Errorf("check drivers: the layout needs a kernel module: %w; rebuild the release with this layout in its profile", err)
		}
	}
	return nil
}

// checkLoaders makes sure that everything in the scheme can be mounted, and that its boot loaders can be installed and are
// those that this machine's firmware starts.
func (r *run) checkLoaders() error {
	for _, f := range r.scheme.Filesystems() {
		if f.Mount == "" || f.FS == "swap" {
			continue
		}
		if err := r.System.Mounter.Supports(f.FS); err != nil {
			return fmt.Errorf("check file systems: %w", err)
		}
	}
	fw, has := r.firmware(), r.scheme.Firmware
	if fw == layout.BIOS && !has.HasBIOS() || fw == layout.UEFI && !has.HasUEFI() {
		return fmt.Errorf("check boot loaders: this machine was started by %s and the layout's disks boot with %s only; change the layout's firmware to auto or both, or the machine's",
			strings.ToUpper(string(fw)), strings.ToUpper(string(has)))
	}
	var err error
	if r.loaders, err = bootloader.For(r.manifest, r.scheme); err != nil {
		return err
	}
	t := r.target()
	for _, l := range r.loaders {
		if err := l.Probe(t); err != nil {
			return fmt.Errorf("check boot loaders: %w", err)
		}
	}
	return nil
}

func (r *run) scratch() string { return path.Join(r.System.Work, "scratch") }
