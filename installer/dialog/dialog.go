// Package dialog is the terminal installer: screens on which a person chooses disks, layout, name, network and password, reads what
// would be done, confirms it by typing the disks' names, and watches it being done.
//
// Disks, network cards and layouts come in as plain values, keys as bytes; the answers of package answers go to the caller's functions,
// and screens for a terminal of 24 lines and 80 columns go out. It reads and writes no disk, and calls what does only after the
// names were typed.
package dialog

import (
	"context"
	"io"
	"slices"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer/answers"
	"imgbuild/installer/report"
)

// Options are what Run needs.
type Options struct {
	// In has the keys of a terminal in raw mode, Out shows the screens. Where In has SetReadDeadline, nothing of what is typed after
	// Run is lost; else one more read may be under way when it returns.
	In  io.Reader
	Out io.Writer
	// Release is what is installed, as "web 1.2", for the title.
	Release string
	Disks   []Disk
	Cards   []plan.NIC
	Presets []Preset
	// Preview says what an installation with these answers would erase and write, and why it would be refused. It writes nothing. A
	// context that is cancelled means that nobody wants to know any more.
	Preview func(context.Context, answers.Answers) (text string, refused error)
	// Install does it. It may write to disks.
	Install func(context.Context, answers.Answers, report.Reporter) (Result, error)
	// Save keeps an answer file at SavePath; nil where there is no place for one.
	Save     func(data []byte) error
	SavePath string
	// Log is where the installer's log is, for people: /run/imgbuild/log.
	Log string
	// AfterDone and AfterFailure complete "press Enter to …", as "restart the machine". They are what the caller does then.
	AfterDone, AfterFailure string
}

// Disk is a disk of the machine.
type Disk struct {
	// Argument is what answers name it by: layout.Candidate.Argument.
	Argument string
	// Name is the kernel's, as sda: what a person types to confirm.
	Name      string
	Size      int64 // bytes
	Model     string
	Serial    string
	Transport string
	// Holds is what is on it, one line each; empty is an empty disk.
	Holds []string
	// Loses says whether an installation would destroy something on it. Such a disk is named to be wiped.
	Loses bool
	// Caution is what to think of before it is chosen, as "a USB disk"; Unusable why it cannot be.
	Caution, Unusable string
}

// Preset is a layout that can be chosen.
type Preset struct {
	// Name is the preset's; empty for the release's own layout.
	Name layout.Preset
	Text string // what it is, in one line
	// Disks is how many disks it is made of.
	Disks int
	// Unusable is why the release cannot make it; empty if it can.
	Unusable string
}

// Presets are the release's own layout and the presets, for a machine that starts by this firmware. missing is asked which of
// some tools, as layout.Layout.Tools names them, the initramfs does not have. Boot loaders' tools are not among them: of those for
// BIOS a release has one at least, and whether that does is the preview's to say.
func Presets(release layout.Layout, fw layout.Firmware, missing func(tools []string) []string) []Preset {
	own := Preset{Text: "as the release has it"}
	if release.Preset != "" {
		own.Text += ": " + string(release.Preset)
	}
	out := []Preset{
		own,
		{Name: layout.Simple, Text: "/boot and / on partitions of one disk"},
		{Name: layout.LVM, Text: "/ in a volume group on the rest of one disk"},
		{Name: layout.Server, Text: "as lvm, with /var, /home, /tmp and logs on their own"},
		{Name: layout.Mirror, Text: "as lvm, on two disks (RAID 1), each of which boots"},
	}
	for i := range out {
		l := release
		if p := out[i].Name; p != "" { // as imgbuild.layout= does
			l.Preset, l.Disks, l.Arrays, l.Groups = p, nil, nil, nil
		}
		out[i].Disks = len(l.Expand(fw).Disks)
		tools := slices.DeleteFunc(l.Tools(fw), func(t string) bool { return t == "extlinux" || t == "grub2-mkimage" })
		if lacks := missing(tools); len(lacks) > 0 {
			out[i].Unusable = "the release lacks " + strings.Join(lacks, ", ")
		} else if err := l.Validate(); err != nil {
			out[i].Unusable = err.Error()
		}
	}
	return out
}

// Result is how an installation ended.
type Result struct {
	// Text is a sentence for people: what there is now.
	Text string
	// Advice is what to do after a failure; empty if nobody knows.
	Advice string
}

// Outcome is how Run ended.
type Outcome struct {
	// Answers are what was given, as far as it was.
	Answers answers.Answers
	// Installed is true when Install was called and had no error. Began is true when it was called at all: without it, nothing was
	// written.
	Installed, Began bool
	Result           Result
}

// Run shows the screens until the installation has ended and the person has seen how, or has left before it began. An error is
// Install's, or one of the terminal; leaving is none. When ctx is cancelled before the installation began, the error is its cause.
func Run(ctx context.Context, o Options) (Outcome, error) {
	return newRunner(o).run(ctx)
}

// describe is a disk in one line.
func (d Disk) describe() string {
	words := []string{d.Name, layout.FormatBytes(d.Size), d.Model, d.Transport}
	if d.Serial != "" {
		words = append(words, "serial "+d.Serial)
	}
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), "  ")
}
