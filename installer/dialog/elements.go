package dialog

import (
	"fmt"
	"slices"
	"strings"
)

// did is what an element made of a key.
type did byte

const (
	didNothing did = iota // it is for others
	didTake               // it is dealt with
	didMove               // it is dealt with, and the next element is to have the keys
	didPress              // a button was pressed
)

// element is a part of a screen that takes keys.
type element interface {
	// press takes a key. note is what the person is to be told.
	press(k key) (d did, note string)
	height() int
	draw(s *screen, row int, focused bool)
	help() string
}

// row is one line of a list.
type row struct {
	text string
	why  string // it cannot be marked; empty if it can
}

// list is lines of which one, or several in an order, are marked.
type list struct {
	label  string // the line above it; none if empty
	rows   []row
	many   bool
	window int // how many lines are shown
	at     int
	marked []int // in the order in which they were marked
}

func (l *list) height() int {
	h := min(len(l.rows), l.window)
	if l.label != "" {
		h++
	}
	return h
}

func (l *list) help() string {
	if l.many {
		return "Up/Down: move   Space: mark   Enter: mark and go on   Tab: next   Esc: leave"
	}
	return "Up/Down: move   Enter or Space: choose   Tab: next   Esc: leave"
}

func (l *list) press(k key) (did, string) {
	last := len(l.rows) - 1
	to := l.at
	switch k.kind {
	case keyUp:
		to--
	case keyDown:
		to++
	case keyHome:
		to = 0
	case keyEnd:
		to = last
	case keyPageUp:
		to = max(l.at-l.window, 0)
	case keyPageDown:
		to = min(l.at+l.window, last)
	case keyEnter:
		if l.many && len(l.marked) > 0 && !slices.Contains(l.marked, l.at) {
			return didMove, "" // what is marked is what was meant
		}
		if note := l.mark(false); note != "" {
			return didTake, note
		}
		return didMove, ""
	case keyText:
		if k.ch != ' ' {
			return didNothing, ""
		}
		return didTake, l.mark(l.many)
	default:
		return didNothing, ""
	}
	if to < 0 || to > last {
		return didNothing, ""
	}
	l.at = to
	return didTake, ""
}

// mark marks the line that the cursor is on, or takes its mark away where it has one.
func (l *list) mark(toggle bool) (note string) {
	if len(l.rows) == 0 {
		return ""
	}
	if why := l.rows[l.at].why; why != "" {
		return "This cannot be chosen: " + why + "."
	}
	i := slices.Index(l.marked, l.at)
	switch {
	case i >= 0 && toggle:
		l.marked = slices.Delete(l.marked, i, i+1)
	case i >= 0:
	case l.many:
		l.marked = append(l.marked, l.at)
	default:
		l.marked = []int{l.at}
	}
	return ""
}

// choice is the marked line of a list in which one is; -1 if none.
func (l *list) choice() int {
	if len(l.marked) == 0 {
		return -1
	}
	return l.marked[0]
}

func (l *list) draw(s *screen, row int, focused bool) {
	if l.label != "" {
		s.text(row, 1, l.label)
		row++
	}
	shown := min(len(l.rows), l.window)
	top := min(max(l.at-shown/2, 0), len(l.rows)-shown)
	for i := range shown {
		n := top + i
		s.text(row+i, 2, l.box(n)+" "+clip(l.rows[n].text, cols-8))
		if focused && n == l.at {
			s.invert(row+i, 1, cols-1)
			s.cursor(row+i, 3)
		}
	}
	if top > 0 {
		s.text(row, cols-1, "^")
	}
	if top+shown < len(l.rows) {
		s.text(row+shown-1, cols-1, "v")
	}
}

// box is what stands before a line.
func (l *list) box(n int) string {
	i := slices.Index(l.marked, n)
	switch {
	case l.rows[n].why != "":
		return " - "
	case !l.many && i >= 0:
		return "(*)"
	case !l.many:
		return "( )"
	case i >= 0 && i < 9:
		return fmt.Sprintf("[%d]", i+1)
	case i >= 0:
		return fmt.Sprintf("%3d", i+1)
	}
	return "[ ]"
}

// field is one line of text that is typed.
type field struct {
	label  string
	value  []byte
	hidden bool
	at     int // the cursor, as an index of value
}

const (
	labelWidth = 22
	fieldWidth = cols - labelWidth - 4
	maxField   = 16 << 10 // as long as an SSH key may be
)

func (f *field) height() int { return 1 }

func (f *field) help() string {
	return "Type the text   Ctrl-U: empty it   Enter or Tab: next   Esc: leave"
}

// text is what was typed, without blanks around it.
func (f *field) text() string { return strings.TrimSpace(string(f.value)) }

func (f *field) press(k key) (did, string) {
	switch k.kind {
	case keyText:
		if len(f.value) >= maxField {
			return didTake, "This is as long as it may be."
		}
		f.value = slices.Insert(f.value, f.at, k.ch)
		f.at++
	case keyLeft:
		f.at = max(f.at-1, 0)
	case keyRight:
		f.at = min(f.at+1, len(f.value))
	case keyHome:
		f.at = 0
	case keyEnd:
		f.at = len(f.value)
	case keyBackspace:
		if f.at > 0 {
			f.at--
			f.value = slices.Delete(f.value, f.at, f.at+1)
		}
	case keyDelete:
		if f.at < len(f.value) {
			f.value = slices.Delete(f.value, f.at, f.at+1)
		}
	case keyClear:
		f.clear()
	case keyEnter:
		return didMove, ""
	default:
		return didNothing, ""
	}
	return didTake, ""
}

// clear forgets what was typed.
func (f *field) clear() {
	clear(f.value)
	f.value, f.at = f.value[:0], 0
}

func (f *field) draw(s *screen, row int, focused bool) {
	s.text(row, 1, clip(f.label, labelWidth))
	shown := string(f.value)
	if f.hidden {
		shown = strings.Repeat("*", len(f.value))
	}
	from := max(f.at-fieldWidth+1, 0)
	shown = shown[from:min(len(shown), from+fieldWidth)]
	left := labelWidth + 2
	s.text(row, left-1, "[")
	s.text(row, left, shown+strings.Repeat("_", fieldWidth-len(shown)))
	s.text(row, left+fieldWidth, "]")
	if focused {
		s.invert(row, left, left+fieldWidth)
		s.cursor(row, left+f.at-from)
	}
}

// buttons are a row of buttons.
type buttons struct {
	labels []string
	at     int
}

func (b *buttons) height() int { return 1 }

func (b *buttons) help() string {
	return "Left/Right: move   Enter: press   Tab or Up: back to the screen   Esc: leave"
}

func (b *buttons) press(k key) (did, string) {
	switch k.kind {
	case keyLeft:
		b.at = max(b.at-1, 0)
	case keyRight:
		b.at = min(b.at+1, len(b.labels)-1)
	case keyEnter:
		return didPress, ""
	case keyText:
		if k.ch != ' ' {
			return didNothing, ""
		}
		return didPress, ""
	default:
		return didNothing, ""
	}
	return didTake, ""
}

func (b *buttons) draw(s *screen, row int, focused bool) {
	col := 2
	for i, label := range b.labels {
		end := s.text(row, col, "< "+label+" >")
		if focused && i == b.at {
			s.invert(row, col, end)
			s.cursor(row, col+2)
		}
		col = end + 2
	}
}
