package hostfile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"imgbuild/image/layout"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// Write writes hosts so that Read understands them: the fields that people write, and none of the server's. Passwords are
// not among them, since the server does not give them out.
func Write(w io.Writer, f Format, hosts []registry.Host) error {
	switch f {
	case CSV:
		return writeTable(w, ',', hosts)
	case TSV:
		return writeTable(w, '\t', hosts)
	}
	bare := make([]registry.Host, len(hosts))
	for i, h := range hosts {
		bare[i] = Own(h)
	}
	format := show.JSON
	if f == YAML {
		format = show.YAML
	}
	return show.Value(w, format, bare)
}

// Own returns a host without the server's fields.
func Own(h registry.Host) registry.Host {
	h.State, h.Inventory, h.Booted, h.LiveBoot, h.Created, h.Updated, h.Revision = "", nil, nil, nil, time.Time{}, time.Time{}, 0
	if h.OOB != nil {
		o := *h.OOB
		o.PasswordSet = false
		h.OOB = &o
		if o == (registry.OOB{}) {
			h.OOB = nil
		}
	}
	return h
}

// always are the columns that a table has even if they are empty: those of the service that people come from.
func always(name string) bool {
	switch name {
	case "sn", "hostname", "ip", "netmask", "gw":
		return true
	}
	return false
}

func writeTable(w io.Writer, sep rune, hosts []registry.Host) error {
	schema := newSchema()
	var columns []string
	cells := make([][]string, len(hosts))
	for _, name := range schema.names {
		column, used := make([]string, len(hosts)), always(name)
		for i := range hosts {
			c, err := schema.text(&hosts[i], name)
			if err != nil {
				return fmt.Errorf("write host %s: %s: %w", hosts[i].SN, name, err)
			}
			column[i] = c
			used = used || c != ""
		}
		if !used || name == passwordField {
			continue
		}
		columns = append(columns, name)
		for i := range hosts {
			cells[i] = append(cells[i], column[i])
		}
	}
	b := bufio.NewWriter(w)
	for _, row := range append([][]string{columns}, cells...) {
		for i, c := range row {
			if i > 0 {
				b.WriteRune(sep)
			}
			b.WriteString(quoted(c, sep))
		}
		b.WriteByte('\n')
	}
	return b.Flush()
}

// quoted is a cell as a table holds it (RFC 4180). A number sign would make a comment of the line.
func quoted(s string, sep rune) string {
	if !strings.ContainsRune(s, sep) && !strings.ContainsAny(s, "\"\r\n") && !strings.HasPrefix(s, "#") && strings.TrimSpace(s) == s {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// Text is a field of a host, as Fields names it, as a cell of a table.
func Text(h *registry.Host, name string) (string, error) { return newSchema().text(h, name) }

func (s *schema) text(h *registry.Host, name string) (string, error) {
	index := s.index[name]
	if index == nil {
		return "", errors.New("there is no field of this name")
	}
	v := reflect.ValueOf(h).Elem().FieldByIndex(index[0])
	if len(index) == 2 {
		if v.IsNil() {
			return "", nil
		}
		v = v.Elem().FieldByIndex(index[1])
	}
	return cellText(v)
}

func cellText(v reflect.Value) (string, error) {
	if v.IsZero() {
		return "", nil
	}
	if v.Kind() == reflect.Pointer {
		if v = v.Elem(); v.Kind() == reflect.Bool {
			return strconv.FormatBool(v.Bool()), nil
		}
	}
	if raw, ok := v.Interface().(json.RawMessage); ok {
		return string(raw), nil
	}
	switch v.Kind() {
	case reflect.String:
		return v.String(), nil
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), nil
	case reflect.Slice:
		if !isScalar(v.Type().Elem()) {
			break
		}
		words := make([]string, v.Len())
		for i := range words {
			words[i] = fmt.Sprint(v.Index(i).Interface())
		}
		return strings.Join(words, " "), nil
	}
	if l, ok := v.Interface().(registry.Live); ok && reflect.DeepEqual(l, registry.Live{Image: l.Image}) {
		return l.Image, nil
	}
	if l, ok := v.Interface().(layout.Layout); ok && reflect.DeepEqual(l, layout.Layout{Preset: l.Preset}) {
		return string(l.Preset), nil
	}
	j, err := json.Marshal(v.Interface())
	return string(j), err
}
