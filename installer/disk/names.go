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
	pciRE     = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$`)
	pciRootRE = regexp.MustCompile(`^pci[0-9a-f]{4,8}:[0-9a-f]{2}$`)
	ataRE     = regexp.MustCompile(`^ata(\d+)$`)
	hostRE    = regexp.MustCompile(`^host(\d+)$`)
	scsiRE    = regexp.MustCompile(`^(\d+):(\d+):(\d+):(\d+)$`)
	nvmeRE    = regexp.MustCompile(`^nvme(\d+)(c\d+)?n(\d+)$`)
	usbRE     = regexp.MustCompile(`^\d+-[\d.]+:(\d+\.\d+)$`)
)

// place is what a disk's path in the device tree says, from the root on.
type place struct {
	sys   string
	elems []string
	roots []string // pci-…, platform-…
	usb   string
	// directories on the way
	ata, host, target, end, session string
	virtio                          bool
}

func (p *place) dir(i int) string { return filepath.Join(p.sys, filepath.Join(p.elems[:i+1]...)) }

// byPath gives the by-path names of the disk at rel below sys, e.g. pci-0000:00:1f.2-ata-1.
func byPath(sys, rel string) []string {
	p := &place{sys: sys, elems: strings.Split(filepath.ToSlash(rel), "/")}
	if last := p.elems[len(p.elems)-1]; strings.Contains(rel, "/nvme-subsystem/") && nvmeRE.MatchString(last) {
		// With NVMe multipath a namespace lies below no controller. Its name is that of the controller of the same number.
		real, err := filepath.EvalSymlinks(filepath.Join(sys, "class/nvme", "nvme"+nvmeRE.FindStringSubmatch(last)[1]))
		if err != nil {
			return nil
		}
		if rel, err = filepath.Rel(sys, real); err != nil {
			return nil
		}
		p.elems = append(strings.Split(filepath.ToSlash(rel), "/"), last)
		return p.names(attrs{filepath.Join(sys, "block", last)}.text("nsid"))
	}
	return p.names(attrs{filepath.Join(sys, rel)}.text("nsid"))
}

func (p *place) names(nsid string) []string {
	pciEnd := false // the elements so far end in PCI devices
	for i, e := range p.elems {
		isPCI := pciRE.MatchString(e)
		switch {
		case isPCI && pciEnd: // a bridge stood before it
			p.roots[len(p.roots)-1] = "pci-" + e
		case isPCI:
			p.roots = append(p.roots, "pci-"+e)
		case pciRootRE.MatchString(e): // behind a controller of its own domain, as Intel's VMD
		case strings.HasPrefix(e, "virtio"):
			p.virtio = true
		case strings.HasPrefix(e, "end_device-"):
			p.end = p.dir(i)
		case strings.HasPrefix(e, "session"):
			p.session = p.dir(i)
		case strings.HasPrefix(e, "target"):
			p.target = p.dir(i)
		case ataRE.MatchString(e):
			p.ata = p.dir(i)
		case hostRE.MatchString(e):
			p.host = p.dir(i)
		case usbRE.MatchString(e):
			// 1-1.2:1.0 is written 1.2:1.0 behind the bus.
			_, port, _ := strings.Cut(e, "-")
			p.usb = "usb-0:" + port
		case p.platform(i):
			if n := len(p.roots); n > 0 && strings.HasPrefix(p.roots[n-1], "platform-") {
				p.roots = p.roots[:n-1]
			}
			p.roots = append(p.roots, "platform-"+e)
		}
		pciEnd = isPCI
	}
	tails, ok := p.tails(nsid)
	if !ok || len(p.roots) == 0 && !strings.HasPrefix(tails[0], "ip-") {
		return nil
	}
	parts := p.roots
	if p.usb != "" {
		parts = append(parts, p.usb)
	}
	var names []string
	for _, t := range tails {
		if t == "" {
			names = append(names, strings.Join(parts, "-"))
			continue
		}
		names = append(names, strings.Join(append(parts[:len(parts):len(parts)], t), "-"))
	}
	if p.virtio {
		names = append(names, "virtio-"+names[0])
	}
	return names
}

// platform reports whether the element is a device of the platform bus.
func (p *place) platform(i int) bool {
	link, err := os.Readlink(filepath.Join(p.dir(i), "subsystem"))
	return err == nil && filepath.Base(link) == "platform"
}

// tails are what follows the controller: one, or another that newer udev has beside it.
func (p *place) tails(nsid string) ([]string, bool) {
	last := p.elems[len(p.elems)-1]
	if m := nvmeRE.FindStringSubmatch(last); m != nil {
		if nsid == "" {
			nsid = m[3]
		}
		return []string{"nvme-" + nsid}, true
	}
	var m []string
	for _, e := range p.elems {
		if s := scsiRE.FindStringSubmatch(e); s != nil {
			m = s
		}
	}
	if m == nil {
		return []string{""}, true
	}
	var t string
	switch {
	case strings.Contains(p.target, "/rport-"):
		port := attrs{filepath.Join(p.target, "fc_transport", filepath.Base(p.target))}.text("port_name")
		if port == "" {
			return nil, false
		}
		t = "fc-" + port + "-" + lun(m[4])
	case p.end != "":
		return p.sas(m[4])
	case p.session != "":
		return p.iscsi(m[4])
	case p.ata != "":
		base := filepath.Base(p.ata)
		port := attrs{filepath.Join(p.ata, "ata_port", base)}.text("port_no")
		if port == "" {
			port = strings.TrimPrefix(base, "ata")
		}
		switch {
		case m[2] != "0": // behind a port multiplier
			return []string{"ata-" + port + "." + m[2] + ".0"}, true
		case m[3] != "0": // the slave of a parallel port
			return []string{"ata-" + port + "." + m[3]}, true
		}
		return []string{"ata-" + port, "ata-" + port + ".0"}, true
	default:
		t = fmt.Sprintf("scsi-%d:%s:%s:%s", hostIndex(p.host), m[2], m[3], m[4])
	}
	return []string{t}, true
}

// lun writes a logical unit's number as udev does.
func lun(s string) string {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < 256 {
		return "lun-" + s
	}
	return fmt.Sprintf("lun-0x%04x%04x00000000", n&0xffff, n>>16&0xffff)
}

// sas names a disk by the phy that it hangs on, at the controller or an expander; one on a wide port by its own address.
func (p *place) sas(unit string) ([]string, bool) {
	device := func(dir string) attrs { return attrs{filepath.Join(dir, "sas_device", filepath.Base(dir))} }
	port := filepath.Dir(p.end)
	phys := attrs{filepath.Join(port, "sas_port", filepath.Base(port))}.text("num_phys")
	own := device(p.end)
	if phys != "1" {
		address := own.text("sas_address")
		return []string{"sas-" + address + "-" + lun(unit)}, phys != "" && address != ""
	}
	phy := own.text("phy_identifier")
	if phy == "" {
		return nil, false
	}
	if expander := device(filepath.Dir(port)).text("sas_address"); expander != "" {
		return []string{"sas-exp" + expander + "-phy" + phy + "-" + lun(unit)}, true
	}
	return []string{"sas-phy" + phy + "-" + lun(unit)}, true
}

func (p *place) iscsi(unit string) ([]string, bool) {
	base := filepath.Base(p.session)
	target := attrs{filepath.Join(p.session, "iscsi_session", base)}.text("targetname")
	conn := "connection" + strings.TrimPrefix(base, "session") + ":0"
	a := attrs{filepath.Join(p.session, conn, "iscsi_connection", conn)}
	address, port := a.text("persistent_address"), a.text("persistent_port")
	return []string{"ip-" + address + ":" + port + "-iscsi-" + target + "-" + lun(unit)}, target != "" && address != "" && port != ""
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
func byID(d Disk, vendor, model, nsid string) []string {
	enc := func(s string) string { return strings.ReplaceAll(s, " ", "_") }
	var out []string
	switch {
	case d.Serial == "":
	case d.Transport == "virtio" && model == "":
		out = append(out, "virtio-"+enc(d.Serial))
	case d.Transport == "nvme":
		name := "nvme-" + enc(model) + "_" + enc(d.Serial)
		out = append(out, name)
		if nsid != "" {
			out = append(out, name+"_"+nsid)
		}
	case d.Transport == "sata":
		out = append(out, "ata-"+enc(model)+"_"+enc(d.Serial))
	case d.Transport == "mmc":
		out = append(out, "mmc-"+enc(model)+"_"+enc(d.Serial))
	case d.Transport == "usb":
		_, unit, _ := strings.Cut(d.HCTL, ":")
		if f := strings.Split(unit, ":"); len(f) == 3 {
			unit = f[1] + ":" + f[2]
		}
		out = append(out, strings.Join([]string{"usb-" + enc(vendor), enc(model), enc(d.Serial)}, "_")+"-"+unit)
	}
	switch {
	case strings.HasPrefix(d.WWN, "naa."):
		id := strings.TrimPrefix(d.WWN, "naa.")
		out = append(out, "wwn-0x"+id, "scsi-3"+id)
	case d.Transport == "nvme" && d.WWN != "":
		out = append(out, "nvme-"+d.WWN)
	case strings.HasPrefix(d.WWN, "eui."):
		id := strings.TrimPrefix(d.WWN, "eui.")
		out = append(out, "wwn-0x"+id, "scsi-2"+id)
	}
	return out
}
