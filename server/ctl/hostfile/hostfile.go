// Package hostfile reads and writes files of hosts: CSV, TSV, YAML and JSON. Bytes come in; out go entries, each with its
// line and what it says of its host, and every mistake with its line, all at once.
//
// It never asks a server and never guesses: a column that it does not know is a mistake that names the one that was
// probably meant. Text stays as it was written: a serial number 0042 is no number.
package hostfile

import (
	"bytes"
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Format is how a file is written.
type Format string

// The formats. CSV takes commas, or semicolons where the first line has those.
const (
	CSV  Format = "csv"
	TSV  Format = "tsv"
	YAML Format = "yaml"
	JSON Format = "json"
)

// Formats lists them.
func Formats() []string { return []string{string(CSV), string(TSV), string(YAML), string(JSON)} }

// FormatOf tells the format by the file's name, and where that says nothing by its content.
func FormatOf(name string, data []byte) Format {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv":
		return CSV
	case ".tsv", ".tab":
		return TSV
	case ".yaml", ".yml":
		return YAML
	case ".json":
		return JSON
	}
	for line := range bytes.Lines(bytes.TrimPrefix(data, []byte("\ufeff"))) {
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case len(bytes.TrimSpace(line)) == 0 || line[0] == '#':
			continue
		case line[0] == '[' || line[0] == '{':
			return JSON
		case bytes.HasPrefix(line, []byte("-")) || bytes.HasPrefix(line, []byte("%")) || bytes.Contains(line, []byte(": ")) || bytes.HasSuffix(line, []byte(":")):
			return YAML
		case bytes.ContainsRune(line, '\t'):
			return TSV
		}
		return CSV
	}
	return CSV
}

// Problem is one mistake.
type Problem struct {
	Line  int    // from 1; 0 for the whole file
	Field string // as the file calls it; empty if it is not about one
	Text  string
}

func (p Problem) String() string {
	if p.Field != "" {
		return p.Field + ": " + p.Text
	}
	return p.Text
}

// Problems are all mistakes of a file.
type Problems []Problem

// Sort puts the mistakes in the order of their lines and fields.
func (p Problems) Sort() {
	slices.SortStableFunc(p, func(a, b Problem) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Field, b.Field)) })
}

// Format writes the mistakes as file:line: sentence, one a line.
func (p Problems) Format(file string) string {
	var b strings.Builder
	for _, one := range p {
		b.WriteString(file)
		if one.Line > 0 {
			fmt.Fprintf(&b, ":%d", one.Line)
		}
		fmt.Fprintf(&b, ": %s\n", one)
	}
	return b.String()
}

// File is what a file says.
type File struct {
	Entries []Entry // in the file's order
	// Ignored are fields of the file that are the server's alone, such as state.
	Ignored []string
}

// Read takes a file apart. Entries without a mistake are returned even if others have one.
func Read(data []byte, f Format) (File, Problems) {
	r := &reader{schema: newSchema(), ignored: map[string]bool{}}
	if line, problem := checkText(data); problem != "" {
		return File{}, Problems{{Line: line, Text: problem}}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	switch f {
	case YAML:
		r.readYAML(data)
	case JSON:
		r.readJSON(data)
	case TSV:
		r.readTable(data, '\t')
	default:
		r.readTable(data, separator(data))
	}
	if len(r.entries) == 0 && len(r.problems) == 0 {
		r.bad(0, "", "there is no host in this file")
	}
	r.twice()
	r.problems.Sort()
	out := File{Entries: r.entries}
	for name := range r.ignored {
		out.Ignored = append(out.Ignored, name)
	}
	slices.Sort(out.Ignored)
	return out, r.problems
}

// reader gathers what a file says.
type reader struct {
	schema   *schema
	entries  []Entry
	problems Problems
	ignored  map[string]bool
}

func (r *reader) bad(line int, field, format string, a ...any) {
	r.problems = append(r.problems, Problem{line, field, fmt.Sprintf(format, a...)})
}

// twice finds serial numbers that are there more than once; upper and lower case are one, as people write them.
func (r *reader) twice() {
	first := make(map[string]int, len(r.entries))
	for _, e := range r.entries {
		key := strings.ToUpper(e.SN)
		if line, there := first[key]; there {
			r.bad(e.Line, "sn", "%s is here a second time; the first is in line %d", e.SN, line)
			continue
		}
		first[key] = e.Line
	}
}

// checkText finds what no text file has.
func checkText(data []byte) (line int, problem string) {
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return 1, "the file is UTF-16; save it as UTF-8"
	}
	line = 1
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return line, fmt.Sprintf("the byte 0x%02x is not UTF-8; save the file as UTF-8", data[i])
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return line, fmt.Sprintf("the control character U+%04X cannot be in a file of hosts", r)
		case r == '\n':
			line++
		}
		i += n
	}
	return 0, ""
}
