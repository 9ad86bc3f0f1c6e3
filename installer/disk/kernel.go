package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel is told of partitions one by one (BLKPG): the disk itself has no table until the very end, and kernels
// without a parser for partition tables work the same.

// AddPartitions makes the kernel's partitions and returns their device nodes in the same order. Partitions that the
// kernel had before, from an old table, are removed first.
func AddPartitions(sys string, d Disk, parts []Placed) ([]string, error) {
	if err := DeletePartitions(sys, d); err != nil {
		return nil, err
	}
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, fmt.Errorf("add partitions: %w", err)
	}
	defer f.Close()
	var nodes []string
	for _, p := range parts {
		if err := blkpg(f, unix.BLKPG_ADD_PARTITION, p.Number, p.Start, p.Size); err != nil {
			return nil, fmt.Errorf("add partition %d of %s to %s: %w", p.Number, p.Name, d.Path, err)
		}
		node, err := ensureNode(sys, d, p.Number)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// DeletePartitions makes the kernel forget all partitions of a disk. It fails while one of them is in use.
func DeletePartitions(sys string, d Disk) error {
	have, err := partitions(sys, d.Name)
	if err != nil || len(have) == 0 {
		return err
	}
	f, err := os.Open(d.Path)
	if err != nil {
		return fmt.Errorf("remove partitions: %w", err)
	}
	defer f.Close()
	for name, number := range have {
		if err := remove(f, number); err != nil {
			return fmt.Errorf("remove partition %s of %s: %w", name, d.Path, err)
		}
	}
	return nil
}

// remove is patient: a program that only looks at new block devices holds a partition for a moment, and there is no
// event for its letting go.
func remove(f *os.File, number int) error {
	const tries, pause = 20, 100 * time.Millisecond
	var err error
	for range tries {
		err = blkpg(f, unix.BLKPG_DEL_PARTITION, number, 0, 0)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}

func blkpg(f *os.File, op int32, number int, start, size int64) error {
	p := unix.BlkpgPartition{Start: start, Length: size, Pno: int32(number)}
	a := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(p)), Data: (*byte)(unsafe.Pointer(&p))}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&a))); errno != 0 {
		return errno
	}
	return nil
}

// partitionName is the kernel's: a p between when the disk's name ends in a digit.
func partitionName(disk string, number int) string {
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		disk += "p"
	}
	return disk + strconv.Itoa(number)
}

// ensureNode returns the device node of a partition that the kernel has, and makes it where devtmpfs did not.
func ensureNode(sys string, d Disk, number int) (string, error) {
	name := partitionName(d.Name, number)
	node := filepath.Join(filepath.Dir(d.Path), filepath.Base(partitionName(d.Path, number)))
	dev := (attrs{filepath.Join(sys, "block", d.Name, name)}).text("dev")
	major, minor, ok := strings.Cut(dev, ":")
	ma, err1 := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return "", fmt.Errorf("find partition %s: the kernel accepted it and does not show it in %s", name, sys)
	}
	want := unix.Mkdev(uint32(ma), uint32(mi))
	var st unix.Stat_t
	err := unix.Stat(node, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == want {
		return node, nil
	}
	if err == nil {
		if err := os.Remove(node); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("replace device node of partition %d: %w", number, err)
		}
	}
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(want)); err != nil && !errors.Is(err, unix.EEXIST) {
		return "", fmt.Errorf("make device node %s: %w", node, err)
	}
	return node, nil
}
