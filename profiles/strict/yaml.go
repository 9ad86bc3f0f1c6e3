package strict

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Marshal returns a value as a document of its keys: what is zero is left out, and the order is that of the types, and of
// the names in maps, so equal values give equal bytes.
func Marshal(v any) ([]byte, error) {
	var b strings.Builder
	if err := writeStruct(&b, reflect.ValueOf(v), 0); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}

// writeStruct writes the fields that say something, one in each line.
func writeStruct(b *strings.Builder, v reflect.Value, depth int) error {
	for _, f := range Fields(v.Type()) {
		if err := writeKey(b, f.Key, v.FieldByIndex(f.Index), depth); err != nil {
			return err
		}
	}
	return nil
}

func writeKey(b *strings.Builder, key string, v reflect.Value, depth int) error {
	if says(v) {
		fmt.Fprintf(b, "%s%s:", indent(depth), scalarYAML(key))
		return writeValue(b, v, depth)
	}
	return nil
}

// says is whether a value is more than the absence of one.
func says(v reflect.Value) bool {
	if isText(v.Type()) {
		return !v.IsZero()
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range Fields(v.Type()) {
			if says(v.FieldByIndex(f.Index)) {
				return true
			}
		}
		return false
	case reflect.Map, reflect.Slice:
		return v.Len() > 0
	}
	return !v.IsZero()
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// writeValue writes what follows a key's colon or a list's dash, with the end of its line.
func writeValue(b *strings.Builder, v reflect.Value, depth int) error {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok && isText(v.Type()) {
		text, err := m.MarshalText()
		if err != nil {
			return err
		}
		writeText(b, string(text), depth)
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		return writeValue(b, v.Elem(), depth)
	case reflect.Struct:
		if !says(v) {
			b.WriteString(" {}\n")
			return nil
		}
		b.WriteByte('\n')
		return writeStruct(b, v, depth+1)
	case reflect.Map:
		b.WriteByte('\n')
		m := make(map[string]reflect.Value, v.Len())
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = it.Value()
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(b, "%s%s:", indent(depth+1), scalarYAML(k))
			if err := writeValue(b, m[k], depth+1); err != nil {
				return err
			}
		}
	case reflect.Slice:
		b.WriteByte('\n')
		for i := range v.Len() {
			var item strings.Builder
			if err := writeValue(&item, v.Index(i), depth+1); err != nil {
				return err
			}
			// a map's first key stands on the line of the dash
			text := strings.TrimPrefix(item.String(), "\n"+indent(depth+2))
			fmt.Fprintf(b, "%s- %s", indent(depth+1), strings.TrimPrefix(text, " "))
		}
	case reflect.Bool:
		fmt.Fprintf(b, " %t\n", v.Bool())
	case reflect.Int:
		fmt.Fprintf(b, " %d\n", v.Int())
	case reflect.String:
		writeText(b, v.String(), depth)
	default:
		return fmt.Errorf("there is no way to write a %s", v.Type())
	}
	return nil
}

// writeText writes text of several lines as a literal block where that gives the same text back, anything else in one line.
func writeText(b *strings.Builder, s string, depth int) {
	if !literal(s) {
		fmt.Fprintf(b, " %s\n", scalarYAML(s))
		return
	}
	b.WriteString(" |\n")
	for line := range strings.Lines(s) {
		if line != "\n" {
			b.WriteString(indent(depth + 1))
		}
		b.WriteString(line)
	}
}

// literal says whether s is safe in a literal block: lines that end, of characters that can be seen, without blanks at the
// beginning of the first or the end of any.
func literal(s string) bool {
	if strings.Count(s, "\n") < 2 || !strings.HasSuffix(s, "\n") || strings.HasSuffix(s, "\n\n") || strings.ContainsAny(s[:1], " \t\n") {
		return false
	}
	for line := range strings.Lines(s) {
		line = strings.TrimSuffix(line, "\n")
		if strings.TrimRight(line, " \t") != line || strings.HasPrefix(line, "\t") || strings.ContainsFunc(line, unseen) {
			return false
		}
	}
	return true
}

func unseen(r rune) bool {
	return r != '\t' && r != ' ' && !unicode.IsGraphic(r) || r == '\ufeff' || r == unicode.ReplacementChar
}

var (
	plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9 /_.,+@=()$~^;-]*$|^[0-9]+[KMGT]iB$`)
	notText   = regexp.MustCompile(`(?i)^(null|true|false|yes|no|on|off|y|n|\.?inf|\.?nan|~)$`)
)

// scalarYAML writes text so that YAML reads it as this text.
func scalarYAML(s string) string {
	if plainText.MatchString(s) && !notText.MatchString(s) && strings.TrimSpace(s) == s {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"', r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r > 0xffff && unseen(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		case unseen(r):
			b.WriteString(`\u` + strings.Repeat("0", 4-len(strconv.FormatInt(int64(r), 16))) + strconv.FormatInt(int64(r), 16))
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}
