package testvm

// textFilter turns what a terminal is sent into lines of plain text, across writes: control sequences (ECMA-48) go,
// carriage returns before a line feed go, and what moves the cursor elsewhere (a lone carriage return, CUP) begins a
// new line, because what follows is not a continuation of what was there.
type textFilter struct {
	state  filterState
	cr     bool // a carriage return came and what follows it decides what it meant
	column int  // bytes on the current line
}

type filterState int

const (
	inText filterState = iota
	inEscape
	inCharset // ESC ( and the like: one more byte
	inCSI
	inString    // OSC, DCS, PM, APC: until BEL or ST
	inStringEnd // ESC inside a string
)

// append adds the text of p to dst.
func (f *textFilter) append(dst, p []byte) []byte {
	for _, c := range p {
		switch f.state {
		case inText:
			dst = f.text(dst, c)
		case inEscape:
			switch c {
			case '[':
				f.state = inCSI
			case ']', 'P', '^', '_', 'X':
				f.state = inString
			case '(', ')', '*', '+', '#', '%', ' ':
				f.state = inCharset
			case 0x1b:
			default:
				f.state = inText
			}
		case inCharset:
			f.state = inText
		case inCSI:
			switch {
			case c >= 0x40 && c <= 0x7e:
				f.state = inText
				if c == 'H' || c == 'f' {
					dst = f.newline(dst)
				}
			case c == 0x1b:
				f.state = inEscape
			}
		case inString:
			switch c {
			case 0x07:
				f.state = inText
			case 0x1b:
				f.state = inStringEnd
			}
		case inStringEnd:
			f.state = inText
			if c != '\\' {
				f.state = inString
			}
		}
	}
	return dst
}

func (f *textFilter) newline(dst []byte) []byte {
	if f.column == 0 {
		return dst
	}
	f.column = 0
	return append(dst, '\n')
}

func (f *textFilter) text(dst []byte, c byte) []byte {
	switch {
	case c == 0x1b:
		f.state = inEscape
	case c == '\r':
		f.cr = true
	case c == '\n':
		f.cr = false
		f.column = 0
		dst = append(dst, '\n')
	case c == '\t' || c >= 0x20 && c != 0x7f:
		if f.cr {
			f.cr = false
			dst = f.newline(dst)
		}
		f.column++
		dst = append(dst, c)
	}
	return dst
}
