// Package inventory is what a machine says of itself to a server: what it is, its disks with what is on them, its network
// cards with what they are plugged into, its management controller. What the other rooms of the installer found comes in;
// one plan.Inventory goes out.
//
// It only reads. What cannot be read is left out or said in words: an inventory with a gap is worth more than none.
package inventory

import (
	"fmt"

	"imgbuild/image/plan"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/hw"
)

// maxHolds bounds what is said of one disk: a disk of a thousand partitions is one that nobody reads.
const maxHolds = 64

// Options are what is known already.
type Options struct {
	Machine hw.Machine
	// NICs are the network cards as they are now, with their links up.
	NICs []hw.NIC
	// Neighbours are what switches said, by the card's name.
	Neighbours map[string]plan.Neighbour
	BMC        *plan.BMC // nil if there is none, or it does not answer
	// Installer is the installer's version.
	Installer string
	// Sys and MountInfo are /sys and /proc/self/mountinfo.
	Sys, MountInfo string
}

// Take makes the inventory. The error says what of it is missing; the inventory can be sent all the same.
func Take(o Options) (plan.Inventory, error) {
	m := o.Machine
	inv := plan.Inventory{
		Serial: m.Serial, SerialSource: m.SerialSource, SerialProblem: m.SerialProblem, UUID: m.UUID, Vendor: m.Vendor, Product: m.Product,
		Firmware: string(m.Firmware), SecureBoot: m.SecureBoot, CPUs: m.CPUs, CPUModel: m.CPUModel, MemoryBytes: m.MemoryBytes,
		Disks: []plan.Disk{}, NICs: []plan.NIC{}, BMC: o.BMC, Kernel: m.Kernel, Installer: o.Installer,
	}
	for _, n := range o.NICs {
		card := plan.NIC{Name: n.Name, MAC: n.MAC.String(), Driver: n.Driver, PCI: n.Bus, Link: n.Carrier}
		if n.Carrier {
			card.SpeedMbit = n.SpeedMbit // of a link that is down it is that of yesterday
		}
		if nb, ok := o.Neighbours[n.Name]; ok {
			card.Neighbour = &nb
		}
		inv.NICs = append(inv.NICs, card)
	}
	disks, err := disk.Inventory(o.Sys, o.MountInfo)
	if err != nil {
		return inv, fmt.Errorf("take inventory: %w", err)
	}
	for _, d := range disks {
		if d.Transport != "virtual" && d.PathOf == "" { // of several paths to one disk, one
			inv.Disks = append(inv.Disks, describe(d, disk.Inspect))
		}
	}
	return inv, nil
}

// describe says what a disk is and what is on it.
func describe(d disk.Disk, inspect func(disk.Disk) ([]probe.Finding, []probe.Part, error)) plan.Disk {
	out := plan.Disk{Path: d.Path, Model: d.Model, Serial: d.Serial, WWN: d.WWN, SizeBytes: d.Size, Transport: d.Transport, Rotational: d.Rotational}
	found, _, err := inspect(d)
	if err != nil {
		out.Holds = []string{fmt.Sprintf("it cannot be read: %v", err)}
		return out
	}
	for i, f := range found {
		if i == maxHolds {
			out.Holds = append(out.Holds, fmt.Sprintf("and %d more", len(found)-i))
			break
		}
		out.Holds = append(out.Holds, f.String())
	}
	return out
}

// Links are the cards with a link that no switch has been heard on. Those of hypervisors are left out: their switches
// seldom speak LLDP.
func Links(nics []hw.NIC, heard map[string]plan.Neighbour) []string {
	var silent []string
	for _, n := range nics {
		switch n.Driver {
		case "virtio_net", "vmxnet3", "hv_netvsc", "netvsc", "xen_netfront", "vif", "ena", "gve", "veth":
			continue
		}
		if _, ok := heard[n.Name]; n.Carrier && !ok {
			silent = append(silent, n.Name)
		}
	}
	return silent
}
