package profiles

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxErrors is how many mistakes are listed; a file that is not a profile at all would give thousands.
const maxErrors = 100

// Error is one mistake in a profile.
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

// Errors are all mistakes of a profile and of those that it extends: the profile's own first, in the order of the file.
type Errors []Error

// Error has one line for each mistake, at most a hundred.
func (es Errors) Error() string {
	var b strings.Builder
	for i, e := range es {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == maxErrors {
			fmt.Fprintf(&b, "%s: and %d more mistakes", e.File, len(es)-i)
			break
		}
		b.WriteString(e.Error())
	}
	return b.String()
}

// pos is a place in a source.
type pos struct {
	src       *source
	line, col int
}

// collector gathers mistakes with their places.
type collector struct {
	found []found
}

type found struct {
	at    pos
	key   string
	text  string
	order int
}

func (c *collector) add(at pos, key, format string, args ...any) {
	c.found = append(c.found, found{at, key, fmt.Sprintf(format, args...), len(c.found)})
}

// errors returns what was gathered, sorted and without repetitions, or nil.
func (c *collector) errors() Errors {
	if len(c.found) == 0 {
		return nil
	}
	slices.SortStableFunc(c.found, func(a, b found) int {
		return cmp.Or(
			cmp.Compare(a.at.src.depth, b.at.src.depth), cmp.Compare(a.at.line, b.at.line), cmp.Compare(a.at.col, b.at.col),
			cmp.Compare(a.order, b.order),
		)
	})
	var es Errors
	seen := map[Error]bool{}
	for _, f := range c.found {
		e := Error{f.at.src.name, f.at.line, f.at.col, f.key, f.text}
		if !seen[e] {
			seen[e] = true
			es = append(es, e)
		}
	}
	return es
}
