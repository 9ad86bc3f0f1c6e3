package hostfile

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"imgbuild/server/registry"
)

// passwordField is written and never given out.
const passwordField = "oob.password"

// serverFields are the server's: what a file says of them is passed over.
func serverFields() []string {
	return []string{"state", "inventory", "booted", "live_boot", "created", "updated", "revision", "oob.password_set"}
}

// Fields are the fields that a file may have, as its columns, in the order of an export.
func Fields() []string { return newSchema().names }

// schema is what names mean, looked up once for a whole file.
type schema struct {
	names []string
	index map[string][][]int // by name; the second index is below a pointer
}

func newSchema() *schema {
	s := &schema{index: map[string][][]int{}}
	put := func(name string, index ...[]int) {
		if !slices.Contains(serverFields(), name) {
			s.names = append(s.names, name)
			s.index[name] = index
		}
	}
	for _, f := range fieldsOf(reflect.TypeFor[registry.Host]()) {
		if f.typ != reflect.TypeFor[*registry.OOB]() {
			put(f.name, f.index)
			continue
		}
		for _, g := range fieldsOf(f.typ.Elem()) {
			put(f.name+"."+g.name, f.index, g.index)
		}
		s.index[f.name] = [][]int{f.index}
	}
	return s
}

// field is one JSON field of a struct.
type field struct {
	name  string
	index []int
	typ   reflect.Type
}

// fieldsOf lists a struct's JSON fields in their order; those of embedded structs are its own.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || name == "" || name == "-" {
			continue
		}
		out = append(out, field{name, f.Index, f.Type})
	}
	return out
}

func fieldNamed(t reflect.Type, name string) (field, bool) {
	for _, f := range fieldsOf(t) {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// resolve finds what a name means: the path of a field, or that it is the server's, or what is wrong with it.
func (s *schema) resolve(name string) (path []string, ignored bool, problem string) {
	lower := strings.ToLower(name)
	switch {
	case name == "":
		return nil, false, "a column has no name"
	case slices.Contains(serverFields(), lower):
		return nil, true, ""
	case s.index[lower] != nil:
		return strings.Split(lower, "."), false, ""
	case strings.HasPrefix(lower, "metadata.") && len(name) > len("metadata."):
		return []string{"metadata", name[len("metadata."):]}, false, ""
	}
	if near := suggest(name, s.names); near != "" {
		return nil, false, fmt.Sprintf("there is no field of this name; did you mean %s?", near)
	}
	return nil, false, "there is no field of this name; the fields are " + strings.Join(s.names, ", ") + " and metadata.KEY"
}

// Entry is what a file says of one host.
type Entry struct {
	Line   int
	SN     string
	sets   []set
	schema *schema
}

// set is one field and its value; an empty value clears it.
type set struct {
	path  []string
	value *value
}

func (s set) name() string { return strings.Join(s.path, ".") }

// Sets reports whether the entry says something of a field, as Fields names it.
func (e Entry) Sets(name string) bool {
	return slices.ContainsFunc(e.sets, func(s set) bool { return s.name() == name })
}

// ClearsPassword reports whether the entry says that there is to be no password. A host does not show that it has one.
func (e Entry) ClearsPassword() bool {
	return slices.ContainsFunc(e.sets, func(s set) bool { return (s.name() == passwordField || s.name() == "oob") && s.value.empty() })
}

// At is the line that says something of a field, or of what is inside of it, as layout.disks[0].size; the entry's own if none
// does.
func (e Entry) At(field string) int {
	keys := keysOf(field)
	for _, s := range e.sets {
		if len(keys) >= len(s.path) && slices.Equal(keys[:len(s.path)], s.path) && s.value.line > 0 {
			return s.value.at(keys[len(s.path):])
		}
	}
	return e.Line
}

// keysOf takes a field's path apart: layout.disks[0].size is layout, disks, 0, size.
func keysOf(field string) []string {
	return strings.Split(strings.NewReplacer("[", ".", "]", "").Replace(field), ".")
}

// at is the line of what is inside of a value, by keys and indexes; of what is not there, that of what it would be in.
func (v *value) at(keys []string) int {
	line := v.line
	for _, key := range keys {
		var next *value
		if i, err := strconv.Atoi(key); err == nil && v.kind == list && i < len(v.items) {
			next = v.items[i]
		}
		for _, m := range v.members {
			if m.key == key {
				next, line = m.value, m.line
			}
		}
		if next == nil {
			break
		}
		if v = next; v.line > 0 {
			line = v.line
		}
	}
	return line
}

// Apply writes what the entry says into a host and leaves everything else of it alone. What does not fit its field is
// returned, and not written.
func (e Entry) Apply(to *registry.Host) Problems {
	var wrong Problems
	to.SN = e.SN
	v := reflect.ValueOf(to).Elem()
	for _, s := range e.sets {
		d := decoder{line: s.value.line}
		index := e.schema.index[s.name()]
		switch {
		case s.path[0] == "metadata" && len(s.path) == 2:
			to.Metadata = d.key(to.Metadata, s.path[1], s.value)
		case len(index) == 2: // oob.something
			o := registry.OOB{}
			if to.OOB != nil {
				o = *to.OOB
			}
			d.into(s.value, reflect.ValueOf(&o).Elem().FieldByIndex(index[1]), s.name())
			to.OOB = &o
			if o == (registry.OOB{}) {
				to.OOB = nil
			}
		case len(index) == 1:
			d.into(s.value, v.FieldByIndex(index[0]), s.name())
		}
		wrong = append(wrong, d.problems...)
	}
	return wrong
}

// add takes an entry in, if it says whom it is about.
func (r *reader) add(e Entry) {
	if e.SN == "" {
		r.bad(e.Line, "sn", "there is no serial number")
		return
	}
	probe := registry.Host{}
	if wrong := e.Apply(&probe); len(wrong) > 0 {
		r.problems = append(r.problems, wrong...)
		return
	}
	r.entries = append(r.entries, e)
}

// host takes in one host of a YAML or JSON file.
func (r *reader) host(v *value) {
	if v.kind == null {
		return
	}
	if v.kind != object {
		r.bad(v.line, "", "a host is a map of fields such as sn: and hostname:, not %s", v.kind)
		return
	}
	e := Entry{Line: v.line, schema: r.schema}
	before := len(r.problems)
	seen := map[string]int{}
	for _, m := range v.members {
		path, ignored, problem := r.schema.resolve(m.key)
		name := strings.Join(path, ".")
		first, again := seen[name]
		switch {
		case problem != "":
			r.bad(m.line, m.key, "%s", problem)
		case ignored:
			r.ignored[m.key] = true
		case again:
			r.bad(m.line, m.key, "this field is here a second time; the first is in line %d", first)
		case name == "sn":
			if m.value.kind != text {
				r.bad(m.line, "sn", "a serial number is text, not %s", m.value.kind)
				continue
			}
			e.SN = strings.TrimSpace(m.value.text)
		case name == "oob" && m.value.kind == object:
			r.oob(&e, m.value)
		default:
			m.value.line = max(m.value.line, m.line)
			e.sets = append(e.sets, set{path, m.value})
		}
		seen[name] = m.line
	}
	if len(r.problems) == before {
		r.add(e)
	}
}

// oob takes the management controller's fields one by one: what is not said of it stays, its password above all.
func (r *reader) oob(e *Entry, v *value) {
	for _, m := range v.members {
		path, ignored, problem := r.schema.resolve("oob." + m.key)
		switch {
		case problem != "":
			r.bad(m.line, "oob."+m.key, "%s", problem)
		case ignored:
			r.ignored["oob."+m.key] = true
		case e.Sets("oob." + m.key):
			r.bad(m.line, "oob."+m.key, "this field is here a second time")
		default:
			e.sets = append(e.sets, set{path, m.value})
		}
	}
}

// Assignments reads field=value words, as a person gives them on a command line. An empty value clears the field.
func Assignments(sn string, words []string) (Entry, error) {
	e := Entry{SN: sn, schema: newSchema()}
	for _, w := range words {
		name, val, ok := strings.Cut(w, "=")
		if !ok {
			return Entry{}, fmt.Errorf("%q is not of the form field=value", w)
		}
		path, ignored, problem := e.schema.resolve(name)
		switch {
		case problem != "":
			return Entry{}, fmt.Errorf("%s: %s", name, problem)
		case ignored:
			return Entry{}, fmt.Errorf("%s: this is the server's to write", name)
		case path[0] == "sn":
			return Entry{}, fmt.Errorf("sn: a host cannot get another serial number; delete it and write the other one down")
		case path[0] == "oob" && len(path) == 1 && val != "":
			return Entry{}, fmt.Errorf("oob: set its fields one by one, as oob.address=10.0.0.1")
		case e.Sets(strings.Join(path, ".")):
			return Entry{}, fmt.Errorf("%s: this field is given twice", name)
		}
		e.sets = append(e.sets, set{path, &value{kind: text, text: val, plain: true, cell: true}})
	}
	if wrong := e.Apply(&registry.Host{}); len(wrong) > 0 {
		return Entry{}, wrong[0]
	}
	return e, nil
}

// key sets or removes one key of an object.
func (d *decoder) key(in json.RawMessage, key string, v *value) json.RawMessage {
	members := map[string]json.RawMessage{}
	if len(in) > 0 {
		if err := json.Unmarshal(in, &members); err != nil {
			d.bad("metadata."+key, "the metadata is not an object: %s", err)
			return in
		}
	}
	if v.empty() {
		delete(members, key)
	} else {
		j, err := v.json(0)
		if err != nil {
			d.bad("metadata."+key, "%s", err)
			return in
		}
		members[key] = j
	}
	if len(members) == 0 {
		return nil
	}
	out, err := json.Marshal(members)
	if err != nil {
		d.bad("metadata."+key, "%s", err)
		return in
	}
	return out
}
