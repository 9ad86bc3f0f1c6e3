package strict

import (
	"fmt"
	"regexp"
	"unicode/utf8"
)

// Format is what a value may look like. The schema is made from the same table.
type Format struct {
	What     string              // completes "is not …", and is the pattern's description
	Pattern  string              // a regular expression over the whole value, for RE2 and JavaScript alike
	Enum     []string            // or the only values
	Max      int                 // characters; 0 means 4096
	From, To int                 // of numbers
	Check    func(string) string // further, in Go: what is wrong, or nothing
	Normal   func(string) string // the form that the rest of the program sees
	Secret   bool                // the value is never shown
	Full     bool                // blanks alone are as good as nothing
	HostPath bool                // a path of this host, which is made absolute
	Examples []string
}

const defaultMax = 4096

// Forms holds the formats with their expressions compiled, for one load.
type Forms struct {
	Formats map[string]Format
	re      map[string]*regexp.Regexp
}

// NewForms returns these formats, whose expressions are compiled when they are needed.
func NewForms(formats map[string]Format) *Forms {
	return &Forms{Formats: formats, re: map[string]*regexp.Regexp{}}
}

func (c *Forms) matches(name string, f Format, s string) bool {
	if f.Pattern == "" {
		return true
	}
	re, ok := c.re[name]
	if !ok {
		re = regexp.MustCompile(`^(?:` + f.Pattern + `)$`) // the expressions are ours; a test compiles them all
		c.re[name] = re
	}
	return re.MatchString(s)
}

// Text says what is wrong with the text s of the format name: a predicate such as "is not a size", or nothing.
func (c *Forms) Text(name, s string) string {
	f := c.Formats[name]
	shown := Clip(s)
	if f.Secret {
		shown = "the value"
	}
	switch {
	case f.Enum != nil:
		for _, e := range f.Enum {
			if s == e {
				return ""
			}
		}
		return fmt.Sprintf("is %s; it can be %s%s", shown, List(f.Enum, "or"), DidYouMean(s, f.Enum))
	case utf8.RuneCountInString(s) > f.limit():
		return fmt.Sprintf("has %d characters, more than %d", utf8.RuneCountInString(s), f.limit())
	case !c.matches(name, f, s):
		if f.Check != nil {
			// the more particular sentence, if there is one
			if p := f.Check(s); p != "" {
				return p
			}
		}
		if f.Secret {
			return "is not " + f.What + " (the value is not shown)"
		}
		return fmt.Sprintf("is %s, and not %s", shown, f.What)
	case f.Check != nil:
		return f.Check(s)
	}
	return ""
}

// limit is how many characters a value may have.
func (f Format) limit() int {
	if f.Max == 0 {
		return defaultMax
	}
	return f.Max
}
