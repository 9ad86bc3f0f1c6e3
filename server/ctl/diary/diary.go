// Package diary tells one host's events as a person would: day by day, with the time that passed, and long transfers in one
// line. Events come in, lines go out.
//
// It never asks for events, and adds nothing that they do not say.
package diary

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// Writer writes a diary as its events come.
type Writer struct {
	w     io.Writer
	zone  *time.Location
	err   error
	day   string
	last  time.Time // of the line before
	began time.Time // of the order

	// offset is what has to be added to the machine's clock to get the server's: the least difference that was seen, which
	// is that of the event that was longest on its way the least.
	offset   time.Duration
	known    bool
	transfer *transfer
}

// transfer is a run of progress events about one thing.
type transfer struct {
	text        string
	first, last registry.Event
	from, to    time.Time
}

// New writes to w, with times of the given zone.
func New(w io.Writer, zone *time.Location) *Writer { return &Writer{w: w, zone: zone} }

// Clock learns from events, before they are told, how wrong the machine's clock is. Without it the clock is learnt on the way.
func (d *Writer) Clock(events []registry.Event) {
	for _, e := range events {
		if e.Machine == nil || e.Machine.Time.IsZero() {
			continue
		}
		if o := e.Time.Sub(e.Machine.Time); !d.known || o < d.offset {
			d.offset, d.known = o, true
		}
	}
}

// when is the server's time at which an event happened. Machines send several at once; their own clock tells them apart.
func (d *Writer) when(e registry.Event) time.Time {
	if e.Machine == nil || e.Machine.Time.IsZero() {
		return e.Time
	}
	d.Clock([]registry.Event{e})
	t := e.Machine.Time.Add(d.offset)
	if e.Time.Sub(t) > time.Hour { // the clock was set on the way: it says nothing about this event
		t = e.Time
	}
	return t
}

// Add tells one event. Progress is told when it has ended, or by Flush. The error is the writer's.
func (d *Writer) Add(e registry.Event) error {
	at := d.when(e)
	if e.Machine != nil && e.Machine.Kind == plan.KindProgress {
		if d.transfer == nil || d.transfer.text != e.Machine.Text {
			d.end()
			d.transfer = &transfer{text: e.Machine.Text, first: e, from: at}
		}
		d.transfer.last, d.transfer.to = e, at
		return d.err
	}
	d.end()
	if e.Kind == "ordered" && !e.Preview || e.Kind == "live" || d.began.IsZero() {
		d.began = at
	}
	d.line(at, Sentence(e))
	if e.Kind == "booted" && !e.Live && at.After(d.began) {
		d.print(fmt.Sprintf("%24s%s from order to first boot\n", "", show.Duration(at.Sub(d.began))))
	}
	return d.err
}

// Flush tells what has not ended.
func (d *Writer) Flush() error {
	d.end()
	return d.err
}

func (d *Writer) end() {
	t := d.transfer
	if t == nil {
		return
	}
	d.transfer = nil
	m := t.last.Machine
	text := t.text
	if text == "" {
		text = "transfer"
	}
	switch took := t.to.Sub(t.from); {
	case m.Total > 0 && m.Done < m.Total:
		text += fmt.Sprintf(": %s of %s", show.Bytes(m.Done), show.Bytes(m.Total))
	case m.Done > 0 && took >= time.Second:
		rate := float64(m.Done-t.first.Machine.Done) / took.Seconds()
		text += fmt.Sprintf(": %s in %s (%s/s)", show.Bytes(m.Done), show.Duration(took), show.Bytes(int64(rate)))
	case m.Done > 0:
		text += ": " + show.Bytes(m.Done)
	}
	if mix := show.Mix(m.Mix); mix != "" {
		text += ", from " + mix
	}
	d.line(t.to, text)
}

// line writes one line: time of day, what has passed since the line before if that is worth a word, and the sentence.
func (d *Writer) line(at time.Time, text string) {
	if at.Before(d.last) {
		at = d.last // a diary does not go back
	}
	local := at.In(d.zone)
	if day := local.Format("Monday, 2 January 2006"); day != d.day {
		if d.day != "" {
			d.print("\n")
		}
		d.print(day + "\n")
		d.day, d.last = day, time.Time{}
	}
	passed := ""
	if gap := at.Sub(d.last); !d.last.IsZero() && gap >= time.Second {
		passed = "+" + show.Duration(gap)
	}
	d.last = at
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, l := range lines {
		l = stamp.ReplaceAllStringFunc(l, d.humanly)
		lines[i] = show.Clean(strings.TrimRight(l, " \r"))
	}
	d.print(fmt.Sprintf("%s  %12s  %s\n", local.Format("15:04:05"), passed, strings.Join(lines, "\n"+strings.Repeat(" ", 24))))
}

// stamp is a time as programs write it (RFC 3339).
var stamp = regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)

// humanly writes such a time as the diary does.
func (d *Writer) humanly(s string) string {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return s
	}
	t = t.In(d.zone)
	if t.Format("Monday, 2 January 2006") == d.day {
		return t.Format("15:04")
	}
	return t.Format("Monday, 2 January, 15:04")
}

func (d *Writer) print(s string) {
	if d.err == nil {
		_, d.err = io.WriteString(d.w, s)
	}
}

// Sentence is what an event says, in one sentence.
func Sentence(e registry.Event) string {
	text := e.Text
	if m := e.Machine; m != nil {
		text = machine(*m)
		if e.Live && m.Kind == plan.KindDone && m.Text == "" {
			text = "the image runs from memory"
		}
		if text == "" {
			text = e.Text
		}
	}
	if text == "" {
		text = e.Kind
	}
	if e.By != "" && !strings.Contains(text, e.By) {
		text += " (" + e.By + ")"
	}
	return text
}

func machine(m plan.Event) string {
	switch m.Kind {
	case plan.KindStep:
		if m.Of > 0 {
			return fmt.Sprintf("[%d/%d] %s", m.Step, m.Of, m.Text)
		}
		return m.Text
	case plan.KindProgress:
		if m.Total > 0 {
			return fmt.Sprintf("%s: %s of %s", m.Text, show.Bytes(m.Done), show.Bytes(m.Total))
		}
		return fmt.Sprintf("%s: %s", m.Text, show.Bytes(m.Done))
	case plan.KindWarn:
		return "warning: " + m.Text
	case plan.KindFailed:
		return "FAILED: " + m.Text
	case plan.KindDone:
		if m.Text == "" {
			return "the disk is installed"
		}
	}
	return m.Text
}
