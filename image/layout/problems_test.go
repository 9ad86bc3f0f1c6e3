package layout

import (
	"slices"
	"strings"
	"testing"
)

// good is a layout in detail without mistakes, for either firmware.
func good() Layout {
	return Layout{Disks: []Disk{{Partitions: []Partition{
		{Role: RoleBIOSBoot},
		{Role: RoleESP},
		{Extent: Extent{Size: "1GiB"}, Content: Content{FS: "ext4", Mount: "/boot"}},
		{Content: Content{FS: "xfs", Mount: "/"}},
	}}}}
}

// goodLVM has root on LVM over RAID 1.
func goodLVM() Layout {
	disk := Disk{Partitions: []Partition{
		{Role: RoleBIOSBoot},
		{Role: RoleESP, Content: Content{Array: "esp"}},
		{Extent: Extent{Size: "1GiB"}, Content: Content{Array: "boot"}},
		{Content: Content{Array: "system"}},
	}}
	return Layout{
		Disks: []Disk{disk, {Partitions: slices.Clone(disk.Partitions)}},
		Arrays: []Array{
			{Name: "esp", Level: 1}, {Name: "boot", Level: 1, Content: Content{FS: "ext4", Mount: "/boot"}},
			{Name: "system", Level: 1, Content: Content{Group: "system"}},
		},
		Groups: []Group{{Name: "system", Volumes: []Volume{
			{Name: "root", Extent: Extent{Size: "20GiB"}, Content: Content{FS: "xfs", Mount: "/"}},
			{Name: "pool", Extent: Extent{Size: "30%"}, Pool: true},
			{Name: "thin", Extent: Extent{Size: "1TiB"}, Thin: "pool", Content: Content{FS: "xfs", Mount: "/srv"}},
		}}},
	}
}

func root(l *Layout) *Partition       { return &l.Disks[0].Partitions[3] }
func boot(l *Layout) *Partition       { return &l.Disks[0].Partitions[2] }
func volume(l *Layout, i int) *Volume { return &l.Groups[0].Volumes[i] }

func TestLayoutsWithoutMistakes(t *testing.T) {
	yes := true
	for name, l := range map[string]Layout{
		"nothing declared":         {},
		"simple":                   {Preset: Simple, BootSize: "2GiB", SwapSize: "4GiB", Filesystem: "ext4", MountOptions: "noatime"},
		"simple on MBR":            {Preset: Simple, Table: MBR},
		"lvm":                      {Preset: LVM, RootMin: "30GiB"},
		"server":                   {Preset: Server, Discard: DiscardBlocks, Firmware: Both},
		"server with a large root": {Preset: Server, RootMin: "200GiB"},
		"mirror":                   {Preset: Mirror, SwapSize: "8GiB", BIOSLoader: Extlinux},
		"mirror on MBR":            {Preset: Mirror, Table: MBR},
		"in detail":                good(),
		"LVM on RAID in detail":    goodLVM(),
		"data disks":               {Preset: LVM, Data: &Data{Match: Hints{Rotational: &yes, Size: ">=4TB"}, FS: "ext4", Mkfs: []string{"-T", "largefile4", "-m", "0"}, When: "firstboot"}},
		"data disks that are kept": {Data: &Data{Keep: true, Mount: "/srv/disk", Label: "osd"}},
		"/boot on LVM by GRUB":     edited(good, func(l *Layout) { lvmBoot(l) }),
		"one disk for BIOS":        {Firmware: BIOS, Disks: []Disk{{Partitions: []Partition{{Content: Content{FS: "ext4", Mount: "/"}}}}}},
		"XFS that extlinux can read": edited(good, func(l *Layout) {
			boot(l).FS, boot(l).Mkfs = "xfs", []string{"-i", "nrext64=0"}
			l.BIOSLoader, l.Table, l.Disks[0].Partitions = Extlinux, MBR, l.Disks[0].Partitions[1:]
		}),
		"a volume group on a whole disk": edited(good, func(l *Layout) {
			l.Disks = append(l.Disks, Disk{Group: "data"})
			l.Groups = []Group{{Name: "data", Volumes: []Volume{{Name: "home", Content: Content{FS: "xfs", Mount: "/home", Keep: true}}}}}
		}),
		"the rest of a disk in a volume group": edited(good, func(l *Layout) {
			root(l).Size = "20GiB"
			l.Disks[0].Group = "data"
			l.Groups = []Group{{Name: "data"}}
		}),
		"RAID 5 with a spare on whole disks": edited(good, func(l *Layout) {
			for range 4 {
				l.Disks = append(l.Disks, Disk{Array: "data"})
			}
			l.Arrays = []Array{{Name: "data", Level: 5, Spares: 1, Chunk: "256KiB", Content: Content{FS: "xfs", Mount: "/srv", Keep: true}}}
		}),
		"kept partitions": edited(good, func(l *Layout) {
			root(l).Size = "50%"
			l.Disks[0].Partitions = append(l.Disks[0].Partitions, Partition{Name: "home", Content: Content{FS: "xfs", Mount: "/home", Keep: true}})
		}),
		"percentages up to the whole": {Firmware: BIOS, Disks: []Disk{{Partitions: []Partition{
			{Extent: Extent{Size: "40%", Min: "4GiB", Max: "80GiB"}, Content: Content{FS: "ext4", Mount: "/"}}, {Extent: Extent{Size: "60%"}, Content: Content{FS: "xfs", Mount: "/srv"}},
		}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := l.Validate(); err != nil {
				t.Fatal(err)
			}
			for _, fw := range []Firmware{Auto, BIOS, UEFI, Both} {
				e := l.Expand(fw)
				if again := e.Expand(fw); !equal(e, again) {
					t.Errorf("expanded twice for %s, the layout is another:\n%+v\n%+v", fw, e, again)
				}
				if err := e.Validate(); err != nil && (l.Firmware != "" || l.explicit() || fw != Auto) {
					t.Errorf("expanded for %s, the layout is refused: %v", fw, err)
				}
			}
		})
	}
}

func edited(base func() Layout, edit func(*Layout)) Layout {
	l := base()
	edit(&l)
	return l
}

func lvmBoot(l *Layout) {
	root(l).Content = Content{Group: "system"}
	boot(l).Content = Content{FS: "swap"}
	l.Groups = []Group{{Name: "system", Volumes: []Volume{{Name: "root", Content: Content{FS: "xfs", Mount: "/"}}}}}
}

func TestMistakesAreSaidAtTheirPlace(t *testing.T) {
	for name, c := range map[string]struct {
		base func() Layout
		edit func(*Layout)
		want string // a problem as it is printed, up to its first words
	}{
		"an unknown preset":             {nilLayout, func(l *Layout) { l.Preset = "raid" }, `preset: is "raid", which is none of simple, lvm, server, mirror`},
		"a preset beside disks":         {good, func(l *Layout) { l.Preset = LVM }, "preset: lvm stands for disks"},
		"a key of presets beside disks": {good, func(l *Layout) { l.SwapSize = "1GiB" }, "swap_size: belongs to presets"},
		"a small /boot":                 {nilLayout, func(l *Layout) { l.BootSize = "100MiB" }, "boot_size: is 100MiB and has to be at least 256 MiB"},
		"a size without unit":           {nilLayout, func(l *Layout) { l.BootSize = "100" }, `boot_size: "100" is not a size`},
		"an unknown table":              {nilLayout, func(l *Layout) { l.Table = "dos" }, `table: is "dos"`},
		"an unknown firmware":           {good, func(l *Layout) { l.Firmware = "efi" }, `firmware: is "efi"`},
		"an unknown loader":             {good, func(l *Layout) { l.BIOSLoader = "lilo" }, `bios_loader: is "lilo"`},
		"an unknown way of discarding":  {nilLayout, func(l *Layout) { l.Discard = "yes" }, `discard: is "yes"`},
		"a BIOS loader for UEFI":        {nilLayout, func(l *Layout) { l.Firmware, l.BIOSLoader = UEFI, GRUB }, "bios_loader: is grub, but with firmware: uefi"},
		"mount options with a blank":    {nilLayout, func(l *Layout) { l.MountOptions = "noatime nodev" }, "mount_options: "},
		"data over the preset's mounts": {nilLayout, func(l *Layout) {
			l.Preset, l.Data = Server, &Data{Mount: "/opt"}
			l.Disks = nil
		}, ""},
		"data where something is mounted": {good, func(l *Layout) {
			l.Data = &Data{}
			root(l).Mount = "/"
			boot(l).Mount = "/boot"
			add(l, Partition{Content: Content{FS: "xfs", Mount: "/data3"}})
		},
			`data.mount: is "/data", and so a data disk may be mounted at /data3`},
		"a data disk's name":               {good, func(l *Layout) { l.Data = &Data{}; l.Disks[0].Name = "data7" }, `disks[0].name: "data7" is what data disks are called`},
		"data with a long label":           {nilLayout, func(l *Layout) { l.Data = &Data{Label: "verylonglabel"} }, "data.label: "},
		"data with another file system":    {nilLayout, func(l *Layout) { l.Data = &Data{FS: "vfat"} }, `data.fs: is "vfat"`},
		"data at another time":             {nilLayout, func(l *Layout) { l.Data = &Data{When: "later"} }, `data.when: is "later"`},
		"data with mkfs of another":        {nilLayout, func(l *Layout) { l.Data = &Data{Mkfs: []string{"-T", "news"}} }, "data.mkfs[0]: "},
		"hints with a bad size":            {good, func(l *Layout) { l.Disks[0].Match.Size = ">=4 GB" }, "disks[0].match.size: "},
		"hints with a bad pattern":         {good, func(l *Layout) { l.Disks[0].Match.Model = "PM[" }, "disks[0].match.model: "},
		"hints with an unknown preference": {good, func(l *Layout) { l.Disks[0].Match.Prefer = "fastest" }, "disks[0].match.prefer: "},
		"two disks of one name":            {goodLVM, func(l *Layout) { l.Disks[0].Name, l.Disks[1].Name = "a", "a" }, `disks[1].name: "a" is the name of another disk`},
		"a disk's name with a slash":       {good, func(l *Layout) { l.Disks[0].Name = "a/b" }, "disks[0].name: "},
		"a disk for nothing":               {good, func(l *Layout) { l.Disks = append(l.Disks, Disk{}) }, "disks[1]: has no partitions"},
		"a table on a whole disk": {good, func(l *Layout) {
			l.Disks = append(l.Disks, Disk{Group: "g", Table: GPT})
			l.Groups = []Group{{Name: "g"}}
		}, "disks[1].table: "},
		"a rest that is wanted twice":             {good, func(l *Layout) { l.Disks[0].Group = "g"; l.Groups = []Group{{Name: "g"}} }, "disks[0].volume_group: is the rest of the disk, which disks[0].partitions[3] has already"},
		"a group and an array that want the rest": {good, func(l *Layout) { root(l).Size = "9GiB"; l.Disks[0].Group, l.Disks[0].Array = "g", "a" }, "disks[0].raid: and volume_group both"},
		"two rests":                      {good, func(l *Layout) { boot(l).Size = "" }, "disks[0].partitions[3].size: is the rest of the disk"},
		"percentages above the whole":    {good, func(l *Layout) { boot(l).Size, root(l).Size = "50%", "60%" }, "disks[0].partitions[3].size: makes the percentages of the disk 110%"},
		"percentages that leave nothing": {good, func(l *Layout) { root(l).Size = "100%" }, "disks[0].partitions[0].size: is one of several"},
		"min above max":                  {good, func(l *Layout) { root(l).Min, root(l).Max = "9GiB", "8GiB" }, "disks[0].partitions[3].min: is 9GiB, which is more than max, 8GiB"},
		"min on a fixed size":            {good, func(l *Layout) { boot(l).Min = "1GiB" }, "disks[0].partitions[2].size: is fixed"},
		"a min in percent":               {good, func(l *Layout) { root(l).Min = "10%" }, "disks[0].partitions[3].min: "},
		"five partitions on an MBR": {good, func(l *Layout) {
			l.Table, l.Firmware = MBR, UEFI
			l.Disks[0].Partitions = append(l.Disks[0].Partitions[1:], swap("1GiB"), swap("2GiB"))
		}, "disks[0].partitions: are 5, and an MBR has four"},
		"biosboot on an MBR":                     {good, func(l *Layout) { l.Table = MBR }, "disks[0].partitions[0].role: is biosboot, and on an MBR"},
		"biosboot with a file system":            {good, func(l *Layout) { l.Disks[0].Partitions[0].FS = "ext4" }, "disks[0].partitions[0].role: is biosboot, which holds GRUB's core"},
		"an unknown role":                        {good, func(l *Layout) { boot(l).Role = "xbootldr" }, `disks[0].partitions[2].role: is "xbootldr"`},
		"a declared seal":                        {good, func(l *Layout) { boot(l).Role = RoleSeal }, "disks[0].partitions[2].role: is seal"},
		"a partition called seal":                {good, func(l *Layout) { boot(l).Name = "seal" }, "disks[0].partitions[2].name: is seal"},
		"a partition's long name":                {good, func(l *Layout) { boot(l).Name = strings.Repeat("ü", 37) }, "disks[0].partitions[2].name: "},
		"two partitions of one name":             {good, func(l *Layout) { boot(l).Name, root(l).Name = "a", "a" }, `disks[0].partitions[3].name: "a" is the name of another partition`},
		"no ESP for UEFI":                        {good, func(l *Layout) { l.Disks[0].Partitions[1] = swap("1GiB") }, "disks[0]: has no EFI system partition"},
		"no biosboot for GRUB":                   {good, func(l *Layout) { l.BIOSLoader = GRUB; l.Disks[0].Partitions[0] = swap("1GiB") }, "disks[0]: has no partition with role: biosboot"},
		"no biosboot where extlinux cannot read": {good, func(l *Layout) { lvmBoot(l); l.Disks[0].Partitions[0] = swap("1GiB") }, "disks[0]: has no partition with role: biosboot"},
		"two ESPs on a disk":                     {good, func(l *Layout) { boot(l).Role, boot(l).Content, boot(l).Size = RoleESP, Content{}, "1GiB" }, "disks[0].partitions[2].role: is a second EFI system partition of the disk"},
		"two ESPs that are not joined": {goodLVM, func(l *Layout) {
			l.Disks[0].Partitions[1].Array, l.Disks[1].Partitions[1].Array = "", ""
			l.Arrays = l.Arrays[1:]
		}, "disks[1].partitions[1].role: is a second EFI system partition beside that of disk1"},
		"an ESP with ext4":         {good, func(l *Layout) { l.Disks[0].Partitions[1].FS = "ext4" }, "disks[0].partitions[1].fs: is ext4 on an EFI"},
		"an ESP mounted elsewhere": {good, func(l *Layout) { l.Disks[0].Partitions[1].Mount = "/efi" }, "disks[0].partitions[1].mount: "},
		"an ESP without its role": {good, func(l *Layout) {
			l.Disks[0].Partitions[1] = Partition{Extent: Extent{Size: "1GiB"}, Content: Content{FS: "vfat", Mount: "/boot/efi"}}
		}, "disks[0].partitions[1].role: is missing"},
		"an ESP on another disk than /boot": {good, func(l *Layout) {
			l.Disks = append(l.Disks, Disk{Partitions: []Partition{l.Disks[0].Partitions[1]}})
			l.Disks[0].Partitions[1] = swap("1GiB")
		}, "disks[1]: has an EFI system partition, but /boot is not on it"},
		"an ESP's array with metadata 1.2": {goodLVM, func(l *Layout) { l.Arrays[0].Metadata = "1.2" }, `raid[0].metadata: is "1.2", and on EFI system partitions it has to be 1.0`},
		"an ESP's array of level 0":        {goodLVM, func(l *Layout) { l.Arrays[0].Level = 0 }, "raid[0].level: is 0, and EFI system partitions go into an array of level 1"},
		"a mirror with one ESP": {goodLVM, func(l *Layout) {
			l.Disks[1].Partitions[1] = swap("1GiB")
			l.Disks[0].Partitions[1].Array = ""
			l.Arrays = l.Arrays[1:]
		}, "disks[1]: has a member of the array with /boot but no EFI system partition"},
		"an ESP in an array with others": {goodLVM, func(l *Layout) { l.Disks[1].Partitions[1].Role = "" }, "raid[0]: has EFI system partitions and others"},
		"extlinux and /boot on LVM":      {good, func(l *Layout) { lvmBoot(l); l.BIOSLoader = Extlinux }, "volume_groups[0].volumes[0].mount: extlinux cannot read /: it is on LVM"},
		"extlinux and XFS":               {good, func(l *Layout) { boot(l).FS = "xfs"; l.BIOSLoader = Extlinux }, "disks[0].partitions[2].mount: extlinux cannot read /boot: it is XFS"},
		"extlinux and XFS with new counters": {good, func(l *Layout) {
			boot(l).FS = "xfs"
			l.BIOSLoader, l.Table, l.Disks[0].Partitions = Extlinux, MBR, l.Disks[0].Partitions[1:]
		}, "disks[0].partitions[1].mount: extlinux cannot read /boot: it is XFS with counters"},
		"extlinux and a feature of ext4": {good, func(l *Layout) { boot(l).Mkfs = []string{"-O", "64bit"}; l.BIOSLoader = Extlinux }, "disks[0].partitions[2].mount: extlinux cannot read /boot: mkfs turns"},
		"extlinux and RAID 5":            {raid5Boot, func(l *Layout) { l.BIOSLoader = Extlinux }, "raid[0].mount: extlinux cannot read /boot: it is on RAID 5"},
		"extlinux and metadata 1.2":      {goodLVM, func(l *Layout) { l.Arrays[1].Metadata = "1.2"; l.BIOSLoader = Extlinux }, "raid[1].mount: extlinux cannot read /boot: the metadata"},
		"/boot in a thin pool":           {goodLVM, func(l *Layout) { l.Arrays[1].Mount, volume(l, 2).Mount = "", "/boot" }, "volume_groups[0].volumes[2].mount: GRUB cannot read /boot: it is a thin volume"},
		"/boot on a whole disk's volume group": {good, func(l *Layout) {
			l.Disks = []Disk{{Group: "g"}}
			l.Groups = []Group{{Name: "g", Volumes: []Volume{{Name: "root", Content: Content{FS: "xfs", Mount: "/"}}}}}
		}, "volume_groups[0].volumes[0].mount: is on disks without a partition table"},
		"/boot on an array of whole disks": {good, func(l *Layout) {
			l.Disks = []Disk{{Array: "a"}, {Array: "a"}}
			l.Arrays = []Array{{Name: "a", Level: 1, Content: Content{FS: "ext4", Mount: "/"}}}
		}, "disks[0]: holds / without a partition table"},
		"no root":                       {good, func(l *Layout) { root(l).Mount = "/srv" }, "disks: hold no file system with mount: /"},
		"arrays without disks":          {nilLayout, func(l *Layout) { l.Arrays = []Array{{Name: "a", Level: 1}} }, "disks: are missing"},
		"two things in one partition":   {good, func(l *Layout) { root(l).Group = "g"; l.Groups = []Group{{Name: "g"}} }, "disks[0].partitions[3].volume_group: and fs are both there"},
		"an unknown file system":        {good, func(l *Layout) { root(l).FS = "zfs" }, `disks[0].partitions[3].fs: is "zfs"`},
		"a mount without file system":   {good, func(l *Layout) { boot(l).FS = "" }, "disks[0].partitions[2].mount: belongs to a file system"},
		"a long label":                  {good, func(l *Layout) { root(l).Label = "thirteen-long" }, "disks[0].partitions[3].label: \"thirteen-long\" is longer than 12 bytes"},
		"a label twice":                 {good, func(l *Layout) { root(l).Label, boot(l).Label = "a", "a" }, "disks[0].partitions[3].label: \"a\" is the label of another"},
		"a label that is an option":     {good, func(l *Layout) { root(l).Label = "-f" }, "disks[0].partitions[3].label: "},
		"a mount point twice":           {good, func(l *Layout) { boot(l).Mount = "/" }, `disks[0].partitions[3].mount: "/" is the mount point of another`},
		"a relative mount point":        {good, func(l *Layout) { add(l, Partition{Content: Content{FS: "xfs", Mount: "srv"}}) }, "disks[0].partitions[4].mount: "},
		"a mount point with ..":         {good, func(l *Layout) { add(l, Partition{Content: Content{FS: "xfs", Mount: "/srv/../etc"}}) }, "disks[0].partitions[4].mount: "},
		"a mount point with a blank":    {good, func(l *Layout) { add(l, Partition{Content: Content{FS: "xfs", Mount: "/my data"}}) }, "disks[0].partitions[4].mount: "},
		"a mount point below /proc":     {good, func(l *Layout) { add(l, Partition{Content: Content{FS: "xfs", Mount: "/proc/a"}}) }, "disks[0].partitions[4].mount: "},
		"/etc of its own":               {good, func(l *Layout) { add(l, Partition{Content: Content{FS: "xfs", Mount: "/etc"}}) }, "disks[0].partitions[4].mount: \"/etc\" has to be on the root file system"},
		"/lib64 of its own":             {good, func(l *Layout) { add(l, Partition{Content: Content{FS: "xfs", Mount: "/lib64"}}) }, "disks[0].partitions[4].mount: "},
		"vfat as root":                  {good, func(l *Layout) { root(l).FS = "vfat" }, "disks[0].partitions[3].mount: is /, and vfat"},
		"swap with a mount point":       {good, func(l *Layout) { add(l, Partition{Content: Content{FS: "swap", Mount: "/swap"}}) }, "disks[0].partitions[4].mount: is on swap"},
		"options without mount point":   {good, func(l *Layout) { add(l, Partition{Content: Content{FS: "xfs", Options: "noatime"}}) }, "disks[0].partitions[4].options: "},
		"options with a blank":          {good, func(l *Layout) { root(l).Options = "a b" }, "disks[0].partitions[3].options: "},
		"mkfs with a path":              {good, func(l *Layout) { root(l).Mkfs = []string{"-d", "/dev/sdb"} }, "disks[0].partitions[3].mkfs[1]: "},
		"mkfs with a second device":     {good, func(l *Layout) { root(l).Mkfs = []string{"-K", "sdb"} }, "disks[0].partitions[3].mkfs[1]: "},
		"mkfs with another log device":  {good, func(l *Layout) { root(l).Mkfs = []string{"-l", "logdev=sdb"} }, "disks[0].partitions[3].mkfs[1]: "},
		"mkfs with a UUID":              {good, func(l *Layout) { root(l).Mkfs = []string{"-muuid=1"} }, "disks[0].partitions[3].mkfs[0]: "},
		"mkfs with a label":             {good, func(l *Layout) { boot(l).Mkfs = []string{"-L", "x"} }, "disks[0].partitions[2].mkfs[0]: "},
		"mkfs without the value":        {good, func(l *Layout) { boot(l).Mkfs = []string{"-m"} }, "disks[0].partitions[2].mkfs[0]: -m has no value"},
		"mkfs with an empty argument":   {good, func(l *Layout) { boot(l).Mkfs = []string{""} }, "disks[0].partitions[2].mkfs[0]: "},
		"root kept":                     {good, func(l *Layout) { root(l).Keep = true }, "disks[0].partitions[3].keep: is on /, which the image brings"},
		"swap kept":                     {good, func(l *Layout) { add(l, Partition{Content: Content{FS: "swap", Keep: true}}) }, "disks[0].partitions[4].keep: is on swap"},
		"a physical volume kept":        {goodLVM, func(l *Layout) { l.Arrays[2].Keep = true }, "raid[2].keep: is of no use on a physical volume"},
		"a member kept":                 {goodLVM, func(l *Layout) { l.Disks[0].Partitions[2].Keep = true }, "disks[0].partitions[2].keep: is of no use"},
		"a pool kept":                   {goodLVM, func(l *Layout) { volume(l, 1).Keep = true }, "volume_groups[0].volumes[1].keep: is of no use on a pool"},
		"an undeclared group":           {good, func(l *Layout) { root(l).Size = "9GiB"; l.Disks[0].Group = "g" }, `disks[0].volume_group: "g" is not declared`},
		"an undeclared array":           {good, func(l *Layout) { add(l, Partition{Content: Content{Array: "a"}}) }, `disks[0].partitions[4].raid: "a" is not declared`},
		"an array without members":      {good, func(l *Layout) { l.Arrays = []Array{{Name: "a", Level: 1}} }, "raid[0]: has no members"},
		"an array with one member":      {goodLVM, func(l *Layout) { l.Disks[1].Partitions[3] = swap("1GiB") }, "raid[2]: has 1 members, and level 1 needs 2"},
		"an array with too many spares": {goodLVM, func(l *Layout) { l.Arrays[2].Spares = 1 }, "raid[2]: has 2 members, of which 1 are spares, and level 1 needs 2"},
		"spares of level 0":             {goodLVM, func(l *Layout) { l.Arrays[2].Level, l.Arrays[2].Spares = 0, 1 }, "raid[2].spares: is 1, and an array of level 0"},
		"two members on one disk": {goodLVM, func(l *Layout) {
			l.Disks[0].Partitions = append(l.Disks[0].Partitions, Partition{Name: "x", Extent: Extent{Size: "9GiB"}, Content: Content{Array: "system"}})
		}, "raid[2]: has two members on disk1"},
		"RAID 4":                               {goodLVM, func(l *Layout) { l.Arrays[2].Level = 4 }, "raid[2].level: is 4"},
		"an array named as a number":           {goodLVM, func(l *Layout) { rename(l, "127") }, `raid[2].name: "127" would be taken for the number`},
		"an array named as a device":           {goodLVM, func(l *Layout) { rename(l, "md0") }, `raid[2].name: "md0" would be taken`},
		"two arrays of one name":               {goodLVM, func(l *Layout) { l.Arrays = append(l.Arrays, l.Arrays[2]) }, `raid[3].name: "system" is the name of another array`},
		"unknown metadata":                     {goodLVM, func(l *Layout) { l.Arrays[2].Metadata = "0.90" }, `raid[2].metadata: is "0.90"`},
		"a chunk that is no power of two":      {goodLVM, func(l *Layout) { l.Arrays[2].Level, l.Arrays[2].Chunk = 0, "100KiB" }, "raid[2].chunk: "},
		"a chunk for RAID 1":                   {goodLVM, func(l *Layout) { l.Arrays[2].Chunk = "64KiB" }, "raid[2].chunk: is set, and an array of level 1"},
		"an array in an array":                 {goodLVM, func(l *Layout) { l.Arrays[2].Content = Content{Array: "boot"} }, "raid[2].raid: "},
		"a group without physical volume":      {good, func(l *Layout) { l.Groups = []Group{{Name: "g"}} }, "volume_groups[0]: has no physical volume"},
		"a group named as a directory of /dev": {goodLVM, func(l *Layout) { l.Groups[0].Name, l.Arrays[2].Group = "mapper", "mapper" }, `volume_groups[0].name: "mapper" is the name of something in /dev`},
		"a group named as a disk":              {goodLVM, func(l *Layout) { l.Groups[0].Name, l.Arrays[2].Group = "sda", "sda" }, `volume_groups[0].name: "sda" is`},
		"a group with a blank":                 {goodLVM, func(l *Layout) { l.Groups[0].Name = "a b" }, "volume_groups[0].name: "},
		"two groups of one name":               {goodLVM, func(l *Layout) { l.Groups = append(l.Groups, Group{Name: "system"}) }, "volume_groups[1].name: "},
		"an extent size of 3 MiB":              {goodLVM, func(l *Layout) { l.Groups[0].ExtentSize = "3MiB" }, "volume_groups[0].extent_size: "},
		"a volume with a dash first":           {goodLVM, func(l *Layout) { volume(l, 0).Name = "-root" }, "volume_groups[0].volumes[0].name: "},
		"a volume named as LVM's own":          {goodLVM, func(l *Layout) { volume(l, 0).Name = "root_tdata" }, "volume_groups[0].volumes[0].name: "},
		"two volumes of one name":              {goodLVM, func(l *Layout) { volume(l, 0).Name = "thin" }, "volume_groups[0].volumes[2].name: "},
		"a volume as physical volume":          {goodLVM, func(l *Layout) { volume(l, 0).Content = Content{Group: "system"} }, "volume_groups[0].volumes[0].volume_group: "},
		"a volume as member":                   {goodLVM, func(l *Layout) { volume(l, 2).Content = Content{Array: "boot"} }, "volume_groups[0].volumes[2].raid: "},
		"a thin volume without pool":           {goodLVM, func(l *Layout) { volume(l, 2).Thin = "lake" }, `volume_groups[0].volumes[2].thin: "lake" is not a volume`},
		"a thin volume without size":           {goodLVM, func(l *Layout) { volume(l, 2).Size = "" }, "volume_groups[0].volumes[2].size: is missing"},
		"a thin volume in percent":             {goodLVM, func(l *Layout) { volume(l, 2).Size = "10%" }, "volume_groups[0].volumes[2].size: of a thin volume is virtual"},
		"a pool with a file system":            {goodLVM, func(l *Layout) { volume(l, 1).FS = "xfs" }, "volume_groups[0].volumes[1].pool: "},
		"two rests in a group":                 {goodLVM, func(l *Layout) { volume(l, 0).Size, volume(l, 1).Size = "", "rest" }, "volume_groups[0].volumes[1].size: is the rest of the volume group"},
		"the ESP on LVM":                       {goodLVM, func(l *Layout) { volume(l, 2).FS, volume(l, 2).Mount = "vfat", "/boot/efi" }, "volume_groups[0].volumes[2].mount: "},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.base()
			c.edit(&l)
			var said []string
			for _, p := range l.Problems() {
				said = append(said, p.String())
				if len(p.Path) == 0 || p.Text == "" {
					t.Errorf("a problem without a place or text: %+v", p)
				}
			}
			if c.want == "" {
				if len(said) > 0 {
					t.Errorf("refused: %v", said)
				}
				return
			}
			if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, c.want) }) {
				t.Errorf("no problem begins with\n  %s\nbut there are\n  %s", c.want, strings.Join(said, "\n  "))
			}
		})
	}
}

func nilLayout() Layout { return Layout{} }

func add(l *Layout, p Partition) {
	root(l).Size = "20GiB"
	l.Disks[0].Partitions = append(l.Disks[0].Partitions, p)
}

func swap(s Size) Partition { return Partition{Extent: Extent{Size: s}, Content: Content{FS: "swap"}} }

func rename(l *Layout, name string) {
	l.Arrays[2].Name = name
	for i := range l.Disks {
		l.Disks[i].Partitions[3].Array = name
	}
}

func raid5Boot() Layout {
	l := Layout{Firmware: BIOS, Arrays: []Array{{Name: "boot", Level: 5, Content: Content{FS: "ext4", Mount: "/boot"}}}}
	for range 3 {
		l.Disks = append(l.Disks, Disk{Partitions: []Partition{{Role: RoleBIOSBoot}, {Extent: Extent{Size: "1GiB"}, Content: Content{Array: "boot"}}}})
	}
	l.Disks[0].Partitions = append(l.Disks[0].Partitions, Partition{Content: Content{FS: "xfs", Mount: "/"}})
	return l
}

func TestAllMistakesAreSaidAtOnce(t *testing.T) {
	l := goodLVM()
	l.Disks[0].Name = "a b"
	l.Arrays[2].Level = 7
	l.Groups[0].Volumes[2].Thin = "lake"
	l.Data = &Data{When: "never"}
	if n := len(l.Problems()); n != 4 {
		t.Errorf("there are %d problems, and 4 were made:\n%v", n, l.Validate())
	}
	err := l.Validate()
	if err == nil || !strings.Contains(err.Error(), "layout: disks[0].name: ") || !strings.Contains(err.Error(), "\nlayout: raid[2].level: is 7") {
		t.Errorf("the error is %v", err)
	}
}
