package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"imgbuild/builder/progress"
	"imgbuild/image"
	"imgbuild/initramfs"
	"imgbuild/profiles"
)

// sbin are the places where a program may lie in an image.
func sbin(name string) []string {
	return []string{"/usr/sbin/" + name, "/sbin/" + name, "/usr/bin/" + name, "/bin/" + name}
}

// initramfsTools are the programs that the installer runs for the profile's layout, and, if wanted, a rescue shell's.
func initramfsTools(p *profiles.Profile) []initramfs.Tool {
	names := []string{"mkfs.ext4", "mkfs.vfat"}
	if p.Layout.Filesystem != "ext4" {
		names = append(names, "mkfs."+p.Layout.Filesystem)
	}
	var tools []initramfs.Tool
	for _, n := range names {
		tools = append(tools, initramfs.Tool{Name: n, Candidates: sbin(n)})
	}
	if p.Arch == "x86_64" {
		// EL10 has no extlinux; the build host's makes the same ldlinux.sys.
		tools = append(tools, initramfs.Tool{Name: "extlinux", Candidates: sbin("extlinux"), FallbackToHost: true})
	}
	if s := p.Initramfs.Shell; s != nil && *s {
		for _, n := range []string{"bash", "ls", "cat", "mount", "umount", "dmesg", "lsblk", "ip", "less", "grep"} {
			tools = append(tools, initramfs.Tool{Name: n, Candidates: sbin(n)})
		}
	}
	return tools
}

// initramfsFiles are further files of the installer's.
func initramfsFiles(p *profiles.Profile) []initramfs.File {
	if p.Arch != "x86_64" {
		return nil
	}
	const name = "/usr/share/syslinux/gptmbr.bin"
	return []initramfs.File{{
		Name:           name,
		Candidates:     []string{name, "/usr/lib/syslinux/mbr/gptmbr.bin", "/usr/lib/EXTLINUX/gptmbr.bin", "/usr/lib/syslinux/gptmbr.bin"},
		FallbackToHost: true,
	}}
}

// initramfs assembles the mini initramfs.
func (b *build) initramfs(ctx context.Context) (outcome, error) {
	p := b.o.Profile
	installer, err := b.o.Installer(p.Arch)
	if err != nil {
		return outcome{}, err
	}
	public, err := b.key.Public().Marshal()
	if err != nil {
		return outcome{}, err
	}
	o := initramfs.Options{
		Root: b.root, KernelRelease: b.release, Installer: installer, PublicKey: public,
		Network: p.Initramfs.Network, Storage: p.Initramfs.Storage, ExtraModules: p.Initramfs.Modules, Firmware: p.Initramfs.Firmware,
		Tools: initramfsTools(p), Files: initramfsFiles(p), Small: p.Pack.Level == "release", SourceDate: b.date,
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
	if report.CABundle == "" {
		b.note("the image has no CA certificates, so the installer cannot fetch over https; add the package ca-certificates")
	}
	if b.files[image.InitramfsFile], err = b.describe(ctx, out, false); err != nil {
		return outcome{}, err
	}
	note := fmt.Sprintf("%s, %d modules, %d firmware files, %s unpacked", report.Compression, len(report.Modules), len(report.Firmware), progress.Bytes(report.Raw))
	return outcome{bytes: report.Packed, note: note}, nil
}
