package testvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"imgbuild/image"
)

// Scenario is one machine on which a release is installed and that then boots from its own disk.
type Scenario struct {
	Name     string // the machine's; default vm
	Release  string // the release's directory
	Firmware Firmware
	// Disks are the machine's; the release goes to the first. Files that are not there are made with DiskBytes.
	Disks     []Disk
	DiskBytes int64 // default 8 GiB
	// NICs are the machine's; nil gives it one, an empty list none.
	NICs []NIC
	// Via is how the installer is started: BootNetwork (default) through the firmware's PXE and iPXE, or BootKernel, which is
	// quicker.
	Via BootKind
	// Args are further kernel arguments for the installer. done=poweroff and onerror=poweroff are always given.
	Args      []string
	SMBIOS    SMBIOS
	MemoryMiB int // default 2048
	CPUs      int // default 2
	// User and Password open the installed system's console; default root with the demo profile's password.
	User, Password string
	// FreshVariables boots the disk with a UEFI that has never seen it, so that it must find the removable path. Without
	// it the variables that the installer wrote are kept, beside the first disk.
	FreshVariables bool
	// VerifyPackages asks for rpm -Va too.
	VerifyPackages bool
	// Ask asks the installed system for more than facts, after them; nil asks nothing.
	Ask func(context.Context, *Console) error
	// Logs is a directory for transcripts: NAME-install.log and NAME-boot.log. Empty keeps none.
	Logs string
	// Live gets the console's lines as they come, nil for nobody.
	Live func(line string)
	// Prepare changes the network before the installer's machine starts: faults.
	Prepare func(*Network)
	// Timeout bounds the installation and, again, the boot; default 20 minutes.
	Timeout time.Duration
}

// DemoPassword is root's in the profile demo. It is for machines on a network that nobody else is in.
const DemoPassword = "imgbuild"

// VarsFile is where the UEFI variables of the machine with this first disk are kept.
func VarsFile(disk string) string { return disk + ".vars.fd" }

func (s Scenario) withDefaults() Scenario {
	if s.Name == "" {
		s.Name = "vm"
	}
	if s.Firmware == "" {
		s.Firmware = BIOS
	}
	if s.DiskBytes == 0 {
		s.DiskBytes = 8 << 30
	}
	if s.NICs == nil {
		s.NICs = []NIC{{}}
	}
	if s.Via == "" {
		s.Via = BootNetwork
	}
	if s.User == "" {
		s.User = "root"
	}
	if s.Password == "" {
		s.Password = DemoPassword
	}
	if s.SMBIOS == (SMBIOS{}) {
		s.SMBIOS = SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: "TESTVM-" + strings.ToUpper(s.Name)}
	}
	if s.Timeout == 0 {
		s.Timeout = 20 * time.Minute
	}
	return s
}

// Manifest reads a release's manifest, without checking its signature: that is the installer's job, and seeing it done
// is the scenario's.
func Manifest(release string) (*image.Manifest, error) {
	b, err := os.ReadFile(filepath.Join(release, image.ManifestFile))
	if err != nil {
		return nil, fmt.Errorf("read release: %w", err)
	}
	m, err := image.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read release %s: %w", release, err)
	}
	return m, nil
}

// InstallAndBoot installs the release, powers the machine off, boots its disk alone, asks it for facts and powers it off.
// Facts that are wrong are for the caller to judge (Facts.Problems).
func (h *Host) InstallAndBoot(ctx context.Context, s Scenario) (Facts, Installation, error) {
	in, err := h.Install(ctx, s)
	if err != nil {
		return Facts{}, in, err
	}
	f, err := h.BootDisk(ctx, s)
	return f, in, err
}

// Install starts the release's installer on the machine and returns when it has powered the machine off. What it did is
// returned even if it failed, which is an *InstallerError.
func (h *Host) Install(ctx context.Context, s Scenario) (in Installation, err error) {
	s = s.withDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, s.Timeout, fmt.Errorf("the installation took longer than %v", s.Timeout))
	defer cancel()
	if _, err := Manifest(s.Release); err != nil {
		return in, err
	}
	n, err := h.NewNetwork(ctx, NetworkConfig{Dir: s.Release})
	if err != nil {
		return in, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	defer func() { in.Requests = n.Web().Requests() }()
	boot, err := s.bootInstaller(n)
	if err != nil {
		return in, err
	}
	if err := s.makeDisks(); err != nil {
		return in, err
	}
	if s.Prepare != nil {
		s.Prepare(n)
	}
	// Variables of an earlier machine with this disk are not this machine's.
	if len(s.Disks) > 0 && s.Firmware != BIOS {
		if err := os.Remove(VarsFile(s.Disks[0].Path)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return in, fmt.Errorf("remove old UEFI variables: %w", err)
		}
	}
	m, err := n.Start(ctx, s.config(boot, true), s.console("install"))
	if err != nil {
		return in, err
	}
	var ferr error
	in, ferr = FollowInstaller(ctx, m.Console())
	var failed *InstallerError
	if ferr != nil && !errors.As(ferr, &failed) {
		return in, ferr
	}
	exit, err := m.Wait(ctx)
	if err == nil && !exit.PoweredOff() {
		err = fmt.Errorf("install on machine %s: it ended by %q and not by powering itself off; the console's last lines:\n%s",
			s.Name, exit.Reason, m.Console().Tail(25))
	}
	return in, errors.Join(ferr, err)
}

// bootInstaller says how the machine starts the installer. The release's own boot script is used either way.
func (s Scenario) bootInstaller(n *Network) (Boot, error) {
	args := append([]string{"imgbuild.done=poweroff", "imgbuild.onerror=poweroff"}, s.Args...)
	script, err := os.ReadFile(filepath.Join(s.Release, image.BootIPXEFile))
	if err != nil {
		return Boot{}, fmt.Errorf("read release: %w", err)
	}
	if s.Via == BootNetwork {
		text, err := scriptWithArgs(string(script), args)
		if err != nil {
			return Boot{}, err
		}
		n.Web().Put(image.BootIPXEFile, []byte(text))
		return Boot{Kind: BootNetwork}, nil
	}
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, modeArg) }) {
		args = append(args, "imgbuild.mode=install")
	}
	args = append([]string{"imgbuild.manifest=" + n.URL(image.ManifestFile), "console=ttyS0,115200n8"}, args...)
	return Boot{Kind: BootKernel, Kernel: filepath.Join(s.Release, image.KernelFile), Initrd: filepath.Join(s.Release, image.InitramfsFile),
		Append: strings.Join(args, " ")}, nil
}

func (s Scenario) makeDisks() error {
	for _, d := range s.Disks {
		if _, err := os.Stat(d.Path); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("look at disk: %w", err)
		}
		if err := CreateDisk(d.Path, s.DiskBytes); err != nil {
			return err
		}
	}
	return nil
}

func (s Scenario) config(b Boot, keepVars bool) Config {
	c := Config{Name: s.Name, Firmware: s.Firmware, MemoryMiB: s.MemoryMiB, CPUs: s.CPUs, Disks: s.Disks, NICs: s.NICs, SMBIOS: s.SMBIOS, Boot: b}
	if keepVars && len(s.Disks) > 0 && s.Firmware != BIOS {
		c.VarsFile = VarsFile(s.Disks[0].Path)
	}
	return c
}

func (s Scenario) console(phase string) ConsoleConfig {
	var cc ConsoleConfig
	if s.Logs != "" {
		cc.Transcript = filepath.Join(s.Logs, s.Name+"-"+phase+".log")
	}
	if s.Live != nil {
		cc.Live = &lineWriter{line: s.Live}
	}
	return cc
}

// deadBoots match what firmware, boot loaders, kernels and systemd say when a disk does not boot.
func deadBoots() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`No bootable (device|option)`),
		regexp.MustCompile(`Kernel panic - not syncing.*`),
		regexp.MustCompile(`[Ee]mergency (mode|shell)`),
		regexp.MustCompile(`Give root password for maintenance`),
		regexp.MustCompile(`Failed to load COM32|Could not find kernel image|grub rescue>|^grub>|Minimal BASH-like line editing`),
	}
}

// BootDisk boots the machine from its disks, with its network cards plugged in and nothing to boot from there, logs in
// on its console, asks it for facts and has it power itself off.
func (h *Host) BootDisk(ctx context.Context, s Scenario) (f Facts, err error) {
	s = s.withDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, s.Timeout, fmt.Errorf("the boot took longer than %v", s.Timeout))
	defer cancel()
	n, err := h.NewNetwork(ctx, NetworkConfig{})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	// A spectator sees the boot, and then the facts and not how they were asked for.
	var loggedIn atomic.Bool
	if live := s.Live; live != nil {
		s.Live = func(line string) {
			if !loggedIn.Load() {
				live(line)
			}
		}
	}
	m, err := n.Start(ctx, s.config(Boot{Kind: BootDisk}, !s.FreshVariables), s.console("boot"))
	if err != nil {
		return f, err
	}
	match, err := m.Console().Expect(ctx, append([]*regexp.Regexp{loginPrompt()}, deadBoots()...)...)
	if err != nil {
		return f, fmt.Errorf("boot machine %s from its disk: %w", s.Name, err)
	}
	if match.Index != 0 {
		return f, fmt.Errorf("boot machine %s from its disk: it says %q; the console's last lines:\n%s", s.Name, match.Groups[0], m.Console().Tail(25))
	}
	loggedIn.Store(true)
	return s.askAndPowerOff(ctx, m)
}

// InstallAndReport is InstallAndBoot for somebody who watches: it finds out what the host has, writes the facts to w and
// ends with an error if the installed system is not as its release says.
func InstallAndReport(ctx context.Context, s Scenario, w io.Writer) error {
	h, err := NewHost(ctx, needFor(s.Firmware))
	if err != nil {
		return err
	}
	m, err := Manifest(s.Release)
	if err != nil {
		return err
	}
	f, _, err := h.InstallAndBoot(ctx, s)
	if err != nil {
		return err
	}
	if err := f.WriteTable(w); err != nil {
		return err
	}
	return f.mustBe(m, s.Firmware)
}

// mustBe returns the problems as one error.
func (f Facts) mustBe(m *image.Manifest, fw Firmware) error {
	if p := f.Problems(m, fw); len(p) > 0 {
		return fmt.Errorf("the installed system is not as it should be: %s", strings.Join(p, "; "))
	}
	return nil
}

// needFor returns what a scenario with this firmware needs of the host.
func needFor(fw Firmware) Need {
	switch fw {
	case UEFI:
		return NeedDnsmasq | NeedUEFI | NeedIPXEEFI
	case SecureBoot:
		return NeedDnsmasq | NeedSecureBoot | NeedIPXEEFI
	default:
		return NeedDnsmasq
	}
}
