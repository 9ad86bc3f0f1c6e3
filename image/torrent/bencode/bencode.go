// Package bencode writes and reads bencoding, the form of BitTorrent's metainfo files and trackers' answers (BEP 3).
//
// Bytes and values come in and go out. Of the several ways to write a value that lax readers take, it reads the one that BEP 3
// allows: what was read and is written again has the same bytes, so that hashes over a part of it stay what they were.
package bencode

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Value is a String, Int, List or Dict.
type Value interface{ append(b []byte) []byte }

// The kinds of values. A String is bytes, and need not be text.
type (
	String string
	Int    int64
	List   []Value
	Dict   map[string]Value
)

func (s String) append(b []byte) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	return append(b, s...)
}

func (i Int) append(b []byte) []byte {
	b = append(b, 'i')
	b = strconv.AppendInt(b, int64(i), 10)
	return append(b, 'e')
}

func (l List) append(b []byte) []byte {
	b = append(b, 'l')
	for _, v := range l {
		b = v.append(b)
	}
	return append(b, 'e')
}

func (d Dict) append(b []byte) []byte {
	b = append(b, 'd')
	for _, k := range slices.Sorted(maps.Keys(d)) {
		b = String(k).append(b)
		b = d[k].append(b)
	}
	return append(b, 'e')
}

// Marshal writes a value. The same value gives the same bytes.
func Marshal(v Value) []byte { return v.append(nil) }

// maxDepth bounds how deep lists and dictionaries lie in each other. Metainfo files have at most 4 levels.
const maxDepth = 16

// Parse reads one value, and refuses whatever follows it.
func Parse(data []byte) (Value, error) {
	r := reader{data: data}
	v, err := r.value(0)
	if err == nil && r.at < len(data) {
		err = errors.New("there is more after the value")
	}
	if err != nil {
		return nil, fmt.Errorf("read bencoding: byte %d: %w", r.at, err)
	}
	return v, nil
}

type reader struct {
	data []byte
	at   int
}

var errEnd = errors.New("it ends within a value")

func (r *reader) peek() byte {
	if r.at < len(r.data) {
		return r.data[r.at]
	}
	return 0
}

func (r *reader) value(depth int) (Value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("lists and dictionaries are nested more than %d deep", maxDepth)
	}
	switch c := r.peek(); {
	case r.at >= len(r.data):
		return nil, errEnd
	case c >= '0' && c <= '9':
		return r.text()
	case c == 'i':
		r.at++
		n, err := r.number('e')
		return Int(n), err
	case c == 'l':
		r.at++
		return r.list(depth)
	case c == 'd':
		r.at++
		return r.dict(depth)
	default:
		return nil, fmt.Errorf("no value begins with %q", c)
	}
}

func (r *reader) list(depth int) (Value, error) {
	l := List{}
	for r.peek() != 'e' {
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	r.at++
	return l, nil
}

func (r *reader) dict(depth int) (Value, error) {
	d, last := Dict{}, String("")
	for r.peek() != 'e' {
		k, err := r.text()
		if err != nil {
			return nil, err
		}
		if len(d) > 0 && k <= last {
			return nil, fmt.Errorf("the key %.40q comes after %.40q, and keys are sorted", string(k), string(last))
		}
		if d[string(k)], err = r.value(depth + 1); err != nil {
			return nil, err
		}
		last = k
	}
	r.at++
	return d, nil
}

func (r *reader) text() (String, error) {
	if c := r.peek(); c < '0' || c > '9' {
		if r.at >= len(r.data) {
			return "", errEnd
		}
		return "", fmt.Errorf("a text begins with its length, and not with %q", c)
	}
	n, err := r.number(':')
	if err != nil {
		return "", err
	}
	if n > int64(len(r.data)-r.at) {
		return "", errEnd
	}
	s := String(r.data[r.at : r.at+int(n)])
	r.at += int(n)
	return s, nil
}

// number reads digits up to end: no plus, no minus zero and no zero before other digits.
func (r *reader) number(end byte) (int64, error) {
	from := r.at
	for r.peek() != end {
		if r.at >= len(r.data) {
			return 0, errEnd
		}
		if r.at++; r.at-from > 20 {
			return 0, errors.New("a number has more than 20 digits")
		}
	}
	s := string(r.data[from:r.at])
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%.24q is not a number as BEP 3 writes it", s)
	}
	r.at++
	return n, nil
}
