// Package hw knows the machine: what it is (vendor, product, serial number, firmware, memory, network interfaces) and
// which kernel modules it needs. sysfs and procfs come in; a Machine and loaded modules go out.
//
// It never writes to a disk, never trusts a serial number that a vendor left unset, and never waits by the clock where
// the kernel announces an event.
package hw

import (
	"net"
)

// Firmware is what started the machine.
type Firmware string

// The kinds of firmware.
const (
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
)

// Machine is what a machine says about itself.
type Machine struct {
	Vendor  string // SMBIOS type 1, manufacturer
	Product string // SMBIOS type 1, product name
	// Serial is the serial number of SMBIOS's system (type 1), else chassis (type 3), else baseboard (type 2): the first that
	// identifies the machine; SerialSource is that one's name. Where none does, Serial is empty and SerialProblem says why.
	Serial        string
	SerialSource  string
	SerialProblem string
	// UUID is SMBIOS type 1's UUID in small letters, or empty when it is unset or a known placeholder.
	UUID     string
	Firmware Firmware
	// MemoryBytes is the memory that the kernel may use (MemTotal).
	MemoryBytes int64
	CPUs        int
	CPUModel    string // of the first
	// BMC is true where the firmware or ACPI describe a management controller (SMBIOS type 38, ACPI IPI0001).
	BMC bool
	// SecureBoot is true when the firmware enforces it.
	SecureBoot bool
	// Kernel is the running kernel's release, as uname -r says.
	Kernel string
	NICs   []NIC
}

// NIC is one physical network interface.
type NIC struct {
	Name   string
	MAC    net.HardwareAddr
	Driver string // the kernel driver's name, e.g. virtio_net
	Bus    string // where it is, e.g. 0000:00:03.0
	// Carrier is true when the link is up; it needs the interface to have been brought up.
	Carrier bool
	// SpeedMbit is the link's speed in Mbit/s, 0 if it is not known.
	SpeedMbit int
}
