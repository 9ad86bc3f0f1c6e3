package builder

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/builder/iso"
	"imgbuild/builder/progress"
	"imgbuild/builder/tool"
	"imgbuild/image"
	"imgbuild/profiles"
)

// withISO says whether the release gets a live.iso.
func withISO(p *profiles.Profile) bool { return p.ISO != nil && *p.ISO }

// isoNeeds are the programs of the host that write it.
func isoNeeds(p *profiles.Profile) []need {
	out := []need{{"xorriso", []string{"-version"}, "1.5.0", "xorriso", "xorriso", "writes " + image.ISOFile}}
	if slices.ContainsFunc(needsOf(p).packages, func(s string) bool { return strings.HasPrefix(s, "grub2-efi-") }) {
		out = append(out,
			need{"mkfs.vfat", nil, "", "dosfstools", "dosfstools", "makes the EFI system partition of " + image.ISOFile},
			need{"mcopy", nil, "", "mtools", "mtools", "fills the EFI system partition of " + image.ISOFile})
	}
	return out
}

// hostGRUB says whether the medium takes the host's GRUB for BIOS, because nothing puts one into the image.
func hostGRUB(p *profiles.Profile) bool {
	return withISO(p) && p.Arch == "x86_64" && !slices.Contains(needsOf(p).tools, toolGRUB) && !slices.Contains(p.Packages.Install, "grub2-pc-modules")
}

// isoStamps tell the versions of the host's programs that write it.
func isoStamps(p *profiles.Profile) []string {
	var names, out []string
	if withISO(p) {
		for _, n := range isoNeeds(p) {
			names = append(names, n.name)
		}
	}
	if hostGRUB(p) {
		names = append(names, mkimages()...)
	}
	for _, n := range names {
		out = append(out, toolStamp(n))
	}
	return out
}

// isoLines are what decides the medium besides the release.
func isoLines(p *profiles.Profile) []string {
	return []string{"volume label " + iso.Label(p.Name, p.Version)}
}

// iso writes the medium, with the signed release on it.
func (b *build) iso(ctx context.Context) (outcome, error) {
	m := iso.Medium{Manifest: b.manifest, Dir: b.staging}
	var err error
	if m.UEFI, err = b.isoUEFI(); err != nil {
		return outcome{}, err
	}
	if m.BIOS, err = b.isoBIOS(ctx); err != nil {
		return outcome{}, err
	}
	var size int64
	for _, f := range b.files {
		size += f.Size
	}
	out := filepath.Join(b.staging, image.ISOFile)
	err = m.Write(ctx, b.runner, b.work, out, func(percent int) {
		b.o.Report.Step(progress.Step{Text: "written", Done: size / 100 * int64(percent), Total: size, Bytes: true})
	})
	if err != nil {
		return outcome{}, err
	}
	st, err := os.Stat(out)
	if err != nil {
		return outcome{}, fmt.Errorf("measure the medium: %w", err)
	}
	b.isoSize = st.Size()
	starts := "BIOS and UEFI"
	switch {
	case m.UEFI == nil:
		starts = "BIOS only"
		if b.o.Profile.Arch == "x86_64" {
			b.note("the image has no GRUB for UEFI, so %s starts from BIOS only; add grub2-efi-x64 and shim-x64", image.ISOFile)
		}
	case m.BIOS == nil:
		starts = "UEFI"
	}
	return outcome{bytes: b.isoSize, note: iso.Label(b.manifest.Name, b.manifest.Version) + ", " + starts}, nil
}

// isoUEFI are the image's own EFI programs, nil where it has none.
func (b *build) isoUEFI() (*iso.UEFI, error) {
	g := b.loaders.GRUB
	if g == nil {
		return nil, nil
	}
	var u iso.UEFI
	for _, f := range []struct {
		to   *[]byte
		from string
	}{{&u.Shim, g.Shim}, {&u.Loader, g.Loader}, {&u.MokManager, g.MokManager}} {
		if f.from == "" {
			continue
		}
		data, err := b.tree.ReadFile(f.from)
		if err != nil {
			return nil, fmt.Errorf("read the image's EFI loaders: %w", err)
		}
		*f.to = data
	}
	return &u, nil
}

// biosGRUB is the directory of GRUB's modules for BIOS, in images and on build hosts; mediumMBR is in it.
const (
	biosGRUB  = "/usr/lib/grub/i386-pc"
	mediumMBR = "boot_hybrid.img"
)

// isoBIOS makes the loader for BIOS: GRUB of the image, or, where it has none because its layout takes another loader, that of the
// build host, for which nobody has a signature to check. It is nil for architectures without BIOS.
func (b *build) isoBIOS(ctx context.Context) (*iso.BIOS, error) {
	if b.o.Profile.Arch != "x86_64" {
		return nil, nil
	}
	fail := func(err error) (*iso.BIOS, error) {
		return nil, fmt.Errorf("make the medium's GRUB for BIOS: %w", err)
	}
	read, out := b.tree.ReadFile, "/tmp/eltorito.img"
	var c tool.Command
	if mkimage := b.tree.First(sbin(toolGRUB)...); mkimage != "" && b.tree.Exists(path.Join(biosGRUB, mediumMBR)) {
		c = b.chroot(append([]string{mkimage}, iso.CoreArgs(biosGRUB, out)...)...) // the root file system has been packed
	} else {
		mkimage, err := hostMkimage()
		if err != nil {
			return fail(err)
		}
		read, out = os.ReadFile, filepath.Join(b.work, "eltorito.img")
		c.Argv = append([]string{mkimage}, iso.CoreArgs(biosGRUB, out)...)
	}
	if err := b.runner.Run(ctx, c); err != nil {
		return fail(err)
	}
	core, err := read(out)
	if err != nil {
		return fail(err)
	}
	mbr, err := read(path.Join(biosGRUB, mediumMBR))
	if err != nil {
		return fail(err)
	}
	return &iso.BIOS{Core: core, MBR: mbr}, nil
}

// mkimages are the names that build hosts have for the program that makes GRUB's core.
func mkimages() []string { return []string{"grub2-mkimage", "grub-mkimage"} }

// hostMkimage is the build host's, with the modules that it needs.
func hostMkimage() (string, error) {
	var missing error
	if _, missing = os.Stat(path.Join(biosGRUB, mediumMBR)); missing == nil {
		for _, name := range mkimages() {
			found, err := tool.Find(name)
			if err == nil {
				return found, nil
			}
			missing = err
		}
	}
	return "", fmt.Errorf("find GRUB for BIOS, which starts %s: neither image nor host has it: %w; put grub2-pc-modules and grub2-tools into the image, install grub-common and grub-pc-bin (Debian) or grub2-tools and grub2-pc-modules (EL) on this host, or set iso to false", image.ISOFile, missing)
}
