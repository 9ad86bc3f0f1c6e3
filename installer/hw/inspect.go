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

	"imgbuild/image/identity"
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
	m.CPUModel = cpuModel(filepath.Join(proc, "cpuinfo"))
	m.SecureBoot = m.Firmware == UEFI && secureBoot(sys)
	d := dmi(sys)
	m.Vendor, m.Product, m.UUID, m.BMC = d.vendor, d.product, identity.UUID(d.uuid), d.bmc
	m.Serial, m.SerialSource, m.SerialProblem = d.identify()
	m.NICs, err = nics(sys)
	return m, err
}

// attribute reads a one-line file of sysfs or procfs; "" if it is not there.
func attribute(root, path string) string {
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "?"))
}

// cpuModel is the first processor's name; on arm64 the kernel gives none.
func cpuModel(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.Join(strings.Fields(strings.ToValidUTF8(value, "?")), " ")
		}
	}
	return ""
}

// secureBoot reads the variable SecureBoot of EFI_GLOBAL_VARIABLE (UEFI 2.10, 3.3): four bytes of attributes, then 1.
func secureBoot(sys string) bool {
	b, err := os.ReadFile(filepath.Join(sys, "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
	return err == nil && len(b) == 5 && b[4] == 1
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

// NICs lists the network interfaces again: links have come up since the machine was inspected.
func NICs() ([]NIC, error) { return nics("/sys") }

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
