// Package disk finds the machine's disks, and says of each what it is, what stands on it, whether it may be taken, and what is
// on it.
//
// What comes in: sysfs, and what is mounted. What goes out: disks, also as the candidates of layouts. It only reads.
package disk

import (
	"fmt"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/installer/disk/probe"
)

// Disk is one whole disk as the kernel describes it.
type Disk struct {
	Name   string // kernel name, e.g. sda or nvme0n1
	Path   string // device node, e.g. /dev/sda
	Size   int64  // bytes
	Sector int    // logical sector size, bytes
	// PhysicalSector is in bytes, or 0 where unknown.
	PhysicalSector int
	Model          string
	Serial         string
	// WWN is the worldwide name as the kernel writes it, e.g. naa.5000c500a1b2c3d4 or eui.0025388b710052aa.
	WWN        string
	Transport  string // virtio, nvme, sata, sas, usb, mmc, scsi, fc, iscsi, …; empty where unknown
	HCTL       string // SCSI host:channel:target:lun
	Removable  bool
	ReadOnly   bool
	Rotational bool
	// ByPath and ByID are the names that udev would give it, below /dev/disk/by-path and /dev/disk/by-id.
	ByPath []string
	ByID   []string
	// Users are what keeps it busy, itself or through what stands on it, in words: "LVM volume a-b (dm-3) is mounted at /srv".
	Users []string
	// Holders are the devices stacked on it or on one of its partitions, in words. They can be torn down.
	Holders []string
	// PathOf is the kernel name of the disk that this is only another path to. Paths are the others' names, where it is that disk
	// and no multipath map: what stands on them stands on it.
	PathOf string
	Paths  []string
	// virtual marks kinds that are never chosen unless named: loop, device-mapper, RAID, network block devices.
	virtual bool
	// medium marks what a management controller lends over USB, card a card in a slot.
	medium, card bool
	// zoned is host-managed or host-aware for disks of zones, else none or empty.
	zoned string
	// vendor and product are the two halves of Model. slaves are what a multipath map goes over, rank tells better paths (0) from
	// those that answer no reads.
	vendor, product string
	slaves          []string
	rank            int
}

// Describe is the disk in one line for people, e.g. `/dev/sda (ATA Samsung SSD, serial S3Z, 447.1 GiB, sata)`.
func (d Disk) Describe() string {
	var s []string
	if d.Model != "" {
		s = append(s, d.Model)
	}
	if d.Serial != "" {
		s = append(s, "serial "+d.Serial)
	} else {
		s = append(s, "no serial")
	}
	s = append(s, probe.Bytes(d.Size))
	if d.Transport != "" {
		s = append(s, d.Transport)
	}
	return fmt.Sprintf("%s (%s)", d.Path, strings.Join(s, ", "))
}

// Short is the disk with serial number and size, e.g. `/dev/vda (serial X, 20 GiB)`.
func (d Disk) Short() string {
	if d.Serial == "" {
		return fmt.Sprintf("%s (%s)", d.Path, probe.Bytes(d.Size))
	}
	return fmt.Sprintf("%s (serial %s, %s)", d.Path, d.Serial, probe.Bytes(d.Size))
}

// unfit says why the disk is never chosen unless a person names it; empty if it may be.
func (d Disk) unfit() string {
	switch {
	case d.virtual:
		return "it is a virtual device"
	case d.medium:
		return "it is a virtual medium of the management controller"
	case d.Transport == "usb":
		return "it is on USB"
	case d.card:
		return "it is a memory card"
	case d.Removable:
		return "it is removable"
	}
	return ""
}

// unusable says why the disk is not taken at all; empty if it may be.
func (d Disk) unusable() string {
	switch {
	case d.PathOf != "":
		return "it is another path to " + d.PathOf + ", which is the one to take"
	case d.ReadOnly:
		return "it is read-only; remove its write protection"
	case d.zoned == "host-managed":
		return "it is a host-managed zoned disk, which no file system here can be put on"
	case d.Sector != 512 && d.Sector != 4096:
		return fmt.Sprintf("it has sectors of %d bytes, and 512 and 4096 are supported; format it anew with its maker's tool", d.Sector)
	case len(d.Users) > 0:
		return "it is in use: " + strings.Join(d.Users, ", ") + "; release it first"
	}
	return ""
}

// Candidates are the disks as layouts see them, in the same order.
func Candidates(all []Disk) []layout.Candidate {
	out := make([]layout.Candidate, 0, len(all))
	for _, d := range all {
		out = append(out, layout.Candidate{
			ID: d.Name, Path: d.Path, Model: d.Model, Serial: d.Serial, WWN: d.WWN, Size: d.Size, Sector: d.Sector, PhysicalSector: d.PhysicalSector,
			Transport: d.Transport, Rotational: d.Rotational, HCTL: d.HCTL, ByPath: d.ByPath, ByID: d.ByID, Unfit: d.unfit(), Unusable: d.unusable(), PathOf: d.PathOf,
		})
	}
	return out
}

// bareWWN strips what tools put before the digits.
func bareWWN(s string) string {
	s = strings.ToLower(s)
	for _, prefix := range []string{"wwn-", "naa.", "eui.", "nvme-", "nvme.", "0x"} {
		s = strings.TrimPrefix(s, prefix)
	}
	return s
}
