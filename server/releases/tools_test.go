package releases

import (
	"slices"
	"strings"
	"testing"

	"imgbuild/image/layout"
)

func TestWhichLayoutsAReleaseCanMake(t *testing.T) {
	plain := []string{"mkfs.xfs", "mkfs.ext4", "mkfs.vfat", "mkswap", "lvm"}
	with := func(more ...string) []string { return slices.Concat(plain, more) }
	for _, tt := range []struct {
		name    string
		tools   []string
		arch    string
		layout  *layout.Layout
		machine layout.Firmware
		says    string
	}{
		{"the release's own", with("extlinux"), "x86_64", nil, layout.BIOS, ""},
		{"the release's own, of a machine that nobody has seen", plain, "x86_64", nil, "", ""},
		{"no loader for BIOS", plain, "x86_64", nil, layout.BIOS, "the release's own layout needs extlinux"},
		{"no loader for BIOS, where the layout wants both", plain, "x86_64", &layout.Layout{Firmware: layout.Both}, "", "extlinux"},
		{"either loader will do", with("grub2-mkimage"), "x86_64", nil, layout.BIOS, ""},
		{"a certain loader", with("extlinux"), "x86_64", &layout.Layout{BIOSLoader: layout.GRUB}, layout.BIOS, "the layout needs grub2-mkimage, which the initramfs of web/1 does not have: name it in the profile's initramfs.tools"},
		{"UEFI needs none", plain, "x86_64", nil, layout.UEFI, ""},
		{"arm64 has no BIOS", plain, "aarch64", nil, "", ""},
		{"RAID", with("extlinux"), "x86_64", &layout.Layout{Preset: layout.Mirror}, layout.BIOS, "mdadm"},
		{"RAID with mdadm", with("extlinux", "mdadm"), "x86_64", &layout.Layout{Preset: layout.Mirror}, layout.BIOS, ""},
		{"several", []string{"mkfs.xfs"}, "x86_64", &layout.Layout{Preset: layout.Server}, layout.UEFI, "mkfs.vfat"},
		{"a release from before tools were named", nil, "x86_64", nil, layout.UEFI, "mkfs.xfs"},
	} {
		r := &Release{Name: "web", Version: "1", Arch: tt.arch, Tools: tt.tools}
		err := r.CanMake(tt.layout, tt.machine)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
	}
}
