package squashfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Xattr is one extended attribute.
type Xattr struct {
	Name  string // with its namespace: user., trusted. or security.
	Value []byte // shared with the Reader: not to be written to
}

const (
	maxXattr       = 64 << 10 // bytes in a value: Linux's XATTR_SIZE_MAX
	maxXattrNames  = 64 << 10 // bytes in all names of a file with a NUL each: Linux's XATTR_LIST_MAX
	xattrOutOfLine = 0x100    // in a key's type: the value is a reference to where it is
	xattrPrefix    = 0xff     // in a key's type: the namespace
)

// xattrTables are the lists of keys and values, and an ID for each list.
type xattrTables struct {
	ids []byte // 16 bytes each: reference, number of keys, size
	kv  *table
}

// readXattrs reads both tables. ACLs are not among what squashfs stores: mksquashfs leaves out system.posix_acl_access.
func (m *metadata) readXattrs(end *uint64) (xattrTables, error) {
	var x xattrTables
	if m.sb.xattrTable == noTable {
		return x, nil
	}
	head, err := m.bytes(m.sb.xattrTable, 16)
	if err != nil {
		return x, err
	}
	start, count := binary.LittleEndian.Uint64(head), binary.LittleEndian.Uint32(head[8:])
	*end = min(*end, m.sb.xattrTable)
	if count == 0 {
		return x, nil
	}
	idStart := m.sb.xattrTable
	if x.ids, err = m.readIndexed(m.sb.xattrTable+16, uint64(count)*xattrIDSize, &idStart); err != nil {
		return x, err
	}
	if start < m.sb.dirTable || start >= idStart {
		return x, fmt.Errorf("%w: values begin at %d and end at %d", ErrDamaged, start, idStart)
	}
	*end = min(*end, start)
	x.kv, err = m.readTable(start, idStart)
	return x, err
}

func (x *xattrTables) check(id uint32) error {
	if n := len(x.ids) / xattrIDSize; int64(id) >= int64(n) {
		return fmt.Errorf("%w: it has list %d of %d lists of extended attributes", ErrDamaged, id, n)
	}
	return nil
}

// XattrID returns the number of the inode's list of extended attributes, and whether it has one. Inodes with equal
// attributes share a list.
func (i *Inode) XattrID() (uint32, bool) { return i.xattr, i.xattr != noXattrs }

// Xattrs returns list id of extended attributes in the order in which the image has them.
func (r *Reader) Xattrs(id uint32) ([]Xattr, error) {
	list, err := r.xattrs.list(id)
	if err != nil {
		return nil, fmt.Errorf("read squashfs extended attributes, list %d: %w", id, err)
	}
	return list, nil
}

func (x *xattrTables) list(id uint32) ([]Xattr, error) {
	if err := x.check(id); err != nil {
		return nil, err
	}
	e := x.ids[int(id)*xattrIDSize:]
	at, err := x.kv.ref(binary.LittleEndian.Uint64(e))
	if err != nil {
		return nil, err
	}
	var list []Xattr
	names := 0
	for range binary.LittleEndian.Uint32(e[8:]) {
		var a Xattr
		if a, at, err = x.pair(at); err != nil {
			return nil, err
		}
		if names += len(a.Name) + 1; names > maxXattrNames {
			return nil, fmt.Errorf("%w: its names have more than %d bytes", ErrDamaged, maxXattrNames)
		}
		for _, other := range list {
			if other.Name == a.Name {
				return nil, fmt.Errorf("%w: %q is there twice", ErrDamaged, a.Name)
			}
		}
		list = append(list, a)
	}
	return list, nil
}

// pair reads the key and value at offset at and returns the offset after them.
func (x *xattrTables) pair(at int) (Xattr, int, error) {
	le := binary.LittleEndian
	h, err := x.kv.take(at, 4)
	if err != nil {
		return Xattr{}, 0, err
	}
	kind, n := le.Uint16(h), le.Uint16(h[2:])
	prefixes := [...]string{"user.", "trusted.", "security."}
	if p := kind & xattrPrefix; int(p) >= len(prefixes) || kind&^(xattrPrefix|xattrOutOfLine) != 0 {
		return Xattr{}, 0, fmt.Errorf("%w: a key has the unknown type %#x", ErrDamaged, kind)
	}
	key, err := x.kv.take(at+4, uint64(n))
	if err != nil {
		return Xattr{}, 0, err
	}
	name := prefixes[kind&xattrPrefix] + string(key)
	if n == 0 || len(name) > maxName || bytes.IndexByte(key, 0) >= 0 {
		return Xattr{}, 0, fmt.Errorf("%w: a key is called %q", ErrDamaged, name)
	}
	value, next, err := x.value(at + 4 + int(n))
	if err == nil && kind&xattrOutOfLine != 0 {
		if len(value) != 8 {
			return Xattr{}, 0, fmt.Errorf("%w: the reference to the value of %s has %d bytes", ErrDamaged, name, len(value))
		}
		var to int
		if to, err = x.kv.ref(le.Uint64(value)); err == nil {
			value, _, err = x.value(to)
		}
	}
	if err != nil {
		return Xattr{}, 0, fmt.Errorf("value of %s: %w", name, err)
	}
	return Xattr{Name: name, Value: value}, next, nil
}

func (x *xattrTables) value(at int) ([]byte, int, error) {
	h, err := x.kv.take(at, 4)
	if err != nil {
		return nil, 0, err
	}
	n := binary.LittleEndian.Uint32(h)
	if n > maxXattr {
		return nil, 0, fmt.Errorf("%w: it has %d bytes; at most %d are possible", ErrDamaged, n, maxXattr)
	}
	v, err := x.kv.take(at+4, uint64(n))
	return v, at + 4 + int(n), err
}

// ref resolves a reference: the block's offset in the table above, the offset in the block in the lowest 16 bits.
func (t *table) ref(ref uint64) (int, error) { return t.find(ref>>16, uint32(ref&0xffff)) }
