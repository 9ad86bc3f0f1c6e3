package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imgbuild/testvm"
	"imgbuild/testvm/standin"
)

// machineFlags are the flags that describe a machine.
type machineFlags struct {
	disks         []string
	bus, firmware string
	sizeGiB       int64
	memory, cpus  int
	serial        string
}

func (f *machineFlags) register(c *cobra.Command, firmware string) {
	c.Flags().StringArrayVar(&f.disks, "disk", nil, "a raw disk file; can be given more than once")
	c.Flags().StringVar(&f.bus, "bus", "virtio", "what the disks are attached to: virtio, nvme, sata, scsi")
	c.Flags().StringVar(&f.firmware, "firmware", "bios", firmware)
	c.Flags().IntVar(&f.memory, "memory", 2048, "MiB of memory")
	c.Flags().IntVar(&f.cpus, "cpus", 2, "processors")
	c.Flags().StringVar(&f.serial, "serial", "TESTVM-1", "the machine's SMBIOS serial number")
}

func (f *machineFlags) machine() ([]testvm.Disk, testvm.SMBIOS, error) {
	bus, err := testvm.ParseBus(f.bus)
	if err != nil {
		return nil, testvm.SMBIOS{}, usageError{err}
	}
	var disks []testvm.Disk
	for i, d := range f.disks {
		disks = append(disks, testvm.Disk{Path: d, Bus: bus, Serial: fmt.Sprintf("DISK%04d", i+1)})
	}
	return disks, testvm.SMBIOS{Manufacturer: "imgbuild", Product: "testvm", Serial: f.serial}, nil
}

func parseFirmwares(s string) ([]testvm.Firmware, error) {
	var fs []testvm.Firmware
	for _, one := range strings.Split(s, ",") {
		f, err := testvm.ParseFirmware(one)
		if err != nil {
			return nil, usageError{err}
		}
		fs = append(fs, f)
	}
	return fs, nil
}

func demoCommand() *cobra.Command {
	var profile, out, firmware, bus, imgbuild string
	var verbose bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Build an image, install it on a machine, boot the machine's disk and show facts",
		Long: `demo builds centos-stream-9 if a mirror answers and a stand-in otherwise, boots a machine with an empty disk from the
network into the installer, powers it off, boots the disk alone and asks the system for facts. It ends with an error if
anything is not as it should be.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			fws, err := parseFirmwares(firmware)
			if err != nil {
				return err
			}
			b, err := testvm.ParseBus(bus)
			if err != nil {
				return usageError{err}
			}
			if profile == "" {
				profile = os.Getenv("DEMO_PROFILE")
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			if imgbuild == "" {
				imgbuild = filepath.Join(filepath.Dir(self), "imgbuild")
			}
			d := testvm.Demo{Profile: profile, Imgbuild: imgbuild, Self: self, Out: out, Firmwares: fws, Bus: b, Verbose: verbose, Stdout: c.OutOrStdout()}
			return d.Run(c.Context())
		},
	}
	c.Flags().StringVar(&profile, "profile", "", "a shipped profile or a file (default $DEMO_PROFILE, else chosen by whether a mirror answers)")
	c.Flags().StringVar(&out, "out", "out", "where releases, and in demo/ the disks and transcripts, go")
	c.Flags().StringVar(&firmware, "firmware", "bios", "one or more of bios, uefi, secureboot, with commas")
	c.Flags().StringVar(&bus, "bus", "virtio", "what the disk is attached to: virtio, nvme, sata, scsi")
	c.Flags().StringVar(&imgbuild, "imgbuild", "", "the imgbuild program (default: the one beside this program)")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show every line of the consoles")
	return c
}

func installCommand() *cobra.Command {
	var f machineFlags
	var s testvm.Scenario
	var direct, verify, verbose bool
	c := &cobra.Command{
		Use:     "install --release DIR --disk FILE",
		Short:   "Install a release on a machine, boot its disk alone and show facts",
		Example: `  testvm install --release out/demo/1 --disk disk.img --firmware uefi --arg imgbuild.wipe=DISK0001`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.Release == "" || len(f.disks) == 0 {
				return usageError{errors.New("install needs --release and --disk; testvm install --help explains them")}
			}
			fw, err := testvm.ParseFirmware(f.firmware)
			if err != nil {
				return usageError{err}
			}
			if s.Disks, s.SMBIOS, err = f.machine(); err != nil {
				return err
			}
			s.Firmware, s.DiskBytes, s.MemoryMiB, s.CPUs, s.VerifyPackages = fw, f.sizeGiB<<30, f.memory, f.cpus, verify
			if direct {
				s.Via = testvm.BootKernel
			}
			show := func(l string) { fmt.Fprintln(c.OutOrStdout(), s.Name+"| "+l) } // a closed terminal is no reason to stop
			s.Live = testvm.LiveFilter(show)
			if verbose {
				s.Live = show
			}
			return testvm.InstallAndReport(c.Context(), s, c.OutOrStdout())
		},
	}
	f.register(c, "bios, uefi or secureboot")
	c.Flags().StringVar(&s.Release, "release", "", "the release's directory")
	c.Flags().StringVar(&s.Name, "name", "vm", "the machine's name")
	c.Flags().Int64Var(&f.sizeGiB, "size", 8, "GiB of a disk whose file is not there yet")
	c.Flags().StringArrayVar(&s.Args, "arg", nil, "a further kernel argument for the installer; can be given more than once")
	c.Flags().StringVar(&s.User, "user", "root", "who logs in on the installed system's console")
	c.Flags().StringVar(&s.Password, "password", testvm.DemoPassword, "with this password")
	c.Flags().StringVar(&s.Logs, "logs", "", "a directory for the consoles' transcripts")
	c.Flags().BoolVar(&direct, "direct", false, "give kernel and initramfs to QEMU instead of booting from the network")
	c.Flags().BoolVar(&verify, "verify", false, "run rpm -Va too")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show every line of the consoles")
	return c
}

func runCommand() *cobra.Command {
	var f machineFlags
	var release string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run a machine with its serial console on your terminal",
		Long: `run boots a machine from its disks, or with --release from the network into that release's installer, with its serial
console on your terminal. Ctrl-] turns it off and leaves.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			fw, err := testvm.ParseFirmware(f.firmware)
			if err != nil {
				return usageError{err}
			}
			disks, smbios, err := f.machine()
			if err != nil {
				return err
			}
			config := testvm.Config{Name: "run", Firmware: fw, Disks: disks, NICs: []testvm.NIC{{}}, SMBIOS: smbios, MemoryMiB: f.memory, CPUs: f.cpus,
				KeepOnReset: true}
			if release != "" {
				config.Boot.Kind = testvm.BootNetwork
			} else if len(disks) == 0 {
				return usageError{errors.New("run needs --disk or --release; testvm run --help explains them")}
			}
			if len(f.disks) > 0 && fw != testvm.BIOS {
				config.VarsFile = testvm.VarsFile(f.disks[0])
			}
			fd := int(os.Stdin.Fd())
			if term.IsTerminal(fd) {
				state, err := term.MakeRaw(fd)
				if err != nil {
					return fmt.Errorf("prepare the terminal: %w", err)
				}
				defer func() { _ = term.Restore(fd, state) }() // nothing is left to do about it
			}
			return testvm.RunInteractive(c.Context(), config, release, os.Stdin, os.Stdout)
		},
	}
	f.register(c, "bios, uefi or secureboot")
	c.Flags().StringVar(&release, "release", "", "boot from the network, from this release's directory")
	return c
}

func standinCommand() *cobra.Command {
	var o standin.Options
	c := &cobra.Command{
		Use:   "standin",
		Short: "Make the stand-in Enterprise Linux repository from the Debian archive",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Progress = testvm.StandinProgress(func(line string) { fmt.Fprintln(c.OutOrStdout(), line) })
			repo, err := standin.Make(c.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%d packages in %s, signed with the key %s in %s\n", repo.Packages, repo.Dir, repo.Fingerprint, repo.KeyFile)
			return nil
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", standin.DefaultDir, "where the repository, its key and the downloads are kept")
	c.Flags().BoolVar(&o.Refresh, "refresh", false, "make it again if the Debian archive has other versions now")
	return c
}
