// Package show writes values for people and for programs: tables, JSON and YAML, times, sizes and durations. Values come
// in, text goes out.
//
// It never asks anything and never lets a value's control characters reach a terminal.
package show

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Format is how a command prints what it found.
type Format string

// The formats. Table is for people; the others keep their fields' names from version to version.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Value writes a value as JSON or YAML, with its JSON names.
func Value(w io.Writer, f Format, v any) error {
	data, err := marshal(v)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if f == YAML {
		if data, err = YAMLOf(data); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	_, err = w.Write(data)
	return err
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// Rows writes a table with a header, two blanks between columns. Without rows it writes nothing.
func Rows(w io.Writer, header []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := io.WriteString(w, strings.Join(Lines(header, rows), "\n")+"\n")
	return err
}

// Lines is a table as lines; rows that are shorter than the header are filled up.
func Lines(header []string, rows [][]string) []string {
	all := append([][]string{header}, rows...)
	widths := make([]int, len(header))
	for i, row := range all {
		clean := make([]string, len(row))
		for j, cell := range row {
			if clean[j] = Clean(cell); clean[j] == "" {
				clean[j] = "-"
			}
			if j < len(widths) {
				widths[j] = max(widths[j], utf8.RuneCountInString(clean[j]))
			}
		}
		all[i] = clean
	}
	lines := make([]string, 0, len(all))
	for _, row := range all {
		var b strings.Builder
		for j, cell := range row {
			b.WriteString(cell)
			if j < len(row)-1 && j < len(widths) {
				b.WriteString(strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell)+2))
			}
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

// Clean makes text from outside fit for one line of a terminal: control characters become blanks.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return ' '
		}
		return r
	}, s)
}

// Clip shortens text to n characters; what is cut off is shown as one.
func Clip(s string, n int) string {
	if utf8.RuneCountInString(s) <= n || n <= 0 {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// Bytes writes a size, with two or three digits.
func Bytes(n int64) string {
	f := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB"} {
		if f < 1000 || unit == "TiB" {
			if unit == "B" || f >= 10 {
				return fmt.Sprintf("%.0f %s", f, unit)
			}
			return fmt.Sprintf("%.1f %s", f, unit)
		}
		f /= 1024
	}
	return ""
}

// Duration writes a duration with one unit, or two: 4 s, 2 min 05 s, 3 h 20 min, 5 d 3 h.
func Duration(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %02d min", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%d d %d h", s/86400, s%86400/3600)
}

// Ago writes when something was, as seen from now: the time of day if it was today, else the date.
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	t = t.In(now.Location())
	y, m, d := t.Date()
	ny, nm, nd := now.Date()
	switch {
	case y == ny && m == nm && d == nd:
		return t.Format("15:04:05")
	case y == ny:
		return t.Format("2 Jan 15:04")
	}
	return t.Format("2 Jan 2006")
}

// Line writes a value as JSON in one line, for streams.
func Line(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// Mix writes how much of something came from where, in per cent, the largest part first: "relay 98 %, origin 2 %".
func Mix[K ~string](mix map[K]int64) string {
	total := int64(0)
	for _, n := range mix {
		total += max(n, 0)
	}
	if total == 0 {
		return ""
	}
	keys := slices.SortedFunc(maps.Keys(mix), func(a, b K) int { return cmp.Or(cmp.Compare(mix[b], mix[a]), cmp.Compare(a, b)) })
	var parts []string
	for _, k := range keys {
		if mix[k] <= 0 {
			continue
		}
		part := fmt.Sprintf("%.0f", 100*float64(mix[k])/float64(total))
		if part == "0" {
			part = "<1"
		}
		parts = append(parts, fmt.Sprintf("%s %s %%", Clean(string(k)), part))
	}
	return strings.Join(parts, ", ")
}
