package progress

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
)

// plain writes lines.
type plain struct {
	w    io.Writer
	now  func() time.Time
	last time.Time
	said Step
	open string
}

// plainEvery is how often at most a stage's progress is written as a line.
const plainEvery = 5 * time.Second

// NewPlain returns a Reporter that writes plain lines to w, and progress within a stage every few seconds.
func NewPlain(w io.Writer) Reporter { return &plain{w: w, now: time.Now} }

func (p *plain) Start(s Stage) {
	p.last, p.open = p.now(), s.Name
	fmt.Fprintf(p.w, "[%d/%d] %s: %s\n", s.N, s.Of, s.Name, s.What)
}

func (p *plain) Step(s Step) {
	if now := p.now(); now.Sub(p.last) >= plainEvery && s != p.said {
		p.last, p.said = now, s
		fmt.Fprintf(p.w, "      %s\n", stepLine(s))
	}
}

func stepLine(s Step) string {
	var b strings.Builder
	switch {
	case s.Total > 0 && s.Bytes:
		fmt.Fprintf(&b, "%d%% %s of %s ", s.Done*100/s.Total, Bytes(s.Done), Bytes(s.Total))
	case s.Bytes:
		fmt.Fprintf(&b, "%s ", Bytes(s.Done))
	case s.Total > 0:
		fmt.Fprintf(&b, "[%d/%d] ", s.Done, s.Total)
	}
	return strings.TrimRight(b.String()+s.Text, " ")
}

func (p *plain) Done(t StageTime) {
	line := fmt.Sprintf("      done in %s", Seconds(t.Duration))
	if t.Reused {
		line = "      nothing to do"
	}
	if t.Note != "" {
		line += ": " + t.Note
	}
	fmt.Fprintln(p.w, line)
}

func (p *plain) Note(s string) { fmt.Fprintf(p.w, "      note: %s\n", s) }

func (p *plain) Finish(s Summary) { table(p.w, s) }

// terminal draws one bar for the stage that is running.
type terminal struct {
	w      io.Writer
	bar    *progressbar.ProgressBar
	stage  Stage
	began  time.Time
	shape  Step
	drawn  time.Time
	active bool
}

// NewTerminal returns a Reporter that draws on a terminal.
func NewTerminal(w io.Writer) Reporter { return &terminal{w: w} }

func (t *terminal) Start(s Stage) {
	t.stage, t.began = s, time.Now()
	t.draw(Step{})
}

// draw begins a new bar when the kind of progress changes.
func (t *terminal) draw(s Step) {
	if t.active && t.shape.Total == s.Total && t.shape.Bytes == s.Bytes {
		return
	}
	t.clear()
	total := s.Total
	if total <= 0 {
		total = -1 // a spinner
	}
	t.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(t.w),
		progressbar.OptionSetDescription(t.title("")),
		progressbar.OptionShowBytes(s.Bytes),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSpinnerType(14),
	)
	t.shape, t.active = s, true
}

func (t *terminal) title(item string) string {
	s := fmt.Sprintf("[%d/%d] %-10s", t.stage.N, t.stage.Of, t.stage.Name)
	if item == "" {
		return s
	}
	if len(item) > 36 {
		item = item[:35] + "…"
	}
	return fmt.Sprintf("%s %-36s", s, item)
}

// The bar's writer is a terminal; if it is gone there is nobody to show anything to.
func (t *terminal) clear() {
	if t.active {
		_ = t.bar.Clear()
		t.active = false
	}
}

func (t *terminal) Step(s Step) {
	t.draw(s)
	if now := time.Now(); now.Sub(t.drawn) < 80*time.Millisecond {
		return
	}
	t.drawn = time.Now()
	t.bar.Describe(t.title(s.Text))
	if s.Total > 0 {
		_ = t.bar.Set64(min(s.Done, s.Total-1)) // a bar that is full ends itself
	} else {
		_ = t.bar.Add(1)
	}
}

func (t *terminal) Done(s StageTime) {
	t.clear()
	mark := "✓"
	if s.Reused {
		mark = "="
	}
	fmt.Fprintf(t.w, "%s %-12s %10s  %s\n", mark, s.Name, Seconds(s.Duration), s.Note)
}

func (t *terminal) Note(s string) {
	t.clear()
	fmt.Fprintf(t.w, "! %s\n", s)
}

func (t *terminal) Finish(s Summary) {
	t.clear()
	table(t.w, s)
}

// jsonLines writes every event as one JSON object on a line.
type jsonLines struct{ e *json.Encoder }

// NewJSON returns a Reporter for programs: objects with the fields event (stage, step, done, note, finish) and what
// belongs to that event.
func NewJSON(w io.Writer) Reporter {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return &jsonLines{e}
}

func (j *jsonLines) put(v any) { _ = j.e.Encode(v) }

func (j *jsonLines) Start(s Stage) {
	j.put(struct {
		Event string `json:"event"`
		Stage
	}{"stage", s})
}

func (j *jsonLines) Step(s Step) {
	j.put(struct {
		Event string `json:"event"`
		Step
	}{"step", s})
}

func (j *jsonLines) Done(t StageTime) {
	j.put(struct {
		Event string `json:"event"`
		StageTime
	}{"done", t})
}

func (j *jsonLines) Note(s string) {
	j.put(struct {
		Event string `json:"event"`
		Text  string `json:"text"`
	}{"note", s})
}

func (j *jsonLines) Finish(s Summary) {
	j.put(struct {
		Event string `json:"event"`
		Summary
	}{"finish", s})
}
