package livebench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"imgbuild/image"
	"imgbuild/testvm"
)

// started is one start.
type started struct {
	kernel    time.Duration // from the kernel's first line to the initramfs's first process
	initramfs time.Duration // from there to the first process of the release
	system    time.Duration // from there to the login prompt
	sent      int64         // bytes of the root file system that the web server sent
	touched   int64         // bytes of memory that the machine had ever used when it showed the prompt
	used      int64         // bytes that it could not give to new programs when its boot was over (MemTotal less MemAvailable)
	shared    int64         // bytes thereof that lie in file systems in memory (Shmem)
	failed    []string      // units
}

// login is the time from the kernel's first line to the prompt.
func (s started) login() time.Duration { return s.kernel + s.initramfs + s.system }

// What the console says at the end of each part, in order; the last is agetty's.
func landmarks() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`\] Linux version \d`),
		regexp.MustCompile(`\] Run /init as init process`),
		regexp.MustCompile(`Welcome to ([^!]+)!`),
		regexp.MustCompile(`login: `),
	}
}

// failures are what an installer, a dracut or a kernel says that gives up.
func failures() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`imgbuild: failed: .+`),
		regexp.MustCompile(`Kernel panic - not syncing.*`),
		regexp.MustCompile(`[Ee]mergency (mode|shell)|Give root password for maintenance`),
	}
}

// start starts a machine once and returns when it is put away again.
func (o *Options) start(ctx context.Context, h *testvm.Host, m *image.Manifest, c contender, turn int) (s started, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("it took longer than %v", o.Timeout))
	defer cancel()
	n, err := h.NewNetwork(ctx, testvm.NetworkConfig{Dir: o.Release})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	config := testvm.Config{
		Name: "live-" + c.file, MemoryMiB: o.MemoryMiB, NICs: []testvm.NIC{{}}, SMBIOS: testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: "TESTVM-LIVE"},
		Boot: testvm.Boot{
			Kind: testvm.BootKernel, Kernel: filepath.Join(o.Release, image.KernelFile), Initrd: c.initrd,
			Append: strings.Join(append([]string{"console=ttyS0,115200n8"}, c.args(n)...), " "),
		},
	}
	var cc testvm.ConsoleConfig
	if o.Logs != "" {
		cc.Transcript = filepath.Join(o.Logs, fmt.Sprintf("%s-%d.log", c.file, turn))
	}
	machine, err := n.Start(ctx, config, cc)
	if err != nil {
		return s, err
	}
	console := machine.Console()
	if err := s.follow(ctx, console); err != nil {
		return s, err
	}
	if s.touched, err = touched(machine.PID(), int64(o.MemoryMiB)<<20); err != nil {
		return s, err
	}
	s.sent = n.Web().Sent(image.RootfsFile)
	// The prompt was read already: Enter brings another one.
	if err := console.Send("\n"); err != nil {
		return s, err
	}
	if err := console.Login(ctx, "root", testvm.DemoPassword); err != nil {
		return s, err
	}
	return s, s.ask(ctx, console, m, func(line string) { o.Log(c.name + "| " + line) })
}

// follow takes the times at which the console comes to each part's end.
func (s *started) follow(ctx context.Context, console *testvm.Console) error {
	var at []time.Time
	for _, mark := range landmarks() {
		for {
			match, err := console.Expect(ctx, append([]*regexp.Regexp{mark}, failures()...)...)
			if err != nil {
				return err
			}
			if match.Index > 0 {
				return fmt.Errorf("it says %q; the console's last lines:\n%s", match.Groups[0], console.Tail(25))
			}
			// dracut's own systemd welcomes too, as the initramfs that it is.
			if !strings.Contains(match.Groups[0], "(Initramfs)") {
				break
			}
		}
		at = append(at, time.Now())
	}
	s.kernel, s.initramfs, s.system = at[1].Sub(at[0]), at[2].Sub(at[1]), at[3].Sub(at[2])
	return nil
}

// ask waits for the end of the boot, and has the machine say how it uses its memory. log gets what its systemd knows of its own time.
func (s *started) ask(ctx context.Context, console *testvm.Console, m *image.Manifest, log func(string)) error {
	run := func(command string) (string, error) {
		out, status, err := console.Run(ctx, command)
		if err == nil && status != 0 {
			err = fmt.Errorf("%s ended with status %d: %s", command, status, lastLine(out))
		}
		return out, err
	}
	// Its status is another than 0 for a degraded system, of which the units tell more.
	if _, _, err := console.Run(ctx, "systemctl is-system-running --wait"); err != nil {
		return err
	}
	failed, err := run("systemctl list-units --failed --plain --no-legend --no-pager")
	if err != nil {
		return err
	}
	for line := range strings.Lines(failed) {
		if f := strings.Fields(line); len(f) > 0 {
			s.failed = append(s.failed, f[0])
		}
	}
	kernel, err := run("uname -r")
	if err != nil {
		return err
	}
	if kernel = strings.TrimSpace(kernel); kernel != m.KernelRelease {
		return fmt.Errorf("kernel %s runs and not %s", kernel, m.KernelRelease)
	}
	root, err := run("findmnt -no FSTYPE /")
	if err != nil {
		return err
	}
	if root = strings.TrimSpace(root); root != "overlay" {
		return fmt.Errorf("its root is %s and not an overlay of the image", root)
	}
	meminfo, err := run("cat /proc/meminfo")
	if err != nil {
		return err
	}
	if s.used, s.shared, err = parseMeminfo(meminfo); err != nil {
		return err
	}
	for _, command := range []string{"systemd-analyze time", "systemd-analyze critical-chain", "systemd-analyze blame | head -n 15", "df -h -t tmpfs -t overlay", "cat /proc/meminfo"} {
		out, _, err := console.Run(ctx, command) // for people who look for a reason; not every system has it
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			log(strings.TrimRight(line, "\n"))
		}
	}
	return nil
}

// parseMeminfo reads /proc/meminfo (proc(5)): kibibytes.
func parseMeminfo(text string) (used, shared int64, err error) {
	found := map[string]int64{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(line, ":")
		number, isKB := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if !ok || !isKB {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 53)
		if err != nil {
			return 0, 0, fmt.Errorf("read /proc/meminfo: %s is %q", name, number)
		}
		found[name] = n << 10
	}
	for _, name := range []string{"MemTotal", "MemAvailable", "Shmem"} {
		if _, ok := found[name]; !ok {
			return 0, 0, fmt.Errorf("read /proc/meminfo: it does not say %s", name)
		}
	}
	return found["MemTotal"] - found["MemAvailable"], found["Shmem"], nil
}

// touched returns how much of a machine's memory QEMU ever had to get from this host, in bytes: all pages that the guest has used so
// far, whatever for. It gives none back without a balloon.
func touched(pid int, memory int64) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, fmt.Errorf("read how much memory the machine has used: %w", err)
	}
	n, err := residentOf(b, memory)
	if err != nil {
		return 0, fmt.Errorf("read how much memory the machine has used: %w", err)
	}
	return n, nil
}

// residentOf finds the mapping of so many bytes in /proc/PID/smaps (proc(5)), and returns how much of it is resident.
func residentOf(smaps []byte, size int64) (int64, error) {
	inside := false
	for line := range bytes.Lines(smaps) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		if from, to, ok := strings.Cut(f[0], "-"); ok {
			low, err1 := strconv.ParseUint(from, 16, 64)
			high, err2 := strconv.ParseUint(to, 16, 64)
			inside = err1 == nil && err2 == nil && high-low == uint64(size)
			continue
		}
		if inside && f[0] == "Rss:" {
			n, err := strconv.ParseInt(f[1], 10, 53)
			if err != nil {
				return 0, fmt.Errorf("the machine's mapping has %q kB resident", f[1])
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("QEMU has no mapping of %d bytes", size)
}
