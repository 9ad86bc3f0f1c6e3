package bootloader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/installer/bootloader/nvram"
)

// espOf is the EFI system partition's file system, nil if there is none.
func espOf(s *layout.Scheme) *layout.Filesystem {
	if f := s.On("/boot/efi"); f != nil && f.FS == "vfat" {
		return f
	}
	return nil
}

// espPart is one partition that firmware can start from.
type espPart struct {
	disk layout.SchemeDisk
	part layout.Part
}

// espParts are the partitions that hold the EFI system partition's file system: itself, or the members of its RAID 1. With
// metadata at the end firmware sees a plain file system on each.
func espParts(s *layout.Scheme) ([]espPart, error) {
	esp := espOf(s)
	if esp == nil {
		return nil, errors.New("the layout has no EFI system partition with vfat at /boot/efi")
	}
	members := []layout.Device{esp.Device}
	if name, ok := arrayOf(esp.Device); ok {
		a := array(s, name)
		if a == nil || a.Level != 1 || a.Metadata != "1.0" {
			return nil, fmt.Errorf("the EFI system partition is on the array %s, and firmware reads only level 1 with metadata 1.0", name)
		}
		members = a.Members
	}
	var out []espPart
	for _, d := range s.Disks {
		for _, p := range d.Parts {
			if slices.Contains(members, part(d, p)) {
				out = append(out, espPart{d, p})
			}
		}
	}
	if len(out) != len(members) {
		return nil, fmt.Errorf("the EFI system partition is on %s, and firmware reads partitions only", members)
	}
	return out, nil
}

// BootEntries are the entries of the firmware's boot menu for a scheme, in the order in which they are to be tried: one for
// each disk that the ESP is on. guid is the GPT GUID of a partition of one of the scheme's disks. Where there are several
// entries each label has the disk's name and serial number, so that the menu tells which disk it starts.
func BootEntries(m *image.Manifest, s *layout.Scheme, guid func(disk string, number int) uuid.UUID) ([]nvram.Entry, error) {
	file, err := firstStage(m)
	if err != nil {
		return nil, err
	}
	parts, err := espParts(s)
	if err != nil {
		return nil, fmt.Errorf("make boot entries: %w", err)
	}
	var out []nvram.Entry
	for _, p := range parts {
		if p.disk.Table != layout.GPT {
			return nil, fmt.Errorf("make boot entries: %s has no GPT, so firmware has to find %s on it by itself", p.disk.Path, removableDir)
		}
		e := nvram.Entry{Group: oneLine(m.BootLoader.GRUB.Label), Label: oneLine(m.BootLoader.GRUB.Label), Partition: p.part.Number, GUID: guid(p.disk.Name, p.part.Number), File: file,
			First: uint64(p.part.Start / int64(p.disk.Sector)), Sectors: uint64(p.part.Size / int64(p.disk.Sector))}
		if len(parts) > 1 {
			e.Label += " (" + p.disk.Name
			if p.disk.Serial != "" {
				e.Label += " " + oneLine(p.disk.Serial)
			}
			e.Label += ")"
		}
		out = append(out, e)
	}
	return out, nil
}
