package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"
)

// metadataRaw, in the two-byte header of a metadata block, says that the block is not compressed. The rest is its size.
const metadataRaw = 1 << 15

// readSize is how much metadata is asked of the image at a time.
const readSize = 1 << 20

// fragmentEntrySize and the others are the sizes of the entries of the tables that have an index, in bytes.
const (
	idEntrySize       = 4
	exportEntrySize   = 8
	fragmentEntrySize = 16
	xattrIDSize       = 16
)

// metadata is the image from the inode table on, as it lies there. It lives only while Open runs.
type metadata struct {
	sb  Superblock
	buf []byte
	dec *Decompressor
}

// table is a decompressed chain of metadata blocks. References into it name the block by its offset on the image.
type table struct {
	data   []byte
	starts []uint32 // of each block's header on the image, from the start of the table
	at     []uint32 // where that block's bytes begin in data
}

func readMetadata(src io.ReaderAt, sb Superblock) (*metadata, error) {
	dec, err := newDecompressor(sb.Compressor, metadataSize)
	if err != nil {
		return nil, err
	}
	m := &metadata{sb: sb, dec: dec}
	total := int(sb.BytesUsed - sb.DataEnd)
	for len(m.buf) < total {
		// The buffer grows as the bytes arrive: a superblock that lies does not get 256 MiB for its word alone.
		n := min(readSize, total-len(m.buf))
		at := len(m.buf)
		m.buf = append(m.buf, make([]byte, n)...)
		if err := readFull(src, m.buf[at:], sb.DataEnd+int64(at)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// bytes returns n bytes at offset off of the image.
func (m *metadata) bytes(off, n uint64) ([]byte, error) {
	base, end := m.sb.inodeTable, uint64(m.sb.BytesUsed)
	if off < base || off > end || n > end-off {
		return nil, fmt.Errorf("%w: %d bytes at %d lie outside the metadata, which is %d to %d", ErrDamaged, n, off, base, end)
	}
	return m.buf[off-base : off-base+n], nil
}

// block decompresses the metadata block at off onto the end of dst and returns the offset of the next one.
func (m *metadata) block(dst []byte, off uint64) ([]byte, uint64, error) {
	h, err := m.bytes(off, 2)
	if err != nil {
		return nil, 0, err
	}
	head := binary.LittleEndian.Uint16(h)
	size := uint64(head &^ metadataRaw)
	if size == 0 || size > metadataSize {
		return nil, 0, fmt.Errorf("%w: the metadata block at %d has %d bytes", ErrDamaged, off, size)
	}
	body, err := m.bytes(off+2, size)
	if err != nil {
		return nil, 0, err
	}
	if len(dst)+metadataSize > maxTable {
		return nil, 0, fmt.Errorf("%w: a table has more than %d bytes", ErrDamaged, maxTable)
	}
	if head&metadataRaw != 0 {
		return append(dst, body...), off + 2 + size, nil
	}
	data, err := m.dec.Decompress(body)
	if err != nil {
		return nil, 0, fmt.Errorf("metadata block at %d: %w", off, err)
	}
	return append(dst, data...), off + 2 + size, nil
}

// readTable decompresses the metadata blocks that fill the image from start to end.
func (m *metadata) readTable(start, end uint64) (*table, error) {
	t := &table{}
	for off := start; off < end; {
		t.starts = append(t.starts, uint32(off-start))
		t.at = append(t.at, uint32(len(t.data)))
		data, next, err := m.block(t.data, off)
		if err != nil {
			return nil, err
		}
		if next > end {
			return nil, fmt.Errorf("%w: the metadata block at %d runs past the table's end at %d", ErrDamaged, off, end)
		}
		t.data, off = data, next
	}
	return t, nil
}

// readIndexed reads a table of size bytes whose blocks are listed, one 64-bit offset each, at index. It lowers end to
// where the table begins.
func (m *metadata) readIndexed(index, size uint64, end *uint64) ([]byte, error) {
	blocks := (size + metadataSize - 1) / metadataSize
	list, err := m.bytes(index, blocks*8)
	if err != nil {
		return nil, err
	}
	*end = min(*end, index)
	var data []byte
	for i := range blocks {
		off := binary.LittleEndian.Uint64(list[i*8:])
		if off < m.sb.dirTable || off >= index {
			return nil, fmt.Errorf("%w: the index at %d points to %d", ErrDamaged, index, off)
		}
		*end = min(*end, off)
		if data, _, err = m.block(data, off); err != nil {
			return nil, err
		}
		if want := min(size, (i+1)*metadataSize); uint64(len(data)) != want {
			return nil, fmt.Errorf("%w: the metadata block at %d ends at byte %d of its table and not at %d", ErrDamaged, off, len(data), want)
		}
	}
	return data, nil
}

func (m *metadata) readIDs(end *uint64) ([]uint32, error) {
	b, err := m.readIndexed(m.sb.idTable, uint64(m.sb.idCount)*idEntrySize, end)
	if err != nil {
		return nil, err
	}
	ids := make([]uint32, m.sb.idCount)
	for i := range ids {
		ids[i] = binary.LittleEndian.Uint32(b[i*idEntrySize:])
	}
	return ids, nil
}

func (m *metadata) readFragments(end *uint64) ([]byte, error) {
	if m.sb.Fragments == 0 || m.sb.fragTable == noTable {
		if m.sb.fragTable != noTable && m.sb.fragTable > m.sb.dirTable {
			*end = min(*end, m.sb.fragTable)
		}
		return nil, nil
	}
	if m.sb.flags&flagNoFragments != 0 {
		return nil, fmt.Errorf("%w: it says that it has no fragments, and that it has %d", ErrDamaged, m.sb.Fragments)
	}
	return m.readIndexed(m.sb.fragTable, uint64(m.sb.Fragments)*fragmentEntrySize, end)
}

// skipExports finds out where the export table begins, and no more: it serves NFS file handles.
func (m *metadata) skipExports(end *uint64) error {
	if m.sb.exports == noTable {
		return nil
	}
	blocks := (uint64(m.sb.Inodes)*exportEntrySize + metadataSize - 1) / metadataSize
	list, err := m.bytes(m.sb.exports, blocks*8)
	if err != nil {
		return err
	}
	*end = min(*end, m.sb.exports)
	for i := range blocks {
		off := binary.LittleEndian.Uint64(list[i*8:])
		if off < m.sb.dirTable || off >= m.sb.exports {
			return fmt.Errorf("%w: the index at %d points to %d", ErrDamaged, m.sb.exports, off)
		}
		*end = min(*end, off)
	}
	return nil
}

// find turns a reference, a block's offset on the image from the start of the table and an offset in the decompressed
// block, into an offset in data.
func (t *table) find(block uint64, offset uint32) (int, error) {
	i := sort.Search(len(t.starts), func(i int) bool { return uint64(t.starts[i]) >= block })
	if i == len(t.starts) || uint64(t.starts[i]) != block {
		return 0, fmt.Errorf("%w: no metadata block begins %d bytes into the table", ErrDamaged, block)
	}
	at := uint64(t.at[i]) + uint64(offset)
	if offset > metadataSize || at > uint64(len(t.data)) {
		return 0, fmt.Errorf("%w: offset %d is outside the metadata block at %d", ErrDamaged, offset, block)
	}
	return int(at), nil
}

// take returns n bytes of data at offset at.
func (t *table) take(at int, n uint64) ([]byte, error) {
	if at < 0 || at > len(t.data) || n > uint64(len(t.data)-at) {
		return nil, fmt.Errorf("%w: a table of %d bytes ends inside the %d bytes at %d", ErrDamaged, len(t.data), n, at)
	}
	return t.data[at : at+int(n) : at+int(n)], nil
}
