package testvm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"imgbuild/image"
	"imgbuild/image/layout"
)

// Facts are what an installed machine says about itself.
type Facts struct {
	OSRelease     map[string]string // /etc/os-release
	KernelRelease string            // uname -r
	KernelArgs    string            // /proc/cmdline
	Firmware      Firmware          // BIOS or UEFI, by /sys/firmware/efi
	Hostname      string
	MachineID     string
	Serial        string // SMBIOS product serial
	Packages      int    // rpm -qa
	Mounts        []Mount
	Addresses     []netip.Prefix // but loopback and link-local
	// State is what systemctl is-system-running says at the end of the boot: running, or degraded.
	State       string
	FailedUnits []string
	// Changed is what rpm -Va finds, all of it; nil if it was not asked. Unexpected sorts it.
	Changed []Change
	// BootTime is the time since the kernel started, when the boot was over.
	BootTime time.Duration
}

// Mount is one mounted file system of a disk.
type Mount struct{ Target, Source, FSType, Options string }

// FactsOptions say what is asked beyond what is quick.
type FactsOptions struct {
	// VerifyPackages runs rpm -Va, which reads every installed file.
	VerifyPackages bool
}

// GatherFacts asks the machine whose shell is on the console (see Console.Login).
func GatherFacts(ctx context.Context, c *Console, o FactsOptions) (Facts, error) {
	var f Facts
	ask := func(command string, ok func(status int) bool, use func(out string) error) func() error {
		return func() error {
			out, status, err := c.Run(ctx, command)
			if err != nil {
				return err
			}
			if !ok(status) {
				return fmt.Errorf("%s ended with status %d: %s", command, status, lastLine(out))
			}
			if err := use(out); err != nil {
				return fmt.Errorf("read the output of %s: %w", command, err)
			}
			return nil
		}
	}
	zero := func(status int) bool { return status == 0 }
	whatever := func(int) bool { return true }
	text := func(to *string) func(string) error {
		return func(out string) error { *to = strings.TrimSpace(out); return nil }
	}
	questions := []func() error{
		// First, since it waits for the end of the boot: what is asked afterwards is settled.
		ask("systemctl is-system-running --wait", whatever, text(&f.State)),
		ask("cat /proc/uptime", zero, func(out string) (err error) { f.BootTime, err = parseUptime(out); return err }),
		ask("systemctl list-units --failed --plain --no-legend --no-pager", zero, func(out string) error {
			f.FailedUnits = parseUnits(out)
			return nil
		}),
		ask("cat /etc/os-release", zero, func(out string) error { f.OSRelease = parseOSRelease(out); return nil }),
		ask("uname -r", zero, text(&f.KernelRelease)),
		ask("cat /proc/cmdline", zero, text(&f.KernelArgs)),
		ask("hostname", zero, text(&f.Hostname)),
		ask("cat /etc/machine-id", zero, text(&f.MachineID)),
		ask("cat /sys/class/dmi/id/product_serial", whatever, text(&f.Serial)),
		ask("test -d /sys/firmware/efi && echo uefi || echo bios", zero, func(out string) (err error) {
			f.Firmware, err = ParseFirmware(out)
			return err
		}),
		ask("rpm -qa | wc -l", zero, func(out string) (err error) {
			f.Packages, err = strconv.Atoi(strings.TrimSpace(out))
			return err
		}),
		ask("findmnt --real -rn -o TARGET,SOURCE,FSTYPE,OPTIONS", zero, func(out string) (err error) {
			f.Mounts, err = parseMounts(out)
			return err
		}),
		ask("ip -o addr show", zero, func(out string) error { f.Addresses = parseAddresses(out); return nil }),
	}
	if o.VerifyPackages {
		questions = append(questions, ask("rpm -Va", whatever, func(out string) (err error) {
			f.Changed, err = parseVerify(out)
			return err
		}))
	}
	for _, q := range questions {
		if err := q(); err != nil {
			return f, fmt.Errorf("ask the machine for facts: %w", err)
		}
	}
	return f, nil
}

// Problems returns what is wrong with a machine that was installed from a release and started with this firmware: one
// sentence each, none for a good machine.
func (f Facts) Problems(m *image.Manifest, fw Firmware) []string {
	var p []string
	bad := func(format string, a ...any) { p = append(p, fmt.Sprintf(format, a...)) }
	if f.State != "running" {
		bad("systemd says that the system is %q and not running", f.State)
	}
	for _, u := range f.FailedUnits {
		bad("unit %s failed", u)
	}
	if fw == SecureBoot {
		fw = UEFI
	}
	if f.Firmware != fw {
		bad("it was started by %s and not by %s", f.Firmware, fw)
	}
	if f.KernelRelease != m.KernelRelease {
		bad("kernel %s runs and not %s", f.KernelRelease, m.KernelRelease)
	}
	if id := f.OSRelease["ID"]; id != m.Distro.ID {
		bad("os-release says %q and the manifest %q", id, m.Distro.ID)
	}
	for _, a := range m.KernelArgs {
		if !strings.Contains(" "+f.KernelArgs+" ", " "+a+" ") {
			bad("kernel argument %s is missing in %q", a, f.KernelArgs)
		}
	}
	if !strings.Contains(f.KernelArgs, "root=UUID=") {
		bad("the root is not named by UUID in %q", f.KernelArgs)
	}
	if len(f.MachineID) != 32 {
		bad("/etc/machine-id is %q", f.MachineID)
	}
	if f.Packages == 0 {
		bad("rpm knows no package")
	}
	for mount, fs := range mounts(m.Layout, fw) {
		if mnt, ok := f.mounted(mount); !ok {
			bad("%s is not mounted", mount)
		} else if mnt.FSType != fs {
			bad("%s is %s and not %s", mount, mnt.FSType, fs)
		}
	}
	if len(f.Addresses) == 0 {
		bad("it has no address from DHCP")
	}
	for _, c := range f.Unexpected() {
		bad("rpm -Va finds %s", c)
	}
	return p
}

// mounts are the file systems by mount point that a layout declares for a machine with this firmware.
func mounts(l layout.Layout, fw Firmware) map[string]string {
	l = l.Expand(layout.Firmware(fw))
	all := map[string]string{}
	add := func(c layout.Content) {
		if c.Mount != "" {
			all[c.Mount] = c.FS
		}
	}
	for _, d := range l.Disks {
		for _, p := range d.Partitions {
			add(p.Content)
		}
	}
	for _, a := range l.Arrays {
		add(a.Content)
	}
	for _, g := range l.Groups {
		for _, v := range g.Volumes {
			add(v.Content)
		}
	}
	return all
}

func (f Facts) mounted(target string) (Mount, bool) {
	for _, m := range f.Mounts {
		if m.Target == target {
			return m, true
		}
	}
	return Mount{}, false
}

// parseOSRelease reads os-release(5): NAME=value, the value in quotes or not.
func parseOSRelease(s string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(s) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		m[key] = strings.NewReplacer(`\"`, `"`, `\$`, `$`, `\\`, `\`, "\\`", "`").Replace(value)
	}
	return m
}

func parseUptime(s string) (time.Duration, error) {
	first, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	f, err := strconv.ParseFloat(first, 64)
	if err != nil || !(f >= 0 && f < 1e9) {
		return 0, errors.New("it does not begin with seconds")
	}
	return time.Duration(f * float64(time.Second)), nil
}

// parseUnits reads systemctl list-units --plain --no-legend: the unit's name comes first.
func parseUnits(s string) []string {
	var units []string
	for line := range strings.Lines(s) {
		if f := strings.Fields(line); len(f) > 0 {
			units = append(units, f[0])
		}
	}
	return units
}

// parseMounts reads findmnt -rn: four fields, with blanks escaped as \x20.
func parseMounts(s string) ([]Mount, error) {
	var mounts []Mount
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 4 {
			return nil, fmt.Errorf("line %q has %d fields and not 4", strings.TrimSpace(line), len(f))
		}
		for i := range f {
			f[i] = strings.ReplaceAll(f[i], `\x20`, " ")
		}
		mounts = append(mounts, Mount{f[0], f[1], f[2], f[3]})
	}
	return mounts, nil
}

// parseAddresses reads ip -o addr show and leaves out loopback and link-local addresses.
func parseAddresses(s string) []netip.Prefix {
	var addrs []netip.Prefix
	sc := bufio.NewScanner(strings.NewReader(s))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		for i := 0; i+1 < len(f); i++ {
			if f[i] != "inet" && f[i] != "inet6" {
				continue
			}
			if p, err := netip.ParsePrefix(f[i+1]); err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
				addrs = append(addrs, p)
			}
		}
	}
	return addrs
}
