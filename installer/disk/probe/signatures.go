package probe

import "encoding/hex"

// signature looks for one kind of superblock.
type signature func(*view) *Finding

// signatures are all superblocks that are looked for. Offsets and magics are those of each format's own
// documentation and of the kernel's headers; libblkid knows them by the same places.
func signatures() []signature {
	return []signature{
		// Volume managers, RAID and encryption.
		lvm2, mdOld, mdNew, ddf, intel,
		magic("LSI RAID member", "lsi_mega_raid_member", -512, "$XIDE$"),
		magic("NVIDIA RAID member", "nvidia_raid_member", -1024, "NVIDIA  "),
		promise,
		luks, ceph, zfs, vmfs, vmfsExtent,
		bcache("bcache device", "bcache", "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
		bcache("bcachefs file system", "bcachefs", "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
		asm, gpfs,
		magic("DRBD device", "drbd", -4096+60, "\x83\x74\x02\x6b"),
		magic("DRBD device", "drbd", -4096+60, "\x83\x74\x02\x6c"),
		magic("DRBD device", "drbd", -4096+60, "\x83\x74\x02\x6d"),
		magic("VDO volume", "vdo", 0, "dmvdo001"),
		magic("Stratis pool member", "stratis", 0x204, "!Stra0tis\x86\xff\x02^\x41rh"),
		magic("BitLocker volume", "BitLocker", 3, "-FVE-FS-"),
		magic("dm-integrity device", "DM_integrity", 0, "integrt\x00"),
		magic("dm-verity hash device", "DM_verity_hash", 0, "verity\x00\x00"),
		magic("device-mapper snapshot", "DM_snapshot_cow", 0, "SnAp\x01\x00\x00\x00"),
		magic("UBI device", "ubi", 0, "UBI#"),
		// File systems.
		btrfs, ext, xfs, fat, swap, exfat, ntfs, f2fs, jfs, reiserfs, iso9660, udf, squashfs, erofs, hfs, apfs, gfs, ocfs2, nilfs2, minix,
		magic("ReFS file system", "ReFS", 3, "ReFS\x00\x00\x00\x00"),
		magic("Reiser4 file system", "reiser4", 0x10000, "ReIsEr4"),
		magic("UFS file system", "ufs", 8192+1372, "\x54\x19\x01\x00"),
		magic("UFS file system", "ufs", 8192+1372, "\x00\x01\x19\x54"),
		magic("UFS2 file system", "ufs", 65536+1372, "\x19\x01\x54\x19"),
		magic("UFS2 file system", "ufs", 65536+1372, "\x19\x54\x01\x19"),
		magic("VxFS file system", "vxfs", 1024, "\xf5\xfc\x01\xa5"),
		magic("VxFS file system", "vxfs", 8192, "\xa5\x01\xfc\xf5"),
		magic("cramfs", "cramfs", 0, "\x45\x3d\xcd\x28"),
		magic("romfs", "romfs", 0, "-rom1fs-"),
	}
}

// magic finds bytes at an offset, counted from the end where it is negative. typ is blkid's name.
func magic(kind, typ string, off int64, m string) signature {
	return func(v *view) *Finding {
		o := off
		if o < 0 {
			o += v.size &^ 511
		}
		if !v.has(o, m) {
			return nil
		}
		return &Finding{Kind: kind, Type: typ}
	}
}

// dce writes the 16 bytes at off as a UUID (RFC 9562); nothing where they are all zero.
func (v *view) dce(off int64) string {
	b := v.at(off, 16)
	if b == nil || string(b) == string(make([]byte, 16)) {
		return ""
	}
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
