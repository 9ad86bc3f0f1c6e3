package layout

// Candidate is a disk as far as layouts care. Path is for people; ID tells disks of one machine apart.
type Candidate struct {
	ID             string   `json:"id"` // kernel name, as sda
	Path           string   `json:"path,omitempty"`
	Model          string   `json:"model,omitempty"`
	Serial         string   `json:"serial,omitempty"`
	WWN            string   `json:"wwn,omitempty"`
	Size           int64    `json:"size"`                      // bytes
	Sector         int      `json:"sector,omitempty"`          // logical sector size, bytes: 512 or 4096
	PhysicalSector int      `json:"physical_sector,omitempty"` // bytes, 0 unknown
	Transport      string   `json:"transport,omitempty"`
	Rotational     bool     `json:"rotational,omitempty"`
	HCTL           string   `json:"hctl,omitempty"`
	ByPath         []string `json:"by_path,omitempty"`
	ByID           []string `json:"by_id,omitempty"`
	// Unfit says why the disk is taken only when it is named (USB, removable, virtual medium); empty if it may be taken.
	Unfit string `json:"unfit,omitempty"`
	// Unusable says why it is not taken at all (read-only, in use, second path to another disk).
	Unusable string `json:"unusable,omitempty"`
	// PathOf is the ID of the disk that this is only another path to, and empty for a disk of its own.
	PathOf string `json:"-"`
	// Found is what is on it, for people; empty if nobody looked.
	Found string `json:"found,omitempty"`
}

// Input is what a Layout needs to become a Scheme.
type Input struct {
	// Disks are those chosen for Layout.Disks, one for each, in their order; Data those for Layout.Data.
	Disks, Data []Candidate
	// Firmware is the machine's, bios or uefi; it decides where the layout says auto.
	Firmware Firmware
	Arch     string // the manifest's: x86_64 or aarch64
	// RootMin is the least size in bytes of the file system that holds /, from the image's size.
	RootMin int64
	// Extlinux and GRUB say which BIOS loaders the image has.
	Extlinux, GRUB bool
	// Existing is what is on the disks now, for what the layout keeps; nil where nothing is or nothing counts.
	Existing []Existing
}

// TypeSeal is the GPT type of seal partitions.
const TypeSeal = "6d1f4a1e-9c0b-4f6b-8d5e-7a3c21b0e5a1"

// SealSize is the size in bytes of a seal partition.
const SealSize = 1 << 20

// Existing is one thing that a layout may keep.
type Existing struct {
	Device Device `json:"device"`           // as it would be called in a Scheme
	Disk   string `json:"disk,omitempty"`   // Candidate.ID, for partitions
	Number int    `json:"number,omitempty"` // of a partition, as it is now; Device has the same
	Name   string `json:"name,omitempty"`   // of a partition on GPT: by it, or on MBR by Number, a kept partition is found
	Start  int64  `json:"start,omitempty"`  // bytes; Start for partitions
	Size   int64  `json:"size"`
	GUID   string `json:"guid,omitempty"` // of a partition; of an array its UUID as mdadm writes it
	Type   string `json:"type,omitempty"` // GUID of a partition's type
	FS     string `json:"fs,omitempty"`   // xfs, ext4, vfat, swap, LVM2_member, linux_raid_member
	UUID   string `json:"uuid,omitempty"` // of the file system
	Label  string `json:"label,omitempty"`
}

// Device names something that holds something: part/DISK/NUMBER, disk/DISK, md/ARRAY or lv/GROUP/VOLUME, with the names of the
// layout.
type Device string

// Scheme is a layout for certain disks, with every size and place in bytes. Disks, then Arrays, then Groups can be made in their
// order.
type Scheme struct {
	Firmware   Firmware      `json:"firmware"`              // bios, uefi or both
	BIOSLoader Loader        `json:"bios_loader,omitempty"` // extlinux or grub; empty without BIOS
	Discard    Discard       `json:"discard,omitempty"`
	Disks      []SchemeDisk  `json:"disks"`
	Arrays     []SchemeArray `json:"arrays,omitempty"`
	Groups     []SchemeGroup `json:"groups,omitempty"`
	// DataFirstBoot are the data disks that the installed system itself formats. Their tables, with the one partition of each, are
	// written with all others; only the file systems are left to it.
	DataFirstBoot []SchemeDisk `json:"data_first_boot,omitempty"`
}

// SchemeDisk is one disk.
type SchemeDisk struct {
	Name string `json:"name"`
	Candidate
	Table Table `json:"table,omitempty"` // empty: the whole disk holds Content
	// Boot disks get boot code and a seal: those that hold /boot, or a member of the array that does.
	Boot bool `json:"boot,omitempty"`
	// Data is true for one of Layout.Data's disks.
	Data    bool      `json:"data,omitempty"`
	Parts   []Part    `json:"parts,omitempty"`
	Content Content   `json:"content,omitzero"`
	Kept    *Existing `json:"kept,omitempty"` // of Content: the whole disk stays as it is
}

// Part is one partition in its place.
type Part struct {
	Number int    `json:"number"`
	Name   string `json:"name,omitempty"`
	Role   Role   `json:"role,omitempty"`
	Type   string `json:"type,omitempty"` // GUID of the type (GPT) or two hex digits (MBR)
	Start  int64  `json:"start"`          // bytes
	Size   int64  `json:"size"`
	// LegacyBoot is the GPT attribute, or MBR's active flag, that tells boot code where extlinux is.
	LegacyBoot bool      `json:"legacy_boot,omitempty"`
	Kept       *Existing `json:"kept,omitempty"` // it is there already and stays
	Content    Content   `json:"content,omitzero"`
}

// SchemeArray is one array.
type SchemeArray struct {
	Array
	Members []Device  `json:"members"`
	Size    int64     `json:"size"` // bytes, at least
	Kept    *Existing `json:"kept,omitempty"`
}

// SchemeGroup is one volume group.
type SchemeGroup struct {
	Group
	Physical []Device       `json:"physical,omitempty"`
	Extent   int64          `json:"extent,omitempty"` // bytes of one
	Size     int64          `json:"size"`             // bytes of all extents
	Volumes  []SchemeVolume `json:"volumes,omitempty"`
	Kept     bool           `json:"kept,omitempty"` // it is there already
}

// SchemeVolume is one logical volume; pools come before what is in them.
type SchemeVolume struct {
	Volume
	Size int64 `json:"size"` // bytes, whole extents
	// Metadata is that of a thin pool, in bytes. The group needs as much again for the spare that LVM holds ready.
	Metadata int64     `json:"metadata,omitempty"`
	Kept     *Existing `json:"kept,omitempty"`
}

// Filesystem is one file system or swap space of a scheme.
type Filesystem struct {
	Device Device `json:"device,omitempty"`
	Content
	Size int64     `json:"size,omitempty"`
	Role Role      `json:"role,omitempty"`
	Kept *Existing `json:"kept,omitempty"`
	// Data is true for one of Layout.Data's.
	Data bool `json:"data,omitempty"`
}

// Problem is one thing that is wrong with a declared layout. Path is where, as keys and numbers from the layout on.
type Problem struct {
	Path []string `json:"path"` // e.g. disks, 0, partitions, 2, size
	Text string   `json:"text"`
}
