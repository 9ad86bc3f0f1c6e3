package hw

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/smbios"

	"imgbuild/image/identity"
)

// firmware is what SMBIOS says.
type firmware struct {
	vendor, product, uuid  string
	system, chassis, board string // serial numbers
	sharedChassis          bool   // the chassis has several machines in it
	bmc                    bool
}

// Chassis types (DSP0134, 7.4.1) whose serial number is that of all machines in it.
const (
	multiSystemChassis = 0x19
	bladeEnclosure     = 0x1d
)

// dmi reads SMBIOS types 1, 2, 3 and 38: from what the kernel's dmi-id makes of them, and from the tables themselves where
// that says nothing.
func dmi(sys string) firmware {
	id := func(name string) string { return attribute(sys, "class/dmi/id/"+name) }
	f := firmware{
		vendor: id("sys_vendor"), product: id("product_name"), uuid: id("product_uuid"),
		system: id("product_serial"), chassis: id("chassis_serial"), board: id("board_serial"),
		sharedChassis: shared(id("chassis_type")),
	}
	bmcs, _ := filepath.Glob(filepath.Join(sys, "bus/acpi/devices/IPI0001:*"))
	f.bmc = len(bmcs) > 0
	entry, err1 := os.ReadFile(filepath.Join(sys, "firmware/dmi/tables/smbios_entry_point"))
	tables, err2 := os.ReadFile(filepath.Join(sys, "firmware/dmi/tables/DMI"))
	if err1 != nil || err2 != nil {
		return f
	}
	if info, err := smbios.ParseInfo(entry, tables); err == nil {
		f.fill(info)
	}
	return f
}

func shared(chassisType string) bool {
	return chassisType == fmt.Sprint(multiSystemChassis) || chassisType == fmt.Sprint(bladeEnclosure)
}

// fill takes from the tables what is not known yet. A structure that cannot be read says nothing.
func (f *firmware) fill(info *smbios.Info) {
	set := func(field *string, value string) {
		if *field == "" && value != "Not Specified" { // what u-root writes for a string that is not there
			*field = strings.TrimSpace(strings.ToValidUTF8(value, "?"))
		}
	}
	if si, err := info.GetSystemInfo(); err == nil {
		set(&f.vendor, si.Manufacturer)
		set(&f.product, si.ProductName)
		set(&f.system, si.SerialNumber)
		set(&f.uuid, si.UUID.String())
	}
	// With several chassis or boards nobody can say which is the machine's: the first is what dmi-id takes.
	if ci, err := info.GetChassisInfo(); err == nil && len(ci) > 0 {
		set(&f.chassis, ci[0].SerialNumber)
		f.sharedChassis = f.sharedChassis || shared(fmt.Sprint(int(ci[0].Type&0x7f)))
	}
	if bi, err := info.GetBaseboardInfo(); err == nil && len(bi) > 0 {
		set(&f.board, bi[0].SerialNumber)
	}
	f.bmc = f.bmc || len(info.GetTablesByType(smbios.TableTypeIPMIDeviceInfo)) > 0
}

// identify returns the first serial number that identifies the machine, and whose it is; else why there is none.
func (f firmware) identify() (serial, source, problem string) {
	for _, c := range []struct{ source, serial string }{{"system", f.system}, {"chassis", f.chassis}, {"baseboard", f.board}} {
		if c.source == "chassis" && f.sharedChassis {
			continue // several machines would have the same
		}
		why := identity.Junk(c.serial)
		if why == "" {
			return identity.Serial(c.serial), c.source, ""
		}
		if problem == "" || identity.Serial(c.serial) != "" && strings.HasPrefix(problem, "the firmware gives no") {
			problem = why
			if c.source != "system" && identity.Serial(c.serial) != "" {
				problem += " (of its " + c.source + ")"
			}
		}
	}
	return "", "", problem
}
