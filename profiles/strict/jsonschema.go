package strict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
)

// Schema is a JSON Schema, draft 2020-12, with the keys in the order in which people read them.
type Schema struct {
	Schema               string      `json:"$schema,omitempty"`
	Title                string      `json:"title,omitempty"`
	Description          string      `json:"description,omitempty"`
	Type                 []string    `json:"type,omitempty"`
	Enum                 []any       `json:"enum,omitempty"`
	Pattern              string      `json:"pattern,omitempty"`
	MaxLength            int         `json:"maxLength,omitempty"`
	Minimum              *int        `json:"minimum,omitempty"`
	Maximum              *int        `json:"maximum,omitempty"`
	Default              any         `json:"default,omitempty"`
	Examples             []any       `json:"examples,omitempty"`
	Items                *Schema     `json:"items,omitempty"`
	PropertyNames        *Schema     `json:"propertyNames,omitempty"`
	Properties           *properties `json:"properties,omitempty"`
	AdditionalProperties any         `json:"additionalProperties,omitempty"` // *schema or false
	Required             []string    `json:"required,omitempty"`
	If                   *Schema     `json:"if,omitempty"`
	Then                 *Schema     `json:"then,omitempty"`
	Not                  *Schema     `json:"not,omitempty"`
	AllOf                []*Schema   `json:"allOf,omitempty"`

	what string // the format in words, for the reference
}

// properties are an object's, in their order.
type properties struct {
	keys   []string
	values map[string]*Schema
}

func (p *properties) add(key string, s *Schema) {
	if p.values == nil {
		p.values = map[string]*Schema{}
	}
	p.keys = append(p.keys, key)
	p.values[key] = s
}

// MarshalJSON keeps the order.
func (p *properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range p.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(k)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(p.values[k])
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Marshal returns the schema as people read it.
func (s *Schema) Marshal() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	return b.Bytes(), nil
}

// NewSchema returns the schema of a document of type t; docs are as ReadDocs returns them, those of another package's types
// under names that begin with the package's, as layout.Disk.
func NewSchema(t reflect.Type, formats map[string]Format, docs map[string]string) *Schema {
	return (&schemaMaker{formats: formats, docs: docs}).object(t)
}

type schemaMaker struct {
	formats map[string]Format
	docs    map[string]string
}

// doc is the comment of a type, or of its field.
func (m *schemaMaker) doc(t reflect.Type, field string) string {
	if d, ok := m.docs[t.String()+field]; ok {
		return d
	}
	return m.docs[t.Name()+field]
}

func (m *schemaMaker) object(t reflect.Type) *Schema {
	s := &Schema{
		Type: []string{"object"}, Description: m.doc(t, ""),
		Properties: &properties{}, AdditionalProperties: false,
	}
	groups := map[string][]Field{}
	var order []string
	for _, f := range Fields(t) {
		p := m.value(f.Typ, f.Tag)
		p.Description = m.doc(f.Owner, "."+f.Name)
		p.Default = defaultOf(f)
		p.Type = append(p.Type, "null")
		if p.Enum != nil {
			p.Enum = append(p.Enum, nil)
		}
		s.Properties.add(f.Key, p)
		if g := f.Tag.Get("only"); g != "" {
			if groups[g] == nil {
				order = append(order, g)
			}
			groups[g] = append(groups[g], f)
		}
	}
	for _, g := range order {
		s.AllOf = append(s.AllOf, notBoth(groups[g])...)
	}
	return s
}

// notBoth says of each two fields that they are not given together. A null is not given.
func notBoth(fields []Field) []*Schema {
	given := func(f Field) *Schema {
		switch f.Typ.Kind() {
		case reflect.Bool:
			return &Schema{Enum: []any{true}}
		case reflect.Slice:
			return &Schema{Type: []string{"array"}}
		}
		return &Schema{Type: []string{"string"}}
	}
	var rules []*Schema
	for i, a := range fields {
		for _, b := range fields[i+1:] {
			both := &properties{}
			both.add(a.Key, given(a))
			both.add(b.Key, given(b))
			rules = append(rules, &Schema{Not: &Schema{Properties: both, Required: []string{a.Key, b.Key}}})
		}
	}
	return rules
}

func (m *schemaMaker) value(t reflect.Type, tag reflect.StructTag) *Schema {
	if isText(t) {
		s := &Schema{Type: []string{"string"}}
		m.text(s, tag.Get("check"))
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return m.value(t.Elem(), tag)
	case reflect.Struct:
		return m.object(t)
	case reflect.Map:
		s := &Schema{Type: []string{"object"}, PropertyNames: &Schema{}}
		m.text(s.PropertyNames, tag.Get("keys"))
		item := m.value(t.Elem(), tag)
		item.Type = append(item.Type, "null")
		s.AdditionalProperties = item
		return s
	case reflect.Slice:
		return &Schema{Type: []string{"array"}, Items: m.value(t.Elem(), tag)}
	case reflect.Bool:
		return &Schema{Type: []string{"boolean"}}
	case reflect.Int:
		f := m.formats[tag.Get("check")]
		return &Schema{Type: []string{"integer"}, Minimum: &f.From, Maximum: &f.To}
	}
	s := &Schema{Type: []string{"string"}}
	if tag.Get("loose") != "" {
		s.Type = []string{"string", "number", "boolean"}
	}
	m.text(s, tag.Get("check"))
	return s
}

// text adds what the format name demands.
func (m *schemaMaker) text(s *Schema, name string) {
	f, ok := m.formats[name]
	if !ok {
		return
	}
	s.what = f.What
	for _, e := range f.Enum {
		s.Enum = append(s.Enum, e)
	}
	if f.Pattern != "" {
		s.Pattern = "^(?:" + f.Pattern + ")$"
	}
	if f.Enum == nil {
		s.MaxLength = f.limit()
	}
	for _, e := range f.Examples {
		s.Examples = append(s.Examples, e)
	}
}

// defaultOf is the default tag as a value of the field's type.
func defaultOf(f Field) any {
	d, ok := f.Tag.Lookup("default")
	if !ok {
		return nil
	}
	t := f.Typ
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return d == "true"
	case reflect.Int:
		n, err := strconv.Atoi(d)
		if err == nil { // a test compares every default
			return n
		}
	}
	return d
}
