package registry

import (
	"reflect"
	"strings"
	"unicode"
)

// maxText bounds what one event says, in bytes.
const maxText = 16 << 10

// clean makes a text one that may be shown on a terminal: valid UTF-8 without control characters, of a bounded length.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "�")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// cleaned is a copy of what a machine says, with all its texts clean.
func cleaned[T any](v T) T {
	return cleanValue(reflect.ValueOf(v)).Interface().(T)
}

func cleanValue(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		c.SetString(clean(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			c.Set(reflect.New(v.Type().Elem()))
			c.Elem().Set(cleanValue(v.Elem()))
		}
	case reflect.Slice:
		if !v.IsNil() {
			c.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				c.Index(i).Set(cleanValue(v.Index(i)))
			}
		}
	case reflect.Struct:
		c.Set(v) // what is not exported, if there is any
		for i := range v.NumField() {
			if c.Field(i).CanSet() {
				c.Field(i).Set(cleanValue(v.Field(i)))
			}
		}
	default:
		c.Set(v)
	}
	return c
}
