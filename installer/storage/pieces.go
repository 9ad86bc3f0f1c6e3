package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"imgbuild/installer/tool"
)

// lvmReader asks LVM what there is.
type lvmReader struct {
	run tool.Runner
	lvm lvm
}

// group is nil where there is none of that name.
func (c lvmReader) group(ctx context.Context, name string) (*groupInfo, error) {
	out, err := c.run.Read(ctx, lvmEnv(), c.lvm.listGroups()...)
	if err != nil {
		return nil, err
	}
	list, err := parseGroups(out)
	if err != nil {
		return nil, err
	}
	var found *groupInfo
	for i := range list {
		if list[i].name == name {
			if found != nil {
				return nil, fmt.Errorf("there are two volume groups called %s; rename one of them", name)
			}
			found = &list[i]
		}
	}
	return found, nil
}

func (c lvmReader) volumes(ctx context.Context, group string) ([]volumeInfo, error) {
	out, err := c.run.Read(ctx, lvmEnv(), c.lvm.listVolumes()...)
	if err != nil {
		return nil, err
	}
	list, err := parseVolumes(out)
	return slices.DeleteFunc(list, func(v volumeInfo) bool { return v.group != group }), err
}

// piece is a part of a logical volume that is one part of a physical volume. All but node in bytes.
type piece struct {
	node            string
	at, start, size int64 // in the volume, on the node
}

// pieces are those of every volume of a group that consists of nothing else.
func (c lvmReader) pieces(ctx context.Context, group string) (map[string][]piece, error) {
	info, err := c.group(ctx, group)
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, fmt.Errorf("LVM no longer finds the volume group %s", group)
	}
	out, err := c.run.Read(ctx, lvmEnv(), c.lvm.listPhysical()...)
	if err != nil {
		return nil, err
	}
	physical, err := parsePhysical(out)
	if err != nil {
		return nil, err
	}
	if out, err = c.run.Read(ctx, lvmEnv(), c.lvm.listSegments(group)...); err != nil {
		return nil, err
	}
	return parseSegments(out, info.extent, physical)
}

// parseSegments reads where volumes lie. A volume with a segment that is not linear has no pieces.
func parseSegments(out []byte, extent int64, physical []physicalInfo) (map[string][]piece, error) {
	rows, err := reportRows(out, "seg")
	if err != nil {
		return nil, err
	}
	all, other := map[string][]piece{}, map[string]bool{}
	for _, values := range rows {
		name := values["lv_name"]
		if values["segtype"] != "linear" {
			other[name] = true
			continue
		}
		r := row{values: values}
		p := piece{at: r.number("seg_start"), size: r.number("seg_size")}
		if r.err != nil {
			return nil, r.err
		}
		node, extents, _ := cutLast(values["seg_pe_ranges"], ":")
		first, _, _ := strings.Cut(extents, "-")
		n, err := strconv.ParseInt(first, 10, 32)
		i := slices.IndexFunc(physical, func(p physicalInfo) bool { return p.node == node })
		if err != nil || n < 0 || i < 0 || extent <= 0 || extent > 1<<32 {
			return nil, fmt.Errorf("read what LVM says: a part of the volume %s lies at %q", name, values["seg_pe_ranges"])
		}
		p.node, p.start = node, physical[i].start+n*extent
		all[name] = append(all[name], p)
	}
	for name := range other {
		delete(all, name)
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b piece) int { return cmp.Compare(a.at, b.at) })
	}
	return all, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// pieceReader reads a logical volume without the device mapper.
type pieceReader struct {
	pieces []piece
	files  map[string]*os.File
}

// openPieces is nil where there are no pieces.
func openPieces(list []piece) (*pieceReader, error) {
	if len(list) == 0 {
		return nil, nil
	}
	r := &pieceReader{list, map[string]*os.File{}}
	for _, p := range list {
		if r.files[p.node] != nil {
			continue
		}
		f, err := os.Open(p.node)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.files[p.node] = f
	}
	return r, nil
}

// Close closes the physical volumes.
func (r *pieceReader) Close() error {
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// ReadAt reads across pieces.
func (r *pieceReader) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		at := off + int64(n)
		i := slices.IndexFunc(r.pieces, func(p piece) bool { return at >= p.at && at < p.at+p.size })
		if i < 0 {
			return n, io.EOF
		}
		p := r.pieces[i]
		k := int(min(int64(len(b)-n), p.at+p.size-at))
		m, err := r.files[p.node].ReadAt(b[n:n+k], p.start+at-p.at)
		n += m
		if m < k {
			return n, err
		}
	}
	return n, nil
}
