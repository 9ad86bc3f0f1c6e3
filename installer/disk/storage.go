package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/disk/probe"
)

// Storage is a disk that is written to. Sync returns when all earlier writes are on stable storage. A device node is
// one; so is a test's recorder of what is written in which order.
type Storage interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Open opens the disk's node for writing, exclusively: it fails while anything on the disk is mounted or held.
func Open(d Disk) (*os.File, error) {
	f, err := os.OpenFile(d.Path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk for writing: %w", err)
	}
	return f, nil
}

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

const (
	// head and tail are what is zeroed of the disk and of each old partition. 5 MiB at the beginning hold every
	// superblock that probe knows (the last one is the second LUKS2 header, at 4 MiB), 1 MiB at the end as well.
	head = 5 * mib
	tail = 1 * mib
)

// Wipe removes all signatures from a disk of size bytes and from its old partitions, the partitions first, so that
// whatever is left when power fails is still found. It reads everything back and returns an error if anything is left.
func Wipe(ctx context.Context, s Storage, size int64, parts []probe.Part) error {
	for _, p := range parts {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("wipe disk: %w", err)
		}
		if err := zeroEnds(s, p.Start, p.Size); err != nil {
			return fmt.Errorf("wipe partition %d: %w", p.Number, err)
		}
	}
	if err := s.Sync(); err != nil {
		return fmt.Errorf("wipe disk: %w", err)
	}
	if err := zeroEnds(s, 0, size); err != nil {
		return fmt.Errorf("wipe disk: %w", err)
	}
	if err := s.Sync(); err != nil {
		return fmt.Errorf("wipe disk: %w", err)
	}
	dropCache(s)
	left, _, err := probe.Disk(s, size)
	if err != nil {
		return fmt.Errorf("check that the disk is wiped: %w", err)
	}
	for _, p := range parts {
		f, err := probe.Volume(io.NewSectionReader(s, p.Start, p.Size), p.Size)
		if err != nil {
			return fmt.Errorf("check that partition %d is wiped: %w", p.Number, err)
		}
		left = append(left, f...)
	}
	if len(left) > 0 {
		return fmt.Errorf("check that the disk is wiped: zeros were written and it still has: %s; the disk is broken or write-protected", Findings(left))
	}
	return nil
}

func zeroEnds(s Storage, start, size int64) error {
	h := min(head, size)
	t := min(tail, size-h)
	if err := zero(s, start, h); err != nil {
		return err
	}
	return zero(s, start+size-t, t)
}

func zero(s Storage, off, n int64) error {
	b := make([]byte, min(n, 1*mib))
	for n > 0 {
		k := min(n, int64(len(b)))
		if _, err := s.WriteAt(b[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// dropCache makes the next reads come from the disk itself where s is a device; it is only a stricter check.
func dropCache(s Storage) {
	if f, ok := s.(*os.File); ok {
		_ = unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)
	}
}

// ErrNotUndone is wrapped when Commit failed and the disk could not be zeroed after it.
var ErrNotUndone = errors.New("and what was written could not be undone")

// Commit makes the disk bootable: it writes the table in the order of gpt.Table.Encode with everything synced between
// groups, and reads the table back before the last sector. When anything fails, the first and last MiB are zeroed
// again, so that the disk stays unbootable.
func Commit(s Storage, t *gpt.Table, bootCode []byte) error {
	groups, err := t.Encode(bootCode)
	if err != nil {
		return err
	}
	if err := commit(s, t, groups); err != nil {
		size := int64(t.Sectors) * int64(t.SectorSize)
		if undo := Revert(s, size); undo != nil {
			return fmt.Errorf("%w; %w: %w", err, ErrNotUndone, undo)
		}
		return err
	}
	return nil
}

func commit(s Storage, t *gpt.Table, groups [][]gpt.Write) error {
	for i, g := range groups {
		if i == len(groups)-1 {
			if err := readBack(s, t); err != nil {
				return err
			}
		}
		for _, w := range g {
			if _, err := s.WriteAt(w.Data, w.Offset); err != nil {
				return fmt.Errorf("write %s: %w", w.What, err)
			}
		}
		if err := s.Sync(); err != nil {
			return fmt.Errorf("write partition table: %w", err)
		}
	}
	return nil
}

func readBack(s Storage, t *gpt.Table) error {
	dropCache(s)
	got, err := gpt.Read(s, int64(t.Sectors)*int64(t.SectorSize))
	if err != nil {
		return fmt.Errorf("read the partition table back: %w", err)
	}
	same := got.Primary && got.Backup && got.GUID == t.GUID && got.SectorSize == t.SectorSize && len(got.Partitions) == len(t.Partitions)
	for i := 0; same && i < len(t.Partitions); i++ {
		same = got.Partitions[i] == t.Partitions[i]
	}
	if !same {
		return fmt.Errorf("read the partition table back: the disk returns something else than was written; it is broken")
	}
	return nil
}

// Revert zeroes the first and last MiB of a disk of size bytes: sector 0 first, without which nothing boots.
func Revert(s Storage, size int64) error {
	for _, z := range []struct{ off, n int64 }{{0, min(mib, size)}, {max(0, size-mib), min(mib, size)}} {
		if err := zero(s, z.off, z.n); err != nil {
			return fmt.Errorf("zero the ends of the disk: %w", err)
		}
		if err := s.Sync(); err != nil {
			return fmt.Errorf("zero the ends of the disk: %w", err)
		}
	}
	return nil
}
