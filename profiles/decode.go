package profiles

import (
	"reflect"
	"strconv"
)

// decode writes a merged and checked node into a value. What was wrong is left out.
func decode(n *node, v reflect.Value) {
	if n.kind == kindBad || n.kind == kindNull {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		decode(n, v.Elem())
	case reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			if e := n.get(f.key); e != nil {
				decode(e, v.Field(f.index))
			}
		}
	case reflect.Map:
		v.Set(reflect.MakeMapWithSize(v.Type(), len(n.entries)))
		for _, e := range n.entries {
			if e.value.kind == kindBad {
				continue
			}
			item := reflect.New(v.Type().Elem()).Elem()
			decode(e.value, item)
			v.SetMapIndex(reflect.ValueOf(e.key), item)
		}
	case reflect.Slice:
		for _, i := range n.items {
			item := reflect.New(v.Type().Elem()).Elem()
			decode(i, item)
			v.Set(reflect.Append(v, item))
		}
	case reflect.Bool:
		v.SetBool(n.text == "true")
	case reflect.Int:
		i, err := strconv.ParseInt(n.text, 10, 64)
		if err == nil { // checked already
			v.SetInt(i)
		}
	case reflect.String:
		v.SetString(n.text)
	}
}
