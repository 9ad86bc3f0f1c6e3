package dialog

import (
	"bytes"
	"fmt"
	"io"
)

// terminal shows screens on a VT100 or what understands its sequences. What is there already is not sent again: serial lines are
// slow. A row in which something has changed is sent whole, so that a program that reads along finds each row in one piece.
type terminal struct {
	out  io.Writer
	last *screen // nil where nobody knows what is shown
}

// show sends what differs from what is shown.
func (t *terminal) show(s *screen) error {
	var b bytes.Buffer
	if t.last == nil {
		b.WriteString("\x1b[0m\x1b[2J")
	}
	for r := range rows {
		if t.last != nil && t.last.chars[r] == s.chars[r] && t.last.reverse[r] == s.reverse[r] {
			continue
		}
		text, reverse := s.line(r)
		if t.last == nil && text == "" {
			continue
		}
		fmt.Fprintf(&b, "\x1b[%d;1H", r+1)
		on := false
		for i := range len(text) {
			if reverse[i] != on {
				on = reverse[i]
				b.WriteString(map[bool]string{true: "\x1b[7m", false: "\x1b[0m"}[on])
			}
			b.WriteByte(text[i])
		}
		if on {
			b.WriteString("\x1b[0m")
		}
		if t.last != nil {
			b.WriteString("\x1b[K")
		}
	}
	if b.Len() == 0 && t.last.row == s.row && t.last.col == s.col {
		return nil
	}
	fmt.Fprintf(&b, "\x1b[%d;%dH", s.row+1, s.col+1)
	t.last = s
	_, err := t.out.Write(b.Bytes())
	return err
}

// end leaves the cursor below what is shown.
func (t *terminal) end() error {
	_, err := fmt.Fprintf(t.out, "\x1b[0m\x1b[%d;1H\r\n", rows)
	return err
}
