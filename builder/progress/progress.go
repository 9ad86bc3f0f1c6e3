// Package progress tells people and programs how a build is getting on. In go events from the builder; out come bars on
// a terminal, plain lines elsewhere, or one JSON object a line.
//
// It never decides anything and never fails a build: what cannot be shown is lost.
package progress

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Stage is a stage that begins.
type Stage struct {
	N    int    `json:"n"`
	Of   int    `json:"of"`
	Name string `json:"name"`
	What string `json:"what"`
}

// Step is how far a stage has come. Done and Total are counts, or bytes if Bytes is true; Total 0 means unknown.
type Step struct {
	Text  string `json:"text"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
	Bytes bool   `json:"bytes"`
}

// StageTime is a stage that has ended.
type StageTime struct {
	Name     string        `json:"name"`
	Duration time.Duration `json:"duration"` // nanoseconds in JSON
	// Bytes is the size of what the stage made or moved; 0 if it makes no sense.
	Bytes int64 `json:"bytes,omitempty"`
	// Note is what is worth knowing, in a few words.
	Note string `json:"note,omitempty"`
	// Reused is true when the stage had nothing to do, because its result was there.
	Reused bool `json:"reused,omitempty"`
}

// Summary is a build that has ended well.
type Summary struct {
	Name    string        `json:"name"`
	Version string        `json:"version"`
	Dir     string        `json:"dir"`
	Reused  bool          `json:"reused"`
	Total   time.Duration `json:"total"` // nanoseconds in JSON
	Stages  []StageTime   `json:"stages,omitempty"`
	Files   []FileSize    `json:"files,omitempty"`
	// Why says why nothing was built, when Reused is true.
	Why string `json:"why,omitempty"`
}

// FileSize is a file of the release.
type FileSize struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// Reporter is told of a build's events, one at a time.
type Reporter interface {
	Start(Stage)
	Step(Step)
	Done(StageTime)
	// Note is a line for people: something that they should know.
	Note(string)
	Finish(Summary)
}

// Bytes writes a size for people, with two or three digits.
func Bytes(n int64) string {
	switch f := float64(n); {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.0f KiB", f/(1<<10))
	case n < 10<<20:
		return fmt.Sprintf("%.1f MiB", f/(1<<20))
	case n < 1<<30:
		return fmt.Sprintf("%.0f MiB", f/(1<<20))
	default:
		return fmt.Sprintf("%.2f GiB", f/(1<<30))
	}
}

// Seconds writes a duration for people.
func Seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
}

// table writes the times and sizes of a build.
func table(w io.Writer, s Summary) {
	if s.Reused {
		fmt.Fprintf(w, "%s %s is up to date: %s\n  %s (%s)\n", s.Name, s.Version, s.Why, s.Dir, Seconds(s.Total))
		return
	}
	width := 8
	for _, t := range s.Stages {
		width = max(width, utf8.RuneCountInString(t.Name))
	}
	for _, f := range s.Files {
		width = max(width, utf8.RuneCountInString(f.Name))
	}
	fmt.Fprintf(w, "\n%-*s  %12s  %10s\n", width, "stage", "time", "size")
	for _, t := range s.Stages {
		size := ""
		if t.Bytes > 0 {
			size = Bytes(t.Bytes)
		}
		line := fmt.Sprintf("%-*s  %12s  %10s  %s", width, t.Name, Seconds(t.Duration), size, t.Note)
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	fmt.Fprintf(w, "%-*s  %12s\n\n", width, "together", Seconds(s.Total))
	for _, f := range s.Files {
		fmt.Fprintf(w, "%-*s  %12s  %10s\n", width, f.Name, "", Bytes(f.Bytes))
	}
	fmt.Fprintf(w, "\n%s %s is in %s\n", s.Name, s.Version, s.Dir)
}
