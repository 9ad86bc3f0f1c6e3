package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// lvm2 has its label in one of the first four sectors (LVM2, lib/format_text/layout.h).
func lvm2(v *view) *Finding {
	for off := int64(0); off < 4*512; off += 512 {
		if v.has(off, "LABELONE") && v.has(off+24, "LVM2 001") {
			return &Finding{Kind: "LVM physical volume", Size: lvmSize(v, off)}
		}
	}
	return nil
}

func lvmSize(v *view, off int64) int64 {
	b := v.at(off+64, 8)
	if b == nil {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b))
}

const mdMagic = "\xfc\x4e\x2b\xa9" // 0xa92b4efc, little endian

// mdOld is the 0.90 superblock, 64 KiB before the last multiple of 64 KiB, in the byte order of its machine.
func mdOld(v *view) *Finding {
	off := v.size&^0xffff - 0x10000
	if v.has(off, mdMagic) || v.has(off, "\xa9\x2b\x4e\xfc") {
		return &Finding{Kind: "Linux RAID member (metadata 0.90)"}
	}
	return nil
}

// mdNew is the 1.x superblock: 1.0 near the end, 1.1 at the beginning, 1.2 at 4 KiB (kernel, md_p.h).
func mdNew(v *view) *Finding {
	for i, off := range []int64{(v.size/512 - 16) &^ 7 * 512, 0, 4096} {
		if v.has(off, mdMagic+"\x01\x00\x00\x00") {
			return &Finding{Kind: fmt.Sprintf("Linux RAID member (metadata 1.%d)", i), Label: v.text(off+32, 32)}
		}
	}
	return nil
}

// luks: both versions share the magic; version 2 has a label and keeps a second header at one of these places.
func luks(v *view) *Finding {
	if v.has(0, "LUKS\xba\xbe") {
		b := v.at(6, 2)
		if b != nil && binary.BigEndian.Uint16(b) == 2 {
			return &Finding{Kind: "LUKS2 encrypted volume", Label: v.text(24, 48)}
		}
		return &Finding{Kind: "LUKS encrypted volume"}
	}
	for off := int64(0x4000); off <= 0x400000; off *= 2 {
		if v.has(off, "SKUL\xba\xbe") {
			return &Finding{Kind: "LUKS2 encrypted volume (second header)", Label: v.text(off+24, 48)}
		}
	}
	return nil
}

// ceph writes a line of text, then the OSD's UUID as text.
func ceph(v *view) *Finding {
	const m = "bluestore block device\n"
	if !v.has(0, m) {
		return nil
	}
	return &Finding{Kind: "Ceph OSD (BlueStore)", Label: v.text(int64(len(m)), 36)}
}

// zfs keeps four labels of 256 KiB, two at each end. Each has an array of uberblocks in its second half, and the
// pool's name in an XDR list of pairs at 16 KiB (ZFS on-disk specification, chapter 1).
func zfs(v *view) *Finding {
	const label = 256 << 10
	end := v.size &^ (label - 1)
	for _, base := range []int64{0, label, end - 2*label, end - label} {
		if base < 0 {
			continue
		}
		ring := v.at(base+128<<10, 128<<10)
		for off := 0; off+1024 <= len(ring); off += 1024 {
			if m := ring[off:][:8]; string(m) == "\x0c\xb1\xba\x00\x00\x00\x00\x00" || string(m) == "\x00\x00\x00\x00\x00\xba\xb1\x0c" {
				return &Finding{Kind: "ZFS pool member", Label: zfsName(v.at(base+16<<10, 4096))}
			}
		}
	}
	return nil
}

func zfsName(b []byte) string {
	_, rest, ok := bytes.Cut(b, []byte("\x00\x00\x00\x04name\x00\x00\x00\x09\x00\x00\x00\x01"))
	if !ok || len(rest) < 4 {
		return ""
	}
	n := binary.BigEndian.Uint32(rest)
	if n > 255 || int(n) > len(rest)-4 {
		return ""
	}
	return string(rest[4:][:n])
}
