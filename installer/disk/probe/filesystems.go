package probe

import "encoding/binary"

// btrfs has its first superblock at 64 KiB.
func btrfs(v *view) *Finding {
	const sb = 0x10000
	if !v.has(sb+0x40, "_BHRfS_M") {
		return nil
	}
	f := &Finding{Kind: "Btrfs file system", Label: v.text(sb+0x12b, 256)}
	if b := v.at(sb+0x70, 8); b != nil {
		f.Size = int64(binary.LittleEndian.Uint64(b))
	}
	return f
}

// ext tells ext2, 3 and 4 apart by features (kernel, Documentation/filesystems/ext4/super.rst).
func ext(v *view) *Finding {
	sb := v.at(1024, 256)
	le := binary.LittleEndian
	if sb == nil || le.Uint16(sb[0x38:]) != 0xef53 {
		return nil
	}
	compat, incompat, ro := le.Uint32(sb[0x5c:]), le.Uint32(sb[0x60:]), le.Uint32(sb[0x64:])
	f := &Finding{Kind: "ext2 file system"}
	switch {
	case incompat&0x8 != 0:
		f.Kind = "ext4 journal"
	case incompat&^0x16 != 0 || ro&^0x7 != 0:
		f.Kind = "ext4 file system"
	case compat&0x4 != 0:
		f.Kind = "ext3 file system"
	}
	if shift := le.Uint32(sb[0x18:]); shift <= 6 {
		f.Size = int64(le.Uint32(sb[4:])) << (10 + shift)
	}
	f.Label = v.text(1024+0x78, 16)
	return f
}

func xfs(v *view) *Finding {
	sb := v.at(0, 128)
	if sb == nil || string(sb[:4]) != "XFSB" {
		return nil
	}
	be := binary.BigEndian
	f := &Finding{Kind: "XFS file system", Label: v.text(108, 12)}
	if bs, n := uint64(be.Uint32(sb[4:])), be.Uint64(sb[8:]); bs <= 65536 && n < 1<<47 {
		f.Size = int64(bs * n)
	}
	return f
}

// fat knows the strings that every formatter writes, though no driver asks for them (Microsoft, FAT32 File System
// Specification 1.03).
func fat(v *view) *Finding {
	if !v.has(510, "\x55\xaa") {
		return nil
	}
	var f *Finding
	switch {
	case v.has(82, "FAT32   "):
		f = &Finding{Kind: "FAT32 file system", Label: v.text(71, 11)}
	case v.has(54, "FAT12   "), v.has(54, "FAT16   "), v.has(54, "FAT     "):
		f = &Finding{Kind: "FAT file system", Label: v.text(43, 11)}
	default:
		return nil
	}
	if f.Label == "NO NAME" {
		f.Label = ""
	}
	return f
}

// swap has its magic at the end of the first page, whose size is the machine's.
func swap(v *view) *Finding {
	for _, page := range []int64{4096, 8192, 16384, 65536} {
		switch {
		case v.has(page-10, "SWAPSPACE2"), v.has(page-10, "SWAP-SPACE"):
			return &Finding{Kind: "swap space", Label: v.text(1052, 16)}
		case v.has(page-10, "S1SUSPEND\x00"), v.has(page-10, "LINHIB0001"):
			return &Finding{Kind: "swap space with a hibernated system"}
		}
	}
	return nil
}
