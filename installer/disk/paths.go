package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A disk that two controllers or two ports see appears twice. Writing to one of them as if it were another disk destroys what was
// written to the first, so all but one are marked.

// rank orders paths to one disk by SCSI device state and ALUA access state (kernel, drivers/scsi/scsi_sysfs.c, scsi_dh.h).
func rank(state, access string) int {
	if state != "" && state != "running" {
		return 5
	}
	switch access {
	case "", "active/optimized":
		return 0
	case "active/non-optimized":
		return 1
	case "transitioning":
		return 2
	}
	return 3 // standby, unavailable, offline: they answer no reads
}

// multipath makes a device-mapper multipath map the disk that it stands for. joinPaths fills in what its paths know of it.
func (d *Disk) multipath(dir, uuid, name string) error {
	slaves, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read disk %s: %w", d.Name, err)
	}
	for _, s := range slaves {
		d.slaves = append(d.slaves, s.Name())
	}
	if len(d.slaves) == 0 {
		return nil
	}
	d.virtual, d.Transport = false, ""
	d.Path = "/dev/mapper/" + name
	d.ByID = []string{"dm-name-" + name, "dm-uuid-mpath-" + uuid}
	return nil
}

// joinPaths marks all paths to one disk but one: the multipath map where there is one, else the best of them, the first in the
// order of disks.
func joinPaths(disks []Disk) {
	byName := map[string]*Disk{}
	for i := range disks {
		byName[disks[i].Name] = &disks[i]
	}
	for i := range disks {
		m := &disks[i]
		for n, s := range m.slaves {
			p := byName[s]
			if p == nil {
				continue
			}
			if n == 0 || m.Serial == "" {
				m.Model, m.vendor, m.product = p.Model, p.vendor, p.product
				m.Serial, m.WWN, m.Transport, m.Rotational = p.Serial, p.WWN, p.Transport, p.Rotational
				m.ByID = append(m.ByID[:2:2], p.ByID...)
			}
			m.take(p)
		}
	}
	order := make([]*Disk, 0, len(disks))
	for i := range disks {
		order = append(order, &disks[i])
	}
	slices.SortStableFunc(order, func(a, b *Disk) int {
		if am, bm := len(a.slaves) > 0, len(b.slaves) > 0; am != bm {
			if am {
				return -1
			}
			return 1
		}
		return a.rank - b.rank
	})
	for i, first := range order {
		if first.PathOf != "" {
			continue
		}
		for _, other := range order[i+1:] {
			if other.PathOf == "" && len(other.slaves) == 0 && sameUnit(*first, *other) {
				first.take(other)
			}
		}
	}
}

// take makes p a path to d. What uses a path uses the disk.
func (d *Disk) take(p *Disk) {
	p.PathOf = d.Name
	d.ReadOnly = d.ReadOnly || p.ReadOnly
	if len(d.slaves) > 0 {
		return // the map is the paths' holder, and what uses it is its own
	}
	d.Paths = append(d.Paths, p.Name)
	d.Users = slices.Compact(slices.Sorted(slices.Values(append(d.Users, p.Users...))))
	d.Holders = slices.Compact(slices.Sorted(slices.Values(append(d.Holders, p.Holders...))))
}

// sameUnit reports whether two disks are two paths to one. Worldwide names decide where both have one, on transports that can
// have two paths, unless the serial numbers differ: cheap devices share names. Without them only SAN transports are believed, on
// vendor, model, serial number and size: two USB sticks or virtual disks may share all four.
func sameUnit(a, b Disk) bool {
	if a.virtual || b.virtual || a.Size != b.Size || a.Serial != "" && b.Serial != "" && a.Serial != b.Serial {
		return false
	}
	registered := func(d Disk) bool {
		for _, prefix := range []string{"naa.", "eui.", "uuid.", "nvme."} {
			if strings.HasPrefix(d.WWN, prefix) {
				return true
			}
		}
		return false
	}
	if registered(a) && registered(b) {
		if bareWWN(a.WWN) != bareWWN(b.WWN) {
			return false
		}
		if a.Transport == "nvme" || b.Transport == "nvme" {
			return a.Transport == b.Transport && a.Serial != "" && a.Serial == b.Serial
		}
		return twoPorts(a) && twoPorts(b)
	}
	return san(a) && san(b) && a.vendor == b.vendor && a.product == b.product && telling(a.Serial) && a.Serial == b.Serial && !registered(a) && !registered(b)
}

// san are the transports on which arrays and their serial numbers are.
func san(d Disk) bool {
	switch d.Transport {
	case "sas", "fc", "iscsi":
		return true
	}
	return false
}

// twoPorts are the transports on which one disk can be seen twice. Virtual machines are handed such disks over virtio.
func twoPorts(d Disk) bool {
	return san(d) || d.Transport == "scsi" || d.Transport == "virtio" && d.HCTL != ""
}

// telling reports whether a serial number is more than a filler.
func telling(s string) bool {
	return len(s) >= 4 && strings.Trim(s, s[:1]) != ""
}
