package dialog

// kind is what a key does.
type kind byte

const (
	keyText      kind = iota + 1 // key.ch
	keyForeign                   // a byte that is not ASCII
	keyEnter                     // Ctrl-J, Ctrl-M
	keyTab                       //
	keyBackTab                   // Shift-Tab
	keyUp                        // or Ctrl-P
	keyDown                      // or Ctrl-N
	keyLeft                      //
	keyRight                     //
	keyHome                      // or Ctrl-A
	keyEnd                       // or Ctrl-E
	keyPageUp                    //
	keyPageDown                  //
	keyBackspace                 // 0x7f or 0x08
	keyDelete                    //
	keyClear                     // Ctrl-U
	keyEscape                    //
	keyInterrupt                 // Ctrl-C
	keyRedraw                    // Ctrl-L
)

// key is one key press.
type key struct {
	kind kind
	ch   byte
}

// within says which part of an escape sequence the decoder is in.
type within byte

const (
	withinNothing within = iota
	withinEscape         // ESC
	withinCSI            // ESC [ (ECMA-48, 5.4)
	withinSS3            // ESC O, as keypads in application mode send
	withinLinux          // ESC [ [, as Linux's console sends for F1 to F5
)

// maxSequence bounds an escape sequence; longer ones are noise.
const maxSequence = 32

// decoder turns the bytes of a terminal (VT100, VT220, xterm, Linux) into keys. Bytes may come one by one.
type decoder struct {
	within  within
	params  []byte
	afterCR bool
}

// pending says whether what came so far may be Esc alone or the beginning of a sequence: only time can tell.
func (d *decoder) pending() bool { return d.within != withinNothing }

// timeout is called when nothing has followed for a while.
func (d *decoder) timeout(keys []key) []key {
	if d.within == withinNothing {
		return keys
	}
	d.reset()
	return append(keys, key{kind: keyEscape})
}

func (d *decoder) reset() { d.within, d.params = withinNothing, d.params[:0] }

// feed takes one byte and adds the keys that it completes.
func (d *decoder) feed(keys []key, b byte) []key {
	switch d.within {
	case withinEscape:
		switch b {
		case '[':
			d.within = withinCSI
		case 'O':
			d.within = withinSS3
		case 0x1b:
			return append(keys, key{kind: keyEscape})
		default:
			d.reset()
			return d.feed(append(keys, key{kind: keyEscape}), b)
		}
		return keys
	case withinCSI, withinSS3:
		return d.sequence(keys, b)
	case withinLinux:
		d.reset()
		return keys
	}
	after := d.afterCR
	d.afterCR = b == '\r'
	switch {
	case b == 0x1b:
		d.within = withinEscape
	case b == '\n' && after: // CR LF is one key
	case b == '\r' || b == '\n':
		return append(keys, key{kind: keyEnter})
	case b >= 0x80:
		return append(keys, key{keyForeign, b})
	case b >= ' ' && b < 0x7f:
		return append(keys, key{keyText, b})
	default:
		if k := control(b); k != 0 {
			return append(keys, key{kind: k})
		}
	}
	return keys
}

// sequence takes a byte after ESC [ or ESC O.
func (d *decoder) sequence(keys []key, b byte) []key {
	switch {
	case b < ' ' || b > 0x7e: // the sequence was cut off
		d.reset()
		return d.feed(keys, b)
	case d.within == withinCSI && b == '[' && len(d.params) == 0:
		d.within = withinLinux
	case b < 0x40:
		if d.params = append(d.params, b); len(d.params) > maxSequence {
			d.reset()
		}
	default:
		k := final(b, d.params)
		d.reset()
		if k != 0 {
			return append(keys, key{kind: k})
		}
	}
	return keys
}

// final is the key of a sequence; 0 for one that has no meaning here. Modifiers, as in ESC [ 1 ; 5 A, change nothing.
func final(b byte, params []byte) kind {
	switch b {
	case 'A':
		return keyUp
	case 'B':
		return keyDown
	case 'C':
		return keyRight
	case 'D':
		return keyLeft
	case 'H':
		return keyHome
	case 'F':
		return keyEnd
	case 'M':
		return keyEnter
	case 'Z':
		return keyBackTab
	case '~':
		number := 0
		for _, p := range params {
			if p < '0' || p > '9' {
				break
			}
			number = number*10 + int(p-'0')
		}
		switch number {
		case 1, 7:
			return keyHome
		case 4, 8:
			return keyEnd
		case 3:
			return keyDelete
		case 5:
			return keyPageUp
		case 6:
			return keyPageDown
		}
	}
	return 0
}

// control is the key of a control character; 0 for one that has no meaning here.
func control(b byte) kind {
	switch b {
	case 0x01:
		return keyHome
	case 0x03:
		return keyInterrupt
	case 0x05:
		return keyEnd
	case 0x08, 0x7f:
		return keyBackspace
	case 0x09:
		return keyTab
	case 0x0c:
		return keyRedraw
	case 0x0e:
		return keyDown
	case 0x10:
		return keyUp
	case 0x15:
		return keyClear
	}
	return 0
}
