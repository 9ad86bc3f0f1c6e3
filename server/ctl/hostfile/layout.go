package hostfile

import (
	"reflect"

	"imgbuild/image/layout"
	"imgbuild/server/registry"
)

// Layout reads a file that holds one disk layout, in YAML or JSON. What the file says that a layout cannot is a problem with its
// line, as is everything that is wrong with the layout.
func Layout(data []byte, f Format) (*layout.Layout, Problems) {
	if line, problem := checkText(data); problem != "" {
		return nil, Problems{{Line: line, Text: problem}}
	}
	read := parseYAML
	if f == JSON {
		read = parseJSON
	}
	v, err := read(data, 1)
	if p, ok := err.(Problem); ok {
		return nil, Problems{p}
	}
	if v == nil || v.empty() {
		return nil, Problems{{Text: "there is no layout in this file"}}
	}
	l := &layout.Layout{}
	d := decoder{line: 1}
	d.value(v, reflect.ValueOf(l).Elem(), "layout")
	if len(d.problems) > 0 {
		d.problems.Sort()
		return nil, d.problems
	}
	var wrong Problems
	for _, f := range registry.CheckLayout(*l) {
		wrong = append(wrong, Problem{Line: v.at(keysOf(f.Field)[1:]), Field: f.Field, Text: f.Message})
	}
	wrong.Sort()
	if len(wrong) > 0 {
		return nil, wrong
	}
	return l, nil
}
