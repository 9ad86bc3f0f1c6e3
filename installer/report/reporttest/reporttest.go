// Package reporttest is a console for tests.
package reporttest

import (
	"slices"
	"strings"
	"sync"

	"imgbuild/installer/report"
)

// Lines is a report.Sink that keeps what is written, as it comes and without its class. The zero value is empty.
type Lines struct {
	mu   sync.Mutex
	text []string
}

// Line implements report.Sink.
func (l *Lines) Line(_ report.Class, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, text)
}

// All are the lines.
func (l *Lines) All() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.text)
}

// String is the lines in one text.
func (l *Lines) String() string { return strings.Join(l.All(), "\n") }
