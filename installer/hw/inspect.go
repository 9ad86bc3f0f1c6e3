package hw

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/u-root/u-root/pkg/smbios"
)

// Inspect looks at this machine. What cannot be read is left empty; only missing memory figures are an error.
func Inspect() (Machine, error) { return inspect("/sys", "/proc") }

func inspect(sys, proc string) (Machine, error) {
	m := Machine{Firmware: BIOS, CPUs: runtime.NumCPU()}
	if _, err := os.Stat(filepath.Join(sys, "firmware/efi")); err == nil {
		m.Firmware = UEFI
	}
	var err error
	if m.MemoryBytes, err = memory(filepath.Join(proc, "meminfo")); err != nil {
		return m, err
	}
	m.Kernel = attribute(proc, "sys/kernel/osrelease")
	d := dmi(sys)
	m.Vendor, m.Product = d.vendor, d.product
	if m.SerialProblem = junkSerial(d.serial); m.SerialProblem == "" {
		m.Serial = strings.TrimSpace(d.serial)
	}
	if id := strings.ToLower(strings.TrimSpace(d.uuid)); junkUUID(id) == "" {
		m.UUID = id
	}
	m.NICs, err = nics(sys)
	return m, err
}

type identity struct{ vendor, product, serial, uuid string }

// dmi reads SMBIOS type 1: from the tables themselves where the kernel shows them, else from what dmi-id makes of them
// (on some arm64 machines there is only that).
func dmi(sys string) identity {
	id := identity{
		vendor: attribute(sys, "class/dmi/id/sys_vendor"), product: attribute(sys, "class/dmi/id/product_name"),
		serial: attribute(sys, "class/dmi/id/product_serial"), uuid: attribute(sys, "class/dmi/id/product_uuid"),
	}
	entry, err1 := os.ReadFile(filepath.Join(sys, "firmware/dmi/tables/smbios_entry_point"))
	tables, err2 := os.ReadFile(filepath.Join(sys, "firmware/dmi/tables/DMI"))
	if err1 != nil || err2 != nil {
		return id
	}
	info, err := smbios.ParseInfo(entry, tables)
	if err != nil {
		return id
	}
	si, err := info.GetSystemInfo()
	if err != nil {
		return id
	}
	fill := func(field *string, value string) {
		if *field == "" && value != "Not Specified" {
			*field = strings.TrimSpace(value)
		}
	}
	fill(&id.vendor, si.Manufacturer)
	fill(&id.product, si.ProductName)
	fill(&id.serial, si.SerialNumber)
	fill(&id.uuid, si.UUID.String())
	return id
}

// attribute reads a one-line file of sysfs or procfs; "" if it is not there.
func attribute(root, path string) string {
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "?"))
}

// memory reads MemTotal of /proc/meminfo, in bytes.
func memory(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("find out how much memory there is: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err == nil && n > 0 && n < 1<<50 {
				return n << 10, nil
			}
		}
	}
	return 0, fmt.Errorf("find out how much memory there is: %s does not say MemTotal", path)
}

// nics lists the interfaces that are devices: no loopback, bridge, bond or VLAN.
func nics(sys string) ([]NIC, error) {
	dir := filepath.Join(sys, "class/net")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var found []NIC
	for _, e := range entries {
		base := filepath.Join(dir, e.Name())
		device, err := filepath.EvalSymlinks(filepath.Join(base, "device"))
		if err != nil || attribute(base, "type") != "1" { // ARPHRD_ETHER
			continue
		}
		n := NIC{Name: e.Name(), Bus: filepath.Base(device), Carrier: attribute(base, "carrier") == "1"}
		// A virtio interface hangs off its virtio device; the address that people know is the PCI device's above.
		if strings.HasPrefix(n.Bus, "virtio") {
			n.Bus = filepath.Base(filepath.Dir(device))
		}
		if n.MAC, err = net.ParseMAC(attribute(base, "address")); err != nil {
			continue
		}
		if driver, err := filepath.EvalSymlinks(filepath.Join(base, "device/driver")); err == nil {
			n.Driver = filepath.Base(driver)
		}
		if speed, err := strconv.Atoi(attribute(base, "speed")); err == nil && speed > 0 {
			n.SpeedMbit = speed
		}
		found = append(found, n)
	}
	slices.SortFunc(found, func(a, b NIC) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}
