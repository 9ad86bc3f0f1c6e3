package dialog

import (
	"slices"
	"testing"
)

func decode(text string) []key {
	var d decoder
	var keys []key
	for _, b := range []byte(text) {
		keys = d.feed(keys, b)
	}
	return d.timeout(keys)
}

func TestBytesOfTerminalsAreKeys(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []kind
	}{
		"arrows of a VT100":                 {"\x1b[A\x1b[B\x1b[C\x1b[D", []kind{keyUp, keyDown, keyRight, keyLeft}},
		"arrows in application mode":        {"\x1bOA\x1bOB\x1bOC\x1bOD", []kind{keyUp, keyDown, keyRight, keyLeft}},
		"arrows with modifiers":             {"\x1b[1;5A\x1b[1;2B", []kind{keyUp, keyDown}},
		"Home and End, in all ways":         {"\x1b[H\x1b[1~\x1b[7~\x1bOH\x01\x1b[F\x1b[4~\x1b[8~\x1bOF\x05", []kind{keyHome, keyHome, keyHome, keyHome, keyHome, keyEnd, keyEnd, keyEnd, keyEnd, keyEnd}},
		"Delete and pages":                  {"\x1b[3~\x1b[5~\x1b[6~", []kind{keyDelete, keyPageUp, keyPageDown}},
		"Tab and Shift-Tab":                 {"\t\x1b[Z", []kind{keyTab, keyBackTab}},
		"both kinds of Backspace":           {"\x7f\x08", []kind{keyBackspace, keyBackspace}},
		"Enter as CR, as LF and as CR LF":   {"\r\n\n\r\r\n", []kind{keyEnter, keyEnter, keyEnter, keyEnter}},
		"Enter of telnet, as CR NUL":        {"\r\x00\r\x00", []kind{keyEnter, keyEnter}},
		"the keypad's Enter":                {"\x1bOM", []kind{keyEnter}},
		"Esc alone":                         {"\x1b", []kind{keyEscape}},
		"Esc twice":                         {"\x1b\x1b", []kind{keyEscape, keyEscape}},
		"Esc and a letter":                  {"\x1bx", []kind{keyEscape, keyText}},
		"Esc and a bracket, and no more":    {"\x1b[", []kind{keyEscape}},
		"a sequence that another cuts off":  {"\x1b[1\x1b[A", []kind{keyUp}},
		"a sequence that a return cuts off": {"\x1b[1;\r", []kind{keyEnter}},
		"F1 to F3 mean nothing":             {"\x1bOP\x1b[12~\x1b[[Cx", []kind{keyText}},
		"a terminal's answer means nothing": {"\x1b[24;80R\x1b[?1;2cx", []kind{keyText}},
		"Ctrl-C, Ctrl-L and Ctrl-U":         {"\x03\x0c\x15", []kind{keyInterrupt, keyRedraw, keyClear}},
		"other controls mean nothing":       {"\x00\x02\x04\x1d", nil},
		"UTF-8 is not typed":                {"\xc3\xa4", []kind{keyForeign, keyForeign}},
	} {
		var got []kind
		for _, k := range decode(c.text) {
			got = append(got, k.kind)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	if k := decode("~"); len(k) != 1 || k[0] != (key{keyText, '~'}) {
		t.Errorf("got %v", k)
	}
}

func FuzzKeys(f *testing.F) {
	for _, s := range []string{"abc\r\n", "\x1b[A\x1b[1;5B\x1bOH", "\x1b[[A\x1b", "\x1b[99999999999999999999999999999999999~", "\xc3\xa4\x9b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d decoder
		var keys []key
		for _, b := range data {
			before := len(keys)
			keys = d.feed(keys, b)
			if len(keys)-before > 2 || len(d.params) > maxSequence {
				t.Fatalf("%q: %d keys from one byte, %d bytes kept", data, len(keys)-before, len(d.params))
			}
		}
		keys = d.timeout(keys)
		if d.pending() {
			t.Fatalf("%q: a sequence that never ends", data)
		}
		m := newModel(machine(), func(string) string { return "" })
		for _, k := range keys {
			if k.kind == keyText && (k.ch < ' ' || k.ch > '~') {
				t.Fatalf("%q: the text %q", data, k.ch)
			}
			if e := m.press(k); e == effectPreview {
				m.previewed("text", nil)
			}
			m.draw()
		}
	})
}
