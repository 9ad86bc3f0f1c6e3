package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// There is no udev in the initramfs, but people know disks by its names. These are its rules (systemd,
// src/udev/udev-builtin-path_id.c and rules.d/60-persistent-storage.rules) for the kinds of disks that servers have.

var (
	pciRE  = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$`)
	ataRE  = regexp.MustCompile(`^ata(\d+)$`)
	hostRE = regexp.MustCompile(`^host(\d+)$`)
	scsiRE = regexp.MustCompile(`^(\d+):(\d+):(\d+):(\d+)$`)
	nvmeRE = regexp.MustCompile(`^nvme\d+(c\d+)?n(\d+)$`)
	usbRE  = regexp.MustCompile(`^\d+-[\d.]+:(\d+\.\d+)$`)
)

// byPath gives the by-path names of the disk at rel below sys, e.g. pci-0000:00:1f.2-ata-1.
func byPath(sys, rel string) []string {
	elems := strings.Split(filepath.ToSlash(rel), "/")
	var pci, tail, ata, hostDir, usb string
	virtio, sas := false, false
	for i, e := range elems {
		dir := filepath.Join(sys, filepath.Join(elems[:i+1]...))
		switch {
		case pciRE.MatchString(e):
			pci = "pci-" + e
		case strings.HasPrefix(e, "virtio"):
			virtio = true
		case strings.HasPrefix(e, "end_device-"):
			sas = true
		case ataRE.MatchString(e):
			ata = attrs{filepath.Join(dir, "ata_port", e)}.text("port_no")
			if ata == "" {
				ata = ataRE.FindStringSubmatch(e)[1]
			}
		case hostRE.MatchString(e):
			hostDir = dir
		case usbRE.MatchString(e):
			// 1-1.2:1.0 is written 1.2:1.0 behind the bus.
			_, port, _ := strings.Cut(e, "-")
			usb = "usb-0:" + port
		case nvmeRE.MatchString(e) && i == len(elems)-1:
			nsid := attrs{dir}.text("nsid")
			if nsid == "" {
				nsid = nvmeRE.FindStringSubmatch(e)[2]
			}
			tail = "nvme-" + nsid
		case scsiRE.MatchString(e):
			m := scsiRE.FindStringSubmatch(e)
			switch {
			case ata != "":
				tail = "ata-" + ata
				if m[3] != "0" {
					return nil // behind a port multiplier
				}
			case sas:
				return nil // named by the expander's phy, which takes more than the path to know
			default:
				tail = fmt.Sprintf("scsi-%d:%s:%s:%s", hostIndex(hostDir), m[2], m[3], m[4])
			}
		}
	}
	if pci == "" {
		return nil
	}
	parts := []string{pci}
	if usb != "" {
		parts = append(parts, usb)
	}
	if tail != "" {
		parts = append(parts, tail)
	}
	names := []string{strings.Join(parts, "-")}
	if virtio {
		names = append(names, "virtio-"+names[0])
	}
	if ata != "" {
		names = append(names, names[0]+".0") // newer udev adds the device behind the port
	}
	return names
}

// hostIndex renumbers a SCSI host among those of its controller, as the kernel's own number depends on load order.
func hostIndex(dir string) int {
	own, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "host"))
	if err != nil {
		return 0
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return 0
	}
	first := own
	for _, e := range entries {
		if m := hostRE.FindStringSubmatch(e.Name()); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil {
				first = min(first, n)
			}
		}
	}
	return own - first
}

// byID gives the by-id names of a disk, e.g. ata-MODEL_SERIAL and wwn-0x5000….
func byID(d Disk, model string) []string {
	enc := func(s string) string { return strings.ReplaceAll(s, " ", "_") }
	var out []string
	switch {
	case d.Serial == "":
	case d.Transport == "virtio" && model == "":
		out = append(out, "virtio-"+enc(d.Serial))
	case d.Transport == "nvme":
		out = append(out, "nvme-"+enc(model)+"_"+enc(d.Serial))
	case d.Transport == "sata":
		out = append(out, "ata-"+enc(model)+"_"+enc(d.Serial))
	case d.Transport == "mmc":
		out = append(out, "mmc-"+enc(model)+"_"+enc(d.Serial))
	}
	switch {
	case strings.HasPrefix(d.WWN, "naa."):
		id := strings.TrimPrefix(d.WWN, "naa.")
		out = append(out, "wwn-0x"+id, "scsi-3"+id)
	case d.Transport == "nvme" && d.WWN != "":
		out = append(out, "nvme-"+d.WWN)
	}
	return out
}
