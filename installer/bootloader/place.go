package bootloader

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"imgbuild/image/layout"
)

// part is a partition's name in a scheme.
func part(d layout.SchemeDisk, p layout.Part) layout.Device {
	return layout.Device(fmt.Sprintf("part/%s/%d", d.Name, p.Number))
}

// arrayOf and volumeOf take a device's name apart.
func arrayOf(d layout.Device) (name string, ok bool) { return strings.CutPrefix(string(d), "md/") }

func volumeOf(d layout.Device) (group, volume string, ok bool) {
	rest, ok := strings.CutPrefix(string(d), "lv/")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "/")
}

// below is a device and everything that it is made of, down to partitions and whole disks.
func below(s *layout.Scheme, d layout.Device) []layout.Device {
	out := []layout.Device{d}
	var under []layout.Device
	if name, ok := arrayOf(d); ok {
		if a := array(s, name); a != nil {
			under = a.Members
		}
	} else if group, _, ok := volumeOf(d); ok {
		for _, g := range s.Groups {
			if g.Name == group {
				under = g.Physical
			}
		}
	}
	for _, u := range under {
		for _, x := range below(s, u) {
			if !slices.Contains(out, x) {
				out = append(out, x)
			}
		}
	}
	return out
}

func array(s *layout.Scheme, name string) *layout.SchemeArray {
	for i := range s.Arrays {
		if s.Arrays[i].Name == name {
			return &s.Arrays[i]
		}
	}
	return nil
}

// volume is a logical volume of a scheme, nil if there is none.
func volume(s *layout.Scheme, group, name string) *layout.SchemeVolume {
	for _, g := range s.Groups {
		for i := range g.Volumes {
			if g.Name == group && g.Volumes[i].Name == name {
				return &g.Volumes[i]
			}
		}
	}
	return nil
}

// bootDisks are the disks that firmware starts.
func bootDisks(s *layout.Scheme) []layout.SchemeDisk {
	return slices.DeleteFunc(slices.Clone(s.Disks), func(d layout.SchemeDisk) bool { return !d.Boot })
}

// checkBIOSDisks returns an error if BIOS cannot start a boot disk, whatever the loader: its services count in sectors of
// 512 bytes in every loader's first stage.
func checkBIOSDisks(s *layout.Scheme) error {
	disks := bootDisks(s)
	if len(disks) == 0 {
		return errors.New("the scheme has no disk to boot from")
	}
	for _, d := range disks {
		if d.Sector != 512 {
			return fmt.Errorf("BIOS boot loaders read sectors of 512 bytes and %s has sectors of %d; use UEFI, or another disk for /boot", d.Path, d.Sector)
		}
		if d.Table == "" {
			return fmt.Errorf("%s has no partition table, and so no room for a boot loader", d.Path)
		}
	}
	return nil
}
