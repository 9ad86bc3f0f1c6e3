package testvm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"imgbuild/image/layout"
)

// Storage is what an installed machine says about its disks.
type Storage struct {
	Blocks  []Block   // lsblk
	Volumes []Segment // lvs
	Arrays  []MD      // mdstat and sysfs
	Swaps   []string  // swapon: paths
	Mounts  []Mount   // findmnt
}

// Block is one block device.
type Block struct {
	Name  string `json:"name"`
	Path  string `json:"path"`
	Type  string `json:"type"` // disk, part, lvm, raid1, …
	Size  int64  `json:"size"` // bytes
	FS    string `json:"fstype"`
	Label string `json:"label"`
	UUID  string `json:"uuid"`
}

// Segment is one piece of a logical volume.
type Segment struct {
	Group, Volume string
	Size          int64  // of the volume, bytes
	Extent        int64  // of the group, bytes
	Device        string // the physical volume of its first extent; empty for thin ones
	First         int64  // its first extent there
	PEStart       int64  // where extents begin on the physical volume, bytes
	Segments      int    // how many the volume has
	Attr          string
}

// MD is one running array.
type MD struct {
	Name            string // of /dev/md/NAME
	Level           string // raid1
	Metadata        string
	Disks, Degraded int
	State           string
	SizeBytes       int64
	Members         []string
	KName           string
}

// GatherStorage asks the machine whose shell is on the console.
func GatherStorage(ctx context.Context, c *Console) (Storage, error) {
	var s Storage
	for _, q := range []struct {
		command string
		read    func(string) error
	}{
		{"lsblk -J -l -b -o NAME,PATH,TYPE,SIZE,FSTYPE,LABEL,UUID", func(out string) (err error) { s.Blocks, err = parseBlocks(out); return err }},
		{"! command -v lvs >/dev/null || lvs -a --segments --reportformat json --units b --nosuffix -o vg_name,lv_name,lv_size,vg_extent_size,seg_start_pe,devices,lv_attr",
			func(out string) (err error) { s.Volumes, err = parseSegments(out); return err }},
		{"! command -v pvs >/dev/null || pvs --reportformat json --units b --nosuffix -o pv_name,pe_start",
			func(out string) error { return addPEStarts(s.Volumes, out) }},
		{`for d in /sys/block/md*; do [ -d $d/md ] || continue; k=${d##*/}; n=$(for l in /dev/md/*; do [ "$(readlink -f $l)" = /dev/$k ] && echo ${l##*/} && break; done); ` +
			`echo $k ${n:--} $(cat $d/md/level) $(cat $d/md/metadata_version) $(cat $d/md/raid_disks) $(cat $d/md/degraded 2>/dev/null || echo 0) $(cat $d/md/array_state) $(cat $d/size) $(ls $d/slaves | tr '\n' ','); done`,
			func(out string) (err error) { s.Arrays, err = parseArrays(out); return err }},
		{"swapon --show=NAME --noheadings --raw", func(out string) error { s.Swaps = strings.Fields(out); return nil }},
		{"findmnt --real -rn -o TARGET,SOURCE,FSTYPE,OPTIONS", func(out string) (err error) { s.Mounts, err = parseMounts(out); return err }},
	} {
		out, status, err := c.Run(ctx, q.command)
		if err != nil {
			return s, fmt.Errorf("ask the machine for its disks: %w", err)
		}
		if status != 0 {
			return s, fmt.Errorf("ask the machine for its disks: %s ended with status %d: %s", q.command, status, lastLine(out))
		}
		if err := q.read(out); err != nil {
			return s, fmt.Errorf("ask the machine for its disks: read the output of %s: %w", q.command, err)
		}
	}
	return s, nil
}

func parseBlocks(out string) ([]Block, error) {
	var v struct {
		Devices []Block `json:"blockdevices"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return nil, err
	}
	return v.Devices, nil
}

// parseSegments reads lvs --reportformat json. Nothing at all is what a machine without LVM says.
func parseSegments(out string) ([]Segment, error) {
	if strings.TrimSpace(out) == "" {
		return nil, nil
	}
	var v struct {
		Report []struct {
			LV  []map[string]string `json:"lv"`
			Seg []map[string]string `json:"seg"`
		} `json:"report"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return nil, err
	}
	var all []Segment
	for _, r := range v.Report {
		for _, l := range append(r.LV, r.Seg...) {
			s := Segment{Group: l["vg_name"], Volume: strings.Trim(l["lv_name"], "[]"), Attr: l["lv_attr"], Segments: 1}
			for _, n := range []struct {
				to  *int64
				key string
			}{{&s.Size, "lv_size"}, {&s.Extent, "vg_extent_size"}} {
				var err error
				if *n.to, err = strconv.ParseInt(l[n.key], 10, 64); err != nil {
					return nil, fmt.Errorf("%s of %s: %w", n.key, s.Volume, err)
				}
			}
			if dev, rest, ok := strings.Cut(l["devices"], "("); ok && strings.HasPrefix(dev, "/") {
				s.Device = dev
				s.First, _ = strconv.ParseInt(strings.TrimRight(rest, ")"), 10, 64) // several devices have no one beginning
			}
			if i := slices.IndexFunc(all, func(o Segment) bool { return o.Group == s.Group && o.Volume == s.Volume }); i >= 0 {
				all[i].Segments++
				continue
			}
			all = append(all, s)
		}
	}
	return all, nil
}

func addPEStarts(list []Segment, out string) error {
	if strings.TrimSpace(out) == "" {
		return nil
	}
	var v struct {
		Report []struct {
			PV []map[string]string `json:"pv"`
		} `json:"report"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return err
	}
	for _, r := range v.Report {
		for _, pv := range r.PV {
			start, err := strconv.ParseInt(pv["pe_start"], 10, 64)
			if err != nil {
				return fmt.Errorf("pe_start of %s: %w", pv["pv_name"], err)
			}
			for i := range list {
				if list[i].Device == pv["pv_name"] {
					list[i].PEStart = start
				}
			}
		}
	}
	return nil
}

// parseArrays reads a line for each array: kernel name, name, level, metadata, members, how many are missing, state, sectors,
// members' names.
func parseArrays(out string) ([]MD, error) {
	var all []MD
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 9 {
			return nil, fmt.Errorf("line %q has %d fields and not 9", strings.TrimSpace(line), len(f))
		}
		a := MD{KName: f[0], Name: f[1], Level: f[2], Metadata: f[3], State: f[6], Members: strings.Split(strings.Trim(f[8], ","), ",")}
		var err error
		if a.Disks, err = strconv.Atoi(f[4]); err != nil {
			return nil, fmt.Errorf("members of %s: %w", a.Name, err)
		}
		if a.Degraded, err = strconv.Atoi(f[5]); err != nil {
			return nil, fmt.Errorf("missing members of %s: %w", a.Name, err)
		}
		sectors, err := strconv.ParseInt(f[7], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("size of %s: %w", a.Name, err)
		}
		a.SizeBytes = sectors * 512
		all = append(all, a)
	}
	return all, nil
}

// block finds a device by a path that mounts or swaps use.
func (s Storage) block(path string) (Block, bool) {
	for _, b := range s.Blocks {
		if b.Path == path || "/dev/"+b.Name == path {
			return b, true
		}
	}
	return Block{}, false
}

// Problems returns what is not as the scheme declares: one sentence each. missing is how many disks were taken away.
func (s Storage) Problems(want *layout.Scheme, missing int) []string {
	var p []string
	bad := func(format string, a ...any) { p = append(p, fmt.Sprintf(format, a...)) }
	swaps := 0
	for _, f := range want.Filesystems() {
		if f.FS == "swap" {
			swaps++
			continue
		}
		if f.Mount == "" || f.Data && missing > 0 {
			continue
		}
		i := slices.IndexFunc(s.Mounts, func(m Mount) bool { return m.Target == f.Mount })
		if i < 0 {
			bad("%s is not mounted", f.Mount)
			continue
		}
		m := s.Mounts[i]
		if m.FSType != f.FS {
			bad("%s is %s and not %s", f.Mount, m.FSType, f.FS)
		}
		for _, o := range strings.Split(f.Options, ",") {
			if slices.Contains([]string{"nodev", "nosuid", "noexec", "ro", "noatime"}, o) && !slices.Contains(strings.Split(m.Options, ","), o) {
				bad("%s is mounted with %s and not with %s", f.Mount, m.Options, o)
			}
		}
		b, ok := s.block(m.Source)
		if !ok {
			bad("lsblk does not know %s, which is mounted at %s", m.Source, f.Mount)
			continue
		}
		if b.Label != f.Label {
			bad("the file system at %s has the label %q and not %q", f.Mount, b.Label, f.Label)
		}
		if !about(b.Size, f.Size) {
			bad("%s at %s has %d bytes and not %d", b.Path, f.Mount, b.Size, f.Size)
		}
	}
	if len(s.Swaps) != swaps {
		bad("%d swap spaces are in use and not %d: %v", len(s.Swaps), swaps, s.Swaps)
	}
	for _, a := range want.Arrays {
		i := slices.IndexFunc(s.Arrays, func(m MD) bool { return m.Name == a.Name })
		if i < 0 {
			bad("the array %s does not run; there are %+v", a.Name, s.Arrays)
			continue
		}
		got := s.Arrays[i]
		// A new RAID 5 counts as degraded until its parity has been written, so that its members are counted.
		if got.Level != "raid"+strconv.Itoa(a.Level) || got.Disks != len(a.Members)-a.Spares || len(got.Members) != len(a.Members)-missing || !about(got.SizeBytes, a.Size) {
			bad("the array %s is %+v and not RAID %d of %d with %d missing and %d bytes", a.Name, got, a.Level, len(a.Members), missing, a.Size)
		}
		if a.Metadata != "" && got.Metadata != a.Metadata {
			bad("the array %s has metadata %s and not %s", a.Name, got.Metadata, a.Metadata)
		}
	}
	for _, g := range want.Groups {
		for _, v := range g.Volumes {
			i := slices.IndexFunc(s.Volumes, func(x Segment) bool { return x.Group == g.Name && x.Volume == v.Name })
			if i < 0 {
				bad("there is no volume %s/%s", g.Name, v.Name)
			} else if !about(s.Volumes[i].Size, v.Size) {
				bad("the volume %s/%s has %d bytes and not %d", g.Name, v.Name, s.Volumes[i].Size, v.Size)
			}
		}
	}
	return p
}

// about allows for what the real metadata takes: one percent.
func about(got, want int64) bool {
	d := got - want
	return d <= want/100 && -d <= want/100
}
