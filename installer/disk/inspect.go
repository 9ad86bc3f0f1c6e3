package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"imgbuild/installer/disk/probe"
)

// Inspect looks at what is on a disk, without writing.
func Inspect(d Disk) ([]probe.Finding, []probe.Part, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("look at disk: %w", err)
	}
	defer f.Close()
	found, parts, err := probe.Disk(f, d.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("look at disk %s: %w", d.Path, err)
	}
	return found, parts, nil
}

// Check returns an error unless f, an open device node, still is the disk that sys had by this name: a kernel gives the name of
// a disk that is unplugged to the next one. While f is open, it does not.
func (d Disk) Check(sys string, f *os.File) error {
	now, err := read(sys, d.Name)
	if err != nil {
		return fmt.Errorf("check that %s is still the same disk: %w", d.Path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("check that %s is still the same disk: %w", d.Path, err)
	}
	if dev := (attrs{filepath.Join(sys, "block", d.Name)}).text("dev"); dev != fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)) {
		return fmt.Errorf("check that %s is still the same disk: the device node is not that of the kernel's %s, which is %s", d.Path, d.Name, dev)
	}
	if !d.same(now) {
		return fmt.Errorf("check that %s is still the same disk: it was %s, and now it is %s; leave the machine's disks in their places and try again",
			d.Path, d.Short(), now.Short())
	}
	return nil
}

// same compares what a disk is. What a multipath map knows of its disk comes from its paths, so there it is the map that counts.
func (d Disk) same(now Disk) bool {
	if d.Size != now.Size || d.Sector != now.Sector {
		return false
	}
	if len(d.slaves) > 0 {
		return len(now.ByID) > 1 && slices.Equal(d.ByID[:2], now.ByID[:2])
	}
	return d.Serial == now.Serial && d.WWN == now.WWN && (len(d.ByPath) == 0 || slices.Equal(d.ByPath, now.ByPath))
}
