package probe

// signature looks for one kind of superblock.
type signature func(*view) *Finding

// signatures are all superblocks that are looked for. Offsets and magics are those of each format's own
// documentation and of the kernel's headers; libblkid knows them by the same places.
func signatures() []signature {
	return []signature{
		// Volume managers, RAID and encryption.
		lvm2, mdOld, mdNew,
		magic("DDF RAID member", -512, "\xde\x11\xde\x11"),
		magic("Intel RAID member", -1024, "Intel Raid ISM Cfg Sig. "),
		luks, ceph, zfs,
		labelled("VMFS extent", 0x100000, "\x0d\xd0\x01\xc0", 0, 0),
		labelled("VMFS file system", 0x200000, "\x5e\xf1\xab\x2f", 0x20001d, 128),
		labelled("bcache device", 0x1018, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", 0x1048, 32),
		labelled("bcachefs file system", 0x1018, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", 0x1048, 32),
		labelled("Oracle ASM disk", 32, "ORCLDISK", 40, 24),
		magic("DRBD device", -4096+60, "\x83\x74\x02\x6b"),
		magic("DRBD device", -4096+60, "\x83\x74\x02\x6d"),
		magic("VDO volume", 0, "dmvdo001"),
		magic("Stratis pool member", 0x204, "!Stra0tis\x86\xff\x02^\x41rh"),
		magic("BitLocker volume", 3, "-FVE-FS-"),
		// File systems.
		btrfs, ext, xfs, fat, swap,
		magic("exFAT file system", 3, "EXFAT   "),
		magic("NTFS file system", 3, "NTFS    "),
		magic("ReFS file system", 3, "ReFS\x00\x00\x00\x00"),
		magic("squashfs", 0, "hsqs"),
		magic("erofs", 1024, "\xe2\xe1\xf5\xe0"),
		labelled("ISO 9660 file system", 0x8001, "CD001", 0x8028, 32),
		magic("UDF file system", 0x8001, "BEA01"),
		magic("F2FS file system", 1024, "\x10\x20\xf5\xf2"),
		labelled("JFS file system", 0x8000, "JFS1", 0x8098, 16),
		labelled("ReiserFS file system", 0x10034, "ReIsEr", 0x10064, 16),
		magic("HFS+ file system", 1024, "H+\x00\x04"),
		magic("APFS container", 32, "NXSB"),
		magic("UFS file system", 8192+1372, "\x19\x01\x54\x19"),
		magic("UFS2 file system", 65536+1372, "\x19\x01\x54\x19"),
		magic("GFS2 file system", 0x10000, "\x01\x16\x19\x70"),
		ocfs2,
	}
}

// magic finds bytes at an offset, counted from the end where it is negative.
func magic(kind string, off int64, m string) signature {
	return labelled(kind, off, m, 0, 0)
}

// labelled is magic with a label of n bytes at labelOff.
func labelled(kind string, off int64, m string, labelOff int64, n int) signature {
	return func(v *view) *Finding {
		o := off
		if o < 0 {
			o += v.size &^ 511
		}
		if !v.has(o, m) {
			return nil
		}
		f := &Finding{Kind: kind}
		if n > 0 {
			f.Label = v.text(labelOff, n)
		}
		return f
	}
}

// ocfs2 has its superblock in block 2 of a block size of 512 to 4096 bytes.
func ocfs2(v *view) *Finding {
	for bs := int64(512); bs <= 4096; bs *= 2 {
		if v.has(2*bs, "OCFSV2") {
			return &Finding{Kind: "OCFS2 file system"}
		}
	}
	return nil
}
