package testvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Firmware is what a machine starts with.
type Firmware string

// The kinds of firmware.
const (
	BIOS       Firmware = "bios"
	UEFI       Firmware = "uefi"
	SecureBoot Firmware = "secureboot" // UEFI that starts only signed loaders
)

// ParseFirmware reads a Firmware as people write it.
func ParseFirmware(s string) (Firmware, error) {
	switch f := Firmware(strings.ToLower(strings.TrimSpace(s))); f {
	case BIOS, UEFI, SecureBoot:
		return f, nil
	}
	return "", fmt.Errorf("read firmware %q: it is none of bios, uefi, secureboot", s)
}

// Bus is how a disk is attached.
type Bus string

// The buses of disks, by the name of the device that Linux gives them.
const (
	Virtio Bus = "virtio" // vda
	NVMe   Bus = "nvme"   // nvme0n1
	SATA   Bus = "sata"   // sda, on AHCI
	SCSI   Bus = "scsi"   // sda, on virtio-scsi
	USB    Bus = "usb"    // sda, a stick
	CD     Bus = "cd"     // sr0, read-only
)

// ParseBus reads a Bus as people write it.
func ParseBus(s string) (Bus, error) {
	switch b := Bus(strings.ToLower(strings.TrimSpace(s))); b {
	case Virtio, NVMe, SATA, SCSI, USB, CD:
		return b, nil
	}
	return "", fmt.Errorf("read disk bus %q: it is none of virtio, nvme, sata, scsi, usb, cd", s)
}

// DiskFormat is the format of a disk's file.
type DiskFormat string

// The formats of disk files.
const (
	Raw   DiskFormat = "raw"
	Qcow2 DiskFormat = "qcow2"
)

// Disk is a disk of a machine. The file must be there.
type Disk struct {
	Path   string
	Format DiskFormat // default Raw
	Bus    Bus        // default Virtio
	// Serial is what the guest sees as the disk's serial number; virtio-blk shows the first 20 characters.
	Serial string
	// BlockSize is the logical and physical sector size in bytes: 512 (default) or 4096.
	BlockSize int
	ReadOnly  bool
}

// NIC is a network card, attached to the bridge by a tap of its own.
type NIC struct {
	// MAC is the hardware address; empty takes one made from the machine's place in the network.
	MAC string
	// Model is the QEMU device; default virtio-net-pci.
	Model string
	// Unplugged starts the machine with the cable out.
	Unplugged bool
}

// SMBIOS is what the machine says about itself (SMBIOS type 1).
type SMBIOS struct {
	Manufacturer, Product, Version, Serial, UUID, SKU, Family string
}

// BootKind is what the firmware is told to start from. It is told strictly: nothing else is tried.
type BootKind string

// The ways to boot.
const (
	BootDisk    BootKind = "disk"    // the disks in order, nothing else
	BootNetwork BootKind = "network" // the first network card
	BootRack    BootKind = "rack"    // the first network card, and the disks when it says so: how servers in racks are set
	BootKernel  BootKind = "kernel"  // a kernel and initramfs that QEMU puts into memory
)

// Boot says how a machine boots. Kernel, Initrd and Append are for BootKernel.
type Boot struct {
	Kind           BootKind
	Kernel, Initrd string
	Append         string
}

func (b Boot) fromNetwork() bool { return b.Kind == BootNetwork || b.Kind == BootRack }

// Config describes a machine.
type Config struct {
	// Name is used in messages and file names: small letters, digits and dashes.
	Name      string
	Firmware  Firmware // default BIOS
	MemoryMiB int      // default 2048
	CPUs      int      // default 2
	Disks     []Disk
	NICs      []NIC
	SMBIOS    SMBIOS
	Boot      Boot
	// VarsFile keeps the UEFI's variables (boot entries) between two runs of one machine. It is made from the template if
	// it is not there. Empty takes a fresh copy that is thrown away.
	VarsFile string
	// Watchdog gives the machine an Intel 6300ESB watchdog that resets it.
	Watchdog bool
	// KeepOnReset lets the machine run on when the guest resets it. Otherwise a reset ends QEMU, as a power off does, and
	// Exit says which it was.
	KeepOnReset bool
}

func (c Config) withDefaults() Config {
	if c.Firmware == "" {
		c.Firmware = BIOS
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 2048
	}
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.Boot.Kind == "" {
		c.Boot.Kind = BootDisk
	}
	c.Disks = append([]Disk(nil), c.Disks...)
	for i := range c.Disks {
		if c.Disks[i].Format == "" {
			c.Disks[i].Format = Raw
		}
		if c.Disks[i].Bus == "" {
			c.Disks[i].Bus = Virtio
		}
		c.Disks[i].ReadOnly = c.Disks[i].ReadOnly || c.Disks[i].Bus == CD
	}
	c.NICs = append([]NIC(nil), c.NICs...)
	for i := range c.NICs {
		if c.NICs[i].Model == "" {
			c.NICs[i].Model = "virtio-net-pci"
		}
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("describe machine %q: "+format, append([]any{c.Name}, a...)...))
	}
	if c.Name == "" || strings.Trim(c.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		bad("the name is not made of small letters, digits and dashes")
	}
	if _, err := ParseFirmware(string(c.Firmware)); err != nil {
		errs = append(errs, err)
	}
	if c.MemoryMiB < 64 || c.CPUs < 1 {
		bad("%d MiB of memory and %d processors are too little", c.MemoryMiB, c.CPUs)
	}
	for i, d := range c.Disks {
		if d.Path == "" {
			bad("disk %d has no file", i)
		}
		if _, err := ParseBus(string(d.Bus)); err != nil {
			errs = append(errs, err)
		}
		if d.Format != Raw && d.Format != Qcow2 {
			bad("disk %d has format %q, which is neither raw nor qcow2", i, d.Format)
		}
		if d.BlockSize != 0 && d.BlockSize != 512 && d.BlockSize != 4096 {
			bad("disk %d has sectors of %d bytes, which is neither 512 nor 4096", i, d.BlockSize)
		}
	}
	switch c.Boot.Kind {
	case BootDisk:
	case BootNetwork, BootRack:
		if len(c.NICs) == 0 {
			bad("it boots from the network and has no network card")
		}
	case BootKernel:
		if c.Boot.Kernel == "" {
			bad("it boots a kernel and none is given")
		}
	default:
		bad("boot kind %q is none of disk, network, rack, kernel", c.Boot.Kind)
	}
	return errors.Join(errs...)
}

// wiring is what a machine is connected to when it starts: chosen by Start, not by whoever describes the machine.
type wiring struct {
	accel     Accel
	firmware  FirmwareFiles // code, and this machine's own variable store; empty for BIOS
	taps      []string      // one for each NIC
	consoleFD int           // a connected socket for the first serial port
	qmpFD     int           // a connected socket for QMP
}

// qemuArgs returns QEMU's arguments. The machine starts stopped: whoever holds QMP lets it run.
func qemuArgs(c Config, w wiring) []string {
	a := []string{"-name", optionValue("testvm-" + c.Name), "-nodefaults", "-display", "none", "-S", "-no-user-config"}
	// graphics=off makes SeaBIOS, and with it iPXE and extlinux, speak on the serial port.
	machine := "q35,graphics=off"
	if c.Firmware == SecureBoot {
		machine += ",smm=on"
	}
	a = append(a, "-machine", machine)
	if w.accel == KVM {
		a = append(a, "-accel", "kvm", "-cpu", "host")
	} else {
		a = append(a, "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max")
	}
	a = append(a, "-smp", strconv.Itoa(c.CPUs), "-m", strconv.Itoa(c.MemoryMiB), "-rtc", "base=utc",
		"-device", "virtio-rng-pci", "-boot", "strict=on")
	if !c.KeepOnReset {
		a = append(a, "-no-reboot")
	}
	a = append(a, socketArgs(w)...)
	a = append(a, firmwareArgs(c, w)...)
	a = append(a, smbiosArgs(c.SMBIOS)...)
	a = append(a, diskArgs(c)...)
	a = append(a, nicArgs(c, w)...)
	if c.Watchdog {
		a = append(a, "-device", "i6300esb", "-action", "watchdog=reset")
	}
	if c.Boot.Kind == BootKernel {
		a = append(a, "-kernel", c.Boot.Kernel)
		if c.Boot.Initrd != "" {
			a = append(a, "-initrd", c.Boot.Initrd)
		}
		if c.Boot.Append != "" {
			a = append(a, "-append", c.Boot.Append)
		}
	}
	return a
}

func socketArgs(w wiring) []string {
	return []string{
		"-chardev", "socket,id=console,fd=" + strconv.Itoa(w.consoleFD), "-serial", "chardev:console",
		"-chardev", "socket,id=qmp,fd=" + strconv.Itoa(w.qmpFD), "-mon", "chardev=qmp,mode=control",
	}
}

func firmwareArgs(c Config, w wiring) []string {
	if c.Firmware == BIOS {
		return nil
	}
	var a []string
	if c.Firmware == SecureBoot {
		a = append(a, "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	return append(a,
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+optionValue(w.firmware.Code),
		"-drive", "if=pflash,unit=1,format=raw,file="+optionValue(w.firmware.Vars))
}

func smbiosArgs(s SMBIOS) []string {
	var b strings.Builder
	for _, f := range []struct{ key, value string }{
		{"manufacturer", s.Manufacturer}, {"product", s.Product}, {"version", s.Version}, {"serial", s.Serial},
		{"uuid", s.UUID}, {"sku", s.SKU}, {"family", s.Family},
	} {
		if f.value != "" {
			b.WriteString("," + f.key + "=" + optionValue(f.value))
		}
	}
	if b.Len() == 0 {
		return nil
	}
	return []string{"-smbios", "type=1" + b.String()}
}

func diskArgs(c Config) []string {
	var a []string
	scsi, usb, port := false, false, 0
	for i, d := range c.Disks {
		node := "disk" + strconv.Itoa(i)
		a = append(a, "-blockdev", blockdev(node, d))
		var dev string
		switch d.Bus {
		case NVMe:
			// A controller must have a serial number, even an empty-looking one.
			serial := d.Serial
			if serial == "" {
				serial = node
			}
			dev = "nvme,serial=" + optionValue(serial)
		case SATA:
			dev = fmt.Sprintf("ide-hd,bus=ide.%d", port)
			port++
		case SCSI:
			if !scsi {
				a = append(a, "-device", "virtio-scsi-pci,id=scsi")
				scsi = true
			}
			dev = "scsi-hd,bus=scsi.0"
		case USB:
			if !usb {
				a = append(a, "-device", "qemu-xhci,id=usb")
				usb = true
			}
			dev = "usb-storage,bus=usb.0,removable=on"
		case CD:
			dev = fmt.Sprintf("ide-cd,bus=ide.%d", port)
			port++
		default:
			dev = "virtio-blk-pci"
		}
		dev += ",id=" + diskDevice(i) + ",drive=" + node
		if d.Serial != "" && d.Bus != NVMe {
			dev += ",serial=" + optionValue(d.Serial)
		}
		if d.BlockSize != 0 {
			dev += fmt.Sprintf(",logical_block_size=%d,physical_block_size=%d", d.BlockSize, d.BlockSize)
		}
		switch c.Boot.Kind {
		case BootDisk:
			dev += ",bootindex=" + strconv.Itoa(i+1)
		case BootRack:
			dev += ",bootindex=" + strconv.Itoa(i+2) // after the network card
		}
		a = append(a, "-device", dev)
	}
	return a
}

// diskDevice is QEMU's name for the device of a disk, by its place among the machine's.
func diskDevice(i int) string { return "drive" + strconv.Itoa(i) }

// blockdev describes a disk's file. cache.no-flush is what people know as cache=unsafe: the host's page cache is as
// durable as a test needs, and it is much faster.
func blockdev(node string, d Disk) string {
	type cache struct {
		Direct  bool `json:"direct"`
		NoFlush bool `json:"no-flush"`
	}
	type file struct {
		Driver   string `json:"driver"`
		Filename string `json:"filename"`
		Cache    cache  `json:"cache"`
		Discard  string `json:"discard"`
		ReadOnly bool   `json:"read-only"`
	}
	type format struct {
		Driver   DiskFormat `json:"driver"`
		Node     string     `json:"node-name"`
		Cache    cache      `json:"cache"`
		Discard  string     `json:"discard"`
		ReadOnly bool       `json:"read-only"`
		File     file       `json:"file"`
	}
	unsafe := cache{NoFlush: true}
	// Strings and booleans always marshal.
	b, _ := json.Marshal(format{d.Format, node, unsafe, "unmap", d.ReadOnly, file{"file", d.Path, unsafe, "unmap", d.ReadOnly}})
	return string(b)
}

func nicArgs(c Config, w wiring) []string {
	var a []string
	for i, n := range c.NICs {
		id := "net" + strconv.Itoa(i)
		a = append(a, "-netdev", "tap,id="+id+",ifname="+w.taps[i]+",script=no,downscript=no")
		dev := optionValue(n.Model) + ",netdev=" + id + ",mac=" + n.MAC
		boots := i == 0 && c.Boot.fromNetwork()
		if boots {
			dev += ",bootindex=1"
		}
		if !boots || c.Firmware != BIOS {
			// Without a ROM nothing can boot from the network by mistake. UEFI boots it with its own driver, so that the
			// chain under test is the one of real firmware: its PXE, then our iPXE.
			dev += ",romfile="
		}
		a = append(a, "-device", dev)
	}
	return a
}

// optionValue writes s as a value in QEMU's key=value,key=value syntax, where a comma is doubled.
func optionValue(s string) string { return strings.ReplaceAll(s, ",", ",,") }
