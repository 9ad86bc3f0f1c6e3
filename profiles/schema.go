package profiles

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
)

// schema is a JSON Schema, draft 2020-12, with the keys in the order in which people read them.
type schema struct {
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
	Items                *schema     `json:"items,omitempty"`
	PropertyNames        *schema     `json:"propertyNames,omitempty"`
	Properties           *properties `json:"properties,omitempty"`
	AdditionalProperties any         `json:"additionalProperties,omitempty"` // *schema or false
	Required             []string    `json:"required,omitempty"`
	If                   *schema     `json:"if,omitempty"`
	Then                 *schema     `json:"then,omitempty"`
	Not                  *schema     `json:"not,omitempty"`
	AllOf                []*schema   `json:"allOf,omitempty"`

	what string // the format in words, for the reference
}

// properties are an object's, in their order.
type properties struct {
	keys   []string
	values map[string]*schema
}

func (p *properties) add(key string, s *schema) {
	if p.values == nil {
		p.values = map[string]*schema{}
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

// Schema returns the JSON Schema of a profile's file, for editors and for other programs that write profiles. It is made
// from the same types and formats that Load checks with. Null is allowed everywhere because `key: !reset` is a null.
// What it cannot say (files that have to exist, contradictions after merging, addresses) only Load finds.
func Schema() ([]byte, error) {
	s, err := profileSchema()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return nil, fmt.Errorf("write the schema of profiles: %w", err)
	}
	return b.Bytes(), nil
}

func profileSchema() (*schema, error) {
	docs, err := readDocs()
	if err != nil {
		return nil, err
	}
	m := &schemaMaker{formats: formats(), docs: docs}
	s := m.object(reflect.TypeFor[Profile]())
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "imgbuild profile"
	s.If = &schema{Not: &schema{Required: []string{"extends"}}}
	s.Then = &schema{Required: []string{"distro", "repositories", "packages"}}
	return s, nil
}

type schemaMaker struct {
	formats map[string]format
	docs    map[string]string
}

func (m *schemaMaker) object(t reflect.Type) *schema {
	s := &schema{
		Type: []string{"object"}, Description: m.docs[t.Name()],
		Properties: &properties{}, AdditionalProperties: false,
	}
	groups := map[string][]field{}
	var order []string
	for _, f := range fieldsOf(t) {
		p := m.value(f.typ, f.tag)
		p.Description = m.docs[t.Name()+"."+f.name]
		p.Default = defaultOf(f)
		p.Type = append(p.Type, "null")
		if p.Enum != nil {
			p.Enum = append(p.Enum, nil)
		}
		s.Properties.add(f.key, p)
		if g := f.tag.Get("only"); g != "" {
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
func notBoth(fields []field) []*schema {
	given := func(f field) *schema {
		switch f.typ.Kind() {
		case reflect.Bool:
			return &schema{Enum: []any{true}}
		case reflect.Slice:
			return &schema{Type: []string{"array"}}
		}
		return &schema{Type: []string{"string"}}
	}
	var rules []*schema
	for i, a := range fields {
		for _, b := range fields[i+1:] {
			both := &properties{}
			both.add(a.key, given(a))
			both.add(b.key, given(b))
			rules = append(rules, &schema{Not: &schema{Properties: both, Required: []string{a.key, b.key}}})
		}
	}
	return rules
}

func (m *schemaMaker) value(t reflect.Type, tag reflect.StructTag) *schema {
	switch t.Kind() {
	case reflect.Pointer:
		return m.value(t.Elem(), tag)
	case reflect.Struct:
		return m.object(t)
	case reflect.Map:
		s := &schema{Type: []string{"object"}, PropertyNames: &schema{}}
		m.text(s.PropertyNames, tag.Get("keys"))
		item := m.value(t.Elem(), tag)
		item.Type = append(item.Type, "null")
		s.AdditionalProperties = item
		return s
	case reflect.Slice:
		return &schema{Type: []string{"array"}, Items: m.value(t.Elem(), tag)}
	case reflect.Bool:
		return &schema{Type: []string{"boolean"}}
	case reflect.Int:
		f := m.formats[tag.Get("check")]
		return &schema{Type: []string{"integer"}, Minimum: &f.from, Maximum: &f.to}
	}
	s := &schema{Type: []string{"string"}}
	if tag.Get("loose") != "" {
		s.Type = []string{"string", "number", "boolean"}
	}
	m.text(s, tag.Get("check"))
	return s
}

// text adds what the format name demands.
func (m *schemaMaker) text(s *schema, name string) {
	f, ok := m.formats[name]
	if !ok {
		return
	}
	s.what = f.what
	for _, e := range f.enum {
		s.Enum = append(s.Enum, e)
	}
	if f.re != "" {
		s.Pattern = "^(?:" + f.re + ")$"
	}
	if f.enum == nil {
		s.MaxLength = f.limit()
	}
	for _, e := range f.examples {
		s.Examples = append(s.Examples, e)
	}
}

// defaultOf is the default tag as a value of the field's type.
func defaultOf(f field) any {
	d, ok := f.tag.Lookup("default")
	if !ok {
		return nil
	}
	t := f.typ
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
