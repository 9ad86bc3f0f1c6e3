package disk

import (
	"fmt"

	"github.com/google/uuid"

	"imgbuild/image"
	"imgbuild/installer/disk/gpt"
)

// Table is the partition table for placed partitions on d, with new random GUIDs. arch is the manifest's.
func Table(d Disk, parts []Placed, arch string) (*gpt.Table, error) {
	t := &gpt.Table{GUID: uuid.New(), SectorSize: d.Sector, Sectors: uint64(d.Size / int64(d.Sector))}
	for _, p := range parts {
		typ, err := uuid.Parse(partitionType(p.Role, arch))
		if err != nil {
			return nil, fmt.Errorf("make partition table: %w", err)
		}
		e := gpt.Partition{
			Number: p.Number, Type: typ, GUID: uuid.New(), Name: p.Name,
			First: uint64(p.Start / int64(d.Sector)), Last: uint64((p.Start+p.Size)/int64(d.Sector)) - 1,
		}
		if p.Role == image.RoleBoot {
			e.Attributes = gpt.AttrLegacyBoot
		}
		t.Partitions = append(t.Partitions, e)
	}
	return t, t.Validate()
}

// partitionType: root's type would let systemd mount it without fstab; /boot is a plain Linux file system, as the
// type for an extended boot loader partition promises files that are not there.
func partitionType(r image.Role, arch string) string {
	switch {
	case r == image.RoleBIOSBoot:
		return gpt.TypeBIOSBoot
	case r == image.RoleESP:
		return gpt.TypeESP
	case r == image.RoleRoot && arch == "x86_64":
		return gpt.TypeRootX8664
	case r == image.RoleRoot && arch == "aarch64":
		return gpt.TypeRootARM64
	}
	return gpt.TypeLinux
}
