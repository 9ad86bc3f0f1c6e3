package profiles

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// field is one key that people write, from a struct's tags.
type field struct {
	index int
	name  string // the Go name
	key   string // the YAML key
	typ   reflect.Type
	tag   reflect.StructTag
}

// fieldsOf returns the keys of a struct type in their order.
func fieldsOf(t reflect.Type) []field {
	var fs []field
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "" || key == "-" || !f.IsExported() {
			continue
		}
		fs = append(fs, field{i, f.Name, key, f.Type, f.Tag})
	}
	return fs
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range fieldsOf(t) {
		keys = append(keys, f.key)
	}
	return keys
}

// treeChecker holds one file's nodes against the types: unknown keys, wrong types, bad values. What is wrong becomes
// kindBad, what is a host's path becomes absolute.
type treeChecker struct {
	*collector
	*checker
	src *source
}

// structure checks a map against a struct type.
func (c *treeChecker) structure(n *node, t reflect.Type, path string) {
	fields := fieldsOf(t)
	for i := range n.entries {
		e := &n.entries[i]
		at := slices.IndexFunc(fields, func(f field) bool { return f.key == e.key })
		if at < 0 {
			c.add(e.at, join(path, e.key), "%s", c.unknown(e.key, t, path))
			e.value = &node{kind: kindBad, at: e.at}
			continue
		}
		c.value(e.value, fields[at].typ, fields[at].tag, join(path, e.key))
	}
	n.entries = slices.DeleteFunc(n.entries, func(e entry) bool { return e.value.kind == kindBad && !slices.Contains(keysOf(t), e.key) })
}

// unknown is the sentence about a key that does not exist: the near one here, or the place where it does exist.
func (c *treeChecker) unknown(key string, t reflect.Type, path string) string {
	where := ""
	if path != "" {
		where = " in " + path
	}
	if s := suggest(key, keysOf(t)); s != "" {
		return fmt.Sprintf("there is no key %s%s; did you mean %s?", clip(key), where, s)
	}
	if places := placesOf(key); len(places) > 0 {
		return fmt.Sprintf("there is no key %s%s; it belongs in %s", clip(key), where, list(places, "or"))
	}
	return fmt.Sprintf("there is no key %s%s; there are %s", clip(key), where, list(keysOf(t), "and"))
}

// placesOf are the sections of a profile that have the key.
func placesOf(key string) []string {
	var places []string
	for _, f := range fieldsOf(reflect.TypeFor[Profile]()) {
		if f.key == key {
			places = append(places, "the profile itself")
		}
		if f.typ.Kind() == reflect.Struct && slices.Contains(keysOf(f.typ), key) {
			places = append(places, f.key)
		}
	}
	return places
}

// value checks a value against the type of its field.
func (c *treeChecker) value(n *node, t reflect.Type, tag reflect.StructTag, path string) {
	if n.kind == kindBad {
		return
	}
	if n.kind == kindNull {
		if !n.reset {
			c.wrong(n, path, "is empty; give it a value or take the key out")
		}
		return
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct:
		if c.want(n, kindMap, path, "a map of keys: "+list(keysOf(t), "and")) {
			c.structure(n, t, path)
		}
	case reflect.Map:
		c.mapping(n, t, tag, path)
	case reflect.Slice:
		if !c.want(n, kindList, path, "a list") {
			return
		}
		for i, item := range n.items {
			at := fmt.Sprintf("%s[%d]", path, i)
			if item.kind == kindNull && item.reset {
				c.wrong(item, at, "says !reset without the item to take out")
				continue
			}
			c.value(item, t.Elem(), tag, at)
		}
	case reflect.Bool:
		if n.kind == kindText && slices.Contains([]string{"yes", "no", "on", "off"}, strings.ToLower(n.text)) {
			c.wrong(n, path, "is %s; write true or false", clip(n.text))
		} else if c.want(n, kindBool, path, "true or false") {
			n.text = strings.ToLower(n.text)
		}
	case reflect.Int:
		c.number(n, tag, path)
	case reflect.String:
		c.scalar(n, tag, path)
	default:
		panic("profiles: a field has the type " + t.String()) // a test walks every field
	}
}

func (c *treeChecker) mapping(n *node, t reflect.Type, tag reflect.StructTag, path string) {
	if !c.want(n, kindMap, path, "a map") {
		return
	}
	for i := range n.entries {
		e := &n.entries[i]
		at := join(path, e.key)
		badKey := c.text(tag.Get("keys"), e.key)
		if badKey != "" {
			c.add(e.at, at, "a name in %s %s", path, badKey)
		}
		// An account or a group may need nothing said but its name.
		if e.value.kind == kindNull && !e.value.reset && t.Elem().Kind() == reflect.Struct && (path == "users" || path == "groups") {
			e.value = &node{kind: kindMap, at: e.at}
		}
		c.value(e.value, t.Elem(), tag, at)
		if badKey != "" {
			e.value = &node{kind: kindBad, at: e.at}
		}
	}
}

func (c *treeChecker) number(n *node, tag reflect.StructTag, path string) {
	if !c.want(n, kindInt, path, "a whole number") {
		return
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(n.text, "_", ""), 10, 64)
	if err != nil || len(n.text) > 1 && strings.HasPrefix(strings.TrimLeft(n.text, "+-"), "0") {
		c.wrong(n, path, "is %s; write it as a decimal number without zeros before it", clip(n.text))
		return
	}
	n.text = strconv.FormatInt(v, 10)
	f := c.formats[tag.Get("check")]
	if v < int64(f.from) || v > int64(f.to) {
		c.wrong(n, path, "is %d; it can be %d to %d", v, f.from, f.to)
	} else if f.check != nil {
		if p := f.check(n.text); p != "" {
			c.wrong(n, path, "%s", p)
		}
	}
}

func (c *treeChecker) scalar(n *node, tag reflect.StructTag, path string) {
	if n.kind.scalar() && tag.Get("loose") != "" {
		n.kind = kindText
	}
	name := tag.Get("check")
	f := c.formats[name]
	if n.kind != kindText {
		if n.kind.scalar() && !f.secret {
			c.wrong(n, path, "is %s, and text is wanted; put it in quotes: %q", n.kind.what(), n.text)
			return
		}
		c.want(n, kindText, path, "text")
		return
	}
	if n.text == "" && name != "" && !c.matches(name, f, "") {
		c.wrong(n, path, "is empty; give it a value or take the key out")
		return
	}
	if name == "" {
		return
	}
	if name == "text" && strings.TrimSpace(n.text) == "" {
		c.wrong(n, path, "is empty; give it a value or take the key out")
		return
	}
	if p := c.text(name, n.text); p != "" {
		c.wrong(n, path, "%s", p)
		return
	}
	if f.normal != nil {
		n.text = f.normal(n.text)
	}
	if name == "host-path" && !filepath.IsAbs(n.text) {
		if c.src.shipped != "" {
			c.wrong(n, path, "is a relative path, and a shipped profile has no directory")
			return
		}
		n.text = filepath.Join(c.src.dir, n.text)
	}
}

// want reports n unless it is of the kind k.
func (c *treeChecker) want(n *node, k kind, path, what string) bool {
	if n.kind == k {
		return true
	}
	found := n.kind.what()
	if n.kind == kindFloat {
		found = n.text
	}
	c.wrong(n, path, "is %s, and %s is wanted", found, what)
	return false
}

func (c *treeChecker) wrong(n *node, path, format string, args ...any) {
	c.add(n.at, path, "%s", path+" "+fmt.Sprintf(format, args...))
	n.kind = kindBad
}

func join(path, key string) string {
	if strings.ContainsAny(key, "./ []") || key == "" {
		key = fmt.Sprintf("[%s]", clip(key))
		return path + key
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
