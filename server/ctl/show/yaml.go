package show

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// YAMLOf writes a JSON value as YAML that every version and reader of YAML understands alike: text is without quotes only
// where nobody can take it for anything else. The order of keys is kept.
func YAMLOf(data []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	y := yamlWriter{d: d}
	if err := y.value("", ""); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("write YAML: there is more after the end of the JSON value")
	}
	return y.b.Bytes(), nil
}

const deepest = 200

type yamlWriter struct {
	d     *json.Decoder
	b     bytes.Buffer
	depth int
}

// value writes the next value. What is on the line already is before, without a blank at its end; lines that follow begin
// with indent.
func (y *yamlWriter) value(before, indent string) error {
	t, err := y.d.Token()
	if err != nil {
		return err
	}
	blank := ""
	if before != "" {
		blank = " "
	}
	switch t := t.(type) {
	case nil:
		y.line(before, blank, "null")
	case bool:
		y.line(before, blank, fmt.Sprint(t))
	case json.Number:
		y.line(before, blank, t.String())
	case string:
		y.text(before, blank, indent, t)
	case json.Delim:
		if y.depth++; y.depth > deepest {
			return errors.New("it is nested too deep")
		}
		defer func() { y.depth-- }()
		if !y.d.More() {
			y.line(before, blank, map[json.Delim]string{'[': "[]", '{': "{}"}[t])
			_, err := y.d.Token()
			return err
		}
		if t == '[' {
			return y.list(before, indent)
		}
		return y.object(before, indent)
	}
	return nil
}

func (y *yamlWriter) line(parts ...string) {
	for _, p := range parts {
		y.b.WriteString(p)
	}
	y.b.WriteByte('\n')
}

func (y *yamlWriter) list(before, indent string) error {
	inItem := strings.HasSuffix(before, "-") // a list in a list begins on the same line
	if before != "" && !inItem {
		y.line(before)
	}
	for first := true; y.d.More(); first = false {
		start := indent + "-"
		if first && inItem {
			start = before + " -"
		}
		if err := y.value(start, indent+"  "); err != nil {
			return err
		}
	}
	_, err := y.d.Token()
	return err
}

func (y *yamlWriter) object(before, indent string) error {
	inItem := strings.HasSuffix(before, "-") // a map in a list begins on the same line
	if before != "" && !inItem {
		y.line(before)
	}
	for first := true; y.d.More(); first = false {
		t, err := y.d.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return errors.New("a key is not text")
		}
		start := indent + scalar(key) + ":"
		if first && inItem {
			start = before + " " + scalar(key) + ":"
		}
		if err := y.value(start, indent+"  "); err != nil {
			return err
		}
	}
	_, err := y.d.Token()
	return err
}

// text writes several lines as a literal block, where one can hold them unchanged.
func (y *yamlWriter) text(before, blank, indent, s string) {
	if before == "" || !strings.Contains(s, "\n") || !blockable(s) {
		y.line(before, blank, scalar(s))
		return
	}
	chomp := "-"
	if strings.HasSuffix(s, "\n") {
		chomp, s = "", strings.TrimSuffix(s, "\n")
	}
	y.line(before, " |", chomp)
	for l := range strings.SplitSeq(s, "\n") {
		if l == "" {
			y.line()
		} else {
			y.line(indent, l)
		}
	}
}

// blockable says whether a literal block (YAML 1.2, 8.1.2) can hold s without an indentation indicator and without loss.
func blockable(s string) bool {
	if s[0] == ' ' || s[0] == '\n' || s[0] == '\t' || strings.HasSuffix(s, "\n\n") {
		return false
	}
	for l := range strings.SplitSeq(s, "\n") {
		if strings.HasSuffix(l, " ") || strings.HasSuffix(l, "\t") {
			return false
		}
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && !printable(r) })
}

func printable(r rune) bool {
	return r >= ' ' && r < 0x7f || r >= 0xa0 && r < 0xd800 && r != 0x2028 && r != 0x2029 || r >= 0xe000 && r < 0xfeff || r >= 0x10000
}

var (
	plain = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./@+-]*( [A-Za-z0-9_./@(+-][A-Za-z0-9_./@()+-]*)*$`)
	// address is no number to anybody: it has three dots, or letters behind its digits that no number has.
	address  = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?$`)
	reserved = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|nan|inf)$`)
)

// scalar writes text so that it stays text.
func scalar(s string) string {
	if plain.MatchString(s) && !reserved.MatchString(s) || address.MatchString(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case printable(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
