package answers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"imgbuild/image/plan"
	"imgbuild/profiles/strict"
)

// maxDepth is how deep values may be nested; a layout needs six levels, metadata may have more.
const maxDepth = 64

// Parse reads an answer file. name is the file's for messages. The error is a strict.Errors with every mistake, as
// file:line:column: sentence.
func Parse(name string, data []byte) (Answers, error) {
	p := &parser{data: data, source: &strict.Source{Name: name}, places: map[string]int{}}
	if len(data) > plan.MaxBytes {
		p.bad(0, "", "the file has more than %d bytes", plan.MaxBytes)
		return Answers{}, p.Errors()
	}
	var a Answers
	if p.form(); p.Errors() == nil {
		p.decoder = json.NewDecoder(bytes.NewReader(data))
		if err := p.value(reflect.ValueOf(&a).Elem(), "", 0); err != nil {
			p.bad(p.next(), "", "%s", err)
		}
	}
	if p.Errors() == nil {
		p.check(a)
	}
	if es := p.Errors(); es != nil {
		return Answers{}, es
	}
	return a, nil
}

type parser struct {
	strict.Collector
	source  *strict.Source
	data    []byte
	decoder *json.Decoder
	places  map[string]int // where each value begins, by its path: an offset in data
}

// bad notes a mistake at an offset.
func (p *parser) bad(at int, path, format string, a ...any) {
	before := p.data[:min(max(at, 0), len(p.data))]
	start := bytes.LastIndexByte(before, '\n') + 1
	pos := strict.Pos{Src: p.source, Line: 1 + bytes.Count(before, []byte("\n")), Col: 1 + utf8.RuneCount(before[start:])}
	p.Add(pos, path, "%s", strings.TrimSpace(path+" "+fmt.Sprintf(format, a...)))
}

// form notes what keeps the file from being one JSON value.
func (p *parser) form() {
	var any json.RawMessage
	err := json.Unmarshal(p.data, &any)
	var syntax *json.SyntaxError
	switch {
	case err == nil:
	case len(bytes.TrimSpace(p.data)) == 0:
		p.bad(0, "", "the file is empty; answers are an object, such as {\"disks\": [\"SERIAL\"]}")
	case errors.As(err, &syntax) && int(syntax.Offset) < len(p.data):
		p.bad(int(syntax.Offset)-1, "", "this is not JSON: %s", err)
	case errors.As(err, &syntax) && strings.HasPrefix(err.Error(), "invalid"):
		p.bad(len(p.data)-1, "", "this is not JSON: %s", err)
	default:
		p.bad(len(p.data), "", "the file ends inside of a value")
	}
}

// next is the offset of what the decoder reads next.
func (p *parser) next() int {
	at := int(p.decoder.InputOffset())
	for at < len(p.data) && strings.IndexByte(" \t\r\n,:", p.data[at]) >= 0 {
		at++
	}
	return at
}

// value reads the next value into v. An error is one of the file's form, after which nothing more can be read; what is wrong with a
// value is noted.
func (p *parser) value(v reflect.Value, path string, depth int) error {
	at := p.next()
	p.places[path] = at
	if depth > maxDepth {
		return fmt.Errorf("this is nested deeper than %d levels", maxDepth)
	}
	switch {
	case v.Kind() == reflect.Pointer:
		if bytes.HasPrefix(p.data[at:], []byte("null")) {
			return p.leaf(v, path)
		}
		v.Set(reflect.New(v.Type().Elem()))
		return p.value(v.Elem(), path, depth)
	case v.Type() == reflect.TypeFor[json.RawMessage](), v.CanAddr() && isText(v):
		return p.leaf(v, path)
	case v.Kind() == reflect.Struct && p.opens('{', at):
		return p.object(v, path, depth)
	case v.Kind() == reflect.Slice && p.opens('[', at):
		return p.list(v, path, depth)
	}
	return p.leaf(v, path)
}

func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(interface{ UnmarshalText([]byte) error })
	return ok
}

func (p *parser) opens(c byte, at int) bool { return at < len(p.data) && p.data[at] == c }

// leaf reads a value whose inside is not looked at, or one that is not what belongs there.
func (p *parser) leaf(v reflect.Value, path string) error {
	at := p.places[path]
	var raw json.RawMessage
	if err := p.decoder.Decode(&raw); err != nil {
		return err
	}
	if string(raw) == "null" {
		p.bad(at, path, "is null; give it a value or leave the key out")
		return nil
	}
	if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
		p.bad(at, path, "%s", unfit(raw, v, err))
	}
	return nil
}

// unfit says in a predicate why a value does not fit.
func unfit(raw json.RawMessage, v reflect.Value, err error) string {
	found := map[byte]string{'{': "an object", '[': "a list", '"': "text", 't': "true", 'f': "false"}[raw[0]]
	if found == "" {
		found = "the number " + strict.Clip(string(raw))
	}
	if v.CanAddr() && isText(v) && raw[0] == '"' {
		return fmt.Sprintf("is %s, and not %s", strict.Clip(string(raw)), wanted(v.Type()))
	}
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return fmt.Sprintf("cannot be read: %v", err)
	}
	return fmt.Sprintf("is %s, and %s is wanted", found, wanted(v.Type()))
}

func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		switch t.Name() {
		case "Addr":
			return "an IP address"
		case "Prefix":
			return "an address with its prefix length, such as 192.0.2.5/24"
		}
		return "an object"
	}
	return "a whole number"
}

func (p *parser) list(v reflect.Value, path string, depth int) error {
	if _, err := p.decoder.Token(); err != nil {
		return err
	}
	for i := 0; p.decoder.More(); i++ {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := p.value(item, fmt.Sprintf("%s[%d]", path, i), depth+1); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
	}
	_, err := p.decoder.Token()
	return err
}

func (p *parser) object(v reflect.Value, path string, depth int) error {
	if _, err := p.decoder.Token(); err != nil {
		return err
	}
	fields := fieldsOf(v.Type())
	seen := map[string]bool{}
	for p.decoder.More() {
		at := p.next()
		t, err := p.decoder.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string) // form has seen to it
		inner := strict.Join(path, key)
		f, known := fields[key]
		if known && !seen[key] {
			seen[key] = true
			if err := p.value(v.FieldByIndex(f), inner, depth+1); err != nil {
				return err
			}
			continue
		}
		if known {
			p.bad(at, inner, "is here a second time")
		} else {
			p.bad(at, "", "%s", unknown(key, path, v.Type()))
		}
		var passed json.RawMessage
		if err := p.decoder.Decode(&passed); err != nil {
			return err
		}
	}
	_, err := p.decoder.Token()
	return err
}

// fieldsOf are a struct's JSON keys; those of an embedded struct are its own.
func fieldsOf(t reflect.Type) map[string][]int {
	fields := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.Anonymous && f.IsExported() && name != "" && name != "-" {
			fields[name] = f.Index
		}
	}
	return fields
}

// unknown is the sentence about a key that does not exist.
func unknown(key, path string, t reflect.Type) string {
	if path == "" {
		if _, planned := fieldsOf(reflect.TypeFor[plan.Plan]())[key]; planned {
			switch key {
			case "manifest", "transport", "mirrors":
				return fmt.Sprintf("%s is for the kernel's arguments to say, as imgbuild.%s=: leave it out here", key, strings.TrimSuffix(key, "s"))
			}
			return fmt.Sprintf("%s is in a server's plans only: leave it out here", key)
		}
	}
	where := ""
	if path != "" {
		where = " in " + path
	}
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous && name != "" {
			names = append(names, name)
		}
	}
	if near := strict.DidYouMean(key, names); near != "" {
		return fmt.Sprintf("there is no key %s%s%s", strict.Clip(key), where, near)
	}
	return fmt.Sprintf("there is no key %s%s; there are %s", strict.Clip(key), where, strict.List(names, "and"))
}
