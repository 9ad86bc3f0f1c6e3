package teardown

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// kernel makes /sys, /proc and /dev: attribute files by path below /sys/block, holders as empty files.
func kernel(t *testing.T, blocks map[string]string, mounts, swaps string) System {
	t.Helper()
	root := t.TempDir()
	put := func(path, data string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, data := range blocks {
		put(filepath.Join(root, "sys/block", path), data)
	}
	put(filepath.Join(root, "proc/self/mountinfo"), "22 1 0:20 / /proc rw - proc proc rw\n"+mounts)
	put(filepath.Join(root, "proc/swaps"), "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"+swaps)
	return System{Sys: filepath.Join(root, "sys"), Proc: filepath.Join(root, "proc"), Dev: filepath.Join(root, "dev")}
}

func dm(name, dev, label, uuid string, holders ...string) map[string]string {
	out := map[string]string{name + "/dev": dev + "\n", name + "/dm/name": label + "\n", name + "/dm/uuid": uuid + "\n"}
	for _, h := range holders {
		out[name+"/holders/"+h] = ""
	}
	return out
}

func merge(maps ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func part(disk, name, dev string, holders ...string) map[string]string {
	out := map[string]string{disk + "/" + name + "/dev": dev + "\n", disk + "/" + name + "/partition": "1\n"}
	for _, h := range holders {
		out[disk+"/"+name+"/holders/"+h] = ""
	}
	return out
}

// server is LVM with a thin pool on LUKS on RAID 1 on two disks, beside a plain partition.
func server() map[string]string {
	return merge(
		map[string]string{"sda/dev": "8:0\n", "sdb/dev": "8:16\n", "sdc/dev": "8:32\n"},
		part("sda", "sda1", "8:1"), part("sda", "sda2", "8:2", "md127"), part("sdb", "sdb2", "8:18", "md127"),
		map[string]string{"md127/dev": "9:127\n", "md127/md/array_state": "clean\n", "md127/holders/dm-0": ""},
		dm("dm-0", "253:0", "luks-1", "CRYPT-LUKS2-1", "dm-1", "dm-2", "dm-10"),
		dm("dm-1", "253:1", "system-pool_tmeta", "LVM-a-tmeta", "dm-3"),
		dm("dm-2", "253:2", "system-pool_tdata", "LVM-a-tdata", "dm-3"),
		dm("dm-3", "253:3", "system-pool-tpool", "LVM-a-tpool", "dm-4"),
		dm("dm-4", "253:4", "system-root", "LVM-b"),
		dm("dm-10", "253:10", "system-srv", "LVM-c"),
	)
}

func names(steps []Device) string {
	var out []string
	for _, d := range steps {
		out = append(out, d.Name)
	}
	return strings.Join(out, " ")
}

func TestWhatStandsOnOthersGoesFirst(t *testing.T) {
	for name, c := range map[string]struct {
		blocks map[string]string
		disks  []string
		want   string
	}{
		"nothing":                          {server(), []string{"sdc"}, ""},
		"LVM on LUKS on RAID":              {server(), []string{"sda"}, "dm-4 dm-10 dm-3 dm-1 dm-2 dm-0 md127"},
		"both of its disks":                {server(), []string{"sda", "sdb"}, "dm-4 dm-10 dm-3 dm-1 dm-2 dm-0 md127"},
		"what is on the array alone":       {server(), []string{"md127"}, "dm-4 dm-10 dm-3 dm-1 dm-2 dm-0"},
		"a multipath map with a partition": {merge(map[string]string{"sda/dev": "8:0", "sda/holders/dm-0": ""}, dm("dm-0", "253:0", "mpatha", "mpath-3600", "dm-1"), dm("dm-1", "253:1", "mpatha1", "part1-mpath-3600")), []string{"sda"}, "dm-1 dm-0"},
		"the partition of an array": {merge(map[string]string{"sda/dev": "8:0", "sda/holders/md0": "", "md0/dev": "9:0", "md0/md/level": "raid1"}, part("md0", "md0p1", "259:0", "dm-0"),
			dm("dm-0", "253:0", "x", "")), []string{"sda"}, "dm-0 md0"},
		"an array in a container of the firmware's RAID": {map[string]string{"sda/dev": "8:0", "sda/holders/md126": "", "sda/holders/md127": "",
			"md126/dev": "9:126", "md126/md/metadata_version": "external:/md127/0\n", "md127/dev": "9:127", "md127/md/metadata_version": "external:imsm\n"}, []string{"sda"}, "md126 md127"},
		"a loop device on a partition": {merge(map[string]string{"sda/dev": "8:0", "loop3/dev": "7:3", "loop3/loop/backing_file": "/dev/sda1\n", "loop4/dev": "7:4",
			"loop4/loop/backing_file": "/srv/sda1\n"}, part("sda", "sda1", "8:1")), []string{"sda"}, "loop3"},
		"bcache, backing and cache": {merge(map[string]string{"sda/dev": "8:0", "nvme0n1/dev": "259:0", "bcache0/dev": "252:0", "bcache0/bcache/stop": "", "bcache0/holders/dm-0": "",
			"sda/bcache/stop": "", "sda/holders/bcache0": "", "nvme0n1/nvme0n1p1/dev": "259:1", "nvme0n1/nvme0n1p1/partition": "1", "nvme0n1/nvme0n1p1/bcache/set/stop": "",
			"nvme0n1/nvme0n1p1/holders/bcache0": ""}, dm("dm-0", "253:0", "a-b", "LVM-x")), []string{"sda", "nvme0n1"}, "dm-0 bcache0 member:nvme0n1p1 member:sda"},
		"a registered bcache device without a cache": {map[string]string{"sda/dev": "8:0", "sda/bcache/stop": ""}, []string{"sda"}, "member:sda"},
	} {
		t.Run(name, func(t *testing.T) {
			tree, err := Look(kernel(t, c.blocks, "", ""), c.disks...)
			if err != nil {
				t.Fatal(err)
			}
			steps, err := tree.Steps()
			if err != nil || names(steps) != c.want {
				t.Errorf("got %s, %v; want %s", names(steps), err, c.want)
			}
		})
	}
}

func TestDisksInUseAreRefusedWithEveryUseNamed(t *testing.T) {
	for name, c := range map[string]struct {
		mounts, swaps string
		want          string
	}{
		"a mounted volume":    {"30 1 253:10 / /srv/a\\040b rw - xfs /dev/mapper/system-srv rw\n", "", "LVM volume system-srv (dm-10) is mounted at /srv/a b; unmount"},
		"a mounted partition": {"30 1 8:1 / /boot rw shared:1 - ext4 /dev/sda1 rw\n", "", "partition sda1 is mounted at /boot; "},
		"Btrfs":               {"30 1 0:45 /root / rw - btrfs /dev/mapper/system-root rw\n", "", "LVM volume system-root (dm-4) is mounted at /; "},
		"swap, and a mount": {"30 1 8:1 / /boot rw shared:1 - ext4 /dev/sda1 rw\n", "/dev/dm-4 partition 1 0 -2\n",
			"release disk: LVM volume system-root (dm-4) is used as swap, partition sda1 is mounted at /boot; unmount it, or turn it off, first"},
		"another disk's": {"30 1 8:33 / /boot rw - ext4 /dev/sdc1 rw\n", "/dev/sdc2 partition 1 0 -2\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			tree, err := Look(kernel(t, server(), c.mounts, c.swaps), "sda")
			if err != nil {
				t.Fatal(err)
			}
			_, err = tree.Steps()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestWhatCannotBeRemovedIsRefused(t *testing.T) {
	tree, err := Look(kernel(t, map[string]string{"sda/dev": "8:0", "sda/holders/drbd0": "", "drbd0/dev": "147:0"}, "", ""), "sda")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Steps(); err == nil || !strings.Contains(err.Error(), "held by drbd0, which the installer does not know how to stop") {
		t.Errorf("got %v", err)
	}
	ring := Tree{"sda": {Name: "sda", Kind: Disk}, "dm-0": {Name: "dm-0", Kind: LVM, Below: []string{"dm-1"}}, "dm-1": {Name: "dm-1", Kind: LVM, Below: []string{"dm-0", "sda"}}}
	if _, err := ring.Steps(); err == nil || !strings.Contains(err.Error(), "stand on each other") {
		t.Errorf("got %v", err)
	}
	if _, err := Look(kernel(t, server(), "", ""), "sdz"); err == nil || !strings.Contains(err.Error(), "sdz is not in") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyWhatNothingStandsOnIsTried(t *testing.T) {
	tree, err := Look(kernel(t, server(), "", ""), "sda", "sdc")
	if err != nil {
		t.Fatal(err)
	}
	var free []string
	for name := range tree {
		if !tree.held(name) {
			free = append(free, name)
		}
	}
	slices.Sort(free)
	if want := []string{"dm-10", "dm-4", "sda1", "sdc"}; !slices.Equal(free, want) {
		t.Errorf("got %v, want %v", free, want)
	}
}

func TestTheKernelIsToldOfADeviceByItsNumber(t *testing.T) {
	got, err := dmRemove("253:259")
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 312)
	binary.NativeEndian.PutUint32(want[0:], 4)
	binary.NativeEndian.PutUint32(want[12:], 312)
	binary.NativeEndian.PutUint32(want[16:], 312)
	binary.NativeEndian.PutUint64(want[40:], 0x10fd03) // minor 0x103, major 0xfd: mmmM MMmm
	if !bytes.Equal(got, want) {
		t.Errorf("got  % x\nwant % x", got[:48], want[:48])
	}
	for _, bad := range []string{"", "253", "253:", "x:1", "9999:1", "1:9999999"} {
		if _, err := dmRemove(bad); err == nil {
			t.Errorf("%q is a device number", bad)
		}
	}
}

func TestNamesOfVolumesAreTakenApart(t *testing.T) {
	for name, want := range map[string]string{"system-root": "system/root", "a--b-c--d": "a-b/c-d", "vg-lv-tpool": "vg/lv-tpool", "mpatha": "", "-x": "", "x-": "", "a--b": ""} {
		g, v, ok := splitLVM(name)
		if got := g + "/" + v; ok && got != want || !ok && want != "" {
			t.Errorf("%s is %s, %v", name, got, ok)
		}
	}
}

func TestOnlyTheDevicesOwnNamesGo(t *testing.T) {
	s := kernel(t, nil, "", "")
	for _, dir := range []string{"mapper", "system"} {
		if err := os.MkdirAll(filepath.Join(s.Dev, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"mapper/system-root": "../dm-4", "system/root": "/dev/mapper/system-root", "mapper/system-srv": "../dm-7"} {
		if err := os.Symlink(to, filepath.Join(s.Dev, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []Device{{Name: "dm-4", Kind: LVM, Label: "system-root", Dev: "253:4"}, {Name: "dm-10", Kind: LVM, Label: "system-srv", Dev: "253:10"}} {
		if err := s.removeNodes(d); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(s.Dev, "*/*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "system-srv" {
		t.Errorf("left are %v, %v", left, err)
	}
}
