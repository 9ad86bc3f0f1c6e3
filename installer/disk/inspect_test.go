package disk

import (
	"os"
	"strings"
	"testing"
)

func TestADiskThatHasTakenAnothersNameIsNotTheSame(t *testing.T) {
	const sda = pci + "0000:00:17.0/ata1/host3/target3:0:0/3:0:0:0/block/sda"
	machine := func(edit map[string]string) string {
		a := map[string]string{"size": "937703088\n", "queue/logical_block_size": "512\n", "device/wwid": "naa.5002538e40a1b2c3\n",
			"serial": "S3Z1\n", "dev": "1:3\n"} // that of /dev/null, which every machine has
		for k, v := range edit {
			a[k] = v
		}
		return sysfs(t, map[string]map[string]string{sda: a, pci + "0000:00:17.0/ata1/ata_port/ata1": {"port_no": "1\n"}})
	}
	was, err := read(machine(nil), "sda")
	if err != nil || len(was.ByPath) == 0 {
		t.Fatal(was, err)
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, c := range map[string]struct {
		edit map[string]string
		says string
	}{
		"the same":               {nil, ""},
		"another serial number":  {map[string]string{"serial": "S3Z2\n"}, "it was /dev/sda (serial S3Z1, 447.1 GiB), and now it is /dev/sda (serial S3Z2, 447.1 GiB)"},
		"another worldwide name": {map[string]string{"device/wwid": "naa.5002538e40a1b2c4\n"}, "and now it is"},
		"another size":           {map[string]string{"size": "937703096\n"}, "and now it is"},
		"another node":           {map[string]string{"dev": "8:0\n"}, "the device node is not that of the kernel's sda, which is 8:0"},
	} {
		t.Run(name, func(t *testing.T) {
			err := was.Check(machine(c.edit), f)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := was.Check(sysfs(t, nil), f); err == nil {
		t.Error("a disk that is gone is the same")
	}
	moved := was
	moved.ByPath = []string{"pci-0000:00:17.0-ata-2"}
	if err := moved.Check(machine(nil), f); err == nil {
		t.Error("a disk in another place is the same")
	}
}

func TestAMultipathMapIsTheSameByItsOwnName(t *testing.T) {
	map1 := Disk{Size: 1, Sector: 512, Serial: "of a path", ByID: []string{"dm-name-a", "dm-uuid-mpath-1", "wwn-0x1"}, slaves: []string{"sda"}}
	now := Disk{Size: 1, Sector: 512, ByID: []string{"dm-name-a", "dm-uuid-mpath-1"}, slaves: []string{"sda"}}
	if !map1.same(now) {
		t.Error("it is another one")
	}
	now.ByID = []string{"dm-name-a", "dm-uuid-mpath-2"}
	if map1.same(now) {
		t.Error("another map is the same")
	}
}
