package teardown

import (
	"fmt"
	"slices"
	"strings"
)

// Busy is what in the tree is in use, in words, sorted: "LVM volume system-srv (dm-3) is mounted at /srv".
func (t Tree) Busy() []string {
	var out []string
	for _, d := range t {
		for _, u := range d.Users {
			out = append(out, d.String()+" is "+u)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Holders are the devices in the tree that are neither its disks nor their partitions, in words, sorted.
func (t Tree) Holders() []string {
	var out []string
	for _, d := range t {
		if d.removable() {
			out = append(out, d.String())
		}
	}
	slices.Sort(out)
	return out
}

func (d Device) removable() bool { return d.Kind != Disk && d.Kind != Partition }

// Steps are the devices to remove, in an order in which nothing stands on a device when its turn comes; of several such orders,
// the one by names. Anything in use, and anything that cannot be removed, is refused with all of it named.
func (t Tree) Steps() ([]Device, error) {
	if busy := t.Busy(); len(busy) > 0 {
		return nil, fmt.Errorf("release disk: %s; unmount it, or turn it off, first", strings.Join(busy, ", "))
	}
	var foreign []string
	above := map[string]int{} // how many devices still stand on one
	for _, d := range t {
		if d.Kind == Foreign {
			foreign = append(foreign, d.Name)
		}
		for _, b := range d.Below {
			above[b]++
		}
	}
	if len(foreign) > 0 {
		slices.Sort(foreign)
		return nil, fmt.Errorf("release disk: it is held by %s, which the installer does not know how to stop; stop it first", strings.Join(foreign, ", "))
	}
	var steps []Device
	left := map[string]Device{}
	for name, d := range t {
		left[name] = d
	}
	for len(left) > 0 {
		var ready []string
		for name := range left {
			if above[name] == 0 {
				ready = append(ready, name)
			}
		}
		if len(ready) == 0 {
			return nil, fmt.Errorf("release disk: the kernel says that %s stand on each other; restart the machine", strings.Join(t.Holders(), ", "))
		}
		slices.SortFunc(ready, compareNames)
		for _, name := range ready {
			d := left[name]
			delete(left, name)
			for _, b := range d.Below {
				above[b]--
			}
			if d.removable() {
				steps = append(steps, d)
			}
		}
	}
	return steps, nil
}

// held reports whether something in the tree has a device to itself: what stands on it, on its disk, or on one of its
// partitions.
func (t Tree) held(name string) bool {
	for _, d := range t {
		for _, b := range d.Below {
			if !d.removable() {
				continue
			}
			below := t[b]
			if b == name || below.Kind == Partition && slices.Contains(below.Below, name) ||
				t[name].Kind == Partition && slices.Contains(t[name].Below, b) {
				return true
			}
		}
	}
	return false
}

// compareNames puts dm-9 before dm-10.
func compareNames(a, b string) int {
	if len(a) != len(b) && strings.TrimRight(a, "0123456789") == strings.TrimRight(b, "0123456789") {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
