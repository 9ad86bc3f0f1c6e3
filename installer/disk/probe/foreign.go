package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// File systems of other systems, and of discs.

func utf16le(b []byte) string { return utf16text(b, binary.LittleEndian) }

// utf16text is text up to its NUL.
func utf16text(b []byte, order binary.ByteOrder) string {
	var u []uint16
	for ; len(b) >= 2; b = b[2:] {
		c := order.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return strings.TrimSpace(string(utf16.Decode(u)))
}

// exfat (Microsoft, exFAT File System Specification) has its label in the root directory.
func exfat(v *view) *Finding {
	b := v.at(0, 512)
	if b == nil || string(b[3:11]) != "EXFAT   " {
		return nil
	}
	le := binary.LittleEndian
	n := le.Uint32(b[100:])
	f := &Finding{Kind: "exFAT file system", Type: "exfat", UUID: fmt.Sprintf("%04X-%04X", n>>16, n&0xffff)}
	sector, cluster := b[108], b[109]
	if sector < 9 || sector > 12 || cluster > 25-sector {
		return f
	}
	f.Size = bytesOf(le.Uint64(b[72:]), 1<<sector)
	root := le.Uint32(b[96:])
	if root < 2 {
		return f
	}
	off := int64(le.Uint32(b[88:]))<<sector + int64(root-2)<<(sector+cluster)
	dir := v.at(off, 1<<min(sector+cluster, 12))
	for ; len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		if dir[0] == 0x83 && dir[1] <= 11 {
			f.Label = utf16le(dir[2 : 2+2*int(dir[1])])
		}
	}
	return f
}

// ntfs has its label in record 3 of its master file table, as the attribute $VOLUME_NAME.
func ntfs(v *view) *Finding {
	b := v.at(0, 512)
	if b == nil || string(b[3:11]) != "NTFS    " {
		return nil
	}
	le := binary.LittleEndian
	f := &Finding{Kind: "NTFS file system", Type: "ntfs", UUID: fmt.Sprintf("%016X", le.Uint64(b[72:]))}
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	if perCluster > 128 { // a power of two, as a negative exponent
		perCluster = 1 << min(256-perCluster, 30)
	}
	f.Size = bytesOf(le.Uint64(b[40:]), uint64(sector))
	record := int64(int8(b[64]))
	if record < 0 {
		record = 1 << min(-record, 16)
	} else {
		record *= sector * perCluster
	}
	mft := bytesOf(le.Uint64(b[48:]), uint64(sector*perCluster))
	if record < 256 || record > 65536 || mft <= 0 {
		return f
	}
	r := v.at(mft+3*record, int(record))
	if r == nil || string(r[:4]) != "FILE" {
		return f
	}
	for off := int(le.Uint16(r[20:])); off+24 <= len(r); {
		typ, n := le.Uint32(r[off:]), int(le.Uint32(r[off+4:]))
		if typ == 0xffffffff || n < 24 || off+n > len(r) {
			break
		}
		if at, size := off+int(le.Uint16(r[off+20:])), int(le.Uint32(r[off+16:])); typ == 0x60 && r[off+8] == 0 && size <= 256 && at+size <= off+n {
			f.Label = utf16le(r[at : at+size])
			break
		}
		off += n
	}
	return f
}

// iso9660 (ECMA-119, 8.4).
func iso9660(v *view) *Finding {
	const pvd = 0x8000
	b := v.at(pvd, 256)
	if b == nil || string(b[1:6]) != "CD001" {
		return nil
	}
	le := binary.LittleEndian
	return &Finding{Kind: "ISO 9660 file system", Type: "iso9660", Label: v.text(pvd+40, 32), Size: bytesOf(uint64(le.Uint32(b[80:])), uint64(le.Uint16(b[128:])))}
}

// udf (ECMA-167) announces itself in a sequence of descriptors from 32 KiB on, and has its label in its logical volume
// descriptor, which an anchor in block 256 leads to.
func udf(v *view) *Finding {
	const first, most = 0x8000, 64
	ours := false
	for _, step := range []int64{2048, 4096} {
		for i := int64(0); i < most && !ours; i++ {
			id := v.at(first+i*step+1, 5)
			switch string(id) {
			case "NSR02", "NSR03":
				ours = true
			case "BEA01", "CD001", "BOOT2", "CDW02", "TEA01":
				continue
			}
			break
		}
	}
	if !ours {
		return nil
	}
	f := &Finding{Kind: "UDF file system", Type: "udf"}
	le := binary.LittleEndian
	for bs := int64(512); bs <= 4096; bs *= 2 {
		anchor := v.at(256*bs, 24)
		if anchor == nil || le.Uint16(anchor) != 2 || le.Uint32(anchor[12:]) != 256 {
			continue
		}
		at, n := int64(le.Uint32(anchor[20:])), int64(le.Uint32(anchor[16:]))/bs
		for i := int64(0); i < min(n, most); i++ {
			d := v.at((at+i)*bs, 512)
			if d == nil || le.Uint16(d) == 8 {
				break
			}
			if le.Uint16(d) == 6 {
				f.Label = dstring(d[84:212])
				return f
			}
		}
	}
	return f
}

// dstring is text with a byte for its kind before, and its length in the last byte (ECMA-167, 1/7.2.12).
func dstring(b []byte) string {
	n := int(b[len(b)-1])
	if n < 2 || n > len(b)-1 {
		return ""
	}
	switch b[0] {
	case 8:
		var s strings.Builder
		for _, c := range b[1:n] {
			s.WriteRune(rune(c))
		}
		return strings.TrimSpace(s.String())
	case 16:
		return utf16text(b[1:n], binary.BigEndian)
	}
	return ""
}

// hfs is HFS+, HFSX or HFS (Apple, TN1150). An HFS+ inside of an HFS wrapper is called by the wrapper's name.
func hfs(v *view) *Finding {
	b := v.at(1024, 512)
	if b == nil {
		return nil
	}
	be := binary.BigEndian
	switch {
	case bytes.HasPrefix(b, []byte("H+\x00\x04")), bytes.HasPrefix(b, []byte("HX\x00\x05")):
		return &Finding{Kind: "HFS+ file system", Type: "hfsplus", Size: bytesOf(uint64(be.Uint32(b[44:])), uint64(be.Uint32(b[40:])))}
	case bytes.HasPrefix(b, []byte("BD")) && be.Uint32(b[20:]) > 0 && be.Uint32(b[20:])%512 == 0:
		f := &Finding{Kind: "HFS file system", Type: "hfs"}
		if n := int(b[36]); n <= 27 {
			f.Label = string(b[37 : 37+n])
		}
		return f
	}
	return nil
}

func apfs(v *view) *Finding {
	b := v.at(0, 96)
	if b == nil || string(b[32:36]) != "NXSB" {
		return nil
	}
	le := binary.LittleEndian
	return &Finding{Kind: "APFS container", Type: "apfs", UUID: v.dce(72), Size: bytesOf(le.Uint64(b[40:]), uint64(le.Uint32(b[36:])))}
}
