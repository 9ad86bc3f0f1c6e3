package layout

// preset replaces the preset by what it stands for.
func (l *Layout) preset() {
	if l.Filesystem == "" {
		l.Filesystem = "xfs"
	}
	if l.BootSize == "" {
		l.BootSize = defaultBoot
	}
	if l.ESPSize == "" {
		l.ESPSize = defaultESP
	}
	if l.MountOptions == "defaults" {
		l.MountOptions = ""
	}
	switch l.Preset {
	case LVM:
		l.Disks = []Disk{{Partitions: l.bootPartitions(""), Group: "system"}}
		l.Groups = []Group{{Name: "system", Volumes: l.plainVolumes()}}
	case Server:
		l.Disks = []Disk{{Partitions: l.bootPartitions("nodev,nosuid"), Group: "system"}}
		l.Groups = []Group{{Name: "system", Volumes: l.serverVolumes()}}
	case Mirror:
		l.mirror()
	default:
		parts := l.bootPartitions("")
		if l.SwapSize != "" {
			parts = append(parts, Partition{Name: "swap", Extent: Extent{Size: l.SwapSize}, Content: Content{FS: "swap", Label: "swap"}})
		}
		l.Disks = []Disk{{Partitions: append(parts, Partition{Name: "root", Extent: Extent{Size: Rest, Min: l.RootMin}, Content: l.root()})}}
	}
	for i := range l.Disks {
		l.Disks[i].Match = l.Match
	}
}

// biosBoot is GRUB's partition on disks that may start by BIOS and GRUB.
func (l *Layout) biosBoot() []Partition {
	if !l.Firmware.HasBIOS() || l.BIOSLoader == Extlinux || l.Table == MBR {
		return nil
	}
	return []Partition{{Name: "biosboot", Role: RoleBIOSBoot, Extent: Extent{Size: "1MiB"}}}
}

// bootPartitions are what the firmware and the boot loaders read. /boot is ext4, which each of them can.
func (l *Layout) bootPartitions(options string) []Partition {
	parts := l.biosBoot()
	if l.Firmware.HasUEFI() {
		esp := Content{FS: "vfat", Label: espLabel, Mount: espMount, Options: espOptions}
		if options != "" {
			esp.Options += ",nosuid,nodev"
		}
		parts = append(parts, Partition{Name: "esp", Role: RoleESP, Extent: Extent{Size: l.ESPSize}, Content: esp})
	}
	return append(parts, Partition{Name: "boot", Extent: Extent{Size: l.BootSize}, Content: Content{FS: "ext4", Label: "boot", Mount: "/boot", Options: options}})
}

func (l *Layout) root() Content {
	return Content{FS: l.Filesystem, Label: "root", Mount: "/", Options: l.MountOptions}
}

func (l *Layout) plainVolumes() []Volume {
	return append(l.swapVolume(), Volume{Name: "root", Extent: Extent{Size: Rest, Min: l.RootMin}, Content: l.root()})
}

func (l *Layout) swapVolume() []Volume {
	if l.SwapSize == "" {
		return nil
	}
	return []Volume{{Name: "swap", Extent: Extent{Size: l.SwapSize}, Content: Content{FS: "swap", Label: "swap"}}}
}

// serverVolumes: sizes are shares of the disk that small disks squeeze to the least and large ones do not waste; /var, which
// holds what servers serve, takes the rest. The mount options are those of the CIS benchmarks for RHEL 8 and 9 (1.1.2) and of the
// STIG for RHEL 9 where both agree: the STIG's noexec on /home, which breaks what people build there, is left to the profile.
func (l *Layout) serverVolumes() []Volume {
	const (
		nodev = "nodev"
		suid  = "nodev,nosuid"
		exec  = "nodev,nosuid,noexec"
	)
	root := Extent{Size: "20%", Min: "1GiB", Max: "100GiB"}
	if l.RootMin != "" {
		root.Min = l.RootMin
	}
	if root.Min.fixed() > root.Max.fixed() {
		root.Max = ""
	}
	vs := append(l.swapVolume(), Volume{Name: "root", Extent: root, Content: l.root()})
	for _, v := range []struct {
		name, label, mount string
		size, least, most  Size
		options            string
	}{
		{"home", "home", "/home", "10%", "320MiB", "100GiB", suid},
		{"opt", "opt", "/opt", "10%", "320MiB", "50GiB", nodev},
		{"tmp", "tmp", "/tmp", "5%", "320MiB", "20GiB", exec},
		{"var", "var", "/var", Rest, "1GiB", "", suid},
		{"var_tmp", "var_tmp", "/var/tmp", "5%", "320MiB", "20GiB", exec},
		{"var_log", "var_log", "/var/log", "10%", "320MiB", "50GiB", exec},
		{"var_log_audit", "audit", "/var/log/audit", "5%", "320MiB", "20GiB", exec},
		{"var_crash", "crash", "/var/crash", "5%", "320MiB", "50GiB", exec},
	} {
		vs = append(vs, Volume{
			Name: v.name, Extent: Extent{Size: v.size, Min: v.least, Max: v.most},
			Content: Content{FS: l.Filesystem, Label: v.label, Mount: v.mount, Options: v.options},
		})
	}
	return vs
}

func (l *Layout) mirror() {
	parts := l.biosBoot()
	if l.Firmware.HasUEFI() {
		parts = append(parts, Partition{Name: "esp", Role: RoleESP, Extent: Extent{Size: l.ESPSize}, Content: Content{Array: "esp"}})
		l.Arrays = append(l.Arrays, Array{Name: "esp", Level: 1, Metadata: "1.0", Content: Content{FS: "vfat", Label: espLabel, Mount: espMount, Options: espOptions}})
	}
	parts = append(parts,
		Partition{Name: "boot", Extent: Extent{Size: l.BootSize}, Content: Content{Array: "boot"}},
		Partition{Name: "system", Extent: Extent{Size: Rest}, Content: Content{Array: "system"}})
	l.Arrays = append(l.Arrays,
		Array{Name: "boot", Level: 1, Metadata: "1.0", Content: Content{FS: "ext4", Label: "boot", Mount: "/boot"}},
		Array{Name: "system", Level: 1, Metadata: "1.2", Content: Content{Group: "system"}})
	l.Groups = []Group{{Name: "system", Volumes: l.plainVolumes()}}
	for range 2 {
		l.Disks = append(l.Disks, Disk{Partitions: append([]Partition(nil), parts...)})
	}
}
