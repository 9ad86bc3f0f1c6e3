package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// serversFields are those of a host that only the server writes.
var serversFields = [...]string{"state", "inventory", "booted", "live_boot", "created", "updated", "revision"}

// DecodeHost reads a host from JSON. Fields that there are not, and those of a wrong type, are an Invalid that names each
// by its path. The server's own fields are passed over. The host is not validated yet.
func DecodeHost(data []byte) (Host, error) {
	var h Host
	var fields map[string]json.RawMessage
	if err := decodeOne(data, &fields); err != nil {
		return h, &Invalid{Fields: []FieldError{{Message: "a JSON object is wanted: " + err.Error()}}}
	}
	if fields == nil {
		return h, &Invalid{Fields: []FieldError{{Message: "a JSON object is wanted, not null"}}}
	}
	var wrong Invalid
	v := reflect.ValueOf(&h).Elem()
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if slices.Contains(serversFields[:], name) {
			continue
		}
		f, ok := fieldNamed(v.Type(), name)
		if !ok {
			wrong.add(name, "a host has no such field")
			continue
		}
		if path, ok := unknownKey(fields[name], f.Type, name); !ok {
			wrong.add(path, "there is no such field")
			continue
		}
		if err := json.Unmarshal(fields[name], v.FieldByIndex(f.Index).Addr().Interface()); err != nil {
			var typed *json.UnmarshalTypeError
			path, message := name, err.Error()
			if errors.As(err, &typed) {
				if typed.Field != "" {
					path += "." + typed.Field
				}
				message = fmt.Sprintf("a %s is not what belongs here", typed.Value)
			}
			wrong.add(path, "%s", message)
		}
	}
	if string(h.Metadata) == "null" {
		h.Metadata = nil
	}
	return h, wrong.orNil()
}

// decodeOne reads one JSON value and nothing after it.
func decodeOne(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("there is nothing")
		}
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more after the JSON value")
	}
	return nil
}

// fieldNamed finds a struct's field by its JSON name, capitals and all: encoding/json would take any.
func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	for _, f := range reflect.VisibleFields(t) {
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name && tag != "" && tag != "-" {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// unknownKey looks for the first key in a JSON value that its type does not have.
func unknownKey(data json.RawMessage, t reflect.Type, path string) (string, bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) || isText(t) {
		return "", true
	}
	switch t.Kind() {
	case reflect.Struct:
		var fields map[string]json.RawMessage
		if json.Unmarshal(data, &fields) != nil {
			return "", true // the wrong type is told elsewhere
		}
		for name, value := range fields {
			f, ok := fieldNamed(t, name)
			if !ok {
				return path + "." + name, false
			}
			if p, ok := unknownKey(value, f.Type, path+"."+name); !ok {
				return p, false
			}
		}
	case reflect.Slice:
		var list []json.RawMessage
		if json.Unmarshal(data, &list) != nil {
			return "", true
		}
		for i, value := range list {
			if p, ok := unknownKey(value, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); !ok {
				return p, false
			}
		}
	}
	return "", true
}

func isText(t reflect.Type) bool {
	type textUnmarshaler interface{ UnmarshalText([]byte) error }
	return reflect.PointerTo(t).Implements(reflect.TypeFor[textUnmarshaler]())
}

// parseObject reads a JSON object, numbers as they are written.
func parseObject(data []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("a JSON object is wanted: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("a JSON object is wanted and nothing after it")
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("a JSON object is wanted")
	}
	return m, nil
}

// mergePatch is RFC 7396's algorithm (section 2) for an object.
func mergePatch(target, patch map[string]any) map[string]any {
	if target == nil {
		target = map[string]any{}
	}
	for name, value := range patch {
		switch v := value.(type) {
		case nil:
			delete(target, name)
		case map[string]any:
			old, _ := target[name].(map[string]any)
			target[name] = mergePatch(old, v)
		default:
			target[name] = v
		}
	}
	return target
}
