package storage

import (
	"fmt"
	"strconv"
	"strings"

	"imgbuild/image/layout"
)

// bitmapMin is the size in bytes from which on an array gets a write-intent bitmap. Smaller ones are read through sooner than the
// bitmap is worth, and firmware and boot loaders that write to a member do not know of it.
const bitmapMin = 8 << 30

// noUdev makes mdadm make its device nodes itself.
func noUdev() []string { return []string{"MDADM_NO_UDEV=1"} }

// mdNode is an array's device.
func mdNode(name string) string { return "/dev/md/" + name }

// createArray is the mdadm command that makes an array of members, in their order; spares are the last ones. The host any in
// its name keeps an array from being called foreign in the installed system, whose name nobody knows yet.
func createArray(a layout.SchemeArray, id string, members []string) []string {
	argv := []string{"mdadm", "--create", mdNode(a.Name), "--run", "--homehost=any", "--name=" + a.Name, "--uuid=" + id,
		"--metadata=" + metadata(a), "--level=" + strconv.Itoa(a.Level), "--raid-devices=" + strconv.Itoa(len(members)-a.Spares)}
	if a.Spares > 0 {
		argv = append(argv, "--spare-devices="+strconv.Itoa(a.Spares))
	}
	if a.Chunk != "" && a.Level != 1 {
		// mdadm's K and M are powers of 1024.
		argv = append(argv, "--chunk="+strings.TrimSuffix(string(a.Chunk), "iB"))
	}
	if a.Level != 0 {
		bitmap := "none"
		if a.Size >= bitmapMin && a.FS != "swap" {
			bitmap = "internal"
		}
		argv = append(argv, "--bitmap="+bitmap)
	}
	return append(argv, members...)
}

func metadata(a layout.SchemeArray) string {
	if a.Metadata == "" {
		return "1.2"
	}
	return a.Metadata
}

// assembleArray starts an array that is kept. readOnly keeps it from writing anything, not even to its superblocks.
func assembleArray(name, id string, readOnly bool, members []string) []string {
	argv := []string{"mdadm", "--assemble", mdNode(name), "--run", "--uuid=" + id}
	if readOnly {
		argv = append(argv, "--readonly")
	}
	return append(argv, members...)
}

func endArray(name string) []string { return []string{"mdadm", "--stop", mdNode(name)} }

func examineMember(node string) []string { return []string{"mdadm", "--examine", "--export", node} }

// member is what mdadm --examine --export says of one: its array's name, without a host's, and UUID, and how many members
// besides spares the array has.
type member struct {
	array, uuid string
	devices     int
}

// parseMember reads the output of mdadm --examine --export: lines of KEY=value.
func parseMember(out []byte) (member, error) {
	var m member
	for line := range strings.Lines(string(out)) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
		case "MD_UUID":
			m.uuid = value
		case "MD_DEVICES":
			m.devices, _ = strconv.Atoi(value)
		case "MD_NAME":
			m.array = value
			if _, name, ok := strings.Cut(value, ":"); ok {
				m.array = name
			}
		}
	}
	if m.array == "" || m.uuid == "" || m.devices < 1 {
		return member{}, fmt.Errorf("read what mdadm says of a member: there is no name, no UUID or no number of members in %.200q", out)
	}
	return m, nil
}
