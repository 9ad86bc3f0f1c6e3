package bencode

import (
	"bytes"
	"strings"
	"testing"
)

func TestValuesAreWrittenAsBEP3Says(t *testing.T) {
	for name, test := range map[string]struct {
		value Value
		want  string
	}{
		"a text":                     {String("spam"), "4:spam"},
		"an empty text":              {String(""), "0:"},
		"bytes":                      {String("\x00\xff"), "2:\x00\xff"},
		"a number":                   {Int(3), "i3e"},
		"a negative number":          {Int(-3), "i-3e"},
		"a list":                     {List{String("spam"), Int(0)}, "l4:spami0ee"},
		"a dictionary, sorted":       {Dict{"spam": List{}, "cow": Dict{}}, "d3:cowde4:spamlee"},
		"keys are compared as bytes": {Dict{"b": Int(1), "a b": Int(2), "B": Int(3)}, "d1:Bi3e3:a bi2e1:bi1ee"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Marshal(test.value)
			if string(got) != test.want {
				t.Fatalf("got %q, want %q", got, test.want)
			}
			back, err := Parse(got)
			if err != nil || string(Marshal(back)) != test.want {
				t.Errorf("reading it again gives %v, %v", back, err)
			}
		})
	}
}

func TestWhatBEP3DoesNotAllowIsRefused(t *testing.T) {
	for name, test := range map[string]struct{ data, want string }{
		"nothing":                      {"", "byte 0: it ends within a value"},
		"something else":               {"x", `no value begins with 'x'`},
		"an end alone":                 {"e", `no value begins with 'e'`},
		"more after the value":         {"i1ei2e", "byte 3: there is more after the value"},
		"a text that is cut off":       {"5:spam", "it ends within a value"},
		"a length that is huge":        {"9223372036854775807:x", "it ends within a value"},
		"a length of too many digits":  {"111111111111111111111:x", "more than 20 digits"},
		"a length beyond 64 bits":      {"9223372036854775808:x", "is not a number"},
		"a negative length":            {"l-1:e", `no value begins with '-'`},
		"a length with a zero before":  {"04:spam", `"04" is not a number`},
		"a number with a zero before":  {"i03e", `"03" is not a number`},
		"minus zero":                   {"i-0e", `"-0" is not a number`},
		"a plus":                       {"i+3e", `"+3" is not a number`},
		"no digits":                    {"ie", `"" is not a number`},
		"a number that is cut off":     {"i3", "it ends within a value"},
		"a list that is cut off":       {"li1e", "it ends within a value"},
		"a dictionary that is cut off": {"d1:a", "it ends within a value"},
		"a key that is no text":        {"di1ei2ee", "a text begins with its length"},
		"a key without a value":        {"d1:ae", `no value begins with 'e'`},
		"keys that are not sorted":     {"d1:bi1e1:ai2ee", `the key "a" comes after "b"`},
		"a key twice":                  {"d1:ai1e1:ai2ee", `the key "a" comes after "a"`},
		"an empty key twice":           {"d0:i1e0:i2ee", `the key "" comes after ""`},
		"lists in lists in lists":      {strings.Repeat("l", 100), "nested more than 16 deep"},
	} {
		t.Run(name, func(t *testing.T) {
			if v, err := Parse([]byte(test.data)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v and %v, want an error with %s", v, err, test.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"d3:cowde4:spamlee", "l4:spami-10ee", "0:", "i0e", "d0:i1ee", "lllleeee"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data)
		if err == nil && !bytes.Equal(Marshal(v), data) {
			t.Errorf("%q is written again as %q", data, Marshal(v))
		}
	})
}
