package hw

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func link(t *testing.T, dir, name, target string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, p); err != nil {
		t.Fatal(err)
	}
}

func TestAMachineIsReadFromSysfs(t *testing.T) {
	sys := write(t, map[string]string{
		"class/dmi/id/sys_vendor": "Dell Inc.\n", "class/dmi/id/product_name": "PowerEdge R750\n", "class/dmi/id/product_serial": " ABC1234 \n",
		"class/dmi/id/product_uuid":                          "4C4C4544-0042-4310-8056-B4C04F4A3532\n",
		"firmware/efi/fw_platform_size":                      "64\n",
		"devices/pci0/0000:00:03.0/virtio0/net/eth0/address": "52:54:00:aa:bb:cc\n",
		"devices/pci0/0000:00:03.0/virtio0/net/eth0/type":    "1\n",
		"devices/pci0/0000:00:03.0/virtio0/net/eth0/carrier": "1\n",
		"devices/pci0/0000:00:03.0/virtio0/net/eth0/speed":   "-1\n",
		"devices/pci0/0000:01:00.0/net/ens1/address":         "00:11:22:33:44:55\n",
		"devices/pci0/0000:01:00.0/net/ens1/type":            "1\n",
		"devices/pci0/0000:01:00.0/net/ens1/speed":           "25000\n",
		"devices/virtual/net/lo/type":                        "772\n",
		"bus/virtio/drivers/virtio_net/x":                    "",
	})
	link(t, sys, "class/net/eth0", "../../devices/pci0/0000:00:03.0/virtio0/net/eth0")
	link(t, sys, "class/net/ens1", "../../devices/pci0/0000:01:00.0/net/ens1")
	link(t, sys, "class/net/lo", "../../devices/virtual/net/lo")
	link(t, sys, "devices/pci0/0000:00:03.0/virtio0/net/eth0/device", "../../../virtio0")
	link(t, sys, "devices/pci0/0000:00:03.0/virtio0/driver", filepath.Join(sys, "bus/virtio/drivers/virtio_net"))
	link(t, sys, "devices/pci0/0000:01:00.0/net/ens1/device", "../../../0000:01:00.0")
	proc := write(t, map[string]string{"meminfo": "MemTotal:        2048000 kB\nMemFree: 1 kB\n", "sys/kernel/osrelease": "6.1.0-56-amd64\n"})
	m, err := inspect(sys, proc)
	if err != nil {
		t.Fatal(err)
	}
	if m.Vendor != "Dell Inc." || m.Product != "PowerEdge R750" || m.Serial != "ABC1234" || m.SerialProblem != "" || m.Firmware != UEFI ||
		m.UUID != "4c4c4544-0042-4310-8056-b4c04f4a3532" || m.MemoryBytes != 2048000<<10 || m.Kernel != "6.1.0-56-amd64" {
		t.Errorf("%+v", m)
	}
	if len(m.NICs) != 2 || m.NICs[0].Name != "ens1" || m.NICs[0].SpeedMbit != 25000 || m.NICs[1].Driver != "virtio_net" || m.NICs[1].Bus != "0000:00:03.0" ||
		!m.NICs[1].Carrier || m.NICs[1].SpeedMbit != 0 || m.NICs[1].MAC.String() != "52:54:00:aa:bb:cc" {
		t.Errorf("%+v", m.NICs)
	}
}

func TestAMachineThatSaysNothingIsStillAMachine(t *testing.T) {
	m, err := inspect(t.TempDir(), write(t, map[string]string{"meminfo": "MemTotal: 1024 kB\n"}))
	if err != nil || m.Serial != "" || m.SerialProblem == "" || m.Firmware != BIOS || len(m.NICs) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, text := range []string{"", "MemTotal: x kB\n", "MemTotal: -5 kB\n", "MemTotal: 99999999999999999999 kB\n"} {
		if _, err := inspect(t.TempDir(), write(t, map[string]string{"meminfo": text})); err == nil || !strings.Contains(err.Error(), "MemTotal") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestJunkSerialNumbersIdentifyNoMachine(t *testing.T) {
	for _, s := range []string{"", "  ", "To be filled by O.E.M.", "TO BE FILLED BY O.E.M", "Default string", "None", "N/A", "0123456789", "123456789",
		"1234567890", "987654321", "System Serial Number", "00000000", "XXXXXXXX", "................", "Not Specified", "0", "A1", "unknown",
		"...", "Chassis Serial Number", "SN\x01123", "Seriennummer-ä"} {
		if junkSerial(s) == "" {
			t.Errorf("%q was taken for a serial number", s)
		}
	}
	for _, s := range []string{"ABC1234", "CZ3344ABCD", "SN-4242", "J1234567", "7CE001P0AB", "VMware-56 4d 0a", "1357924680", "b1946ac9-2492", "12346"} {
		if why := junkSerial(s); why != "" {
			t.Errorf("%q: %s", s, why)
		}
	}
}

func TestJunkUUIDsIdentifyNoMachine(t *testing.T) {
	for s, junk := range map[string]bool{
		"4c4c4544-0042-4310-8056-b4c04f4a3532": false, "00000000-0000-0000-0000-000000000000": true,
		"ffffffff-ffff-ffff-ffff-ffffffffffff": true, "03000200-0400-0500-0006-000700080009": true, "": true, "x": true,
		"zc4c4544-0042-4310-8056-b4c04f4a3532": true,
	} {
		if (junkUUID(s) != "") != junk {
			t.Errorf("%q: %q", s, junkUUID(s))
		}
	}
}
