package stick

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// List is all disks and sticks of the machine, candidates first. Those that may not be written to say why in Refused. Left out are
// devices that are no disks, and those without hardware (loop, device-mapper, RAID). The image may be nil; with one, it has to fit.
func (s System) List(image *Image) ([]Device, error) {
	m, err := s.read()
	if err != nil {
		return nil, err
	}
	var out []Device
	for name, n := range m.nodes {
		if d := m.device(name); n.disk == name && !d.never && !d.stacked && !d.virtual {
			d.Holds = m.holds(d)
			d.Refused = m.problems(d, image, false)
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Device) int {
		return cmp.Or(cmp.Compare(min(1, len(a.Refused)), min(1, len(b.Refused))), strings.Compare(natural(a.Name), natural(b.Name)))
	})
	return out, nil
}

// problems are a device's own, and those that it has with the image.
func (m *machine) problems(d Device, image *Image, forceInternal bool) []string {
	if image == nil {
		return d.problems(0, forceInternal)
	}
	out := d.problems(image.Size, forceInternal)
	if m.on(image, d.Name) {
		out = append(out, "has the image itself on it; copy that elsewhere first")
	}
	return out
}

// on reports whether the image's file is on a disk.
func (m *machine) on(image *Image, disk string) bool {
	return slices.ContainsFunc(m.below(m.names[image.dev]), func(u *uses) bool { return u == m.uses[disk] })
}

// find is the whole disk that a person means by a path.
func (m *machine) find(path string) (Device, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	name := m.names[numbers(st.Rdev)]
	n, known := m.nodes[name]
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Device{}, fmt.Errorf("there is no device %s; without a device, imgbuild write lists those that there are", path)
	case err != nil:
		return Device{}, fmt.Errorf("look at %s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFBLK:
		return Device{}, fmt.Errorf("%s is no block device; without a device, imgbuild write lists those that there are", path)
	case !known:
		return Device{}, fmt.Errorf("%s is a block device that the kernel does not list in %s", path, filepath.Join(m.Sys, "block"))
	case n.disk != name:
		return Device{}, fmt.Errorf("%s is a partition, and an image is written to a whole disk, which would be %s", path, m.device(n.disk).Path)
	}
	return m.device(name), nil
}

// Target is a device that nobody else can use until it is closed.
type Target struct {
	Device Device
	// Notes are sentences that a person should read before agreeing.
	Notes []string

	sys   System
	image *Image
	disk  disk
	// reread makes the kernel read the new partition table.
	reread func() error
}

// refusal is all that speaks against writing to a device.
type refusal struct {
	Device   string
	Problems []string
}

// Error is one sentence for one problem, and a list for more.
func (e *refusal) Error() string {
	if len(e.Problems) == 1 {
		return fmt.Sprintf("nothing was written: %s %s", e.Device, e.Problems[0])
	}
	return fmt.Sprintf("nothing was written: %s cannot be taken\n  it %s", e.Device, strings.Join(e.Problems, "\n  it "))
}

// Claim makes all checks and opens the device for us alone: from then on nobody can mount it or write to it. Nothing is written.
// What speaks against it is in one error. The caller closes the target, and the image after it.
func (s System) Claim(image *Image, device string, forceInternal bool) (*Target, error) {
	m, err := s.read()
	if err != nil {
		return nil, err
	}
	d, err := m.find(device)
	if err != nil {
		return nil, err
	}
	problems := m.problems(d, image, forceInternal)
	if err := unix.Access(device, unix.R_OK|unix.W_OK); errors.Is(err, fs.ErrPermission) {
		problems = append(problems, "may be written to by root alone; use sudo")
	}
	if len(problems) > 0 {
		return nil, &refusal{device, problems}
	}
	// O_EXCL without O_CREAT on a block device: the kernel refuses while a file system, swap, LVM, ZFS or anybody else has it or one
	// of its partitions, in any namespace, and refuses them while we have it. O_DIRECT: what is read back later comes from the device.
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		if why := unopened(err); why != "" {
			return nil, &refusal{device, []string{why}}
		}
		return nil, fmt.Errorf("open %s for writing: %w", device, err)
	}
	t := &Target{sys: s, image: image, disk: f, reread: func() error { return unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0) }}
	if err := t.again(f, d); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

// unopened explains why a device does not open, as a clause; empty where the error says enough.
func unopened(err error) string {
	switch {
	case errors.Is(err, unix.EBUSY):
		return "is in use by something that the kernel does not name (a ZFS pool, a virtual machine, a program that writes to it); end that first"
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EPERM):
		return "is read-only; take off its write protection"
	case errors.Is(err, unix.ENOMEDIUM):
		return "has no medium in it; put the card in"
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return "is gone; plug it in again"
	}
	return ""
}

// again looks at the device that is open now: names are given anew when one stick is pulled out and another is put in.
func (t *Target) again(f *os.File, was Device) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", was.Path, err)
	}
	m, err := t.sys.read()
	if err != nil {
		return err
	}
	now := m.device(m.names[numbers(st.Rdev)])
	if now.Name != was.Name || now.seq != was.seq || now.Size != was.Size || now.Serial != was.Serial || now.Model != was.Model {
		return fmt.Errorf("nothing was written: %s is another device than a moment ago; look at it again", was.Path)
	}
	now.Holds = m.holds(now)
	t.Device = now
	if why := t.image.boots(now.Sector); why != "" {
		t.Notes = append(t.Notes, why)
	}
	return nil
}

// Close lets go of the device.
func (t *Target) Close() error { return t.disk.Close() }
