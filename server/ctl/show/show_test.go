package show

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

func TestYAMLKeepsTextText(t *testing.T) {
	in := `{"sn":"0042","n":42,"f":1.5,"yes":"yes","no":"no","null":"null","tilde":"~","time":"12:30:45","date":"2026-01-01","hex":"0x1F","exp":"1e3","under":"1_000",
"ip":"10.0.0.1","v6":"2001:db8::1","mac":"52:54:00:00:00:01","plain":"a plain text","colon":"a: b","hash":"a #b","dash":"- a","empty":"","list":["a",["b","c"],{"k":"v","l":[]}],
"map":{},"lines":"one\ntwo\n","lines2":"one\n\n  two","odd":" one\ntwo","end":"one\n\n","ctl":"\u0007\t\u2028","quote":"\"\\'","é":"ü","bool":true,"nothing":null}`
	want := strings.TrimPrefix(`
sn: "0042"
"n": 42
f: 1.5
"yes": "yes"
"no": "no"
"null": "null"
tilde: "~"
time: "12:30:45"
date: "2026-01-01"
hex: "0x1F"
exp: "1e3"
under: "1_000"
ip: 10.0.0.1
v6: "2001:db8::1"
mac: "52:54:00:00:00:01"
plain: a plain text
colon: "a: b"
hash: "a #b"
dash: "- a"
empty: ""
list:
  - a
  - - b
    - c
  - k: v
    l: []
map: {}
lines: |
  one
  two
lines2: |-
  one

    two
odd: " one\ntwo"
end: "one\n\n"
ctl: "\x07\t\u2028"
quote: "\"\\'"
"é": "ü"
bool: true
nothing: null
`, "\n")
	got, err := YAMLOf([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// FuzzYAML compares with what another reader of YAML makes of it.
func FuzzYAML(f *testing.F) {
	for _, s := range []string{`{"a":"b"}`, `["x","1e3",{"k":["l",{"m":"n\no"}]}]`, `"a: b"`, `{"a":" |\n x"}`, `[[[]],{}]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		if json.Unmarshal(data, &v) != nil {
			return
		}
		if v = texts(v, 0); v == nil {
			return
		}
		j, err := json.Marshal(v)
		if err != nil {
			return
		}
		y, err := YAMLOf(j)
		if err != nil {
			t.Fatalf("%s: %s", j, err)
		}
		var back any
		if err := yaml.NewDecoder(bytes.NewReader(y)).Decode(&back); err != nil {
			t.Fatalf("%s became\n%s\n%s", j, y, err)
		}
		if !reflect.DeepEqual(v, back) {
			t.Errorf("%s became\n%s\nand %#v", j, y, back)
		}
	})
}

// texts keeps what both sides write alike: numbers have many forms. The other reader's own limits are kept out: keys with line
// breaks, and nesting.
func texts(v any, depth int) any {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		if depth > 5 {
			return "deep"
		}
		out := []any{}
		for _, e := range v {
			if e = texts(e, depth+1); e != nil {
				out = append(out, e)
			}
		}
		return out
	case map[string]any:
		if depth > 5 {
			return "deep"
		}
		out := map[string]any{}
		for k, e := range v {
			if e = texts(e, depth+1); e != nil {
				out[k] = e
			}
		}
		return out
	}
	return nil
}

func TestTablesAlignAndCannotMoveTheCursor(t *testing.T) {
	got := strings.Join(Lines([]string{"SN", "HOST"}, [][]string{{"A", "x\x1b[2Jy"}, {"LÄNGER", ""}}), "\n")
	want := "SN      HOST\nA       x [2Jy\nLÄNGER  -"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestHumanValues(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 KiB", 1 << 20: "1.0 MiB", 50 << 20: "50 MiB", 3 << 30: "3.0 GiB", 5 << 40: "5.0 TiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 59400 * time.Millisecond: "59 s", 59600 * time.Millisecond: "1 min 00 s", 125 * time.Second: "2 min 05 s",
		time.Hour + 5*time.Minute: "1 h 05 min", 50 * time.Hour: "2 d 2 h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}
