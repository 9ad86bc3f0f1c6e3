package storage

import (
	"slices"
	"strings"
	"testing"

	"imgbuild/image/layout"
)

func equalArgv(t *testing.T, got []string, want string) {
	t.Helper()
	if !slices.Equal(got, strings.Fields(want)) {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestFileSystemsAreMadeWithTheIdentifiersThatWereChosen(t *testing.T) {
	const id = "0b4d9a8e-1111-4222-8333-444455556666"
	for _, c := range []struct {
		content layout.Content
		id      string
		sector  int
		want    string
	}{
		{layout.Content{FS: "xfs", Label: "root"}, id, 512, "mkfs.xfs -q -f -m uuid=" + id + " -L root /dev/vda3"},
		{layout.Content{FS: "xfs", Mkfs: []string{"-m", "crc=0"}}, id, 512, "mkfs.xfs -q -f -m uuid=" + id + " -m crc=0 /dev/vda3"},
		{layout.Content{FS: "ext4", Label: "boot", Mkfs: []string{"-m1"}}, id, 512, "mkfs.ext4 -q -F -U " + id + " -L boot -m1 /dev/vda3"},
		{layout.Content{FS: "vfat", Label: "ESP"}, "12AB-34CD", 4096, "mkfs.vfat -I -F 32 -S 4096 -i 12AB34CD -n ESP /dev/vda3"},
		{layout.Content{FS: "swap", Label: "swap"}, id, 512, "mkswap -f -U " + id + " -L swap /dev/vda3"},
	} {
		got, err := mkfsArgs(c.content, c.id, "/dev/vda3", c.sector)
		if err != nil {
			t.Fatal(err)
		}
		equalArgv(t, got, c.want)
	}
	if _, err := mkfsArgs(layout.Content{FS: "btrfs"}, id, "/dev/vda3", 512); err == nil {
		t.Error("btrfs can be made")
	}
}

func TestArraysAreMadeAsBootLoadersAndTheInstalledSystemWantThem(t *testing.T) {
	const id = "11111111:22222222:33333333:44444444"
	const gib = 1 << 30
	two := []string{"/dev/vda2", "/dev/vdb2"}
	four := []string{"/dev/vda3", "/dev/vdb3", "/dev/vdc3", "/dev/vdd3"}
	for _, c := range []struct {
		a       layout.SchemeArray
		members []string
		want    string
	}{
		{layout.SchemeArray{Array: layout.Array{Name: "esp", Level: 1, Metadata: "1.0"}, Size: gib / 2}, two,
			"mdadm --create /dev/md/esp --run --homehost=any --name=esp --uuid=" + id + " --metadata=1.0 --level=1 --raid-devices=2 --bitmap=none /dev/vda2 /dev/vdb2"},
		{layout.SchemeArray{Array: layout.Array{Name: "pv", Level: 1, Metadata: "1.2"}, Size: 100 * gib}, two,
			"mdadm --create /dev/md/pv --run --homehost=any --name=pv --uuid=" + id + " --metadata=1.2 --level=1 --raid-devices=2 --bitmap=internal /dev/vda2 /dev/vdb2"},
		{layout.SchemeArray{Array: layout.Array{Name: "fast", Level: 0, Chunk: "512KiB"}, Size: 100 * gib}, two,
			"mdadm --create /dev/md/fast --run --homehost=any --name=fast --uuid=" + id + " --metadata=1.2 --level=0 --raid-devices=2 --chunk=512K /dev/vda2 /dev/vdb2"},
		{layout.SchemeArray{Array: layout.Array{Name: "safe", Level: 5, Chunk: "1MiB", Spares: 1}, Size: 100 * gib}, four,
			"mdadm --create /dev/md/safe --run --homehost=any --name=safe --uuid=" + id + " --metadata=1.2 --level=5 --raid-devices=3 --spare-devices=1 --chunk=1M --bitmap=internal /dev/vda3 /dev/vdb3 /dev/vdc3 /dev/vdd3"},
		{layout.SchemeArray{Array: layout.Array{Name: "swap", Level: 10, Content: layout.Content{FS: "swap"}}, Size: 100 * gib}, four,
			"mdadm --create /dev/md/swap --run --homehost=any --name=swap --uuid=" + id + " --metadata=1.2 --level=10 --raid-devices=4 --bitmap=none /dev/vda3 /dev/vdb3 /dev/vdc3 /dev/vdd3"},
	} {
		got := createArray(c.a, id, c.members)
		equalArgv(t, got, c.want)
		if slices.Contains(got, "--assume-clean") {
			t.Error("what was never synchronised is called clean")
		}
	}
	equalArgv(t, assembleArray("pv", id, false, two), "mdadm --assemble /dev/md/pv --run --uuid="+id+" /dev/vda2 /dev/vdb2")
	equalArgv(t, assembleArray("pv", id, true, two), "mdadm --assemble /dev/md/pv --run --uuid="+id+" --readonly /dev/vda2 /dev/vdb2")
	equalArgv(t, endArray("pv"), "mdadm --stop /dev/md/pv")
	equalArgv(t, examineMember("/dev/vda2"), "mdadm --examine --export /dev/vda2")
}

func TestLVMSeesOnlyOurDevicesAndAsksNobody(t *testing.T) {
	got := lvmConfig([]string{"/dev/vda3", "/dev/cciss/c0d0p1", "/dev/md127"})
	want := `activation{udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0} ` +
		`devices{use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" multipath_component_detection=0 ` +
		`filter=["a|^/dev/vda3$|","a|^/dev/cciss/c0d0p1$|","a|^/dev/md127$|","r|.*|"] ` +
		`global_filter=["a|^/dev/vda3$|","a|^/dev/cciss/c0d0p1$|","a|^/dev/md127$|","r|.*|"]} ` +
		`backup{backup=0 archive=0} global{use_lvmetad=0 use_lvmlockd=0 use_lvmpolld=0 thin_check_executable=""}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	l := lvm{"C"}
	v := func(name string) layout.SchemeVolume {
		return layout.SchemeVolume{Volume: layout.Volume{Name: name}, Size: 8 * mib}
	}
	pool, thin := v("pool"), v("thin1")
	pool.Pool, pool.Metadata, thin.Thin = true, 4*mib, "pool"
	group := layout.SchemeGroup{Group: layout.Group{Name: "system"}, Extent: 4 * mib}
	for _, c := range []struct {
		got  []string
		want string
	}{
		{l.createPhysical("/dev/vda3"), "lvm pvcreate --config C -ff -y -Z y /dev/vda3"},
		{l.createGroup(group, []string{"/dev/vda3", "/dev/vdb1"}), "lvm vgcreate --config C -y -Z y -s 4194304b system /dev/vda3 /dev/vdb1"},
		{l.createVolume("system", v("root"), 2), "lvm lvcreate --config C -y -W y -Z y -n root -l 2 system"},
		{l.createVolume("system", pool, 2), "lvm lvcreate --config C -y --type thin-pool -n pool --poolmetadatasize 4194304b -l 2 system"},
		{l.createVolume("system", thin, 0), "lvm lvcreate --config C -y --type thin -n thin1 -V 8388608b --thinpool pool system"},
		{l.removeVolume("system", "root"), "lvm lvremove --config C -ff -y system/root"},
		{l.activate("system"), "lvm vgchange --config C -a y -K system"},
		{l.deactivate("system"), "lvm vgchange --config C -a n system"},
		{l.makeNodes("system"), "lvm vgmknodes --config C system"},
		{l.listGroups(), "lvm vgs --config C --reportformat json --units b --nosuffix -o vg_name,vg_extent_size,vg_free_count,vg_missing_pv_count"},
		{l.listVolumes(), "lvm lvs --config C --reportformat json --units b --nosuffix -o vg_name,lv_name,lv_size,segtype,pool_lv"},
		{l.listPhysical(), "lvm pvs --config C --reportformat json --units b --nosuffix -o pv_name,vg_name,pe_start"},
		{l.listSegments("system"), "lvm lvs --config C --segments --reportformat json --units b --nosuffix -o lv_name,segtype,seg_start,seg_size,seg_pe_ranges system"},
	} {
		equalArgv(t, c.got, c.want)
	}
}

func TestVolumesAreMadeInAnOrderInWhichTheRestIsWhatRemains(t *testing.T) {
	v := func(name string, size layout.Size) layout.SchemeVolume {
		return layout.SchemeVolume{Volume: layout.Volume{Name: name, Extent: layout.Extent{Size: size}}}
	}
	pool, thin := v("pool", ""), v("thin", "1GiB")
	pool.Pool, thin.Thin = true, "pool"
	var names []string
	for _, v := range inOrder([]layout.SchemeVolume{thin, pool, v("root", "10GiB"), v("swap", "10%")}) {
		names = append(names, v.Name)
	}
	if strings.Join(names, " ") != "root swap pool thin" {
		t.Errorf("got %v", names)
	}
}

func TestTheRestOfAGroupIsWhatItReallyHas(t *testing.T) {
	volume := func(pool bool, metadata int64, min, max layout.Size) layout.SchemeVolume {
		return layout.SchemeVolume{Volume: layout.Volume{Name: "x", Pool: pool, Extent: layout.Extent{Min: min, Max: max}}, Size: 100 * 4 * mib, Metadata: metadata}
	}
	other := layout.SchemeVolume{Volume: layout.Volume{Name: "other", Pool: true}, Metadata: 8 * mib}
	for name, c := range map[string]struct {
		free   int64
		v      layout.SchemeVolume
		others []layout.SchemeVolume
		want   int64 // 0 for an error
	}{
		"less than the scheme thought":            {90, volume(false, 0, "", ""), nil, 90},
		"more than the scheme thought":            {110, volume(false, 0, "", ""), nil, 110},
		"more than its max":                       {110, volume(false, 0, "", "400MiB"), nil, 100},
		"less than its max":                       {90, volume(false, 0, "", "400MiB"), nil, 90},
		"less than its min":                       {90, volume(false, 0, "361MiB", ""), nil, 0},
		"nothing":                                 {0, volume(false, 0, "", ""), nil, 0},
		"a pool, its metadata and the spare":      {100, volume(true, 6*mib, "", ""), nil, 96},
		"a pool where a larger one has the spare": {100, volume(true, 6*mib, "", ""), []layout.SchemeVolume{other}, 98},
	} {
		got, err := restExtents(groupInfo{"g", 4 * mib, c.free, 0}, layout.SchemeGroup{Volumes: append(c.others, c.v)}, c.v)
		if got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("%s: got %d, %v", name, got, err)
		}
	}
}

func TestOfAKeptGroupEverythingElseGoesThinVolumesFirst(t *testing.T) {
	have := []volumeInfo{{"g", "home", 1, false, ""}, {"g", "pool", 1, true, ""}, {"g", "old", 1, false, ""}, {"g", "thin1", 1, false, "pool"}, {"g", "thin2", 1, false, "pool"}}
	kept := &layout.Existing{}
	g := layout.SchemeGroup{Group: layout.Group{Name: "g"}, Volumes: []layout.SchemeVolume{
		{Volume: layout.Volume{Name: "home"}, Kept: kept}, {Volume: layout.Volume{Name: "old"}}}}
	got, err := removals(g, have)
	if err != nil || strings.Join(got, " ") != "thin1 thin2 pool old" {
		t.Errorf("got %v, %v", got, err)
	}
	g.Volumes = append(g.Volumes, layout.SchemeVolume{Volume: layout.Volume{Name: "thin2", Thin: "pool"}, Kept: kept})
	if got, err := removals(g, have); err != nil || strings.Join(got, " ") != "thin1 old" {
		t.Errorf("with a volume in the pool: got %v, %v", got, err)
	}
	g.Volumes = append(g.Volumes, layout.SchemeVolume{Volume: layout.Volume{Name: "gone"}, Kept: kept})
	if _, err := removals(g, have); err == nil {
		t.Error("what is not there was kept")
	}
}
