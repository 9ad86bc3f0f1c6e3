package firstboot

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image/plan"
	"imgbuild/installer/hw"
)

// facts are what this system is, once its boot is complete.
func facts(ctx context.Context) plan.Booted {
	systemctl, _ := exec.LookPath("systemctl") // a system without it has no units that could fail
	waitForBoot(ctx, systemctl)
	b := plan.Booted{System: prettyName("/etc/os-release")}
	b.Hostname, _ = os.Hostname() // empty says as much as an error
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		b.Kernel = strings.TrimSpace(string(release))
	}
	if m, err := hw.Inspect(); err == nil {
		b.Serial = m.Serial // of the machine that it runs on, which is the right one or is to be found out
	}
	if systemctl != "" {
		if out, err := exec.CommandContext(ctx, systemctl, "list-units", "--failed", "--no-legend", "--plain", "--full").Output(); err == nil {
			b.Failed = failedUnits(out)
		}
	}
	b.Addresses = addresses()
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) == nil {
		b.BootSeconds = float64(ts.Nano()) / 1e9
	}
	return b
}

// waitForBoot waits until systemd has nothing left to start, but not for ever: it says so in words only (its own --wait
// came after EL7).
func waitForBoot(ctx context.Context, systemctl string) {
	if systemctl == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settled)
	defer cancel()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		// Its exit code is not 0 for anything but running.
		out, _ := exec.CommandContext(ctx, systemctl, "is-system-running").Output()
		switch strings.TrimSpace(string(out)) {
		case "initializing", "starting":
		default:
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// prettyName is PRETTY_NAME of os-release(5).
func prettyName(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			if u, err := strconv.Unquote(v); err == nil {
				return u
			}
			return strings.Trim(v, `'"`)
		}
	}
	return ""
}

// addresses are those that others reach this system by, with prefix lengths.
func addresses() []string {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			out = append(out, p.String())
		}
	}
	return out
}
