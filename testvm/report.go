package testvm

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"imgbuild/testvm/standin"
)

// WriteTable writes the facts for people.
func (f Facts) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(t, "  %s\t%s\n", name, fmt.Sprintf(format, a...)) } // Flush tells of errors
	row("system", "%s", f.OSRelease["PRETTY_NAME"])
	row("kernel", "%s", f.KernelRelease)
	row("kernel arguments", "%s", f.KernelArgs)
	row("firmware", "%s", f.Firmware)
	row("serial number", "%s", f.Serial)
	row("hostname", "%s", f.Hostname)
	row("packages", "%d (rpm -qa)", f.Packages)
	for i, m := range f.Mounts {
		name := ""
		if i == 0 {
			name = "mounts"
		}
		row(name, "%s on %s, %s", m.Target, m.Source, m.FSType)
	}
	var addrs []string
	for _, a := range f.Addresses {
		addrs = append(addrs, a.String())
	}
	row("addresses", "%s", orNone(strings.Join(addrs, ", ")))
	row("systemd", "%s", f.State)
	row("failed units", "%s", orNone(strings.Join(f.FailedUnits, ", ")))
	if f.Changed != nil {
		row("rpm -Va", "%d changed files that are configuration, %d that are not", len(f.Changed)-len(f.Unexpected()), len(f.Unexpected()))
	}
	row("boot", "%s from the kernel's start to the end of the boot", round(f.BootTime))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write facts: %w", err)
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// StepTime is how long one step of a demo took.
type StepTime struct {
	Name string
	Took time.Duration
}

func writeTimes(w io.Writer, steps []StepTime) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	var total time.Duration
	for _, s := range steps {
		total += s.Took
		fmt.Fprintf(t, "  %s\t%s\t\n", s.Name, round(s.Took)) // Flush tells of errors
	}
	fmt.Fprintf(t, "  total\t%s\t\n", round(total))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write times: %w", err)
	}
	return nil
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// LiveFilter passes on the lines of a console that tell a spectator something, each shortened to a terminal's width:
// what the installer says, with its progress thinned to every tenth of a percentage, and what firmware, boot loader and systemd say; not
// what the kernel says of its devices.
func LiveFilter(show func(line string)) func(line string) {
	const width = 120
	last := ""
	return func(line string) {
		line = strings.TrimRight(line, " \t")
		if line == "" || kernelLine(line) {
			return
		}
		if p, ok := progressTenth(line); ok {
			if p == last {
				return
			}
			last = p
		}
		if r := []rune(line); len(r) > width {
			line = string(r[:width-1]) + "…"
		}
		show(line)
	}
}

// kernelLine matches the kernel's time stamp: [    1.234567].
func kernelLine(line string) bool {
	rest, ok := strings.CutPrefix(line, "[")
	if !ok {
		return false
	}
	stamp, _, ok := strings.Cut(rest, "]")
	stamp = strings.TrimLeft(stamp, " ")
	return ok && strings.Contains(stamp, ".") && strings.Trim(stamp, "0123456789.") == ""
}

// progressTenth returns what is in progress and its tens of percent: "imgbuild: rootfs 43% ..." is "imgbuild: rootfs 4".
func progressTenth(line string) (string, bool) {
	if !strings.HasPrefix(line, "imgbuild: ") {
		return "", false
	}
	before, _, ok := strings.Cut(line, "% ")
	if !ok {
		return "", false
	}
	what := strings.TrimRight(before, "0123456789")
	digits := before[len(what):]
	if digits == "" {
		return "", false
	}
	if len(digits) == 1 {
		digits = "0" + digits
	}
	return what + digits[:len(digits)-1], true
}

// StandinProgress shows the making of the stand-in repository as lines: one for each step, and one for each tenth of a
// step that can be counted.
func StandinProgress(show func(line string)) func(standin.Progress) {
	last := ""
	return func(p standin.Progress) {
		line := p.Step
		if p.Total > 0 {
			line = fmt.Sprintf("%s: %d%%", p.Step, p.Done*10/p.Total*10)
		}
		if line != last {
			show(line)
			last = line
		}
	}
}
