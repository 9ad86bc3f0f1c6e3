package bootloader

import (
	"slices"

	"imgbuild/image"
	"imgbuild/image/layout"
)

// IDs are the identifiers of what a scheme makes.
type IDs interface {
	// FS is a file system's UUID, as blkid(8) writes it.
	FS(layout.Device) string
	// Array is an array's UUID, as mdadm --uuid writes it.
	Array(name string) string
}

// Arguments are the kernel arguments of the installed system, in order: where / is, the arrays and logical volumes that
// dracut (dracut.cmdline(7)) has to assemble before it can mount / and /usr, then the manifest's, whose last console= is
// /dev/console. Where one array or volume is named dracut assembles no other; the rest is found by udev.
func Arguments(m *image.Manifest, s *layout.Scheme, ids IDs) []string {
	var arrays, volumes []string
	root := ""
	for _, mount := range []string{"/", "/usr"} {
		f := s.On(mount)
		if f == nil {
			continue
		}
		if f.Mount == "/" {
			root = ids.FS(f.Device)
		}
		if group, volume, ok := volumeOf(f.Device); ok {
			volumes = append(volumes, "rd.lvm.lv="+group+"/"+volume)
		}
		for _, d := range below(s, f.Device) {
			if name, ok := arrayOf(d); ok {
				arrays = append(arrays, "rd.md.uuid="+ids.Array(name))
			}
		}
	}
	out := []string{"root=UUID=" + root, "ro"}
	for _, a := range append(arrays, volumes...) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return append(out, m.KernelArgs...)
}
