package hostfile

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"
)

// separator is a semicolon where the first line has more of those than commas: some spreadsheets write them.
func separator(data []byte) rune {
	for line := range bytes.Lines(data) {
		if len(bytes.TrimSpace(line)) == 0 || line[0] == '#' {
			continue
		}
		if bytes.Count(line, []byte(";")) > bytes.Count(line, []byte(",")) {
			return ';'
		}
		break
	}
	return ','
}

// readTable reads a table with a header (RFC 4180). A column says what its field is for every host, an empty cell that it
// is empty; fields without a column are left alone.
func (r *reader) readTable(data []byte, sep rune) {
	c := csv.NewReader(bytes.NewReader(data))
	c.Comma, c.Comment, c.FieldsPerRecord, c.ReuseRecord = sep, '#', -1, true
	var columns []column
	for first := true; ; first = false {
		cells, err := c.Read()
		if err == io.EOF {
			return
		}
		var wrong *csv.ParseError
		if errors.As(err, &wrong) {
			r.bad(wrong.Line, "", "%s; what follows cannot be read", quoting(wrong))
			return
		}
		if err != nil {
			r.bad(0, "", "%s", err)
			return
		}
		line, _ := c.FieldPos(0)
		if first {
			if columns = r.header(cells, line, sep); columns == nil {
				return
			}
			continue
		}
		if blank(cells) {
			continue
		}
		if len(cells) != len(columns) {
			r.bad(line, "", "this line has %d columns and the header has %d", len(cells), len(columns))
			continue
		}
		r.row(columns, cells, line)
	}
}

func quoting(e *csv.ParseError) string {
	switch {
	case errors.Is(e.Err, csv.ErrQuote):
		return `a quoted cell ends before the next separator: write a quote inside of it twice ("")`
	case errors.Is(e.Err, csv.ErrBareQuote):
		return `a quote stands inside of a cell without quotes: put the whole cell into quotes and write the inner one twice ("")`
	}
	return e.Err.Error()
}

func blank(cells []string) bool {
	for _, c := range cells {
		if strings.TrimSpace(c) != "" {
			return false
		}
	}
	return true
}

// column is what a column of the table means; the zero value is one that is passed over.
type column struct {
	name string
	path []string
}

// header reads the first line; nil means that the rest cannot be understood.
func (r *reader) header(cells []string, line int, sep rune) []column {
	var columns []column
	seen := map[string]bool{}
	before := len(r.problems)
	if len(cells) == 1 && sep != '\t' && strings.ContainsRune(cells[0], '\t') {
		r.bad(line, "", "the columns are separated by tabs: is it a TSV file?")
		return nil
	}
	for _, name := range cells {
		name = strings.TrimSpace(name)
		path, ignored, problem := r.schema.resolve(name)
		key := strings.Join(path, ".")
		switch {
		case problem != "":
			r.bad(line, name, "%s", problem)
		case ignored:
			r.ignored[name] = true
		case seen[key]:
			r.bad(line, name, "this column is here twice")
		default:
			seen[key] = true
		}
		columns = append(columns, column{name, path})
	}
	if !seen["sn"] && len(r.problems) == before {
		r.bad(line, "", "the first line names the columns, and there is none named sn: the serial number is what a host is known by")
	}
	if len(r.problems) > before {
		return nil
	}
	return columns
}

func (r *reader) row(columns []column, cells []string, line int) {
	e := Entry{Line: line, schema: r.schema}
	for i, c := range columns {
		cell := strings.TrimSpace(cells[i])
		switch {
		case c.path == nil:
		case c.path[0] == "sn":
			e.SN = cell
		case c.name == passwordField && cell == "": // write-only: an export has none
		default:
			e.sets = append(e.sets, set{c.path, &value{line: line, kind: text, text: cell, plain: true, cell: true}})
		}
	}
	r.add(e)
}
