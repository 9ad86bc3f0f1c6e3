// Package nvram writes an entry into the boot menu of UEFI firmware (UEFI specification 2.10, chapter 3).
//
// Entries go in; variables below /sys/firmware/efi/efivars change. It removes entries only when they are its own
// and stale, keeps the order of all others, and decides nothing about what is booted from elsewhere.
package nvram

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/google/uuid"

	"imgbuild/installer/disk/gpt"
)

// Entry is a boot entry that starts a file on a partition of a GPT disk.
type Entry struct {
	Label string
	// Group is what tells entries of ours from others: their labels are Group, or Group with something in parentheses after
	// it. Empty stands for Label. It is not stored.
	Group string
	// Partition, First and Sectors describe the EFI system partition; the latter two in logical sectors.
	Partition      int
	First, Sectors uint64
	GUID           uuid.UUID
	// File is the path on the ESP with slashes, e.g. EFI/centos/shimx64.efi.
	File string
}

const (
	loadOptionActive = 1

	// Device path nodes (UEFI specification, 10.3).
	typeMedia, subHardDrive, subFilePath = 4, 1, 4
	typeEnd, subEndAll                   = 0x7f, 0xff
	hardDriveLen                         = 42
	formatGPT, signatureGUID             = 2, 2
)

// ours reports whether another entry of the same name is one of ours: for the same file, from an earlier installation or for
// another disk of the same one.
func (e Entry) ours(other Entry) bool {
	group := e.Group
	if group == "" {
		group = e.Label
	}
	rest, ok := strings.CutPrefix(other.Label, group)
	return ok && strings.EqualFold(other.File, e.File) && (rest == "" || strings.HasPrefix(rest, " (") && strings.HasSuffix(rest, ")"))
}

// Encode returns the entry as an EFI_LOAD_OPTION (UEFI specification, 3.1.3), as efibootmgr writes it too.
func (e Entry) Encode() ([]byte, error) {
	if e.Label == "" || e.File == "" || e.Partition < 1 || e.Sectors == 0 || e.GUID == uuid.Nil {
		return nil, fmt.Errorf("make boot entry: %+v is not complete", e)
	}
	le := binary.LittleEndian
	var path []byte
	path = append(path, typeMedia, subHardDrive)
	path = le.AppendUint16(path, hardDriveLen)
	path = le.AppendUint32(path, uint32(e.Partition))
	path = le.AppendUint64(path, e.First)
	path = le.AppendUint64(path, e.Sectors)
	g := gpt.MixedEndian(e.GUID)
	path = append(path, g[:]...)
	path = append(path, formatGPT, signatureGUID)
	file := text(`\` + strings.ReplaceAll(strings.Trim(e.File, "/"), "/", `\`))
	path = append(path, typeMedia, subFilePath)
	path = le.AppendUint16(path, uint16(4+len(file)))
	path = append(path, file...)
	path = append(path, typeEnd, subEndAll, 4, 0)

	b := le.AppendUint32(nil, loadOptionActive)
	b = le.AppendUint16(b, uint16(len(path)))
	b = append(b, text(e.Label)...)
	return append(b, path...), nil
}

// text is UTF-16, little endian, with its terminating zero.
func text(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return append(b, 0, 0)
}

var errOther = errors.New("it is another kind of boot entry")

// decode reads the label, partition and file of a load option that Encode could have written. Anything else, network
// boot, firmware applications, entries with arguments of their own or with another device path, is errOther.
func decode(b []byte) (Entry, error) {
	var e Entry
	le := binary.LittleEndian
	if len(b) < 6 {
		return e, errOther
	}
	n := int(le.Uint16(b[4:]))
	label, rest, ok := untext(b[6:])
	if !ok || len(rest) < n {
		return e, errOther
	}
	e.Label = label
	path := rest[:n]
	if len(path) < hardDriveLen || path[0] != typeMedia || path[1] != subHardDrive || le.Uint16(path[2:]) != hardDriveLen ||
		path[40] != formatGPT || path[41] != signatureGUID {
		return e, errOther
	}
	e.Partition = int(le.Uint32(path[4:]))
	e.First, e.Sectors = le.Uint64(path[8:]), le.Uint64(path[16:])
	e.GUID = gpt.FromMixedEndian([16]byte(path[24:40]))
	path = path[hardDriveLen:]
	if len(path) < 4 || path[0] != typeMedia || path[1] != subFilePath {
		return e, errOther
	}
	l := int(le.Uint16(path[2:]))
	if l < 4 || l > len(path) {
		return e, errOther
	}
	file, _, ok := untext(path[4:l])
	if !ok {
		return e, errOther
	}
	path = path[l:]
	if len(path) < 4 || path[0] != typeEnd || path[1] != subEndAll {
		return e, errOther
	}
	e.File = strings.TrimPrefix(strings.ReplaceAll(file, `\`, "/"), "/")
	return e, nil
}

// untext reads UTF-16 up to its terminating zero.
func untext(b []byte) (s string, rest []byte, ok bool) {
	var u []uint16
	for i := 0; i+1 < len(b); i += 2 {
		c := binary.LittleEndian.Uint16(b[i:])
		if c == 0 {
			return string(utf16.Decode(u)), b[i+2:], true
		}
		u = append(u, c)
	}
	return "", nil, false
}
