package dialog

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"imgbuild/installer/report"
)

// maxLines is how many of the last lines are kept.
const maxLines = 12

// progress is what is known of the installation that runs.
type progress struct {
	n, of int
	step  string
	now   report.Progress // the zero value if nothing is measured
	lines []string
}

func (p *progress) add(line string) {
	if p.lines = append(p.lines, line); len(p.lines) > maxLines {
		p.lines = slices.Delete(p.lines, 0, len(p.lines)-maxLines)
	}
}

// tail are the last lines.
func (p *progress) tail(n int) []string { return p.lines[max(len(p.lines)-n, 0):] }

const barWidth = cols - 12

func (p *progress) draw(s *screen) {
	if p.of > 0 {
		s.text(firstRow, 1, clip(fmt.Sprintf("Step %d of %d: %s", p.n, p.of, p.step), cols-2))
	} else {
		s.text(firstRow, 1, "The installation begins ...")
	}
	if p.now.Total > 0 {
		done := min(max(p.now.Done, 0), p.now.Total)
		full := int(float64(done) / float64(p.now.Total) * barWidth)
		s.text(firstRow+2, 1, fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), int(float64(done)/float64(p.now.Total)*100)))
	}
	if p.now.What != "" {
		for i, line := range wrap(p.now.String(), cols-2) {
			if i < 2 {
				s.text(firstRow+3+i, 1, line)
			}
		}
	}
	for i, line := range p.lines {
		s.text(firstRow+6+i, 1, clip(line, cols-2))
	}
}

// sink is the report.Reporter of an installation that runs. It keeps the newest state for whoever draws, and never waits for the
// terminal.
type sink struct {
	news chan struct{} // of one place: there is something new

	mu    sync.Mutex
	state progress
}

func newSink() *sink { return &sink{news: make(chan struct{}, 1)} }

func (s *sink) change(f func(*progress)) {
	s.mu.Lock()
	f(&s.state)
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// latest is a copy of the state.
func (s *sink) latest() progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.state
	p.lines = slices.Clone(p.lines)
	return p
}

// Step begins a step; what was measured before it is over.
func (s *sink) Step(n, of int, what string) {
	s.change(func(p *progress) {
		p.n, p.of, p.step, p.now = n, of, what, report.Progress{}
		p.add(fmt.Sprintf("step %d/%d %s", n, of, what))
	})
}

// Progress shows a measurement in the place of the last one.
func (s *sink) Progress(now report.Progress) { s.change(func(p *progress) { p.now = now }) }

// Info adds a line.
func (s *sink) Info(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	s.change(func(p *progress) { p.add(text) })
}

// Warn adds a line that begins with "warning: ".
func (s *sink) Warn(format string, a ...any) { s.Info("warning: "+format, a...) }
