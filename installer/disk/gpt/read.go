package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/google/uuid"
)

// ErrNone is returned, wrapped, when a disk has no GUID partition table.
var ErrNone = errors.New("there is no GUID partition table")

// Found is a table as it was read.
type Found struct {
	Table
	// Primary and Backup say which copies are whole. At least one is.
	Primary, Backup bool
}

// Read finds the table on a disk of size bytes, primary or backup, at either sector size: a disk that was behind
// another controller may carry a table that its present sector size hides. It does not ask for a protective MBR.
func Read(r io.ReaderAt, size int64) (Found, error) {
	for _, ss := range []int{512, 4096} {
		sectors := uint64(size) / uint64(ss)
		if size <= 0 || sectors < 8 {
			continue
		}
		primary, perr := readAt(r, ss, sectors, 1)
		backup, berr := readAt(r, ss, sectors, sectors-1)
		switch {
		case perr == nil:
			return Found{*primary, true, berr == nil}, nil
		case berr == nil:
			return Found{*backup, false, true}, nil
		}
		if err := errors.Join(perr, berr); !errors.Is(perr, ErrNone) && !errors.Is(perr, errDamaged) {
			return Found{}, err
		}
	}
	return Found{}, fmt.Errorf("read partition table: %w", ErrNone)
}

var errDamaged = errors.New("the header is damaged")

func readAt(r io.ReaderAt, ss int, sectors, lba uint64) (*Table, error) {
	b := make([]byte, ss)
	if _, err := r.ReadAt(b, int64(lba)*int64(ss)); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	if !bytes.HasPrefix(b, []byte(signature)) {
		return nil, ErrNone
	}
	le := binary.LittleEndian
	n := le.Uint32(b[12:])
	if n < headerSize || int(n) > ss {
		return nil, errDamaged
	}
	crc := le.Uint32(b[16:])
	le.PutUint32(b[16:], 0)
	if crc32.ChecksumIEEE(b[:n]) != crc || le.Uint64(b[24:]) != lba {
		return nil, errDamaged
	}
	count, each := le.Uint32(b[80:]), le.Uint32(b[84:])
	if each < entrySize || each > 4096 || each%8 != 0 || count > 1024 {
		return nil, errDamaged
	}
	at := le.Uint64(b[72:])
	if at >= sectors {
		return nil, errDamaged
	}
	entries := make([]byte, count*each)
	if _, err := r.ReadAt(entries, int64(at)*int64(ss)); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(b[88:]) {
		return nil, errDamaged
	}
	t := &Table{GUID: FromMixedEndian([16]byte(b[56:72])), SectorSize: ss, Sectors: sectors}
	for i := range int(count) {
		e := entries[i*int(each):][:entrySize]
		p := Partition{
			Number: i + 1, Type: FromMixedEndian([16]byte(e[0:16])), GUID: FromMixedEndian([16]byte(e[16:32])),
			First: le.Uint64(e[32:]), Last: le.Uint64(e[40:]), Attributes: le.Uint64(e[48:]),
		}
		if p.Type == uuid.Nil {
			continue
		}
		var name []uint16
		for j := 56; j < entrySize; j += 2 {
			u := le.Uint16(e[j:])
			if u == 0 {
				break
			}
			name = append(name, u)
		}
		p.Name = string(utf16.Decode(name))
		t.Partitions = append(t.Partitions, p)
	}
	return t, nil
}
