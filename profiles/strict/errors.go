package strict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// MaxErrors is how many mistakes are listed; a file of another kind would give thousands.
const MaxErrors = 100

// Error is one mistake in a file.
type Error struct {
	File     string // as the person named it; "shipped:NAME" for a shipped profile
	Line     int    // from 1; 0 when the mistake is the file's as a whole
	Column   int    // from 1, in characters
	Key      string // the key's path, e.g. packages.install[2]; empty for the file as a whole
	Sentence string // what is wrong and what to write instead
}

// Error is the mistake as file:line:column: sentence.
func (e Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Sentence)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Sentence)
}

// Errors are all mistakes of a file and of those that it refers to: the file's own first, in their order.
type Errors []Error

// Error has one line for each mistake, at most a hundred.
func (es Errors) Error() string {
	var b strings.Builder
	for i, e := range es {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == MaxErrors {
			fmt.Fprintf(&b, "%s: and %d more mistakes", e.File, len(es)-i)
			break
		}
		b.WriteString(e.Error())
	}
	return b.String()
}

// Pos is a place in a source; a line of 0 is the source as a whole.
type Pos struct {
	Src       *Source
	Line, Col int
}

// Collector gathers mistakes with their places.
type Collector struct {
	found []found
}

type found struct {
	at    Pos
	key   string
	text  string
	order int
}

// Add notes one mistake at a place, under the path of its key.
func (c *Collector) Add(at Pos, key, format string, args ...any) {
	c.found = append(c.found, found{at, key, fmt.Sprintf(format, args...), len(c.found)})
}

// Errors returns what was gathered, sorted and without repetitions, or nil.
func (c *Collector) Errors() Errors {
	if len(c.found) == 0 {
		return nil
	}
	slices.SortStableFunc(c.found, func(a, b found) int {
		return cmp.Or(
			cmp.Compare(a.at.Src.Depth, b.at.Src.Depth), cmp.Compare(a.at.Line, b.at.Line), cmp.Compare(a.at.Col, b.at.Col),
			cmp.Compare(a.order, b.order),
		)
	})
	var es Errors
	seen := map[Error]bool{}
	for _, f := range c.found {
		e := Error{f.at.Src.Name, f.at.Line, f.at.Col, f.key, f.text}
		if !seen[e] {
			seen[e] = true
			es = append(es, e)
		}
	}
	return es
}
