package strict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Reference writes, in Markdown, a table of the keys of a document and one of each section in it.
func (s *Schema) Reference(b *bytes.Buffer, title string) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", title, s.Description)
	referenceTable(b, s)
	sections(b, s, "")
}

// sections writes a heading and a table for each key that holds keys.
func sections(b *bytes.Buffer, s *Schema, path string) {
	for _, k := range s.Properties.keys {
		p := s.Properties.values[k]
		name := k
		if path != "" {
			name = path + "." + k
		}
		inner := p
		switch {
		case p.Items != nil && p.Items.Properties != nil:
			name, inner = name+"[]", p.Items
		case p.Properties == nil:
			m, ok := p.AdditionalProperties.(*Schema)
			if !ok || m.Properties == nil {
				continue
			}
			name, inner = name+".NAME", m
		}
		if inner.Properties == nil {
			continue
		}
		fmt.Fprintf(b, "\n## %s\n\n%s\n", name, description(inner, p))
		referenceTable(b, inner)
		sections(b, inner, name)
	}
}

func description(inner, p *Schema) string {
	if inner == p || inner.Description == "" {
		return p.Description
	}
	return inner.Description
}

func referenceTable(b *bytes.Buffer, s *Schema) {
	b.WriteString("\n| key | value | default | what it says |\n| --- | --- | --- | --- |\n")
	for _, k := range s.Properties.keys {
		p := s.Properties.values[k]
		def := ""
		if p.Default != nil {
			j, err := json.Marshal(p.Default)
			if err == nil { // strings, numbers and booleans
				def = "`" + strings.Trim(string(j), `"`) + "`"
			}
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k, cell(valueOf(p)), cell(def), cell(p.Description))
	}
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// valueOf says in words what may be written.
func valueOf(s *Schema) string {
	t := slices.DeleteFunc(slices.Clone(s.Type), func(t string) bool { return t == "null" })
	switch {
	case s.Enum != nil:
		var names []string
		for _, e := range s.Enum {
			if e != nil {
				names = append(names, fmt.Sprintf("`%v`", e))
			}
		}
		return strings.Join(names, ", ")
	case s.Items != nil:
		return "list: " + valueOf(s.Items)
	case s.Properties != nil:
		return "map, see below"
	case len(t) == 1 && t[0] == "object":
		inner, ok := s.AdditionalProperties.(*Schema)
		if !ok {
			return "map"
		}
		names := "map; names: " + s.PropertyNames.what
		if inner.Properties != nil {
			return names + "; values: see below"
		}
		return names + "; values: " + valueOf(inner)
	case len(t) == 1 && t[0] == "boolean":
		return "`true`, `false`"
	case len(t) == 1 && t[0] == "integer":
		return fmt.Sprintf("%d to %d", *s.Minimum, *s.Maximum)
	}
	words := s.what
	if words == "" {
		words = "text"
	}
	if len(s.Examples) > 0 {
		if e := fmt.Sprint(s.Examples[0]); len(e) < 60 {
			words += fmt.Sprintf(", e.g. `%s`", e)
		}
	}
	return words
}
