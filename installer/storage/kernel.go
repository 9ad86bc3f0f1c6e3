package storage

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

	"imgbuild/installer/disk"
)

// The kernel is told of partitions one by one (BLKPG): the disk itself has no table until the very end, and kernels
// without a parser for partition tables work the same.

// place is a partition as the kernel is told of it, in bytes.
type place struct {
	number      int
	start, size int64
}

// addPartitions makes the kernel's partitions and returns their device nodes by number. Partitions that the kernel had before,
// from an old table, are removed first.
func addPartitions(sys string, d disk.Disk, places []place) (map[int]string, error) {
	if err := deletePartitions(sys, d); err != nil {
		return nil, err
	}
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, fmt.Errorf("add partitions: %w", err)
	}
	defer f.Close()
	if err := d.Check(sys, f); err != nil {
		return nil, fmt.Errorf("add partitions: %w", err)
	}
	nodes := map[int]string{}
	for _, p := range places {
		if err := blkpg(f, unix.BLKPG_ADD_PARTITION, p.number, p.start, p.size); err != nil {
			return nil, fmt.Errorf("add partition %d to %s: %w", p.number, d.Path, err)
		}
		if nodes[p.number], err = PartitionNode(sys, d, p.number); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// deletePartitions makes the kernel forget all partitions of a disk. It fails while one of them is in use.
func deletePartitions(sys string, d disk.Disk) error {
	have, err := kernelPartitions(sys, d.Name)
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

// kernelPartitions are the partitions that the kernel has of a disk at present: number by kernel name.
func kernelPartitions(sys, name string) (map[string]int, error) {
	files, err := filepath.Glob(filepath.Join(sys, "block", name, name+"*", "partition"))
	if err != nil {
		return nil, fmt.Errorf("list partitions of %s: %w", name, err)
	}
	out := map[string]int{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list partitions of %s: %w", name, err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, fmt.Errorf("list partitions of %s: %s is no number: %w", name, f, err)
		}
		out[filepath.Base(filepath.Dir(f))] = n
	}
	return out, nil
}

// partitionName is the kernel's: a p between when the disk's name ends in a digit.
func partitionName(disk string, number int) string {
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		disk += "p"
	}
	return disk + strconv.Itoa(number)
}

// PartitionNode returns the device node of a partition that the kernel has, and makes it where devtmpfs did not.
func PartitionNode(sys string, d disk.Disk, number int) (string, error) {
	name := partitionName(d.Name, number)
	node := filepath.Join(filepath.Dir(d.Path), filepath.Base(partitionName(d.Path, number)))
	return node, ensureNode(filepath.Join(sys, "block", d.Name, name), node)
}

// ensureNode makes the node of the block device that sysfs describes in dir, unless it is there.
func ensureNode(dir, node string) error {
	b, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return fmt.Errorf("find %s: the kernel made it and does not show it: %w", node, err)
	}
	major, minor, ok := strings.Cut(strings.TrimSpace(string(b)), ":")
	ma, err1 := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("find %s: %s/dev is %q and no device number", node, dir, b)
	}
	want := unix.Mkdev(uint32(ma), uint32(mi))
	var st unix.Stat_t
	err = unix.Stat(node, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == want {
		return nil
	}
	if err := os.Remove(node); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace device node: %w", err)
	}
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(want)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make device node %s: %w", node, err)
	}
	return nil
}
