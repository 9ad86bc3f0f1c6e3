package releases

import (
	"fmt"
	"slices"
	"strings"

	"imgbuild/image/layout"
)

// CanMake says why the release's installer cannot make a layout, nil being the release's own, on a machine with this firmware;
// empty if nobody knows that yet.
func (r *Release) CanMake(declared *layout.Layout, machine layout.Firmware) error {
	whose := "the layout"
	if declared == nil {
		declared, whose = &r.Layout, "the release's own layout"
	}
	if missing := r.lacks(*declared, machine); len(missing) > 0 {
		return fmt.Errorf("%s needs %s, which the initramfs of %s does not have: name it in the profile's initramfs.tools and build the release again, or declare another layout",
			whose, strings.Join(missing, ", "), r.Ref())
	}
	return nil
}

// lacks says which programs a layout needs that the release's initramfs does not have.
func (r *Release) lacks(l layout.Layout, machine layout.Firmware) []string {
	fw := l.Firmware
	if fw == "" || fw == layout.Auto {
		fw = machine
	}
	if r.Arch == "aarch64" {
		fw = layout.UEFI
	}
	known := fw == layout.BIOS || fw == layout.UEFI || fw == layout.Both
	if !known {
		fw = layout.Auto
	}
	has := func(tool string) bool { return slices.Contains(r.Tools, tool) }
	var missing []string
	for _, tool := range l.Tools(fw) {
		loader := tool == extlinux || tool == grub
		switch {
		case has(tool):
		case loader && !known:
			// the machine may start by UEFI
		case loader && (l.BIOSLoader == "" || l.BIOSLoader == layout.AutoLoader) && (has(extlinux) || has(grub)):
			// the other one is as good; whether it reads this /boot, layout.Resolve says
		default:
			missing = append(missing, tool)
		}
	}
	return missing
}

// The tools of the two BIOS loaders.
const (
	extlinux = "extlinux"
	grub     = "grub2-mkimage"
)
