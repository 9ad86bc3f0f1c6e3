package storage

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"imgbuild/image/layout"
)

// lvmConfig keeps LVM on the devices that are ours, whatever else the machine has, and from waiting for a udev that is not
// there. Versions warn of settings that they do not know, and ignore them.
func lvmConfig(devices []string) string {
	var filter strings.Builder
	for _, d := range devices {
		fmt.Fprintf(&filter, `"a|^%s$|",`, regexpQuote(d))
	}
	list := "[" + filter.String() + `"r|.*|"]`
	return "activation{udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0} " +
		"devices{use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source=\"none\" " +
		"multipath_component_detection=0 filter=" + list + " global_filter=" + list + "} " +
		"backup{backup=0 archive=0} " +
		"global{use_lvmetad=0 use_lvmlockd=0 use_lvmpolld=0 thin_check_executable=\"\"}"
}

// regexpQuote makes a device's path match itself only, in LVM's regular expressions.
func regexpQuote(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune(`\.[](){}*+?|^$"`, r) {
			b.WriteByte('\\')
			if r == '\\' || r == '"' {
				b.WriteByte('\\') // once more, as the text of the configuration is unquoted first
			}
		}
		b.WriteRune(r)
	}
	return b.String()
}

// lvmEnv keeps LVM from complaining of files that it did not open.
func lvmEnv() []string { return []string{"LVM_SUPPRESS_FD_WARNINGS=1"} }

// lvm makes argument vectors of LVM commands that see nothing but some devices.
type lvm struct{ config string }

func (l lvm) command(name string, args ...string) []string {
	return append([]string{"lvm", name, "--config", l.config}, args...)
}

// createPhysical makes a physical volume of a device, whatever was on it.
func (l lvm) createPhysical(node string) []string {
	return l.command("pvcreate", "-ff", "-y", "-Z", "y", node)
}

func (l lvm) createGroup(g layout.SchemeGroup, nodes []string) []string {
	return l.command("vgcreate", append([]string{"-y", "-Z", "y", "-s", strconv.FormatInt(g.Extent, 10) + "b", g.Name}, nodes...)...)
}

// createVolume makes a logical volume of a number of extents. Old signatures in it are wiped.
func (l lvm) createVolume(group string, v layout.SchemeVolume, extents int64) []string {
	size := []string{"-l", strconv.FormatInt(extents, 10)}
	switch {
	case v.Pool:
		argv := []string{"-y", "--type", "thin-pool", "-n", v.Name}
		if v.Metadata > 0 {
			argv = append(argv, "--poolmetadatasize", strconv.FormatInt(v.Metadata, 10)+"b")
		}
		return l.command("lvcreate", append(argv, append(size, group)...)...)
	case v.Thin != "":
		return l.command("lvcreate", "-y", "--type", "thin", "-n", v.Name, "-V", strconv.FormatInt(v.Size, 10)+"b", "--thinpool", v.Thin, group)
	}
	return l.command("lvcreate", append([]string{"-y", "-W", "y", "-Z", "y", "-n", v.Name}, append(size, group)...)...)
}

func (l lvm) removeVolume(group, name string) []string {
	return l.command("lvremove", "-ff", "-y", group+"/"+name)
}

// activate and deactivate are for all volumes of a group. makeNodes makes their device nodes where udev does not.
func (l lvm) activate(group string) []string   { return l.command("vgchange", "-a", "y", "-K", group) }
func (l lvm) deactivate(group string) []string { return l.command("vgchange", "-a", "n", group) }
func (l lvm) makeNodes(group string) []string  { return l.command("vgmknodes", group) }

func (l lvm) listGroups() []string {
	return l.command("vgs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "vg_name,vg_extent_size,vg_free_count,vg_missing_pv_count")
}

func (l lvm) listVolumes() []string {
	return l.command("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "vg_name,lv_name,lv_size,segtype,pool_lv")
}

func (l lvm) listPhysical() []string {
	return l.command("pvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "pv_name,vg_name,pe_start")
}

func (l lvm) listSegments(group string) []string {
	return l.command("lvs", "--segments", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "lv_name,segtype,seg_start,seg_size,seg_pe_ranges", group)
}

// groupInfo is a volume group as vgs tells of it. Sizes are in bytes.
type groupInfo struct {
	name         string
	extent, free int64 // bytes, extents
	missing      int64 // physical volumes that are not there
}

// volumeInfo is a logical volume as lvs tells of it.
type volumeInfo struct {
	group, name string
	size        int64  // bytes
	pool        bool   // it is a thin pool
	thin        string // the pool that it is in
}

// physicalInfo is a physical volume as pvs tells of it.
type physicalInfo struct {
	node, group string
	start       int64 // of the first extent, bytes
}

// reportRows reads what all of LVM's reports look like (lvmreport(7)): rows in which every value is a text.
func reportRows(out []byte, what string) ([]map[string]string, error) {
	var r struct {
		Report []map[string][]map[string]string `json:"report"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("read what LVM says of its %ss: %w", what, err)
	}
	var rows []map[string]string
	for _, part := range r.Report {
		rows = append(rows, part[what]...)
	}
	return rows, nil
}

// row reads the values of one row and remembers the first that is no number.
type row struct {
	values map[string]string
	err    error
}

func (r *row) number(key string) int64 {
	n, err := strconv.ParseInt(r.values[key], 10, 64)
	if (err != nil || n < 0) && r.err == nil {
		r.err = fmt.Errorf("read what LVM says: %s is %q", key, r.values[key])
	}
	return n
}

func parseGroups(out []byte) ([]groupInfo, error) {
	rows, err := reportRows(out, "vg")
	var list []groupInfo
	for _, values := range rows {
		r := row{values: values}
		list = append(list, groupInfo{values["vg_name"], r.number("vg_extent_size"), r.number("vg_free_count"), r.number("vg_missing_pv_count")})
		if r.err != nil {
			return nil, r.err
		}
	}
	return list, err
}

func parseVolumes(out []byte) ([]volumeInfo, error) {
	rows, err := reportRows(out, "lv")
	var list []volumeInfo
	for _, values := range rows {
		r := row{values: values}
		v := volumeInfo{group: values["vg_name"], name: values["lv_name"], size: r.number("lv_size"),
			pool: values["segtype"] == "thin-pool"}
		if values["segtype"] == "thin" {
			v.thin = values["pool_lv"]
		}
		if r.err != nil {
			return nil, r.err
		}
		list = append(list, v)
	}
	return list, err
}

func parsePhysical(out []byte) ([]physicalInfo, error) {
	rows, err := reportRows(out, "pv")
	var list []physicalInfo
	for _, values := range rows {
		r := row{values: values}
		list = append(list, physicalInfo{values["pv_name"], values["vg_name"], r.number("pe_start")})
		if r.err != nil {
			return nil, r.err
		}
	}
	return list, err
}
