// Package report is how the installer tells people what it does: steps, progress with rate and time left, remarks and
// warnings. Events come in from every room of the installer; lines of text go out to a Sink, which is all consoles of the
// machine, or a buffer in a test.
//
// It never blocks the work it reports: a Sink queues or drops, and progress is thinned to one line a second.
package report

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// Prefix starts every line that the installer writes on a console.
const Prefix = "imgbuild: "

// Progress is one measurement of a long piece of work. Total is 0 where it is not known.
type Progress struct {
	What        string        // what grows, e.g. rootfs
	Done, Total int64         // bytes
	Rate        float64       // bytes a second, smoothed
	Left        time.Duration // until Done reaches Total at this rate; 0 if nobody can say
	// Limit is the share, up to 1, of what could be done at best, and LimitBy what bounds that, as network; 0 if nobody can say.
	Limit   float64
	LimitBy string
	// Mix is where Done came from, the largest share first; empty where there is one source only.
	Mix []Share
}

// Share is a part of something that came from somewhere.
type Share struct {
	From  string
	Bytes int64
}

// Reporter takes what the installer has to say. All methods may be called from several goroutines and return at once.
type Reporter interface {
	// Step says that step n of the of steps begins.
	Step(n, of int, what string)
	// Progress may be called as often as there is news; the reporter thins it.
	Progress(p Progress)
	Info(format string, a ...any)
	Warn(format string, a ...any)
}

// Class says what may happen to a line that a slow console cannot take in time.
type Class byte

// The classes of lines, from the first to be dropped to the one that never is.
const (
	ClassProgress Class = 'P' // replaced by the next one
	ClassInfo     Class = 'I' // dropped, and counted, when a console is far behind
	ClassWarn     Class = 'W' // like info
	ClassFailure  Class = 'F' // never dropped: failures, and how the run ends
)

// Sink takes finished lines, with Prefix and without line break. It must not block for long.
type Sink interface {
	Line(c Class, text string)
}

// Lines is the Reporter that writes one line an event to a Sink.
type Lines struct {
	sink Sink
	now  func() time.Time

	mu   sync.Mutex
	last map[string]time.Time // when progress of a thing was last shown
}

// New returns a reporter that writes to sink.
func New(sink Sink) *Lines {
	return &Lines{sink: sink, now: time.Now, last: map[string]time.Time{}}
}

// Step writes "step n/m what".
func (l *Lines) Step(n, of int, what string) {
	l.sink.Line(ClassInfo, Prefix+oneLine(fmt.Sprintf("step %d/%d %s", n, of, what)))
}

// Progress writes at most one line a second for a thing, and always the one that completes it.
func (l *Lines) Progress(p Progress) {
	now := l.now()
	l.mu.Lock()
	complete := p.Total > 0 && p.Done >= p.Total
	if last, ok := l.last[p.What]; ok && now.Sub(last) < time.Second && !complete {
		l.mu.Unlock()
		return
	}
	if complete {
		delete(l.last, p.What)
	} else {
		l.last[p.What] = now
	}
	l.mu.Unlock()
	l.sink.Line(ClassProgress, Prefix+oneLine(p.String()))
}

// Info writes a remark.
func (l *Lines) Info(format string, a ...any) {
	l.sink.Line(ClassInfo, Prefix+oneLine(fmt.Sprintf(format, a...)))
}

// Warn writes a remark that starts with "warning: ".
func (l *Lines) Warn(format string, a ...any) {
	l.sink.Line(ClassWarn, Prefix+"warning: "+oneLine(fmt.Sprintf(format, a...)))
}

// Done writes "done: " and the sentence that ends a run that succeeded.
func (l *Lines) Done(sentence string) {
	l.sink.Line(ClassFailure, Prefix+"done: "+oneLine(sentence))
}

// Failed writes "failed: " and the sentence that ends a run that did not succeed. An error of several lines, such as
// joined ones, becomes one sentence.
func (l *Lines) Failed(err error) {
	l.sink.Line(ClassFailure, Prefix+"failed: "+oneLine(err.Error()))
}

// Advice writes "what to do: " and a sentence, after Failed.
func (l *Lines) Advice(sentence string) {
	l.sink.Line(ClassFailure, Prefix+"what to do: "+oneLine(sentence))
}

// Final writes a line that no console may lose, such as how the run ends.
func (l *Lines) Final(format string, a ...any) {
	l.sink.Line(ClassFailure, Prefix+oneLine(fmt.Sprintf(format, a...)))
}

// oneLine makes a text safe for a terminal and for readers that match line by line: line breaks become "; " and
// control characters, which may come from a server or a disk, become "?".
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\r\n", "\n")
	s = strings.ReplaceAll(s, "\n", "; ")
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
