// Package installer puts a release onto the machine's disks.
//
// What comes in: the kernel's arguments, the keys that are trusted, what the machine is. What goes out: an installed
// system, or an error and disks that are either untouched or do not boot; or, asked for a preview, what an installation
// would erase and write. It never writes before the manifest's signature, the layout and every disk have been checked, never
// writes a byte of the image that its chunk's digest does not vouch for, and makes the disks bootable last.
//
// It decides no policy: which disks, and what on them may be destroyed, a person said, or it stops.
package installer

import (
	"context"
	"errors"
	"net/http"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer/bootloader/nvram"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/control"
	"imgbuild/installer/firstboot"
	"imgbuild/installer/hw"
	"imgbuild/installer/netup"
	"imgbuild/installer/pid1"
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
	// Console takes the tables of what is erased and written, which are for whoever stands before the machine; nil for Report.
	Console report.Reporter
	System  System
	// Network is how the machine came to the network; nil where it did not have to. A live system whose root comes that way keeps it.
	Network *netup.Network

	// What follows is a server's; without one, all of it is zero.

	// Server plans from whom the root file system is read, and is told how that goes, with Token.
	Server *control.Client
	Token  string
	// Layout takes the place of the manifest's.
	Layout *layout.Layout
	// Seal is what the boot disks are sealed with, as seal.Sign makes it; nil makes a seal that nobody signed.
	Seal []byte
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
	Manager   string // what NetworkManager keeps while the machine runs; /run/NetworkManager
	Work      string // an empty place for mount points and scratch files; /run/imgbuild
	LiveRoot  string // where a live system is mounted; pid1.LiveRoot
	Syslinux  string // the directory of gptmbr.bin and mbr.bin; /usr/share/syslinux
	EFIVars   string // nvram.Dir
	Program   string // this program's file: /proc/self/exe
	Tools     tool.Runner
	// Mounter mounts; KernelMounter.
	Mounter Mounter
	// LoadModule loads a kernel module with all that it needs, and is content if it is built in; nil if nobody has to.
	LoadModule func(ctx context.Context, name string) error
	// Transport is HTTP's; nil for fetch's own.
	Transport http.RoundTripper
	// Mend is what to do about a release that is not as it was signed; empty for fetch's own words.
	Mend string
}

func (s System) withDefaults(ctx context.Context) System {
	def := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	def(&s.Sys, "/sys")
	def(&s.MountInfo, "/proc/self/mountinfo")
	def(&s.MemInfo, "/proc/meminfo")
	def(&s.Manager, "/run/NetworkManager")
	def(&s.Work, "/run/imgbuild")
	def(&s.LiveRoot, pid1.LiveRoot)
	def(&s.Syslinux, "/usr/share/syslinux")
	def(&s.EFIVars, nvram.Dir)
	def(&s.Program, "/proc/self/exe")
	if s.Mounter == nil {
		k := KernelMounter{}
		if s.LoadModule != nil {
			k.LoadModule = func(name string) error { return s.LoadModule(ctx, name) }
		}
		s.Mounter = k
	}
	return s
}

// Result is how Run ended without an error.
type Result struct {
	// Done is what is to happen now, for an installation: as was asked, or a reboot where the kernel that was asked for with
	// kexec could not be loaded.
	Done cmdline.Done
	// Outlook is what an installation would do, where that was asked; nil after an installation.
	Outlook *plan.Outlook
}

// Steps is the number of steps that an installation reports; a preview reports the first previewSteps.
const (
	Steps        = 9
	previewSteps = 3
)

// Run installs, or says what it would do if Args.Mode is ModePreview. An error is an *Error. A preview whose release is known
// has no error: what would stop the installation is in the outlook.
func Run(ctx context.Context, c Config) (Result, error) {
	r := &run{Config: c, steps: Steps}
	r.System = c.System.withDefaults(ctx)
	if c.Args.Mode == cmdline.ModePreview {
		r.steps = previewSteps
	}
	res, err := r.all(ctx)
	var e *Error
	if err != nil && !errors.As(err, &e) {
		e = &Error{Err: err, Disks: r.states()}
		if r.manifest != nil {
			e.NoKexec = r.manifest.NoKexec
		}
		err = e
	}
	return res, err
}
