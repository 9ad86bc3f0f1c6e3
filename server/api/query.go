package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// query reads a request's query and notes everything that is wrong with it. What nobody has asked for is wrong too: a
// misspelt filter would otherwise choose everything.
type query struct {
	values url.Values
	known  []string
	wrong  []fieldError
}

func (q *query) bad(name, sentence string) { q.wrong = append(q.wrong, fieldError{name, sentence}) }

func (q *query) list(name string) []string {
	q.known = append(q.known, name)
	var all []string
	for _, v := range q.values[name] {
		all = append(all, strings.Split(v, ",")...)
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

func (q *query) text(name string) string {
	q.known = append(q.known, name)
	return q.values.Get(name)
}

func (q *query) flag(name string) bool {
	s := q.text(name)
	v, err := strconv.ParseBool(s)
	if s != "" && err != nil {
		q.bad(name, "it is true or false")
	}
	return v
}

func (q *query) number(name string, otherwise, least, most int) int {
	s := q.text(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		q.bad(name, "it is a number from "+strconv.Itoa(least)+" to "+strconv.Itoa(most))
		return otherwise
	}
	return n
}

// oneOf returns s if it is among choices.
func (q *query) oneOf(name, s string, choices []string) string {
	if !slices.Contains(choices, s) {
		q.bad(name, "it can be "+strings.Join(choices, ", "))
	}
	return s
}

// problem returns what was wrong with the query, or nil. It is asked when everything has been read.
func (q *query) problem() error {
	for name := range q.values {
		if !slices.Contains(q.known, name) {
			q.bad(name, "there is no such parameter; there are "+strings.Join(q.known, ", "))
		}
	}
	if len(q.wrong) == 0 {
		return nil
	}
	slices.SortFunc(q.wrong, func(a, b fieldError) int { return strings.Compare(a.Field, b.Field) })
	e := &httpError{http.StatusBadRequest, refusal{Error: "the query is wrong", Fields: q.wrong}}
	if len(q.wrong) == 1 {
		e.refusal = refusal{Error: q.wrong[0].Error, Field: q.wrong[0].Field}
	}
	return e
}
