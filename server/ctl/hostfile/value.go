package hostfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

type kind int

const (
	null kind = iota
	text      // text holds it; a number, too, is text until somebody asks for a number
	list
	object
)

func (k kind) String() string {
	return [...]string{"nothing", "text", "a list", "a map"}[k]
}

// value is one value of a file, of whatever format.
type value struct {
	line int
	kind kind
	text string
	// plain is true for text without quotes, which may mean a number or true or false.
	plain bool
	// cell is true for text from a table or a command line, in which lists and maps are written as text.
	cell    bool
	items   []*value
	members []member
}

type member struct {
	key   string
	line  int
	value *value
}

func (v *value) empty() bool {
	return v.kind == null || v.kind == text && v.text == "" || v.kind == list && len(v.items) == 0
}

// maxDepth is how deep values may be nested; a host needs five levels, its metadata may have more.
const maxDepth = 64

var errDeep = fmt.Errorf("this is nested deeper than %d levels", maxDepth)

// json writes the value as JSON, with plain words as YAML's core schema has them.
func (v *value) json(depth int) (json.RawMessage, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	switch v.kind {
	case null:
		return json.RawMessage("null"), nil
	case text:
		if v.plain {
			if w := word(v.text); w != nil {
				return w, nil
			}
		}
		return json.Marshal(v.text)
	}
	var b bytes.Buffer
	open, end := "[", "]"
	if v.kind == object {
		open, end = "{", "}"
	}
	b.WriteString(open)
	for i, item := range v.items {
		if i > 0 {
			b.WriteByte(',')
		}
		j, err := item.json(depth + 1)
		if err != nil {
			return nil, err
		}
		b.Write(j)
	}
	for i, m := range v.members {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		j, err := m.value.json(depth + 1)
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(j)
	}
	b.WriteString(end)
	return b.Bytes(), nil
}

// word is plain text that is no text: true, false or a decimal number that JSON can write too.
func word(s string) json.RawMessage {
	switch s {
	case "true", "True", "TRUE":
		return json.RawMessage("true")
	case "false", "False", "FALSE":
		return json.RawMessage("false")
	}
	if s != "" && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') && json.Valid([]byte(s)) {
		return json.RawMessage(s)
	}
	return nil
}

// parseJSON reads one JSON value whose first byte is in the given line.
func parseJSON(data []byte, line int) (*value, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	p := &jsonParser{d: d, data: data, line: line}
	v, err := p.value(0)
	if err != nil {
		return nil, p.explain(err)
	}
	if _, err := d.Token(); err != io.EOF {
		p.count()
		return nil, Problem{Line: p.line, Text: "there is more after the end of the JSON value"}
	}
	return v, nil
}

// Error makes a problem an error, for the way from a parser to its caller.
func (p Problem) Error() string { return p.String() }

type jsonParser struct {
	d       *json.Decoder
	data    []byte
	line    int
	counted int
}

// count brings line to where the decoder is.
func (p *jsonParser) count() int {
	at := int(p.d.InputOffset())
	p.line += bytes.Count(p.data[p.counted:at], []byte("\n"))
	p.counted = at
	return p.line
}

func (p *jsonParser) explain(err error) error {
	p.count()
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		at := min(max(int(syntax.Offset), p.counted), len(p.data))
		p.line += bytes.Count(p.data[p.counted:at], []byte("\n"))
		p.counted = at
		return Problem{Line: p.line, Text: "this is not JSON: " + err.Error()}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return Problem{Line: p.line, Text: "the JSON value has no end"}
	}
	return Problem{Line: p.line, Text: err.Error()}
}

func (p *jsonParser) value(depth int) (*value, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	t, err := p.d.Token()
	if err != nil {
		return nil, err
	}
	v := &value{line: p.count()}
	switch t := t.(type) {
	case nil:
		return v, nil
	case string:
		v.kind, v.text = text, t
	case json.Number:
		v.kind, v.text, v.plain = text, t.String(), true
	case bool:
		v.kind, v.text, v.plain = text, strconv.FormatBool(t), true
	case json.Delim:
		v.kind = list
		if t == '{' {
			v.kind = object
		}
		return v, p.inside(v, depth)
	}
	return v, nil
}

func (p *jsonParser) inside(v *value, depth int) error {
	for p.d.More() {
		if v.kind == list {
			item, err := p.value(depth + 1)
			if err != nil {
				return err
			}
			v.items = append(v.items, item)
			continue
		}
		t, err := p.d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string) // the decoder has checked it
		line := p.count()
		item, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		v.members = append(v.members, member{key, line, item})
	}
	_, err := p.d.Token() // the end
	return err
}

func (r *reader) readJSON(data []byte) {
	v, err := parseJSON(data, 1)
	if p, ok := err.(Problem); ok {
		r.problems = append(r.problems, p)
		return
	}
	if v.kind == object {
		r.host(v)
		return
	}
	if v.kind != list {
		r.bad(v.line, "", "a file of hosts is a list of objects, not %s", v.kind)
		return
	}
	for _, item := range v.items {
		r.host(item)
	}
}
