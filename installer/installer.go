// Package installer puts a release onto the machine's disk.
//
// What comes in: the kernel's arguments, the keys that are trusted, what the machine is. What goes out: an installed
// disk, or an error and a disk that is either untouched or does not boot. It never writes before the manifest's signature
// and the disk have been checked, never writes a byte of the image that its chunk's digest does not vouch for, and makes
// the disk bootable last.
//
// It decides no policy: which disk, and what on it may be destroyed, a person said, or it stops.
package installer

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"imgbuild/image"
	"imgbuild/installer/bootloader/nvram"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/firstboot"
	"imgbuild/installer/hw"
	"imgbuild/installer/report"
	"imgbuild/installer/target"
	"imgbuild/installer/tool"
)

// Config is what Run is told.
type Config struct {
	Args cmdline.Args
	// Keys are those whose manifests are trusted.
	Keys    []image.PublicKey
	Machine hw.Machine
	Report  report.Reporter
	System  System

	// What follows is a server's; without one, all of it is zero.

	// Host is what the installed system becomes besides what its image is; nil leaves it as the image is.
	Host *target.Host
	// FirstBoot is what the installed system does when it has started for the first time, besides the image's scripts.
	FirstBoot firstboot.Config
	// BeforeWrite is asked when everything else is ready and nothing has been written: an error stops the installation.
	BeforeWrite func(context.Context) error
}

// System is the machine as Run touches it. The zero value is the machine that it runs on; tests put directories and a
// mounter of their own in place of what their kernel does not have.
type System struct {
	Sys       string // sysfs; /sys
	MountInfo string // /proc/self/mountinfo
	MemInfo   string // /proc/meminfo
	Work      string // an empty place for mount points and scratch files; /run/imgbuild
	BootCode  string // /usr/share/syslinux/gptmbr.bin
	EFIVars   string // nvram.Dir
	Program   string // this program's file: /proc/self/exe
	Tools     tool.Runner
	// Mounter mounts; KernelMounter.
	Mounter Mounter
	// Transport is HTTP's; nil for fetch's own.
	Transport http.RoundTripper
}

func (s System) withDefaults() System {
	def := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	def(&s.Sys, "/sys")
	def(&s.MountInfo, "/proc/self/mountinfo")
	def(&s.MemInfo, "/proc/meminfo")
	def(&s.Work, "/run/imgbuild")
	def(&s.BootCode, "/usr/share/syslinux/gptmbr.bin")
	def(&s.EFIVars, nvram.Dir)
	def(&s.Program, "/proc/self/exe")
	if s.Mounter == nil {
		s.Mounter = KernelMounter{}
	}
	return s
}

// Error is how Run fails. It says in what state the disk is.
type Error struct {
	Err error
	// Disk is the chosen disk's path, empty if none was chosen.
	Disk string
	// Touched is true when something was written to the disk. It does not boot then.
	Touched bool
	// Unknown is true when the disk could not be made unbootable after a failure at the very end.
	Unknown bool
}

// Error is one sentence: what failed, and the state of the disk.
func (e *Error) Error() string {
	switch {
	case e.Unknown:
		return fmt.Sprintf("%v; the state of %s is unknown: do not boot from it", e.Err, e.Disk)
	case e.Touched:
		return fmt.Sprintf("%v; %s was left without a partition table and does not boot", e.Err, e.Disk)
	case e.Disk != "":
		return fmt.Sprintf("%v; %s was not touched", e.Err, e.Disk)
	}
	return fmt.Sprintf("%v; no disk was touched", e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Steps is the number of steps that Run reports.
const Steps = 10

// Run installs. An error is an *Error.
func Run(ctx context.Context, c Config) error {
	r := &run{Config: c, n: 0}
	r.System = c.System.withDefaults()
	if err := r.all(ctx); err != nil {
		var e *Error
		if errors.As(err, &e) {
			return err
		}
		return &Error{Err: err, Disk: r.disk.Path, Touched: r.touched, Unknown: r.unknown}
	}
	return nil
}
