package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// lvm2 has its label in one of the first four sectors (LVM2, lib/format_text/layout.h). The label of the finding is the volume
// group's name.
func lvm2(v *view) *Finding {
	for off := int64(0); off < 4*512; off += 512 {
		b := v.at(off, 512)
		if b == nil || string(b[:8]) != "LABELONE" || string(b[24:32]) != "LVM2 001" {
			continue
		}
		f := &Finding{Kind: "LVM physical volume", Type: "LVM2_member"}
		le := binary.LittleEndian
		at := le.Uint32(b[20:])
		if at < 32 || at > 512-56 {
			return f
		}
		pv := b[at:]
		f.UUID, f.Size = lvmUUID(string(pv[:32])), int64(le.Uint64(pv[32:]))
		// Two lists of offsets and sizes, each ended by zeros: data areas, then metadata areas.
		for list, areas := 0, pv[40:]; list < 2 && len(areas) >= 16; areas = areas[16:] {
			start := le.Uint64(areas)
			switch {
			case start == 0:
				list++
			case list == 1 && start < uint64(v.size):
				f.Label = lvmGroup(v, int64(start))
				return f
			}
		}
		return f
	}
	return nil
}

// lvmUUID puts the dashes where LVM has them: 6-4-4-4-4-4-6.
func lvmUUID(s string) string {
	for _, c := range s {
		if c < '0' || c > 'z' {
			return ""
		}
	}
	return strings.Join([]string{s[:6], s[6:10], s[10:14], s[14:18], s[18:22], s[22:26], s[26:]}, "-")
}

// lvmGroup is the name with which the text in a metadata area begins.
func lvmGroup(v *view, area int64) string {
	b := v.at(area, 56)
	if b == nil || string(b[4:20]) != " LVM2 x[5A%r0N*>" {
		return ""
	}
	text := binary.LittleEndian.Uint64(b[40:]) // the first raw location, from the area's beginning
	if text == 0 || text >= uint64(v.size) {
		return ""
	}
	const longest = 128
	name, _, ok := bytes.Cut(v.at(area+int64(text), longest+4), []byte(" {"))
	if !ok {
		return ""
	}
	return string(name)
}

const (
	mdMagic = "\xfc\x4e\x2b\xa9" // 0xa92b4efc, little endian
	mdType  = "linux_raid_member"
)

// mdOld is the 0.90 superblock, 64 KiB before the last multiple of 64 KiB, in the byte order of its machine.
func mdOld(v *view) *Finding {
	off := v.size&^0xffff - 0x10000
	f := &Finding{Kind: "Linux RAID member (metadata 0.90)", Type: mdType}
	b := v.at(off, 64)
	if b == nil {
		return nil
	}
	var words [4]uint32
	switch {
	case v.has(off, mdMagic):
		for i, at := range []int{20, 52, 56, 60} {
			words[i] = binary.LittleEndian.Uint32(b[at:])
		}
	case v.has(off, "\xa9\x2b\x4e\xfc"):
		for i, at := range []int{20, 52, 56, 60} {
			words[i] = binary.BigEndian.Uint32(b[at:])
		}
	default:
		return nil
	}
	if words != [4]uint32{} {
		// mdadm and blkid write the words as numbers.
		var u []byte
		for _, w := range words {
			u = binary.BigEndian.AppendUint32(u, w)
		}
		f.UUID = (&view{r: bytes.NewReader(u), size: 16}).dce(0)
	}
	return f
}

// mdNew is the 1.x superblock: 1.0 near the end, 1.1 at the beginning, 1.2 at 4 KiB (kernel, md_p.h).
func mdNew(v *view) *Finding {
	for i, off := range []int64{(v.size/512 - 16) &^ 7 * 512, 0, 4096} {
		if v.has(off, mdMagic+"\x01\x00\x00\x00") {
			return &Finding{Kind: fmt.Sprintf("Linux RAID member (metadata 1.%d)", i), Type: mdType, Label: v.text(off+32, 32), UUID: v.dce(off + 16)}
		}
	}
	return nil
}

// ddf has its anchor in the last sector, or before the 256 last ones (SNIA DDF 2.0, 5.1).
func ddf(v *view) *Finding {
	end := v.size &^ 511
	for _, off := range []int64{end - 512, end - 257*512} {
		if v.has(off, "\xde\x11\xde\x11") {
			return &Finding{Kind: "DDF RAID member", Type: "ddf_raid_member"}
		}
	}
	return nil
}

// intel has its superblock in the last sector but one, of either size (mdadm, super-intel.c).
func intel(v *view) *Finding {
	for _, sector := range []int64{512, 4096} {
		if v.has(v.size&^(sector-1)-2*sector, "Intel Raid ISM Cfg Sig. ") {
			return &Finding{Kind: "Intel RAID member", Type: "isw_raid_member"}
		}
	}
	return nil
}

func promise(v *view) *Finding {
	for _, sector := range []int64{63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087} {
		if v.has(v.size&^511-sector*512, "Promise Technology, Inc.") {
			return &Finding{Kind: "Promise RAID member", Type: "promise_fasttrack_raid_member"}
		}
	}
	return nil
}

// luks: both versions share the magic; version 2 has a label and keeps a second header at one of these places.
func luks(v *view) *Finding {
	if v.has(0, "LUKS\xba\xbe") {
		b := v.at(6, 2)
		if b != nil && binary.BigEndian.Uint16(b) == 2 {
			return &Finding{Kind: "LUKS2 encrypted volume", Type: "crypto_LUKS", Label: v.text(24, 48), UUID: v.text(168, 40)}
		}
		return &Finding{Kind: "LUKS encrypted volume", Type: "crypto_LUKS", UUID: v.text(168, 40)}
	}
	for off := int64(0x4000); off <= 0x400000; off *= 2 {
		if v.has(off, "SKUL\xba\xbe") {
			return &Finding{Kind: "LUKS2 encrypted volume (second header)", Type: "crypto_LUKS", Label: v.text(off+24, 48), UUID: v.text(off+168, 40)}
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
	return &Finding{Kind: "Ceph OSD (BlueStore)", Type: "ceph_bluestore", Label: v.text(int64(len(m)), 36)}
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
				return &Finding{Kind: "ZFS pool member", Type: "zfs_member", Label: zfsName(v.at(base+16<<10, 4096))}
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

// vmfs is a datastore of version 3 to 6, or the local one of ESXi 7 and later (vmfs-tools, vmfs_fs.h).
func vmfs(v *view) *Finding {
	const sb = 0x200000
	kind := "VMFS file system"
	switch {
	case v.has(sb, "\x5e\xf1\xab\x2f"):
	case v.has(sb, "\x5f\xf1\xab\x2f"):
		kind = "VMFS-L file system"
	default:
		return nil
	}
	return &Finding{Kind: kind, Type: "VMFS", Label: v.text(sb+0x1d, 128), UUID: v.vmware(sb + 9)}
}

func vmfsExtent(v *view) *Finding {
	const sb = 0x100000
	if !v.has(sb, "\x0d\xd0\x01\xc0") {
		return nil
	}
	return &Finding{Kind: "VMFS extent", Type: "VMFS_volume_member", UUID: v.vmware(sb + 0x82)}
}

// vmware writes a UUID as VMware does: two words and a half in little endian, and six bytes.
func (v *view) vmware(off int64) string {
	b := v.at(off, 16)
	if b == nil {
		return ""
	}
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%08x-%04x-%x", le.Uint32(b), le.Uint32(b[4:]), le.Uint16(b[8:]), b[10:])
}

// bcache and bcachefs share the place of their superblock.
func bcache(kind, typ, m string) signature {
	return func(v *view) *Finding {
		if !v.has(0x1018, m) {
			return nil
		}
		uuid := int64(0x1028)
		if typ == "bcachefs" {
			uuid = 0x1038 // the one that people see
		}
		return &Finding{Kind: kind, Type: typ, Label: v.text(0x1048, 32), UUID: v.dce(uuid)}
	}
}

// asm is labelled by ASMLib, or else by the database itself.
func asm(v *view) *Finding {
	if !v.has(32, "ORCLDISK") && !v.has(32, "ORCLCLRD") {
		return nil
	}
	f := &Finding{Kind: "Oracle ASM disk", Type: "oracleasm", Label: v.text(40, 24)}
	if f.Label == "" {
		f.Label = v.text(72, 32)
	}
	return f
}

// gpfs: the older kind of disks (NSD version 1, before GPFS 4.1) carry a line of text in one of their first sectors; version 2 has
// a partition of its own type, see typeName. There is no published specification: the text is what GPFS writes for people.
func gpfs(v *view) *Finding {
	for off := int64(0); off < 128*512; off += 4096 {
		b := v.at(off, 4096)
		if b == nil {
			return nil
		}
		if bytes.Contains(b, []byte("NSD descriptor for ")) && bytes.Contains(b, []byte("created by GPFS")) {
			return &Finding{Kind: "GPFS disk"}
		}
	}
	return nil
}
