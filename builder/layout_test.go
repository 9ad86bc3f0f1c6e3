package builder

import (
	"slices"
	"strings"
	"testing"

	"imgbuild/builder/tree"
	"imgbuild/image/layout"
	"imgbuild/profiles"
)

func profileWith(major int, arch string, l layout.Layout, tools ...string) *profiles.Profile {
	return &profiles.Profile{Arch: arch, Distro: profiles.Distro{Major: major}, Layout: l, Initramfs: profiles.Initramfs{Tools: tools}}
}

func TestTheImageAndTheInitramfsGetWhatLayoutsNeed(t *testing.T) {
	const efi, pc = " grub2-efi-x64 shim-x64", " grub2-pc grub2-pc-modules grub2-tools"
	for name, c := range map[string]struct {
		p                        *profiles.Profile
		tools, packages, modules string
		dracut, vital            string
	}{
		"the simple layout of EL9": {
			profileWith(9, "x86_64", layout.Layout{}),
			"mkfs.xfs mkfs.ext4 mkfs.vfat extlinux grub2-mkimage", "xfsprogs e2fsprogs dosfstools syslinux-extlinux" + pc + efi, "xfs ext4 vfat", "", "",
		},
		"EL10, which has no extlinux": {
			profileWith(10, "x86_64", layout.Layout{}),
			"mkfs.xfs mkfs.ext4 mkfs.vfat grub2-mkimage", "xfsprogs e2fsprogs dosfstools" + pc + efi, "xfs ext4 vfat", "", "",
		},
		"extlinux of the build host, asked for by a layout of EL10": {
			profileWith(10, "x86_64", layout.Layout{BIOSLoader: layout.Extlinux}),
			"mkfs.xfs mkfs.ext4 mkfs.vfat extlinux", "xfsprogs e2fsprogs dosfstools" + efi, "xfs ext4 vfat", "", "",
		},
		"LVM": {
			profileWith(9, "x86_64", layout.Layout{Preset: layout.LVM, Filesystem: "ext4", Firmware: layout.UEFI}),
			"mkfs.ext4 mkfs.vfat lvm", "e2fsprogs dosfstools lvm2" + efi, "ext4 vfat dm-mod", "lvm", "lvm2",
		},
		"a mirror that starts by GRUB": {
			profileWith(9, "x86_64", layout.Layout{Preset: layout.Mirror, Firmware: layout.BIOS, BIOSLoader: layout.GRUB}),
			"mkfs.xfs mkfs.ext4 lvm mdadm grub2-mkimage", "xfsprogs e2fsprogs lvm2 mdadm" + pc, "xfs ext4 dm-mod raid1", "lvm mdraid", "lvm2 mdadm grub2-pc grub2-pc-modules grub2-tools",
		},
		"aarch64, which has no BIOS": {
			profileWith(9, "aarch64", layout.Layout{}),
			"mkfs.xfs mkfs.ext4 mkfs.vfat", "xfsprogs e2fsprogs dosfstools grub2-efi-aa64 shim-aa64", "xfs ext4 vfat", "", "",
		},
		"tools for the layouts of single hosts": {
			profileWith(9, "x86_64", layout.Layout{Firmware: layout.UEFI}, "lvm", "mdadm", "mkswap", "grub2-mkimage"),
			"mkfs.xfs mkfs.ext4 mkfs.vfat lvm mdadm mkswap grub2-mkimage",
			"xfsprogs e2fsprogs dosfstools lvm2 device-mapper-persistent-data mdadm util-linux" + pc + efi,
			"xfs ext4 vfat dm-mod dm-thin-pool raid0 raid1 raid10 raid456", "lvm mdraid",
			"lvm2 device-mapper-persistent-data mdadm grub2-pc grub2-pc-modules grub2-tools",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := needsOf(c.p)
			for _, x := range []struct {
				what string
				got  []string
				want string
			}{{"tools", n.tools, c.tools}, {"packages", n.packages, c.packages}, {"modules", n.modules, c.modules}, {"dracut's modules", n.dracutModules(), c.dracut}, {"vital packages", n.vital(), c.vital}} {
				got, want := slices.Sorted(slices.Values(x.got)), slices.Sorted(slices.Values(strings.Fields(x.want)))
				if !slices.Equal(got, want) {
					t.Errorf("the %s are %q, want %q", x.what, got, want)
				}
			}
		})
	}
}

func TestPackagesThatTheLayoutNeedsCannotBeExcluded(t *testing.T) {
	p := shipped(t, "centos-stream-9")
	p.Layout = layout.Layout{Preset: layout.Mirror}
	p.Packages.Exclude = append(p.Packages.Exclude, "lvm*", "mdadm", "dosfstools")
	_, err := NewPlan(Options{Profile: p, Out: "/o", Cache: "/c", KeyFile: "/k", Installer: func(string, bool) ([]byte, error) { return nil, nil }})
	if err == nil {
		t.Fatal("a plan was made")
	}
	for _, want := range []string{"has lvm*, which takes out lvm2", "has mdadm, which takes out mdadm"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "dosfstools") {
		t.Errorf("mkfs.vfat may come with another package: %v", err)
	}
}

func TestAnImageHasTheBootLoadersOfItsLayout(t *testing.T) {
	uefi := []string{"boot/efi/EFI/centos/grubx64.efi"}
	syslinux := []string{"usr/sbin/extlinux", "usr/share/syslinux/ldlinux.c32"}
	pc := []string{"usr/bin/grub2-mkimage"}
	for _, f := range []string{"boot.img", "diskboot.img", "kernel.img", "lzma_decompress.img", "moddep.lst", "biosdisk.mod"} {
		pc = append(pc, "usr/lib/grub/i386-pc/"+f)
	}
	both := slices.Concat(uefi, pc)
	for name, c := range map[string]struct {
		files  []string
		layout layout.Layout
		says   []string
	}{
		"GRUB for BIOS alone, by either way":           {pc, layout.Layout{}, nil},
		"GRUB for UEFI alone, by either way":           {uefi, layout.Layout{}, nil},
		"GRUB for both":                                {both, layout.Layout{Firmware: layout.Both, BIOSLoader: layout.GRUB}, nil},
		"GRUB for BIOS without its modules":            {slices.Concat(uefi, pc[:3]), layout.Layout{BIOSLoader: layout.GRUB}, []string{"no GRUB for BIOS", "grub2-pc-modules"}},
		"GRUB for BIOS without its program":            {slices.Concat(uefi, pc[1:]), layout.Layout{BIOSLoader: layout.GRUB}, []string{"grub2-mkimage"}},
		"no GRUB where UEFI is wanted":                 {slices.Concat(syslinux, pc), layout.Layout{Firmware: layout.UEFI}, []string{"grub2-efi-x64"}},
		"neither where both are":                       {nil, layout.Layout{Firmware: layout.Both}, []string{"grub2-efi-x64", "extlinux"}},
		"extlinux that cannot read the mirror's /boot": {slices.Concat(uefi, syslinux), layout.Layout{Preset: layout.Mirror, Firmware: layout.Both, BIOSLoader: layout.GRUB}, []string{"no GRUB for BIOS"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := bootLoaders(treeOf(t, c.files...), profileWith(10, "x86_64", c.layout), "N")
			if len(c.says) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				if g := got.GRUBPC; (g != nil) != slices.Contains(c.files, pc[1]) || g != nil && (g.ModuleDir != "/usr/lib/grub/i386-pc" || g.BootImage != g.ModuleDir+"/boot.img" || g.BLS) {
					t.Errorf("GRUB for BIOS is %+v", g)
				}
				return
			}
			for _, s := range c.says {
				if err == nil || !strings.Contains(err.Error(), s) {
					t.Errorf("got %v, want something that says %q", err, s)
				}
			}
		})
	}
}

func TestGRUBThatReadsBootLoaderEntriesIsKnown(t *testing.T) {
	tr := treeOf(t, "usr/bin/grub2-mkimage", "usr/lib/grub/i386-pc/blscfg.mod", "usr/lib/grub/i386-pc/boot.img", "usr/lib/grub/i386-pc/diskboot.img",
		"usr/lib/grub/i386-pc/kernel.img", "usr/lib/grub/i386-pc/lzma_decompress.img", "usr/lib/grub/i386-pc/moddep.lst", "usr/lib/grub/i386-pc/biosdisk.mod")
	if err := tr.Write("/boot/efi/EFI/centos/grubx64.efi", strings.NewReader("MZ\x00blscfg\x00"), tree.RootFile()); err != nil {
		t.Fatal(err)
	}
	l, err := bootLoaders(tr, profileWith(9, "x86_64", layout.Layout{}), "N")
	if err != nil || !l.GRUB.BLS || !l.GRUBPC.BLS {
		t.Errorf("%+v %+v, %v", l.GRUB, l.GRUBPC, err)
	}
}
