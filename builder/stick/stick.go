// Package stick writes an image to a USB stick, a memory card or another disk, and proves that it is there.
//
// In come a file, a device's name and what the kernel says of disks in /sys and /proc. Out goes a device whose first bytes, read back
// from itself, are the file's; or an error, and then a device that does not start. It never writes to a device that anything uses, to
// a partition, or to an internal disk that nobody asked for, and it never asks anybody: who calls shows the device to a person first.
package stick

import (
	"fmt"
	"strings"

	"imgbuild/builder/progress"
)

// System is where the kernel and udev show themselves.
type System struct {
	Sys  string // /sys
	Proc string // /proc
	Dev  string // /dev
	// Udev is udev's database, /run/udev/data. It is read where a device itself may not be.
	Udev string
}

// Host is the machine that this runs on.
func Host() System { return System{Sys: "/sys", Proc: "/proc", Dev: "/dev", Udev: "/run/udev/data"} }

// Device is a whole disk as the kernel describes it.
type Device struct {
	Name   string `json:"name"`   // kernel name, as sdb
	Path   string `json:"path"`   // device node, as /dev/sdb
	Size   int64  `json:"size"`   // bytes; 0 for a reader without a card
	Sector int    `json:"sector"` // logical sector, bytes
	Model  string `json:"model,omitempty"`
	Serial string `json:"serial,omitempty"`
	// Bus is how it is attached: usb, mmc, nvme, sata, sas, scsi, virtio, virtual, …; empty where unknown.
	Bus       string `json:"bus,omitempty"`
	Removable bool   `json:"removable"`
	ReadOnly  bool   `json:"read_only"`
	// Holds is what is on it, in words: "GPT partition table", `sdb1: vfat "DATA"`. Empty where nothing is known to be.
	Holds []string `json:"holds,omitempty"`
	// Uses are what keeps it busy, in words: "sdb1 is mounted at /srv".
	Uses []string `json:"uses,omitempty"`
	// System is true where the running system stands on it.
	System bool `json:"system"`
	// Refused says why nothing may be written to it; empty for a candidate.
	Refused []string `json:"refused,omitempty"`

	number string // major:minor
	seq    string // the kernel's count of disks, which tells two in the same place apart
	// virtual marks loop, network and stacked devices; stacked those that stand on other disks; never what is no disk.
	virtual, stacked, never bool
	// card marks a card in a slot, as against soldered eMMC.
	card bool
}

// Describe is the device in one line for people, as "/dev/sdb: SanDisk Ultra, serial 4C53, 14.9 GiB, usb, removable".
func (d Device) Describe() string {
	s := []string{d.Model, "no serial number", "no medium", d.Bus, ""}
	if d.Model == "" {
		s[0] = "unnamed"
	}
	if d.Serial != "" {
		s[1] = "serial " + d.Serial
	}
	if d.Size > 0 {
		s[2] = progress.Bytes(d.Size)
	}
	if d.Removable {
		s[4] = "removable"
	}
	var kept []string
	for _, t := range s {
		if t != "" {
			kept = append(kept, t)
		}
	}
	return d.Path + ": " + strings.Join(kept, ", ")
}

// Content is what is on the device, in one line.
func (d Device) Content() string {
	if len(d.Holds) == 0 {
		return "nothing that is known here"
	}
	return strings.Join(d.Holds, ", ")
}

// internal says why the device is taken only where a person insists; empty for sticks and cards.
func (d Device) internal() string {
	switch {
	case d.virtual:
		return "is a virtual device"
	case d.Bus == "usb", d.card, d.Removable:
		return ""
	case d.Bus == "mmc":
		return "is soldered storage (eMMC)"
	case d.Bus != "":
		return "is an internal disk (" + d.Bus + ")"
	}
	return "is neither removable nor on USB"
}

// problems are all reasons not to write size bytes to the device, each a clause that goes on after its name. Size 0 is any size.
func (d Device) problems(size int64, forceInternal bool) []string {
	var out []string
	switch {
	case d.never:
		return []string{"is no disk or stick, and nothing is written to its kind"}
	case d.stacked:
		return []string{"stands on other disks and is no stick; name a whole disk"}
	case d.Size == 0:
		return []string{"has no medium in it; put the card in"}
	}
	if len(d.Uses) > 0 {
		what, then := "is in use", "release it first"
		if d.System {
			what, then = "is a disk of the running system", "name another"
		}
		out = append(out, fmt.Sprintf("%s: %s; %s", what, strings.Join(d.Uses, ", "), then))
	}
	if why := d.internal(); why != "" && !forceInternal {
		out = append(out, why+"; --force-internal takes it nevertheless")
	}
	if d.ReadOnly {
		out = append(out, "is read-only; take off its write protection")
	}
	if d.Size < size {
		out = append(out, fmt.Sprintf("has %s, and the image %s (%d bytes too little); take a larger one", progress.Bytes(d.Size), progress.Bytes(size), size-d.Size))
	}
	return out
}
