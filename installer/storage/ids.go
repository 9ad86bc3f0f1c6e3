package storage

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/google/uuid"

	"imgbuild/image/layout"
)

// IDs are the identifiers of everything in a scheme. They are chosen before anything is written, so that all that names them
// (fstab, kernel arguments, boot entries) can be written, and checked, first.
type IDs struct {
	fs     map[layout.Device]string
	arrays map[string]string
	tables map[string]uuid.UUID
	parts  map[string]map[int]uuid.UUID
}

// Identify chooses them: new random ones, and for what is kept those that it has.
func Identify(s *layout.Scheme) *IDs {
	ids := &IDs{map[layout.Device]string{}, map[string]string{}, map[string]uuid.UUID{}, map[string]map[int]uuid.UUID{}}
	for _, disks := range [][]layout.SchemeDisk{s.Disks, s.DataFirstBoot} {
		for _, d := range disks {
			ids.tables[d.Name] = uuid.New()
			ids.parts[d.Name] = map[int]uuid.UUID{}
			for _, p := range d.Parts {
				ids.parts[d.Name][p.Number] = partitionGUID(p)
				ids.identify(partition(d.Name, p.Number), p.Content, p.Kept)
			}
			ids.identify(wholeDisk(d.Name), d.Content, d.Kept)
		}
	}
	for _, a := range s.Arrays {
		ids.arrays[a.Name] = arrayUUID(uuid.New())
		if a.Kept != nil && a.Kept.GUID != "" {
			ids.arrays[a.Name] = a.Kept.GUID
		}
		ids.identify(array(a.Name), a.Content, a.Kept)
	}
	for _, g := range s.Groups {
		for _, v := range g.Volumes {
			ids.identify(volume(g.Name, v.Name), v.Content, v.Kept)
		}
	}
	return ids
}

// identify gives a file system an identifier.
func (i *IDs) identify(d layout.Device, c layout.Content, kept *layout.Existing) {
	switch {
	case c.FS == "":
	case kept != nil && kept.UUID != "":
		i.fs[d] = kept.UUID
	default:
		i.fs[d] = newFSID(c.FS)
	}
}

// FS is a file system's or swap space's as it stands behind UUID= in fstab; empty where the device holds none.
func (i *IDs) FS(d layout.Device) string { return i.fs[d] }

// Array is an md array's UUID as mdadm writes it: 12345678:9abcdef0:12345678:9abcdef0.
func (i *IDs) Array(name string) string { return i.arrays[name] }

// Table is the GUID of a disk's partition table.
func (i *IDs) Table(disk string) uuid.UUID { return i.tables[disk] }

// Signature is that of a disk with an MBR, never 0.
func (i *IDs) Signature(disk string) uint32 {
	id := i.tables[disk]
	return max(1, binary.LittleEndian.Uint32(id[:4]))
}

// Partition is the GUID of a partition, uuid.Nil where there is none. A disk with an MBR has none to be found by; there it is
// only unlike all others.
func (i *IDs) Partition(disk string, number int) uuid.UUID { return i.parts[disk][number] }

func partitionGUID(p layout.Part) uuid.UUID {
	if p.Kept != nil {
		if id, err := uuid.Parse(p.Kept.GUID); err == nil {
			return id
		}
	}
	return uuid.New()
}

// newFSID is a random UUID, or for vfat eight hex digits.
func newFSID(fs string) string {
	if fs != "vfat" {
		return uuid.NewString()
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	n := binary.LittleEndian.Uint32(b[:])
	return fmt.Sprintf("%04X-%04X", n>>16, n&0xffff)
}

// arrayUUID writes a UUID as mdadm does.
func arrayUUID(u uuid.UUID) string {
	h := hex.EncodeToString(u[:])
	return h[:8] + ":" + h[8:16] + ":" + h[16:24] + ":" + h[24:]
}

func partition(disk string, number int) layout.Device {
	return layout.Device(fmt.Sprintf("part/%s/%d", disk, number))
}

func wholeDisk(disk string) layout.Device { return layout.Device("disk/" + disk) }

func array(name string) layout.Device { return layout.Device("md/" + name) }

func volume(group, name string) layout.Device { return layout.Device("lv/" + group + "/" + name) }
