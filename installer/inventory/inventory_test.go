package inventory

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"imgbuild/image/plan"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/hw"
)

func TestTheInventoryHasWhatTheMachineIs(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}
	mounts := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(mounts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sys := t.TempDir()
	if err := os.Mkdir(filepath.Join(sys, "block"), 0o755); err != nil {
		t.Fatal(err)
	}
	switchPort := plan.Neighbour{Chassis: "00:11:22:33:44:55", Port: "xe-0/0/1"}
	o := Options{
		Machine: hw.Machine{Vendor: "V", Product: "P", Serial: "S-1", SerialSource: "chassis", UUID: "u", Firmware: hw.UEFI, SecureBoot: true,
			MemoryBytes: 1 << 30, CPUs: 8, CPUModel: "M", Kernel: "6.1"},
		NICs:       []hw.NIC{{Name: "eth0", MAC: mac, Driver: "ixgbe", Bus: "0000:01:00.0", Carrier: true, SpeedMbit: 10000}, {Name: "eth1", MAC: mac, SpeedMbit: 1000}},
		Neighbours: map[string]plan.Neighbour{"eth0": switchPort}, BMC: &plan.BMC{Address: "10.0.0.9"}, Installer: "v1", Sys: sys, MountInfo: mounts,
	}
	got, err := Take(o)
	want := plan.Inventory{
		Serial: "S-1", SerialSource: "chassis", UUID: "u", Vendor: "V", Product: "P", Firmware: "uefi", SecureBoot: true, CPUs: 8, CPUModel: "M", MemoryBytes: 1 << 30,
		Disks: []plan.Disk{}, NICs: []plan.NIC{
			{Name: "eth0", MAC: "52:54:00:01:02:03", Driver: "ixgbe", PCI: "0000:01:00.0", Link: true, SpeedMbit: 10000, Neighbour: &switchPort},
			{Name: "eth1", MAC: "52:54:00:01:02:03"},
		}, BMC: &plan.BMC{Address: "10.0.0.9"}, Kernel: "6.1", Installer: "v1",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	o.Sys = "/nonexistent"
	if got, err = Take(o); err == nil || got.Serial != "S-1" || len(got.NICs) != 2 {
		t.Errorf("an inventory with a gap: %+v, %v", got, err)
	}
}

func TestADiskSaysWhatItHolds(t *testing.T) {
	d := disk.Disk{Path: "/dev/sda", Model: "M", Serial: "S", WWN: "naa.5", Size: 1 << 40, Transport: "sas", Rotational: true}
	got := describe(d, func(disk.Disk) ([]probe.Finding, []probe.Part, error) {
		return []probe.Finding{{Kind: "GPT"}, {Partition: 1, Kind: "XFS file system", Label: "data", Size: 1 << 30}}, nil, nil
	})
	want := plan.Disk{Path: "/dev/sda", Model: "M", Serial: "S", WWN: "naa.5", SizeBytes: 1 << 40, Transport: "sas", Rotational: true,
		Holds: []string{"GPT", `partition 1: XFS file system "data" (1 GiB)`}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	got = describe(d, func(disk.Disk) ([]probe.Finding, []probe.Part, error) { return make([]probe.Finding, 1000), nil, nil })
	if len(got.Holds) != maxHolds+1 || got.Holds[maxHolds] != "and 936 more" {
		t.Errorf("%d lines, the last is %q", len(got.Holds), got.Holds[len(got.Holds)-1])
	}
	got = describe(d, func(disk.Disk) ([]probe.Finding, []probe.Part, error) { return nil, nil, errors.New("I/O error") })
	if len(got.Holds) != 1 || !strings.Contains(got.Holds[0], "I/O error") {
		t.Errorf("%+v", got)
	}
}

func TestOnlyRealCardsAreWaitedFor(t *testing.T) {
	nics := []hw.NIC{{Name: "a", Driver: "ixgbe", Carrier: true}, {Name: "b", Driver: "ixgbe"}, {Name: "c", Driver: "virtio_net", Carrier: true}, {Name: "d", Driver: "tg3", Carrier: true}}
	if got := Links(nics, map[string]plan.Neighbour{"d": {}}); !reflect.DeepEqual(got, []string{"a"}) {
		t.Errorf("%q", got)
	}
}

func TestTheControllersAddressIsFoundOnItsChannel(t *testing.T) {
	values := map[byte][]byte{lanAddress: {10, 0, 0, 9}, lanNetmask: {255, 255, 255, 0}, lanGateway: {0, 0, 0, 0}, lanMAC: {0, 1, 2, 3, 4, 5}}
	b, err := askLAN(func(channel, parameter byte) ([]byte, error) {
		if channel != 8 {
			return nil, errors.New("invalid channel")
		}
		return values[parameter], nil
	})
	if err != nil || *b != (plan.BMC{Address: "10.0.0.9", Netmask: "255.255.255.0", MAC: "00:01:02:03:04:05"}) {
		t.Errorf("%+v, %v", b, err)
	}
	if b, err := askLAN(func(byte, byte) ([]byte, error) { return nil, errors.New("invalid channel") }); err == nil {
		t.Errorf("%+v", b)
	}
}

func TestAMachineWithoutAControllerIsNotAnError(t *testing.T) {
	if b, err := BMC(context.Background(), filepath.Join(t.TempDir(), "ipmi0")); b != nil || err != nil {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := BMC(context.Background(), os.DevNull); err == nil {
		t.Error("a device that is no controller gave an address")
	}
}
