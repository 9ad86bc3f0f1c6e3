package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/builder/progress"
	"imgbuild/image"
	"imgbuild/initramfs"
	"imgbuild/profiles"
)

// sbin are the places where a program may lie in an image.
func sbin(name string) []string {
	return []string{"/usr/sbin/" + name, "/sbin/" + name, "/usr/bin/" + name, "/bin/" + name}
}

// initramfsTools are the programs that the installer runs for the profile's layouts, and, if wanted, a rescue shell's.
func initramfsTools(p *profiles.Profile) []initramfs.Tool {
	var tools []initramfs.Tool
	for _, n := range needsOf(p).tools {
		// EL10 has no extlinux; the build host's makes the same ldlinux.sys. Every other tool has to fit the image.
		tools = append(tools, initramfs.Tool{Name: n, Candidates: sbin(n), FallbackToHost: n == toolExtlinux})
	}
	if s := p.Initramfs.Shell; s != nil && *s {
		for _, n := range []string{"bash", "ls", "cat", "mount", "umount", "dmesg", "lsblk", "ip", "less", "grep"} {
			tools = append(tools, initramfs.Tool{Name: n, Candidates: sbin(n)})
		}
	}
	return tools
}

// initramfsFiles are further files of the installer's.
func initramfsFiles(l image.BootLoader) []initramfs.File {
	if l.Extlinux == nil {
		return nil
	}
	var out []initramfs.File
	for _, f := range []string{"gptmbr.bin", "mbr.bin"} {
		name := "/usr/share/syslinux/" + f
		out = append(out, initramfs.File{
			Name:           name,
			Candidates:     []string{name, "/usr/lib/syslinux/mbr/" + f, "/usr/lib/EXTLINUX/" + f, "/usr/lib/syslinux/" + f},
			FallbackToHost: true,
		})
	}
	return out
}

// checkTools reports, all at once and before the long stages, the initramfs's tools that no package brought. Loaders are chosen later.
func (b *build) checkTools() error {
	var missing []string
	for _, t := range initramfsTools(b.o.Profile) {
		if t.Name != toolGRUB && !t.FallbackToHost && b.tree.First(t.Candidates...) == "" {
			missing = append(missing, t.Name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("check the initramfs's tools: the packages bring no %s, which the installer runs; add the packages that have them, or take them out of packages.exclude", strings.Join(missing, ", "))
	}
	return nil
}

// chooseTools leaves the tool of a BIOS boot loader out that the image does not have, where the other will do.
func (b *build) chooseTools() {
	has := map[string]bool{toolExtlinux: b.loaders.Extlinux != nil, toolGRUB: b.loaders.GRUBPC != nil}
	b.tools = slices.DeleteFunc(initramfsTools(b.o.Profile), func(t initramfs.Tool) bool {
		there, loader := has[t.Name]
		return loader && !there
	})
}

// toolNames are those of the initramfs's tools that layouts need.
func (b *build) toolNames() []string {
	var names []string
	for _, t := range b.tools {
		if slices.Contains(needsOf(b.o.Profile).tools, t.Name) {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	return names
}

// withTorrent says whether the installer of the profile's initramfs can fetch by BitTorrent.
func withTorrent(p *profiles.Profile) bool { return p.Initramfs.Torrent != nil && *p.Initramfs.Torrent }

// torrentCost says how large the installer is with BitTorrent and without, and what of it the initramfs weighs.
func torrentCost(in bool, installer, other int64, r initramfs.Report) string {
	if in {
		return fmt.Sprintf("the installer has %s with BitTorrent and %s without; of the initramfs's %s that is %s (initramfs.torrent: false leaves it out)",
			progress.Bytes(installer), progress.Bytes(other), progress.Bytes(r.Packed), progress.Bytes(r.InstallerPacked-r.OtherPacked))
	}
	return fmt.Sprintf("the installer has %s without BitTorrent and %s with it, which would add %s to the initramfs's %s (initramfs.torrent: true puts it in)",
		progress.Bytes(installer), progress.Bytes(other), progress.Bytes(r.OtherPacked-r.InstallerPacked), progress.Bytes(r.Packed))
}

// caCerts are the CAs that the profile adds for the installer, in PEM form.
func caCerts(p *profiles.Profile) ([]byte, error) {
	var all []byte
	for _, file := range p.Initramfs.CACerts {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the profile's CA: %w", err)
		}
		all = append(append(all, data...), '\n')
	}
	return all, nil
}

// initramfs assembles the mini initramfs.
func (b *build) initramfs(ctx context.Context) (outcome, error) {
	p := b.o.Profile
	installer, err := b.o.Installer(p.Arch, withTorrent(p))
	if err != nil {
		return outcome{}, err
	}
	other, err := b.o.Installer(p.Arch, !withTorrent(p))
	if err != nil {
		return outcome{}, err
	}
	public, err := b.key.Public().Marshal()
	if err != nil {
		return outcome{}, err
	}
	authorities, err := caCerts(p)
	if err != nil {
		return outcome{}, err
	}
	b.chooseTools()
	o := initramfs.Options{
		Root: b.root, KernelRelease: b.release, Installer: installer, Other: other, PublicKey: public, CACerts: authorities,
		Network: p.Initramfs.Network, Storage: p.Initramfs.Storage, ExtraModules: unique(append(needsOf(p).modules, p.Initramfs.Modules...)), Firmware: p.Initramfs.Firmware,
		Tools: b.tools, Files: initramfsFiles(b.loaders), Small: p.Pack.Level == "release", SourceDate: b.date,
	}
	if c := p.Initramfs.Compression; c != "auto" {
		o.Compression = c
	}
	out := filepath.Join(b.work, image.InitramfsFile)
	f, err := os.Create(out)
	if err != nil {
		return outcome{}, fmt.Errorf("write the mini initramfs: %w", err)
	}
	report, err := initramfs.Build(ctx, o, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return outcome{}, err
	}
	b.runner.Note("modules: %v", report.Modules)
	b.runner.Note("modules that this kernel does not have: %v", report.MissingModules)
	b.runner.Note("firmware: %v", report.Firmware)
	b.runner.Note("firmware that modules name and the image does not have: %v", report.MissingFirmware)
	b.runner.Note("tools: %v", report.Tools)
	b.runner.Note("bytes by section: %v", report.BySection)
	b.note("%s", torrentCost(withTorrent(p), int64(len(installer)), int64(len(other)), report))
	if report.CABundle == "" && len(authorities) == 0 {
		b.note("the image has no CA certificates, so the installer cannot fetch over https; add the package ca-certificates")
	}
	if b.files[image.InitramfsFile], err = b.describe(ctx, out, false); err != nil {
		return outcome{}, err
	}
	note := fmt.Sprintf("%s, %d modules, %d firmware files, %s unpacked", report.Compression, len(report.Modules), len(report.Firmware), progress.Bytes(report.Raw))
	return outcome{bytes: report.Packed, note: note}, nil
}
