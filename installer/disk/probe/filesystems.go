package probe

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"regexp"
)

// bytesOf is n units of size bytes, or 0 where that is no size.
func bytesOf(n, unit uint64) int64 {
	hi, lo := bits.Mul64(n, unit)
	if hi != 0 || lo > 1<<62 {
		return 0
	}
	return int64(lo)
}

// btrfs has its first superblock at 64 KiB.
func btrfs(v *view) *Finding {
	const sb = 0x10000
	if !v.has(sb+0x40, "_BHRfS_M") {
		return nil
	}
	f := &Finding{Kind: "Btrfs file system", Type: "btrfs", Label: v.text(sb+0x12b, 256), UUID: v.dce(sb + 0x20)}
	if b := v.at(sb+0x70, 8); b != nil {
		f.Size = bytesOf(binary.LittleEndian.Uint64(b), 1)
	}
	return f
}

// lustreRE are the labels that mkfs.lustre gives to targets, with what it puts before the number until the first mount.
var lustreRE = regexp.MustCompile(`^(MGS|[0-9A-Za-z_]{1,8}[-:=!](OST|MDT)[0-9a-f]{4})$`)

// ext tells ext2, 3 and 4 apart by features (kernel, Documentation/filesystems/ext4/super.rst).
func ext(v *view) *Finding {
	sb := v.at(1024, 1024)
	le := binary.LittleEndian
	if sb == nil || le.Uint16(sb[0x38:]) != 0xef53 {
		return nil
	}
	compat, incompat, ro := le.Uint32(sb[0x5c:]), le.Uint32(sb[0x60:]), le.Uint32(sb[0x64:])
	f := &Finding{Kind: "ext2 file system", Type: "ext2"}
	switch {
	case incompat&0x8 != 0:
		f.Kind, f.Type = "ext4 journal", "jbd"
	case incompat&^0x16 != 0 || ro&^0x7 != 0:
		f.Kind, f.Type = "ext4 file system", "ext4"
	case compat&0x4 != 0:
		f.Kind, f.Type = "ext3 file system", "ext3"
	}
	if shift := le.Uint32(sb[0x18:]); shift <= 6 {
		n := uint64(le.Uint32(sb[4:]))
		if incompat&0x80 != 0 { // 64bit
			n |= uint64(le.Uint32(sb[0x150:])) << 32
		}
		f.Size = bytesOf(n, 1024<<shift)
	}
	f.Label, f.UUID = v.text(1024+0x78, 16), v.dce(1024+0x68)
	if f.Type == "ext4" && lustreRE.MatchString(f.Label) {
		f.Kind = "Lustre target (ext4)"
	}
	return f
}

func xfs(v *view) *Finding {
	sb := v.at(0, 128)
	if sb == nil || string(sb[:4]) != "XFSB" {
		return nil
	}
	be := binary.BigEndian
	f := &Finding{Kind: "XFS file system", Type: "xfs", Label: v.text(108, 12), UUID: v.dce(32)}
	if bs := uint64(be.Uint32(sb[4:])); bs <= 65536 {
		f.Size = bytesOf(be.Uint64(sb[8:]), bs)
	}
	return f
}

// fat knows the strings that every formatter writes, though no driver asks for them (Microsoft, FAT32 File System
// Specification 1.03).
func fat(v *view) *Finding {
	b := v.at(0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	var f *Finding
	le := binary.LittleEndian
	serial := b[39:43]
	switch {
	case v.has(82, "FAT32   "):
		f = &Finding{Kind: "FAT32 file system", Label: v.text(71, 11)}
		serial = b[67:71]
	case v.has(54, "FAT12   "), v.has(54, "FAT16   "), v.has(54, "FAT     "):
		f = &Finding{Kind: "FAT file system", Label: v.text(43, 11)}
	default:
		return nil
	}
	if f.Label == "NO NAME" {
		f.Label = ""
	}
	sectors := uint64(le.Uint16(b[19:]))
	if sectors == 0 {
		sectors = uint64(le.Uint32(b[32:]))
	}
	f.Type, f.Size = "vfat", bytesOf(sectors, uint64(le.Uint16(b[11:])))
	if n := le.Uint32(serial); n != 0 {
		f.UUID = fmt.Sprintf("%04X-%04X", n>>16, n&0xffff)
	}
	return f
}

// swap has its magic at the end of the first page, whose size is the machine's.
func swap(v *view) *Finding {
	for _, page := range []int64{4096, 8192, 16384, 32768, 65536} {
		switch {
		case v.has(page-10, "SWAPSPACE2"), v.has(page-10, "SWAP-SPACE"):
			f := &Finding{Kind: "swap space", Type: "swap", Label: v.text(1052, 16), UUID: v.dce(1036)}
			if b := v.at(1028, 4); b != nil && v.has(1024, "\x01\x00\x00\x00") {
				f.Size = bytesOf(uint64(binary.LittleEndian.Uint32(b))+1, uint64(page))
			}
			return f
		case v.has(page-10, "S1SUSPEND\x00"), v.has(page-10, "S2SUSPEND\x00"), v.has(page-10, "ULSUSPEND\x00"),
			v.has(page-10, "\xed\xc3\x02\xe9\x98\x56\xe5\x0c"), v.has(page-10, "LINHIB0001"):
			return &Finding{Kind: "swap space with a hibernated system", Type: "swsuspend", Label: v.text(1052, 16), UUID: v.dce(1036)}
		}
	}
	return nil
}

func f2fs(v *view) *Finding {
	b := v.at(1024, 1024)
	le := binary.LittleEndian
	if b == nil || le.Uint32(b) != 0xf2f52010 {
		return nil
	}
	f := &Finding{Kind: "F2FS file system", Type: "f2fs", UUID: v.dce(1024 + 108), Label: utf16le(b[124:636])}
	if shift := le.Uint32(b[16:]); shift <= 16 {
		f.Size = bytesOf(le.Uint64(b[36:]), 1<<shift)
	}
	return f
}

func jfs(v *view) *Finding {
	b := v.at(0x8000, 32)
	if b == nil || string(b[:4]) != "JFS1" {
		return nil
	}
	le := binary.LittleEndian
	return &Finding{Kind: "JFS file system", Type: "jfs", Label: v.text(0x8098, 16), UUID: v.dce(0x8088), Size: bytesOf(le.Uint64(b[8:]), uint64(le.Uint32(b[24:])))}
}

// reiserfs had its superblock at 8 KiB until 3.5.
func reiserfs(v *view) *Finding {
	for _, sb := range []int64{0x10000, 0x2000} {
		b := v.at(sb, 128)
		if b == nil || string(b[0x34:0x3c]) != "ReIsErFs" && string(b[0x34:0x3d]) != "ReIsEr2Fs" && string(b[0x34:0x3d]) != "ReIsEr3Fs" {
			continue
		}
		le := binary.LittleEndian
		f := &Finding{Kind: "ReiserFS file system", Type: "reiserfs", Size: bytesOf(uint64(le.Uint32(b)), uint64(le.Uint16(b[0x2c:])))}
		if string(b[0x34:0x3c]) != "ReIsErFs" {
			f.Label, f.UUID = v.text(sb+0x64, 16), v.dce(sb+0x54)
		}
		return f
	}
	return nil
}

func squashfs(v *view) *Finding {
	b := v.at(0, 48)
	if b == nil || string(b[:4]) != "hsqs" && string(b[:4]) != "sqsh" {
		return nil
	}
	f := &Finding{Kind: "squashfs", Type: "squashfs"}
	if b[0] == 'h' {
		f.Size = bytesOf(binary.LittleEndian.Uint64(b[40:]), 1)
	}
	return f
}

func erofs(v *view) *Finding {
	b := v.at(1024, 128)
	if b == nil || string(b[:4]) != "\xe2\xe1\xf5\xe0" {
		return nil
	}
	f := &Finding{Kind: "erofs", Type: "erofs", Label: v.text(1024+64, 16), UUID: v.dce(1024 + 48)}
	if shift := b[12]; shift <= 16 {
		f.Size = bytesOf(uint64(binary.LittleEndian.Uint32(b[36:])), 1<<shift)
	}
	return f
}

// gfs is GFS2, or GFS before it (kernel, gfs2_ondisk.h). Its label is the name of its lock table.
func gfs(v *view) *Finding {
	const sb = 0x10000
	b := v.at(sb, 32)
	if b == nil || string(b[:8]) != "\x01\x16\x19\x70\x00\x00\x00\x01" {
		return nil
	}
	if format := binary.BigEndian.Uint32(b[24:]); format >= 1801 && format < 1900 {
		return &Finding{Kind: "GFS2 file system", Type: "gfs2", Label: v.text(sb+160, 64), UUID: v.dce(sb + 256)}
	}
	return &Finding{Kind: "GFS file system", Type: "gfs", Label: v.text(sb+160, 64)}
}

// ocfs2 has its superblock in block 2 of a block size of 512 to 4096 bytes.
func ocfs2(v *view) *Finding {
	for bs := int64(512); bs <= 4096; bs *= 2 {
		if v.has(2*bs, "OCFSV2") {
			return &Finding{Kind: "OCFS2 file system", Type: "ocfs2", Label: v.text(2*bs+0x110, 64), UUID: v.dce(2*bs + 0x150)}
		}
	}
	return nil
}

func nilfs2(v *view) *Finding {
	b := v.at(1024, 512)
	le := binary.LittleEndian
	if b == nil || le.Uint32(b) != 2 || le.Uint16(b[6:]) != 0x3434 {
		return nil
	}
	return &Finding{Kind: "NILFS2 file system", Type: "nilfs2", Label: v.text(1024+0xa8, 80), UUID: v.dce(1024 + 0x98), Size: bytesOf(le.Uint64(b[0x20:]), 1)}
}

// minix has a magic of two bytes, so its counts have to make sense as well.
func minix(v *view) *Finding {
	b := v.at(1024, 32)
	if b == nil {
		return nil
	}
	le := binary.LittleEndian
	first := func(shift uint16) bool { return shift <= 10 }
	switch m := le.Uint16(b[16:]); {
	case (m == 0x137f || m == 0x138f) && le.Uint16(b) > 0 && le.Uint16(b[2:]) > 0 && first(le.Uint16(b[10:])),
		(m == 0x2468 || m == 0x2478) && le.Uint16(b) > 0 && le.Uint32(b[20:]) > 0 && first(le.Uint16(b[10:])),
		le.Uint16(b[24:]) == 0x4d5a && le.Uint32(b) > 0 && le.Uint32(b[20:]) > 0:
		return &Finding{Kind: "Minix file system", Type: "minix"}
	}
	return nil
}
