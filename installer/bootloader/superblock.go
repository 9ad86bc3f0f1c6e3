package bootloader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// extlinuxCanRead looks at the superblock of the file system that was made or kept for /boot, and returns an error if
// extlinux, which reads file systems with code of its own, would not find the kernel in it.
func extlinuxCanRead(node, fs string) error {
	f, err := os.Open(node)
	if err != nil {
		return fmt.Errorf("look at the file system of /boot: %w", err)
	}
	defer f.Close()
	if err := checkSuperblock(f, fs); err != nil {
		return fmt.Errorf("look at the file system of /boot on %s: %w", node, err)
	}
	return nil
}

func checkSuperblock(r io.ReaderAt, fs string) error {
	switch fs {
	case "ext4":
		return checkExt4(r)
	case "xfs":
		return checkXFS(r)
	}
	return fmt.Errorf("extlinux does not read %s", fs)
}

type feature struct {
	bit  uint32
	name string
}

// checkExt4 reads an ext4 superblock (kernel documentation, filesystems/ext4/globals.rst, "Super Block").
func checkExt4(r io.ReaderAt) error {
	b := make([]byte, 1024)
	if _, err := r.ReadAt(b, 1024); err != nil {
		return err
	}
	le := binary.LittleEndian
	if le.Uint16(b[0x38:]) != 0xef53 {
		return errors.New("it is not ext4")
	}
	incompat := le.Uint32(b[0x60:])
	for _, f := range []feature{
		{0x10, "meta_bg"}, {0x80, "64bit"}, {0x400, "ea_inode"}, {0x2000, "metadata_csum_seed"}, {0x4000, "large_dir"},
		{0x8000, "inline_data"}, {0x10000, "encrypt"}, {0x20000, "casefold"},
	} {
		if incompat&f.bit != 0 {
			return fmt.Errorf("ext4 has the feature %s, which extlinux does not know; make it with mkfs option -O ^%s, or choose grub", f.name, f.name)
		}
	}
	// filetype, needs_recovery (it is mounted), extents, mmp, flex_bg.
	if unknown := incompat &^ (0x2 | 0x4 | 0x40 | 0x100 | 0x200); unknown != 0 {
		return fmt.Errorf("ext4 has features (%#x) that extlinux does not know; choose grub", unknown)
	}
	if le.Uint32(b[0x64:])&0x200 != 0 {
		return errors.New("ext4 has the feature bigalloc, which extlinux does not know; make it with mkfs option -O ^bigalloc, or choose grub")
	}
	return nil
}

// checkXFS reads an XFS superblock (XFS Algorithms & Data Structures, 3rd edition, "Superblocks"). extlinux's boot sector lies
// at 2 KiB in it, which is free with blocks of 4 KiB.
func checkXFS(r io.ReaderAt) error {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return err
	}
	be := binary.BigEndian
	if string(b[:4]) != "XFSB" {
		return errors.New("it is not XFS")
	}
	if n := be.Uint32(b[4:]); n != 4096 {
		return fmt.Errorf("XFS has blocks of %d bytes and extlinux needs 4096; make it with mkfs option -b size=4096, or choose grub", n)
	}
	if be.Uint16(b[100:])&0xf < 5 {
		return nil
	}
	// ftype, sparse inodes, meta_uuid, bigtime.
	if unknown := be.Uint32(b[216:]) &^ (0x1 | 0x2 | 0x4 | 0x8); unknown != 0 {
		if unknown&0x20 != 0 {
			return errors.New("XFS has the feature nrext64, which extlinux does not know; make it with mkfs option -i nrext64=0, or choose grub")
		}
		return fmt.Errorf("XFS has features (%#x) that extlinux does not know; choose grub", unknown)
	}
	return nil
}
