package strict

import (
	"encoding"
	"reflect"
	"strconv"
)

// Decode writes a merged and checked node into a value. What was wrong is left out.
func Decode(n *Node, v reflect.Value) {
	if n.Kind == KindBad || n.Kind == KindNull {
		return
	}
	if isText(v.Type()) && v.CanAddr() {
		if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok && u.UnmarshalText([]byte(n.Text)) != nil {
			v.SetZero() // checked already
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		Decode(n, v.Elem())
	case reflect.Struct:
		for _, f := range Fields(v.Type()) {
			if e := n.Get(f.Key); e != nil {
				Decode(e, v.FieldByIndex(f.Index))
			}
		}
	case reflect.Map:
		v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Entries)))
		for _, e := range n.Entries {
			if e.Value.Kind == KindBad {
				continue
			}
			item := reflect.New(v.Type().Elem()).Elem()
			Decode(e.Value, item)
			v.SetMapIndex(reflect.ValueOf(e.Key), item)
		}
	case reflect.Slice:
		for _, i := range n.Items {
			item := reflect.New(v.Type().Elem()).Elem()
			Decode(i, item)
			v.Set(reflect.Append(v, item))
		}
	case reflect.Bool:
		v.SetBool(n.Text == "true")
	case reflect.Int:
		i, err := strconv.ParseInt(n.Text, 10, 64)
		if err == nil { // checked already
			v.SetInt(i)
		}
	case reflect.String:
		v.SetString(n.Text)
	}
}
