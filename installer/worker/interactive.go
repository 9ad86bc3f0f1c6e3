package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/installer"
	"imgbuild/installer/answers"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/dialog"
	"imgbuild/installer/disk"
	"imgbuild/installer/disk/probe"
	"imgbuild/installer/fetch"
	"imgbuild/installer/hw"
	"imgbuild/installer/inventory"
	"imgbuild/installer/pid1"
	"imgbuild/installer/report"
)

// activeConsoles has the kernel's consoles, with blanks between them.
const activeConsoles = "/sys/class/tty/console/active"

// answersPath is where the answers can be saved: in memory, from where a person takes them.
const answersPath = "/run/imgbuild/answers.json"

// interactive asks a person on a console what to install, and where, and does it.
func (w *worker) interactive(ctx context.Context, c installer.Config) (Outcome, error) {
	tty, err := w.awaitPerson(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer tty.Close()
	return w.ask(ctx, c, tty, dialog.Options{Log: pid1.LogFile, AfterDone: "restart the machine", AfterFailure: "see what can be done"})
}

// ask does that on a terminal. o has what the person is told besides.
func (w *worker) ask(ctx context.Context, c installer.Config, tty *os.File, o dialog.Options) (Outcome, error) {
	c = w.complete(c)
	manifest, err := w.manifest(ctx, c)
	if err != nil {
		return Outcome{}, err
	}
	disks, err := w.dialogDisks()
	if err != nil {
		return Outcome{}, err
	}
	nics := w.cards()
	restore, err := raw(tty)
	if err != nil {
		return Outcome{}, fmt.Errorf("ask on %s: %w", tty.Name(), err)
	}
	defer restore()
	fw := layout.BIOS
	if w.machine.Firmware == hw.UEFI {
		fw = layout.UEFI
	}
	answered := func(a answers.Answers, mode cmdline.Mode, to report.Reporter) installer.Config {
		k := c
		k.Args.Mode, k.Report, k.Console = mode, to, to
		a.Apply(&k, nics)
		return k
	}
	o.In, o.Out, o.Release, o.Disks, o.Cards = tty, tty, manifest.Name+" "+manifest.Version, disks, nics
	o.Presets = dialog.Presets(manifest.Layout, fw, w.missing)
	o.Preview = func(ctx context.Context, a answers.Answers) (string, error) {
		res, err := installer.Run(ctx, answered(a, cmdline.ModePreview, report.New(quiet{w})))
		if err != nil {
			return "", err
		}
		if res.Outlook.Refused != "" {
			return res.Outlook.Text, errors.New(res.Outlook.Refused)
		}
		return res.Outlook.Text, nil
	}
	o.Install = func(ctx context.Context, a answers.Answers, say report.Reporter) (dialog.Result, error) {
		res, err := installer.Run(ctx, answered(a, cmdline.ModeInstall, say))
		if err != nil {
			return dialog.Result{}, because(ctx, err)
		}
		c.Args.Done = res.Done
		return dialog.Result{Text: installed}, nil
	}
	o.Save, o.SavePath = func(data []byte) error { return os.WriteFile(answersPath, data, 0o600) }, answersPath
	end, err := dialog.Run(ctx, o)
	switch {
	case err != nil:
		return Outcome{}, err
	case !end.Installed:
		return Outcome{Text: "nothing was written: the installation was left before it began", Done: cmdline.DoneWait}, nil
	}
	return Outcome{Installed: true, Text: installed, Done: c.Args.Done}, nil
}

// quiet keeps what is said in the log: the screen is the dialog's.
type quiet struct{ w *worker }

func (q quiet) Line(_ report.Class, text string) { q.w.log.Debug("preview", "says", text) }

// manifest gets the release's manifest, for what can be chosen. The installation gets and checks it again.
func (w *worker) manifest(ctx context.Context, c installer.Config) (*image.Manifest, error) {
	f := fetch.New(fetch.Options{Report: w.say, Proxy: c.Args.Proxy, Transport: c.System.Transport})
	m, _, _, err := f.Manifest(ctx, c.Args.Manifest, w.keys)
	return m, err
}

// missing are those of some tools that the initramfs does not have.
func (w *worker) missing(tools []string) []string {
	var list []string
	for _, t := range tools {
		if _, err := w.system.Tools.Find(t); err != nil {
			list = append(list, t)
		}
	}
	return list
}

// dialogDisks are the machine's disks as a person is to see them.
func (w *worker) dialogDisks() ([]dialog.Disk, error) {
	all, err := disk.Inventory("/sys", "/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	candidates := disk.Candidates(all)
	var list []dialog.Disk
	for i, d := range all {
		c := candidates[i]
		if d.Transport == "virtual" || c.PathOf != "" {
			continue // loop devices and what stands on disks; second paths
		}
		x := dialog.Disk{Argument: c.Argument(candidates), Name: d.Name, Size: d.Size, Model: d.Model, Serial: d.Serial, Transport: d.Transport, Caution: c.Unfit, Unusable: c.Unusable}
		found, _, err := disk.Inspect(d)
		if err != nil {
			x.Unusable = err.Error()
		}
		for _, f := range found {
			x.Holds = append(x.Holds, f.String())
			x.Loses = x.Loses || !f.Table()
		}
		x.Loses = x.Loses || len(found) > 0 && allTables(found)
		list = append(list, x)
	}
	return list, nil
}

// allTables reports whether partition tables are all that was found: an installation replaces them, too.
func allTables(found []probe.Finding) bool {
	for _, f := range found {
		if !f.Table() {
			return false
		}
	}
	return true
}

// cards are the machine's network cards.
func (w *worker) cards() []plan.NIC {
	inv, err := inventory.Take(inventory.Options{Machine: w.machine, NICs: w.machine.NICs, Installer: w.version, Sys: "/sys", MountInfo: "/proc/self/mountinfo"})
	if err != nil {
		w.say.Warn("%v", err)
	}
	return inv.NICs
}

// awaitPerson asks on all consoles for somebody to press Enter, and returns the one where that was done.
func (w *worker) awaitPerson(ctx context.Context) (*os.File, error) {
	text, err := os.ReadFile(activeConsoles)
	if err != nil {
		return nil, fmt.Errorf("find the consoles: %w", err)
	}
	w.say.Info("press Enter on the console where you want to say what is installed")
	var ttys []*os.File
	for _, name := range strings.Fields(string(text)) {
		f, err := os.OpenFile(filepath.Join("/dev", name), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			w.log.Debug("console", "error", err)
			continue
		}
		if !isTerminal(f) {
			f.Close()
			continue
		}
		ttys = append(ttys, f)
	}
	if len(ttys) == 0 {
		return nil, errors.New("ask what is to be installed: no console of this machine is a terminal; give the answers as kernel arguments, as imgbuild.disk=, and leave out imgbuild.interactive")
	}
	chosen := make(chan *os.File, len(ttys))
	var readers sync.WaitGroup
	for _, f := range ttys {
		readers.Go(func() {
			if pressed(f) {
				chosen <- f
			}
		})
	}
	var mine *os.File
	select {
	case mine = <-chosen:
	case <-ctx.Done():
	}
	for _, f := range ttys {
		if f != mine {
			f.Close() // ends its reader
		}
	}
	if mine == nil {
		return nil, fmt.Errorf("ask what is to be installed: %w", context.Cause(ctx))
	}
	readers.Wait()
	return mine, mine.SetReadDeadline(time.Time{})
}

// raw makes single keys readable, and returns what undoes that. File.Fd is not used: reads could not be ended after it.
func raw(f *os.File) (restore func(), err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var before *term.State
	if cerr := c.Control(func(fd uintptr) { before, err = term.MakeRaw(int(fd)) }); cerr != nil || err != nil {
		return nil, errors.Join(cerr, err)
	}
	return func() {
		_ = c.Control(func(fd uintptr) { _ = term.Restore(int(fd), before) }) // the machine restarts, or pid1 sets it anew
	}, nil
}

func isTerminal(f *os.File) bool {
	c, err := f.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	return c.Control(func(fd uintptr) { is = term.IsTerminal(int(fd)) }) == nil && is
}

// pressed waits for Enter on a console.
func pressed(f *os.File) bool {
	b := make([]byte, 64)
	for {
		n, err := f.Read(b)
		if err != nil {
			return false
		}
		if strings.ContainsAny(string(b[:n]), "\r\n") {
			return true
		}
	}
}
