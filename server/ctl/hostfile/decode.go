package hostfile

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/profiles/strict"
	"imgbuild/server/registry"
)

// decoder writes values into Go's types by their JSON names, and says with its line what does not fit.
type decoder struct {
	line     int
	problems Problems
}

func (d *decoder) bad(field, format string, a ...any) {
	d.problems = append(d.problems, Problem{d.line, field, fmt.Sprintf(format, a...)})
}

// into replaces what is at to. An empty value clears it.
func (d *decoder) into(v *value, to reflect.Value, name string) {
	if v.line > 0 {
		d.line = v.line
	}
	if v.empty() {
		to.SetZero()
		return
	}
	if v.cell {
		if v = d.cell(v, to.Type(), name); v == nil {
			return
		}
	}
	fresh := reflect.New(to.Type()).Elem()
	before := len(d.problems)
	d.value(v, fresh, name)
	if len(d.problems) == before {
		to.Set(fresh)
	}
}

// cell takes text of a table or command line apart, where its field holds more than text.
func (d *decoder) cell(v *value, t reflect.Type, name string) *value {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	alone := func(key string) *value { // what a field with more than text is where a table has only a word
		word := &value{line: v.line, kind: text, text: strings.TrimSpace(v.text)}
		return &value{line: v.line, kind: object, members: []member{{key, v.line, word}}}
	}
	written := strings.HasPrefix(strings.TrimSpace(v.text), "{")
	raw := t == reflect.TypeFor[json.RawMessage]()
	switch {
	case t == reflect.TypeFor[layout.Layout]() && !written:
		return alone("preset")
	case t == reflect.TypeFor[registry.Live]() && !written:
		return alone("image")
	case raw, t.Kind() == reflect.Struct && !isText(t), t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && !isText(t.Elem()):
		parsed, err := parseJSON([]byte(v.text), d.line)
		if err != nil {
			d.bad(name, "%s; in a table this field is written as JSON", err)
			return nil
		}
		return parsed
	case t.Kind() == reflect.Slice:
		l := &value{line: v.line, kind: list}
		for _, w := range strings.FieldsFunc(v.text, func(r rune) bool { return r == ' ' || r == ',' || r == ';' || r == '\t' || r == '\n' }) {
			l.items = append(l.items, &value{line: v.line, kind: text, text: w, plain: true})
		}
		return l
	}
	return v
}

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func (d *decoder) value(v *value, to reflect.Value, name string) {
	if v.line > 0 {
		d.line = v.line
	}
	t := to.Type()
	switch {
	case v.kind == null:
		return
	case t == reflect.TypeFor[json.RawMessage]():
		d.raw(v, to, name)
	case t.Kind() == reflect.Pointer:
		p := reflect.New(t.Elem())
		d.value(v, p.Elem(), name)
		to.Set(p)
	case isText(t):
		if !d.is(v, text, name) {
			return
		}
		u := to.Addr().Interface().(encoding.TextUnmarshaler)
		if err := u.UnmarshalText([]byte(strings.TrimSpace(v.text))); err != nil {
			d.bad(name, "%q is not %s", v.text, wanted(t))
		}
	case t.Kind() == reflect.Slice:
		d.list(v, to, name)
	case t.Kind() == reflect.Struct:
		d.object(v, to, name)
	default:
		if d.is(v, text, name) {
			d.scalar(v.text, to, name)
		}
	}
}

func wanted(t reflect.Type) string {
	switch t.Name() {
	case "Addr":
		return "an IP address"
	case "Prefix":
		return "an IP address with a prefix length, such as 10.0.0.1/24"
	}
	return "a " + strings.ToLower(t.Name())
}

func (d *decoder) is(v *value, k kind, name string) bool {
	if v.kind == k {
		return true
	}
	d.bad(name, "this is %s where %s belongs", v.kind, k)
	return false
}

func (d *decoder) scalar(s string, to reflect.Value, name string) {
	switch to.Kind() {
	case reflect.String:
		to.SetString(s)
	case reflect.Bool:
		switch strings.ToLower(strings.TrimSpace(s)) {
		case "true", "yes", "on", "1", "y":
			to.SetBool(true)
		case "false", "no", "off", "0", "n":
			to.SetBool(false)
		default:
			d.bad(name, "%q is neither true nor false", s)
		}
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil || to.OverflowInt(n) {
			d.bad(name, "%q is not a whole number", s)
			return
		}
		to.SetInt(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			d.bad(name, "%q is not a number", s)
			return
		}
		to.SetFloat(n)
	default:
		d.bad(name, "this field cannot be written")
	}
}

func (d *decoder) list(v *value, to reflect.Value, name string) {
	items := v.items
	if v.kind == text && isScalar(to.Type().Elem()) {
		items = []*value{v} // one is as good as a list of one
	} else if !d.is(v, list, name) {
		return
	}
	for i, item := range items {
		e := reflect.New(to.Type().Elem()).Elem()
		if item.kind == null {
			d.bad(fmt.Sprintf("%s[%d]", name, i), "there is nothing here")
			continue
		}
		d.value(item, e, fmt.Sprintf("%s[%d]", name, i))
		to.Set(reflect.Append(to, e))
	}
}

func isScalar(t reflect.Type) bool { return isText(t) || t.Kind() == reflect.String }

func (d *decoder) object(v *value, to reflect.Value, name string) {
	if !d.is(v, object, name) {
		return
	}
	var names []string
	for _, f := range fieldsOf(to.Type()) {
		names = append(names, f.name)
	}
	seen := map[string]bool{}
	for _, m := range v.members {
		inner := name + "." + m.key
		d.line = m.line
		f, ok := fieldNamed(to.Type(), m.key)
		switch {
		case !ok:
			d.bad(inner, "there is no field of this name%s", strict.DidYouMean(m.key, names))
		case seen[m.key]:
			d.bad(inner, "this field is here a second time")
		default:
			seen[m.key] = true
			d.value(m.value, to.FieldByIndex(f.index), inner)
		}
	}
}

// raw takes an object as it is.
func (d *decoder) raw(v *value, to reflect.Value, name string) {
	if !d.is(v, object, name) {
		return
	}
	j, err := v.json(0)
	if err != nil {
		d.bad(name, "%s", err)
		return
	}
	if path := firstNull(v, name); path != "" {
		d.bad(path, "null has no meaning here: leave the key out")
		return
	}
	to.SetBytes(j)
}

// firstNull finds a null: a merge patch (RFC 7396) cannot set one.
func firstNull(v *value, name string) string {
	for _, m := range v.members {
		if m.value.kind == null {
			return name + "." + m.key
		}
		if p := firstNull(m.value, name+"."+m.key); p != "" {
			return p
		}
	}
	return ""
}
