package disk

import (
	"errors"
	"fmt"

	"imgbuild/image"
	"imgbuild/installer/disk/probe"
)

const mib = 1 << 20

// Placed is a partition with its place on a disk, in bytes from the disk's beginning.
type Placed struct {
	image.Partition
	Number      int
	Start, Size int64
}

// ErrTooSmall is wrapped when a disk cannot hold the layout.
var ErrTooSmall = errors.New("the disk is too small")

type tooSmallError string

func (e tooSmallError) Error() string        { return string(e) }
func (e tooSmallError) Is(target error) bool { return target == ErrTooSmall }

// Place lays partitions out on a disk of size bytes with logical sectors of sector bytes: one after the other from
// 1 MiB on, at whole MiB, the last one up to 1 MiB before the end. The first and last MiB belong to the partition
// table alone. rootMin is the least size of root in bytes that the image's contents need.
func Place(l image.Layout, size int64, sector int, rootMin int64) ([]Placed, error) {
	if sector != 512 && sector != 4096 {
		return nil, fmt.Errorf("lay out disk: it has sectors of %d bytes; 512 and 4096 are supported", sector)
	}
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("lay out disk: %w", err)
	}
	end := (size - mib) &^ (mib - 1)
	at, need := int64(mib), int64(mib)
	var out []Placed
	for i, p := range l.Partitions {
		least := max(p.SizeMiB, p.MinMiB) * mib
		if p.Role == image.RoleRoot {
			least = max(least, rootMin)
		}
		least = (max(least, leastSize(p.FS, sector)) + mib - 1) &^ (mib - 1)
		if p.SizeMiB > 0 && p.SizeMiB*mib < least {
			return nil, fmt.Errorf("lay out disk: partition %q has %s and needs %s; change its size in the profile",
				p.Name, probe.Bytes(p.SizeMiB*mib), probe.Bytes(least))
		}
		n := p.SizeMiB * mib
		if n == 0 {
			n = max(end-at, least)
		}
		out = append(out, Placed{Partition: p, Number: i + 1, Start: at, Size: n})
		at += n
		need += least
	}
	if at > end {
		return nil, tooSmallError(fmt.Sprintf("lay out disk: the disk is too small: the image needs %s and the disk has %s",
			probe.Bytes(need+mib), probe.Bytes(size)))
	}
	return out, nil
}

// leastSize is the smallest file system in bytes that its mkfs makes: XFS refuses less than 300 MiB since xfsprogs
// 5.19, and FAT32 has at least 65525 clusters of at least one sector.
func leastSize(fs string, sector int) int64 {
	switch fs {
	case "xfs":
		return 300 * mib
	case "vfat":
		return int64(65525+2048) * int64(sector)
	case "ext4":
		return 16 * mib
	}
	return 0
}

// RootMin is the space in bytes that the root file system needs for an image with files of unpacked bytes: the
// files, a tenth for rounding up and metadata, and room for journal and logs.
func RootMin(unpacked int64) int64 { return unpacked + unpacked/10 + 256*mib }
