// Package layout is what becomes of a machine's disks: partition tables, partitions, RAID, LVM, file systems.
//
// A Layout is declared: by a profile, by the registry for one host, by an answer file. With the disks of a machine it becomes a
// Scheme, in which every partition has its place and every volume its size in bytes: what is printed, shown before anything is
// written, and made. Everything here is plain data and pure functions: no disk is read, none is written.
package layout

// The comments of these types and fields are the descriptions of the profile's key layout, and the tags check, default and
// loose are those of imgbuild/profiles/strict, which reads layouts that people write.

// Layout is what becomes of a machine's disks: a preset, or disks, arrays and volume groups in detail. Nothing declared is the
// preset simple.
type Layout struct {
	// Preset is short for disks, raid and volume_groups and goes with none of them. simple is /boot and root on partitions of
	// one disk; lvm has root in a volume group on the rest of the disk; server is lvm with /var, /var/log, /var/log/audit,
	// /var/tmp, /var/crash, /opt, /tmp and /home on volumes of their own; mirror is lvm on two disks as RAID 1, either of
	// which boots alone. Default: simple, where nothing else is declared.
	Preset Preset `json:"preset,omitempty" yaml:"preset,omitempty" check:"layout-preset" default:"simple"`
	// Match says which disks the preset takes. Without it, they are the only ones that may be taken.
	Match Hints `json:"match,omitzero" yaml:"match,omitempty"`
	// Filesystem is what the preset's file systems are. /boot is always ext4 where extlinux reads it.
	Filesystem string `json:"filesystem,omitempty" yaml:"filesystem,omitempty" check:"filesystem" default:"xfs"`
	// BootSize is the size of the preset's /boot.
	BootSize Size `json:"boot_size,omitempty" yaml:"boot_size,omitempty" check:"layout-fixed-size" default:"1GiB"`
	// ESPSize is the size of the preset's EFI system partition.
	ESPSize Size `json:"esp_size,omitempty" yaml:"esp_size,omitempty" check:"layout-fixed-size" default:"512MiB"`
	// SwapSize is the size of the preset's swap space. Default: none.
	SwapSize Size `json:"swap_size,omitempty" yaml:"swap_size,omitempty" check:"layout-fixed-size"`
	// RootMin is the least size of the preset's root. Default: from the image's size.
	RootMin Size `json:"root_min,omitempty" yaml:"root_min,omitempty" check:"layout-fixed-size"`
	// MountOptions are the mount options of the preset's root in fstab. Default: defaults.
	MountOptions string `json:"mount_options,omitempty" yaml:"mount_options,omitempty" check:"mount-options"`

	// Table is the partition table of every disk that does not say it itself.
	Table Table `json:"table,omitempty" yaml:"table,omitempty" check:"layout-table" default:"gpt"`
	// Firmware says what the disks boot with; auto is the firmware that the machine is installed under.
	Firmware Firmware `json:"firmware,omitempty" yaml:"firmware,omitempty" check:"layout-firmware" default:"auto"`
	// BIOSLoader is what BIOS machines start; auto is extlinux where the image has it and it can read /boot, else grub.
	BIOSLoader Loader `json:"bios_loader,omitempty" yaml:"bios_loader,omitempty" check:"layout-loader" default:"auto"`
	// Discard is what is done to the disks before they are laid out, besides wiping signatures: none; discard
	// (TRIM, UNMAP or deallocate all blocks); secure (as the device erases itself: NVMe format with user data erase, ATA
	// security erase is not used, else BLKSECDISCARD). A device that cannot is an error with secure and a warning with discard.
	Discard Discard `json:"discard,omitempty" yaml:"discard,omitempty" check:"layout-discard" default:"none"`

	// Disks are those that the system is made of, the one that the firmware starts first.
	Disks []Disk `json:"disks,omitempty" yaml:"disks,omitempty"`
	// Arrays are RAID arrays over partitions or whole disks.
	Arrays []Array `json:"raid,omitempty" yaml:"raid,omitempty"`
	// Groups are LVM volume groups over partitions, arrays or whole disks.
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
	Name string `json:"name,omitempty" yaml:"name,omitempty" check:"layout-name"`
	// Match says which disk it is. Without it, it is the only one that may be taken.
	Match Hints `json:"match,omitzero" yaml:"match,omitempty"`
	// Table is the disk's partition table. Default: the layout's.
	Table Table `json:"table,omitempty" yaml:"table,omitempty" check:"layout-table"`
	// Partitions lie on the disk in this order.
	Partitions []Partition `json:"partitions,omitempty" yaml:"partitions,omitempty"`
	// Group makes the rest of the disk a physical volume of this volume group; without partitions, the whole disk, which then has no
	// partition table.
	Group string `json:"volume_group,omitempty" yaml:"volume_group,omitempty" check:"layout-lvm-name"`
	// Array makes the rest of the disk, or without partitions the whole disk, a member of this RAID array.
	Array string `json:"raid,omitempty" yaml:"raid,omitempty" check:"layout-name"`
}

// Hints choose a disk. All that are given must hold. Texts are compared exactly, or as globs where they have *, ? or [; a
// leading ! turns the comparison round. Sizes take operators: ">=400GiB", "<2TiB", ">=400GiB <1TiB", or a size with a tolerance of 5 %.
type Hints struct {
	// Serial is the disk's serial number.
	Serial string `json:"serial,omitempty" yaml:"serial,omitempty" check:"layout-hint"`
	// WWN is the disk's world wide name.
	WWN string `json:"wwn,omitempty" yaml:"wwn,omitempty" check:"layout-hint"`
	// Model is the disk's model.
	Model string `json:"model,omitempty" yaml:"model,omitempty" check:"layout-hint"`
	// Size is the disk's size, with an operator or with a tolerance of 5 %.
	Size string `json:"size,omitempty" yaml:"size,omitempty" check:"layout-hint-size"`
	// Rotational says whether it is a disk that turns.
	Rotational *bool `json:"rotational,omitempty" yaml:"rotational,omitempty"`
	// Transport is how the disk is attached: nvme, sata, sas, virtio, usb, and so on.
	Transport string `json:"transport,omitempty" yaml:"transport,omitempty" check:"layout-hint"`
	// Path is /dev/sda, or a name below /dev/disk/by-path or by-id.
	Path string `json:"path,omitempty" yaml:"path,omitempty" check:"layout-hint"`
	// HCTL is the SCSI address host:channel:target:lun, as 0:0:1:0.
	HCTL string `json:"hctl,omitempty" yaml:"hctl,omitempty" check:"layout-hint" loose:"yes"`
	// Prefer breaks a tie: smallest, largest, first (by path in the order of buses). Without it a tie is refused.
	Prefer string `json:"prefer,omitempty" yaml:"prefer,omitempty" check:"layout-prefer"`
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
	Name string `json:"name,omitempty" yaml:"name,omitempty" check:"layout-partition-name"`
	// Role says what the partition is for, where its content does not: biosboot is GRUB's core for BIOS on GPT, esp the EFI
	// system partition.
	Role    Role `json:"role,omitempty" yaml:"role,omitempty" check:"layout-role"`
	Extent  `yaml:",inline"`
	Content `yaml:",inline"`
}

// Extent is how large something is.
type Extent struct {
	// Size is a size as 20GiB, a percentage as 30% of the disk or volume group, or rest. Default: rest.
	Size Size `json:"size,omitempty" yaml:"size,omitempty" check:"layout-size"`
	// Min is the least size, for a percentage or the rest.
	Min Size `json:"min,omitempty" yaml:"min,omitempty" check:"layout-fixed-size"`
	// Max is the largest size, for a percentage or the rest.
	Max Size `json:"max,omitempty" yaml:"max,omitempty" check:"layout-fixed-size"`
}

// Content is what a partition, array, volume or whole disk holds: a file system, or a part of a volume group or array, or nothing.
type Content struct {
	// FS is the file system, or swap.
	FS string `json:"fs,omitempty" yaml:"fs,omitempty" check:"layout-fs"`
	// Label is the file system's label: at most 12 bytes for XFS, 16 for ext4, 11 for vfat, 15 for swap.
	Label string `json:"label,omitempty" yaml:"label,omitempty" check:"layout-label"`
	// Mkfs are further arguments of mkfs. Each begins with a dash, or follows one that does; none is a path.
	Mkfs []string `json:"mkfs,omitempty" yaml:"mkfs,omitempty" check:"layout-argument"`
	// Mount is the mount point.
	Mount string `json:"mount,omitempty" yaml:"mount,omitempty" check:"absolute"`
	// Options are mount options in fstab. Default: defaults.
	Options string `json:"options,omitempty" yaml:"options,omitempty" check:"mount-options"`
	// Keep keeps what is there when the machine is installed again: it is found by its name and must be of the same kind. On an
	// empty disk it is made.
	Keep bool `json:"keep,omitempty" yaml:"keep,omitempty"`
	// Group makes it a physical volume of this volume group.
	Group string `json:"volume_group,omitempty" yaml:"volume_group,omitempty" check:"layout-lvm-name"`
	// Array makes it a member of this RAID array.
	Array string `json:"raid,omitempty" yaml:"raid,omitempty" check:"layout-name"`
}

// Array is one md array (mdadm(8)). Its members are the partitions and disks that name it.
type Array struct {
	// Name is the array's: it is /dev/md/NAME.
	Name string `json:"name" yaml:"name" check:"layout-name"`
	// Level is the RAID level: 0, 1, 5, 6 or 10.
	Level int `json:"level" yaml:"level" check:"layout-level"`
	// Metadata is 1.2, or 1.0 at the end of its members, which is the default for what a boot loader or firmware reads
	// as a plain file system (level 1 with /boot or an ESP).
	Metadata string `json:"metadata,omitempty" yaml:"metadata,omitempty" check:"layout-metadata" loose:"yes"`
	// Chunk is the chunk size. Default: mdadm's.
	Chunk Size `json:"chunk,omitempty" yaml:"chunk,omitempty" check:"layout-small-size"`
	// Spares is how many of the members, the last ones, wait.
	Spares  int `json:"spares,omitempty" yaml:"spares,omitempty" check:"layout-spares"`
	Content `yaml:",inline"`
}

// Group is an LVM volume group. Its physical volumes are the partitions, arrays and disks that name it.
type Group struct {
	// Name is the volume group's.
	Name string `json:"name" yaml:"name" check:"layout-lvm-name"`
	// ExtentSize is the size of an extent, in whole numbers of which volumes are given. Default: 4MiB.
	ExtentSize Size `json:"extent_size,omitempty" yaml:"extent_size,omitempty" check:"layout-small-size"`
	// Volumes are the logical volumes.
	Volumes []Volume `json:"volumes,omitempty" yaml:"volumes,omitempty"`
}

// Volume is a logical volume.
type Volume struct {
	// Name is the logical volume's.
	Name    string `json:"name" yaml:"name" check:"layout-lvm-name"`
	Extent  `yaml:",inline"`
	Content `yaml:",inline"`
	// Pool makes it a thin pool.
	Pool bool `json:"pool,omitempty" yaml:"pool,omitempty"`
	// Thin puts it into the thin pool of this name; its size is virtual then.
	Thin string `json:"thin,omitempty" yaml:"thin,omitempty" check:"layout-lvm-name"`
}

// Data is what becomes of all remaining disks: one file system on each, mounted at /data1, /data2, … in a stable order.
type Data struct {
	// Match says which of the remaining disks are taken. Default: all that may be taken without being named.
	Match Hints `json:"match,omitzero" yaml:"match,omitempty"`
	// Mount is the mount point without its number. Default: /data.
	Mount string `json:"mount,omitempty" yaml:"mount,omitempty" check:"absolute"`
	// FS is the file systems' kind. Default: xfs.
	FS string `json:"fs,omitempty" yaml:"fs,omitempty" check:"filesystem"`
	// Label is the file systems' label without its number. Default: data.
	Label string `json:"label,omitempty" yaml:"label,omitempty" check:"layout-label"`
	// Mkfs are further arguments of mkfs.
	Mkfs []string `json:"mkfs,omitempty" yaml:"mkfs,omitempty" check:"layout-argument"`
	// Options are mount options in fstab. Default: defaults,nofail.
	Options string `json:"options,omitempty" yaml:"options,omitempty" check:"mount-options"`
	// When is install, the default, or firstboot: by a unit in the installed system, so that the installation does not wait for it.
	When string `json:"when,omitempty" yaml:"when,omitempty" check:"layout-when"`
	// Keep keeps what is there when the machine is installed again.
	Keep bool `json:"keep,omitempty" yaml:"keep,omitempty"`
}
