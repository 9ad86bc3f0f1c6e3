// Package layout is what becomes of a machine's disks: partition tables, partitions, RAID, LVM, file systems.
//
// A Layout is declared: by a profile, by the registry for one host, by an answer file. With the disks of a machine it becomes a
// Scheme, in which every partition has its place and every volume its size in bytes: what is printed, shown before anything is
// written, and made. Everything here is plain data and pure functions: no disk is read, none is written.
package layout

// Layout is declared. The zero value is the preset simple.
type Layout struct {
	// Preset is simple, lvm, server or mirror, and the default, simple, stands wherever nothing else is declared. A preset is
	// short for disks, arrays and groups and goes with none of them.
	Preset Preset `json:"preset,omitempty" yaml:"preset,omitempty"`
	// Filesystem is what the preset's file systems are: xfs, the default, or ext4. /boot is always ext4 where extlinux reads it.
	Filesystem string `json:"filesystem,omitempty" yaml:"filesystem,omitempty"`
	// BootSize, ESPSize and SwapSize are those of the preset: 1GiB, 512MiB and none where they are not given.
	BootSize Size `json:"boot_size,omitempty" yaml:"boot_size,omitempty"`
	ESPSize  Size `json:"esp_size,omitempty" yaml:"esp_size,omitempty"`
	SwapSize Size `json:"swap_size,omitempty" yaml:"swap_size,omitempty"`
	// RootMin is the least size of the preset's root. MountOptions are root's.
	RootMin      Size   `json:"root_min,omitempty" yaml:"root_min,omitempty"`
	MountOptions string `json:"mount_options,omitempty" yaml:"mount_options,omitempty"`

	// Table is gpt, the default, or mbr: of every disk that does not say it itself.
	Table Table `json:"table,omitempty" yaml:"table,omitempty"`
	// Firmware says what the disk boots with: auto, the default, is the machine's own firmware; bios; uefi; both.
	Firmware Firmware `json:"firmware,omitempty" yaml:"firmware,omitempty"`
	// BIOSLoader is extlinux, grub or auto, the default: extlinux where the image has it and it can read /boot, else grub.
	BIOSLoader Loader `json:"bios_loader,omitempty" yaml:"bios_loader,omitempty"`
	// Discard is what is done to the disks before they are laid out, besides wiping signatures: none, the default; discard
	// (TRIM, UNMAP or deallocate all blocks); secure (as the device erases itself: NVMe format with user data erase, ATA
	// security erase is not used, else BLKSECDISCARD). A device that cannot is an error with secure and a warning with discard.
	Discard Discard `json:"discard,omitempty" yaml:"discard,omitempty"`

	// Disks are those that the system is made of, the one that the firmware starts first.
	Disks  []Disk  `json:"disks,omitempty" yaml:"disks,omitempty"`
	Arrays []Array `json:"raid,omitempty" yaml:"raid,omitempty"`
	Groups []Group `json:"volume_groups,omitempty" yaml:"volume_groups,omitempty"`
	// Data is what becomes of all disks that remain. Nil leaves them alone.
	Data *Data `json:"data,omitempty" yaml:"data,omitempty"`
}

// Preset is a layout's name.
type Preset string

// The presets.
const (
	Simple Preset = "simple" // /boot and root on partitions of one disk
	LVM    Preset = "lvm"    // /boot on a partition, root and swap in the volume group system on the rest of one disk
	// Server is lvm with /var, /var/log, /var/log/audit, /var/tmp, /var/crash, /opt, /tmp and /home on volumes of their own,
	// with nodev, nosuid and noexec as the CIS benchmark and the DISA STIG of RHEL have them.
	Server Preset = "server"
	Mirror Preset = "mirror" // two disks: ESP, /boot and a volume group's physical volume on RAID 1, either disk boots alone
)

// Table is a kind of partition table.
type Table string

// The partition tables.
const (
	GPT Table = "gpt"
	MBR Table = "mbr"
)

// Firmware is what starts a machine.
type Firmware string

// The kinds of firmware.
const (
	Auto Firmware = "auto"
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
	Both Firmware = "both"
)

// HasBIOS and HasUEFI say which loaders a resolved firmware needs.
func (f Firmware) HasBIOS() bool { return f == BIOS || f == Both }

// HasUEFI is HasBIOS for UEFI.
func (f Firmware) HasUEFI() bool { return f == UEFI || f == Both }

// Loader is a boot loader for BIOS.
type Loader string

// The BIOS boot loaders.
const (
	AutoLoader Loader = "auto"
	Extlinux   Loader = "extlinux"
	GRUB       Loader = "grub"
)

// Discard is how a disk is emptied.
type Discard string

// The ways of emptying.
const (
	DiscardNone   Discard = "none"
	DiscardBlocks Discard = "discard"
	DiscardSecure Discard = "secure"
)

// Size is a size as people write it: 512MiB, 20GiB (powers of 1024 with MiB, GiB, TiB), 30%, or rest.
// A percentage is of the disk for partitions and of the volume group for logical volumes.
type Size string

// Rest is what remains. Once per disk or volume group.
const Rest Size = "rest"

// Disk is one disk of a layout.
type Disk struct {
	// Name is what the layout calls the disk; it has to be unlike all others. Default: disk1, disk2, … in their order.
	Name string `json:"name,omitempty" yaml:"name,omitempty"`
	// Match says which disk it is. Without it, it is the only one that may be taken.
	Match Hints `json:"match,omitempty" yaml:"match,omitempty"`
	Table Table `json:"table,omitempty" yaml:"table,omitempty"`
	// Partitions lie on the disk in this order.
	Partitions []Partition `json:"partitions,omitempty" yaml:"partitions,omitempty"`
	// Group makes the rest of the disk a physical volume of this volume group; without partitions, the whole disk, which then has no
	// partition table. Array is the same for a member of a RAID array.
	Group string `json:"volume_group,omitempty" yaml:"volume_group,omitempty"`
	Array string `json:"raid,omitempty" yaml:"raid,omitempty"`
}

// Hints choose a disk. All that are given must hold. Texts are compared exactly, or as globs where they have *, ? or [; a
// leading ! turns the comparison round. Sizes take operators: ">=400GiB", "<2TiB", ">=400GiB <1TiB", or a size with a tolerance of 5 %.
type Hints struct {
	Serial     string `json:"serial,omitempty" yaml:"serial,omitempty"`
	WWN        string `json:"wwn,omitempty" yaml:"wwn,omitempty"`
	Model      string `json:"model,omitempty" yaml:"model,omitempty"`
	Size       string `json:"size,omitempty" yaml:"size,omitempty"`
	Rotational *bool  `json:"rotational,omitempty" yaml:"rotational,omitempty"`
	Transport  string `json:"transport,omitempty" yaml:"transport,omitempty"` // nvme, sata, sas, virtio, usb, …
	Path       string `json:"path,omitempty" yaml:"path,omitempty"`           // /dev/sda, or a name below /dev/disk/by-path or by-id
	HCTL       string `json:"hctl,omitempty" yaml:"hctl,omitempty"`           // SCSI host:channel:target:lun, as 0:0:1:0
	// Prefer breaks a tie: smallest, largest, first (by path in the order of buses). Without it a tie is refused.
	Prefer string `json:"prefer,omitempty" yaml:"prefer,omitempty"`
}

// Role says what a partition is for, where its content does not.
type Role string

// The roles.
const (
	RoleNone     Role = ""
	RoleBIOSBoot Role = "biosboot" // GRUB's core on GPT and BIOS; raw
	RoleESP      Role = "esp"      // EFI system partition; vfat
	RoleSeal     Role = "seal"     // whose disk this is, see image/seal; made on every boot disk with a GPT, never declared
)

// Partition is one partition.
type Partition struct {
	// Name is the GPT partition name, at most 36 characters, unlike all others of the disk. Default: from the mount point or role.
	Name    string `json:"name,omitempty" yaml:"name,omitempty"`
	Role    Role   `json:"role,omitempty" yaml:"role,omitempty"`
	Extent  `yaml:",inline"`
	Content `yaml:",inline"`
}

// Extent is how large something is.
type Extent struct {
	Size Size `json:"size,omitempty" yaml:"size,omitempty"` // default: rest
	Min  Size `json:"min,omitempty" yaml:"min,omitempty"`
	Max  Size `json:"max,omitempty" yaml:"max,omitempty"`
}

// Content is what a partition, array, volume or whole disk holds: a file system, or a part of a volume group or array, or nothing.
type Content struct {
	FS    string `json:"fs,omitempty" yaml:"fs,omitempty"`       // xfs, ext4, vfat, swap
	Label string `json:"label,omitempty" yaml:"label,omitempty"` // at most 12 bytes for XFS, 16 for ext4, 11 for vfat, 15 for swap
	// Mkfs are further arguments of mkfs. Each begins with a dash, or follows one that does; none is a path.
	Mkfs    []string `json:"mkfs,omitempty" yaml:"mkfs,omitempty"`
	Mount   string   `json:"mount,omitempty" yaml:"mount,omitempty"`
	Options string   `json:"options,omitempty" yaml:"options,omitempty"` // for fstab, default defaults
	// Keep keeps what is there when the machine is installed again: it is found by its name and must be of the same kind. On an
	// empty disk it is made.
	Keep  bool   `json:"keep,omitempty" yaml:"keep,omitempty"`
	Group string `json:"volume_group,omitempty" yaml:"volume_group,omitempty"`
	Array string `json:"raid,omitempty" yaml:"raid,omitempty"`
}

// Array is one md array (mdadm(8)). Its members are the partitions and disks that name it.
type Array struct {
	Name  string `json:"name" yaml:"name"` // /dev/md/name
	Level int    `json:"level" yaml:"level"`
	// Metadata is 1.2, or 1.0 at the end of its members, which is the default for what a boot loader or firmware reads
	// as a plain file system (level 1 with /boot or an ESP).
	Metadata string `json:"metadata,omitempty" yaml:"metadata,omitempty"`
	Chunk    Size   `json:"chunk,omitempty" yaml:"chunk,omitempty"`   // KiB as 512KiB; default mdadm's
	Spares   int    `json:"spares,omitempty" yaml:"spares,omitempty"` // how many of the members, the last ones, wait
	Content  `yaml:",inline"`
}

// Group is an LVM volume group. Its physical volumes are the partitions, arrays and disks that name it.
type Group struct {
	Name       string   `json:"name" yaml:"name"`
	ExtentSize Size     `json:"extent_size,omitempty" yaml:"extent_size,omitempty"` // default 4MiB
	Volumes    []Volume `json:"volumes,omitempty" yaml:"volumes,omitempty"`
}

// Volume is a logical volume.
type Volume struct {
	Name    string `json:"name" yaml:"name"`
	Extent  `yaml:",inline"`
	Content `yaml:",inline"`
	// Pool makes it a thin pool; Thin puts it into the thin pool of this name, and its size is virtual.
	Pool bool   `json:"pool,omitempty" yaml:"pool,omitempty"`
	Thin string `json:"thin,omitempty" yaml:"thin,omitempty"`
}

// Data is what becomes of all remaining disks: one file system on each, mounted at /data1, /data2, … in a stable order.
type Data struct {
	Match Hints  `json:"match,omitempty" yaml:"match,omitempty"` // which of the remaining; zero: all that may be taken without being named
	Mount string `json:"mount,omitempty" yaml:"mount,omitempty"` // the mount point without its number; default /data
	FS    string `json:"fs,omitempty" yaml:"fs,omitempty"`       // xfs, the default, or ext4
	// Label is the file systems' label without its number; default data.
	Label   string   `json:"label,omitempty" yaml:"label,omitempty"`
	Mkfs    []string `json:"mkfs,omitempty" yaml:"mkfs,omitempty"`
	Options string   `json:"options,omitempty" yaml:"options,omitempty"` // default defaults,nofail
	// When is install, the default, or firstboot: by a unit in the installed system, so that the installation does not wait for it.
	When string `json:"when,omitempty" yaml:"when,omitempty"`
	Keep bool   `json:"keep,omitempty" yaml:"keep,omitempty"`
}
