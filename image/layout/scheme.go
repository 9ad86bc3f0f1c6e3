package layout

// Candidate is a disk as far as layouts care. Path is for people; ID tells disks of one machine apart.
type Candidate struct {
	ID             string // kernel name, as sda
	Path           string
	Model          string
	Serial         string
	WWN            string
	Size           int64 // bytes
	Sector         int   // logical sector size, bytes: 512 or 4096
	PhysicalSector int   // bytes, 0 unknown
	Transport      string
	Rotational     bool
	HCTL           string
	ByPath, ByID   []string
	// Unfit says why the disk is taken only when it is named (USB, removable, virtual medium); empty if it may be taken.
	Unfit string
	// Unusable says why it is not taken at all (read-only, in use, second path to another disk).
	Unusable string
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
	Device      Device // as it would be called in a Scheme
	Disk        string // Candidate.ID, for partitions
	Number      int    // of a partition, as it is now; Device has the same
	Name        string // of a partition on GPT: by it, or on MBR by Number, a kept partition is found
	Start, Size int64  // bytes; Start for partitions
	GUID        string // of a partition; of an array its UUID as mdadm writes it
	Type        string // GUID of a partition's type
	FS          string // xfs, ext4, vfat, swap, LVM2_member, linux_raid_member
	UUID, Label string // of the file system
}

// Device names something that holds something: part/DISK/NUMBER, disk/DISK, md/ARRAY or lv/GROUP/VOLUME, with the names of the
// layout.
type Device string

// Scheme is a layout for certain disks, with every size and place in bytes. Disks, then Arrays, then Groups can be made in their
// order.
type Scheme struct {
	Firmware   Firmware // bios, uefi or both
	BIOSLoader Loader   // extlinux or grub; empty without BIOS
	Discard    Discard
	Disks      []SchemeDisk
	Arrays     []SchemeArray
	Groups     []SchemeGroup
	// DataFirstBoot are the data disks that the installed system itself formats.
	DataFirstBoot []SchemeDisk
}

// SchemeDisk is one disk.
type SchemeDisk struct {
	Name string
	Candidate
	Table Table // empty: the whole disk holds Content
	// Boot disks get boot code and a seal: those that hold /boot, or a member of the array that does.
	Boot    bool
	Parts   []Part
	Content Content
	Kept    *Existing // of Content: the whole disk stays as it is
}

// Part is one partition in its place.
type Part struct {
	Number      int
	Name        string
	Role        Role
	Type        string // GUID of the type (GPT) or two hex digits (MBR)
	Start, Size int64  // bytes
	// LegacyBoot is the GPT attribute, or MBR's active flag, that tells boot code where extlinux is.
	LegacyBoot bool
	Kept       *Existing // it is there already and stays
	Content    Content
}

// SchemeArray is one array.
type SchemeArray struct {
	Array
	Members []Device
	Size    int64 // bytes, at least
	Kept    *Existing
}

// SchemeGroup is one volume group.
type SchemeGroup struct {
	Group
	Physical []Device
	Extent   int64 // bytes of one
	Size     int64 // bytes of all extents
	Volumes  []SchemeVolume
	Kept     bool // it is there already
}

// SchemeVolume is one logical volume; pools come before what is in them.
type SchemeVolume struct {
	Volume
	Size int64 // bytes, whole extents
	Kept *Existing
}

// Filesystem is one file system or swap space of a scheme.
type Filesystem struct {
	Device Device
	Content
	Size int64
	Role Role
	Kept *Existing
	// Data is true for one of Layout.Data's.
	Data bool
}

// Problem is one thing that is wrong with a declared layout. Path is where, as keys and numbers from the layout on.
type Problem struct {
	Path []string // e.g. disks, 0, partitions, 2, size
	Text string
}

// The functions of this package, each in a file of its own:
//
//	func (l Layout) Problems() []Problem            // everything that can be known without disks, all at once; checks for either firmware where it is auto
//	func (l Layout) Validate() error                // Problems joined, "layout: disks[0].partitions[2].size: …"
//	func (l Layout) Expand(fw Firmware) Layout      // the preset replaced by what it stands for, defaults filled in
//	func (l Layout) Choose(all []Candidate, named []string) (disks, data []Candidate, err error) // named: what a person said with imgbuild.disk=, in the layout's order; it overrides hints
//	func (l Layout) Resolve(in Input) (*Scheme, error) // ErrTooSmall where a disk cannot hold it; all faults at once
//	func (l Layout) Tools(fw Firmware) []string     // what the initramfs needs: mkfs.xfs, mkfs.ext4, mkfs.vfat, mkswap, lvm, mdadm, extlinux, grub2-mkimage
//	func (l Layout) Modules(fw Firmware) []string   // kernel modules besides drivers: xfs, ext4, vfat, dm-mod, dm-thin-pool, raid1, …
//	func (l Layout) Packages(fw Firmware) []string  // what the image needs to run it: lvm2, mdadm, xfsprogs, dosfstools, …
//	func (s *Scheme) Filesystems() []Filesystem     // in the order of mounting, swap last
//	func (s *Scheme) Holder(d Device) (disks []string) // Candidate.IDs below a device
//	func (s *Scheme) Write(w io.Writer, o …) error  // for people: table, sizes, alignment
//	func (f Filesystem) / (s *Scheme) On(mount string) *Filesystem
