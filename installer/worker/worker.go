// Package worker is the installer from its start to its end, as the child of the first process: kernel arguments,
// modules, machine, network, clock, installation. The initramfs's files and the machine come in; lines for the consoles
// and an error, if something failed, go out.
//
// It decides nothing itself: each step is a package of its own.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/control"
	"imgbuild/installer/hw"
	"imgbuild/installer/netup"
	"imgbuild/installer/pid1"
	"imgbuild/installer/report"
)

// KeyFile has the public keys whose manifests are trusted.
const KeyFile = "/etc/imgbuild/release.pub"

// Outcome is how a run without an error ended.
type Outcome struct {
	// Installed is true when the disk boots what was installed. Otherwise nothing was written.
	Installed bool
	// Text is one sentence for people.
	Text string
	// Done is what is to happen now.
	Done cmdline.Done
	// Stay serves other machines beside the live system that is started now; nil for nothing.
	Stay func(context.Context)
}

// installed is what people and the server are told after an installation.
const installed = "the image is installed, and the disk boots"

// maxOutput is how much of a program's output is kept in the log: the end of it.
const maxOutput = 16 << 10

// worker is one run.
type worker struct {
	say     report.Reporter
	console report.Reporter // say without the server
	log     *slog.Logger
	version string
	args    cmdline.Args
	keys    []image.PublicKey
	modules *hw.Modules // nil if there are none to load
	machine hw.Machine
	network *netup.Network   // nil until it is up
	system  installer.System // the zero value but in tests
}

// Run does all that the kernel's arguments ask for. version is the installer's.
func Run(ctx context.Context, say *report.Lines, log *slog.Logger, version string) (Outcome, error) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return Outcome{}, fmt.Errorf("read the kernel's arguments: %w", err)
	}
	args, err := cmdline.Parse(string(text))
	for _, w := range args.Warnings {
		say.Warn("%s", w)
	}
	if err != nil {
		return Outcome{}, err
	}
	w := &worker{say: say, console: say, log: log, version: version, args: args}
	var events *control.Events
	if args.Server != "" {
		events = control.NewEvents(say) // from the start: the server hears of the beginning too
		w.say = events
	}
	if w.keys, err = trustedKeys(); err != nil {
		return Outcome{}, err
	}
	fileSystems := w.loadModules(ctx)
	if err := pid1.MountEFIVars(); err != nil {
		w.say.Warn("%v", err)
	}
	if w.machine, err = hw.Inspect(); err != nil {
		return Outcome{}, err
	}
	// Garbage is collected in time when memory is short; the kernel and the tools need the other half.
	debug.SetMemoryLimit(w.machine.MemoryBytes / 2)
	describe(w.machine, w.say)
	var s *served
	if events != nil {
		s = w.serve(ctx, events)
		defer s.close()
	}
	if args.Medium != "" {
		<-fileSystems
		return w.fromMedium(ctx)
	}
	source := args.Manifest + args.Server // one of them is empty
	network, err := netup.Up(ctx, netup.Options{Report: w.say, BootIF: args.BootIF, V6: isV6(hostOf(source))})
	if err != nil {
		return Outcome{}, err
	}
	defer network.Close()
	w.network = network
	w.say.Info("network: %s", network)
	clock := netup.Clock{Report: w.say, Floor: buildTime(), NTP: network.NTP, URL: source}
	if err := clock.Correct(ctx, time.Now()); err != nil {
		w.say.Warn("%v", err)
	}
	<-fileSystems
	if s != nil {
		return s.run(ctx)
	}
	if args.Mode == cmdline.ModeLive {
		return w.live(ctx, installer.Config{Args: args})
	}
	return w.asAsked(ctx, installer.Config{Args: args})
}

// asAsked installs as a person says at the console, as an answer file says, or as the arguments do.
func (w *worker) asAsked(ctx context.Context, c installer.Config) (Outcome, error) {
	if c.Args.Interactive {
		return w.interactive(ctx, c)
	}
	if c.Args.Answers != "" {
		if err := w.answer(ctx, &c); err != nil {
			return Outcome{}, err
		}
	}
	res, err := w.install(ctx, c)
	if err != nil {
		return Outcome{}, err
	}
	return outcome(res), nil
}

// outcome is how a run of the installer ended.
func outcome(res installer.Result) Outcome {
	switch {
	case res.Outlook == nil:
		return Outcome{Installed: true, Text: installed, Done: res.Done}
	case res.Outlook.Refused != "":
		return Outcome{Text: "nothing was written, and an installation would be refused: " + res.Outlook.Refused, Done: res.Done}
	}
	return Outcome{Text: "nothing was written; an installation would do what was shown", Done: res.Done}
}

// install completes what is to be done and does it.
func (w *worker) install(ctx context.Context, c installer.Config) (installer.Result, error) {
	res, err := installer.Run(ctx, w.complete(c))
	return res, because(ctx, err)
}

// complete adds what is this machine's.
func (w *worker) complete(c installer.Config) installer.Config {
	c.Keys, c.Machine, c.Report, c.Console, c.System, c.Network = w.keys, w.machine, w.say, w.console, w.system, w.network
	c.System.Tools.Output = func(argv []string, out string) {
		w.log.Debug("ran", "argv", argv, "output", out[max(0, len(out)-maxOutput):]) // the log lies in memory
	}
	if w.modules != nil {
		c.System.LoadModule = func(ctx context.Context, name string) error { return w.modules.Load(ctx, name) }
	}
	return c
}

// because says first why the run was stopped, if it was.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// runs is what people and the server are told of a live system.
func runs(o plan.LiveOptions) string {
	if o.Root != "" {
		return "the image runs from " + o.Root
	}
	return "the image runs from memory"
}

// live brings a system into memory, for the first process to start.
func (w *worker) live(ctx context.Context, c installer.Config) (Outcome, error) {
	res, err := installer.Live(ctx, w.complete(c))
	if err != nil {
		return Outcome{}, because(ctx, err)
	}
	return Outcome{Text: runs(c.Args.Live), Done: cmdline.DoneLive, Stay: res.Stay}, nil
}

func trustedKeys() ([]image.PublicKey, error) {
	data, err := os.ReadFile(KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the keys that releases are checked against: %w: the initramfs was not made by imgbuild", err)
	}
	return image.ParsePublicKeys(data)
}

// loadModules loads what the machine's devices need, and file systems. A module that fails is a warning at most: what is
// really missing will be said by what misses it.
//
// The file systems are loaded meanwhile; the channel is closed when they are there.
func (w *worker) loadModules(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	say, log := w.say, w.log
	modules, err := hw.OpenModules()
	if err != nil {
		say.Warn("%v: going on with what is built into the kernel", err)
		close(done)
		return done
	}
	w.modules = modules
	go func() { // ends when they are loaded
		defer close(done)
		for _, name := range []string{"nls_cp437", "nls_iso8859_1", "nls_ascii", "nls_utf8", "vfat", "ext4", "xfs"} {
			if err := modules.Load(ctx, name); err != nil {
				log.Debug("module", "error", err)
			}
		}
	}()
	start := time.Now()
	adapters := &adapters{sys: "/sys", quiet: 4 * time.Second, now: time.Now}
	r, err := modules.Coldplug(ctx, "/sys", hw.Settled{Expected: func() bool {
		return adapters.scanned() && (!w.needsDisk("/sys") || hasDisk("/sys")) && (w.args.Medium != "" || hasNIC("/sys"))
	}})
	if err != nil {
		say.Warn("load modules for the devices: %v", err)
	}
	for _, e := range r.Faults {
		log.Debug("module", "error", e)
	}
	for _, name := range []string{"af_packet", "efivarfs"} {
		if err := modules.Load(ctx, name); err != nil {
			log.Debug("module", "error", err)
		}
	}
	say.Info("%d devices, %d modules loaded in %s", r.Devices, r.Modules, report.Duration(time.Since(start)))
	return done
}

// adapters watches SCSI host adapters, SATA's among them. They look for their disks in the background, and the kernel
// does not say when one has finished; a disk that is seen too late could make another the only eligible one. So the
// machine counts as scanned only when nothing has been added to any of them for a while.
type adapters struct {
	sys   string
	quiet time.Duration
	now   func() time.Time

	seen  int
	since time.Time
}

func (a *adapters) scanned() bool {
	hosts, _ := filepath.Glob(filepath.Join(a.sys, "class/scsi_host/*"))
	devices, _ := filepath.Glob(filepath.Join(a.sys, "class/scsi_device/*"))
	if n := len(hosts) + len(devices); n != a.seen || a.since.IsZero() {
		a.seen, a.since = n, a.now()
	}
	return a.seen == 0 || a.now().Sub(a.since) >= a.quiet
}

// hasDisk says whether there is a block device with a device behind it: no loop, no RAM disk.
func hasDisk(sys string) bool {
	found, _ := filepath.Glob(filepath.Join(sys, "block/*/device"))
	for _, f := range found {
		if base := filepath.Base(filepath.Dir(f)); !strings.HasPrefix(base, "sr") && !strings.HasPrefix(base, "fd") {
			return true
		}
	}
	return false
}

// needsDisk says whether a disk is to be waited for, where none is there yet. A medium is waited for where it is looked for. With a
// server its plan says whether a live start keeps something on a disk; a machine that can have no disk then waits for none.
func (w *worker) needsDisk(sys string) bool {
	switch a := w.args; a.Mode {
	case cmdline.ModeCheck:
		return false
	case cmdline.ModeLive:
		return len(a.Live.Persist) > 0 || a.Server != "" && hasStorage(sys)
	}
	return true
}

// hasStorage says whether the machine has a PCI device for storage whose disks may be a while in coming: any but those for SATA and
// IDE, whose ports adapters watches whether or not there is a disk at one (PCI Code and ID Assignment Specification, class 01h).
func hasStorage(sys string) bool {
	classes, _ := filepath.Glob(filepath.Join(sys, "bus/pci/devices/*/class"))
	for _, name := range classes {
		class, _ := os.ReadFile(name) // "0x010802"
		if c := string(class); strings.HasPrefix(c, "0x01") && !strings.HasPrefix(c, "0x0101") && !strings.HasPrefix(c, "0x0106") {
			return true
		}
	}
	return false
}

func hasNIC(sys string) bool {
	found, _ := filepath.Glob(filepath.Join(sys, "class/net/*/device"))
	return len(found) > 0
}

func describe(m hw.Machine, say report.Reporter) {
	serial := "serial number " + m.Serial
	if m.SerialSource != "system" && m.Serial != "" {
		serial += " (of its " + m.SerialSource + ")"
	}
	if m.Serial == "" {
		serial = "no serial number (" + m.SerialProblem + ")"
	}
	say.Info("machine: %s, %s, %s, %d CPUs, %s of memory", strings.TrimSpace(m.Vendor+" "+m.Product), serial,
		strings.ToUpper(string(m.Firmware)), m.CPUs, report.Bytes(m.MemoryBytes))
	for _, n := range m.NICs {
		say.Info("network card: %s %s, driver %s, at %s", n.Name, n.MAC, n.Driver, n.Bus)
	}
}

func hostOf(manifest string) string {
	u, err := url.Parse(manifest)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func isV6(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Is6() && !a.Is4In6()
}

// buildTime is a time that is certainly past: of the source that this program was made of, and of files of the initramfs.
func buildTime() time.Time {
	latest := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // before this program was written
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && t.After(latest) {
				latest = t
			}
		}
	}
	for _, f := range []string{"/proc/self/exe", KeyFile} {
		// Not every kernel keeps the times of an initramfs; it then has the clock's, which is no later than now.
		if fi, err := os.Stat(f); err == nil && fi.ModTime().After(latest) && fi.ModTime().Before(latest.AddDate(10, 0, 0)) {
			latest = fi.ModTime()
		}
	}
	return latest
}
