package dialog

import (
	"strings"
)

// The terminal that everybody has. The last of 80 columns stays free: after a character there, some terminals go to the next line
// and some do not.
const (
	rows = 24
	cols = 79
)

// screen is what is shown: ASCII characters, some of them in reverse video, and where the cursor stands.
type screen struct {
	chars    [rows][cols]byte
	reverse  [rows][cols]bool
	row, col int
}

func newScreen() *screen {
	s := &screen{row: rows - 1}
	for r := range s.chars {
		for c := range s.chars[r] {
			s.chars[r][c] = ' '
		}
	}
	return s
}

// text writes a text at a place; what does not fit into the row is left out. It returns the column after it.
func (s *screen) text(row, col int, text string) int {
	if row < 0 || row >= rows {
		return col
	}
	for _, c := range []byte(ascii(text)) {
		if col >= 0 && col < cols {
			s.chars[row][col] = c
		}
		col++
	}
	return min(col, cols)
}

// invert shows part of a row in reverse video.
func (s *screen) invert(row, from, to int) {
	for c := max(from, 0); c < min(to, cols) && row >= 0 && row < rows; c++ {
		s.reverse[row][c] = true
	}
}

// cursor says where the cursor stands.
func (s *screen) cursor(row, col int) { s.row, s.col = row, min(col, cols-1) }

// line is a row without the blanks at its end that show nothing.
func (s *screen) line(row int) (text string, reverse []bool) {
	end := cols
	for end > 0 && s.chars[row][end-1] == ' ' && !s.reverse[row][end-1] {
		end--
	}
	return string(s.chars[row][:end]), s.reverse[row][:end]
}

// ascii makes a text printable ASCII, whatever a disk or a server has put into it.
func ascii(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r >= ' ' && r < 0x7f:
			b.WriteRune(r)
		case r == '\t':
			b.WriteByte(' ')
		case r == '…':
			b.WriteString("...")
		case r == '–' || r == '—':
			b.WriteByte('-')
		case r == '×':
			b.WriteByte('x')
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

// clip shortens a text to a width.
func clip(text string, width int) string {
	text = ascii(text)
	if len(text) <= width {
		return text
	}
	if width < 4 {
		return text[:max(width, 0)]
	}
	return text[:width-3] + "..."
}

// wrap breaks a text into lines of a width at most, at blanks where there are some. Lines of the text stay lines; what of one is
// broken is indented as its beginning.
func wrap(text string, width int) []string {
	var out []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		line = strings.TrimRight(ascii(strings.ReplaceAll(line, "\t", "    ")), " ")
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		if len(indent) > width/2 {
			indent = ""
		}
		for len(line) > width {
			at := strings.LastIndexByte(line[:width+1], ' ')
			if at <= len(indent) {
				at = width
			}
			out = append(out, strings.TrimRight(line[:at], " "))
			line = indent + strings.TrimLeft(line[at:], " ")
		}
		out = append(out, line)
	}
	return out
}
