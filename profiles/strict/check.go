package strict

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Field is one key that people write, from a struct's tags.
type Field struct {
	Index []int        // as reflect.Value.FieldByIndex takes it
	Owner reflect.Type // the struct that has it; another than the one asked for where that has it inline
	Name  string       // the Go name
	Key   string       // the YAML key
	Typ   reflect.Type
	Tag   reflect.StructTag
}

// Fields returns the keys of a struct type in their order. Those of a struct that is embedded inline stand in its place.
func Fields(t reflect.Type) []Field {
	var fs []Field
	for i := range t.NumField() {
		f := t.Field(i)
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			for _, in := range Fields(f.Type) {
				in.Index = append([]int{i}, in.Index...)
				fs = append(fs, in)
			}
		case key != "" && key != "-" && f.IsExported():
			fs = append(fs, Field{[]int{i}, t, f.Name, key, f.Type, f.Tag})
		}
	}
	return fs
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range Fields(t) {
		keys = append(keys, f.Key)
	}
	return keys
}

// Checker holds one file's nodes against the types: unknown keys, wrong types, bad values. What is wrong becomes
// KindBad, what is a path of this host becomes absolute.
type Checker struct {
	*Collector
	*Forms
	Document
	Root reflect.Type // of the whole document
	// HostPath turns a path of this host, as it was written, into an absolute one, or says what is wrong with it.
	HostPath func(string) (absolute, problem string)
}

// Structure checks a map against a struct type.
func (c *Checker) Structure(n *Node, t reflect.Type, path string) {
	fields := Fields(t)
	for i := range n.Entries {
		e := &n.Entries[i]
		at := slices.IndexFunc(fields, func(f Field) bool { return f.Key == e.Key })
		if at < 0 {
			c.Add(e.At, Join(path, e.Key), "%s", c.unknown(e.Key, t, path))
			e.Value = &Node{Kind: KindBad, At: e.At}
			n.Lost = true
			continue
		}
		c.value(e.Value, fields[at].Typ, fields[at].Tag, Join(path, e.Key))
	}
	n.Entries = slices.DeleteFunc(n.Entries, func(e Entry) bool { return e.Value.Kind == KindBad && !slices.Contains(keysOf(t), e.Key) })
}

// unknown is the sentence about a key that does not exist: the near one here, or the place where it does exist.
func (c *Checker) unknown(key string, t reflect.Type, path string) string {
	where := ""
	if path != "" {
		where = " in " + path
	}
	if s := Suggest(key, keysOf(t)); s != "" {
		return fmt.Sprintf("there is no key %s%s; did you mean %s?", Clip(key), where, s)
	}
	if places := c.placesOf(key); len(places) > 0 {
		return fmt.Sprintf("there is no key %s%s; it belongs in %s", Clip(key), where, List(places, "or"))
	}
	return fmt.Sprintf("there is no key %s%s; there are %s", Clip(key), where, List(keysOf(t), "and"))
}

// placesOf are the sections of a document that have the key.
func (c *Checker) placesOf(key string) []string {
	var places []string
	for _, f := range Fields(c.Root) {
		if f.Key == key {
			places = append(places, "the "+c.Noun+" itself")
		}
		if f.Typ.Kind() == reflect.Struct && slices.Contains(keysOf(f.Typ), key) {
			places = append(places, f.Key)
		}
	}
	return places
}

// value checks a value against the type of its field.
func (c *Checker) value(n *Node, t reflect.Type, tag reflect.StructTag, path string) {
	if n.Kind == KindBad {
		return
	}
	if n.Kind == KindNull {
		if !n.Reset {
			c.wrong(n, path, "is empty; give it a value or take the key out")
		}
		return
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if isText(t) {
		c.textValue(n, t, tag, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		if c.want(n, KindMap, path, "a map of keys: "+List(keysOf(t), "and")) {
			c.Structure(n, t, path)
		}
	case reflect.Map:
		c.mapping(n, t, tag, path)
	case reflect.Slice:
		if !c.want(n, KindList, path, "a list") {
			return
		}
		for i, item := range n.Items {
			at := fmt.Sprintf("%s[%d]", path, i)
			if item.Kind == KindNull && item.Reset {
				c.wrong(item, at, "says !reset without the item to take out")
				continue
			}
			c.value(item, t.Elem(), tag, at)
		}
	case reflect.Bool:
		if n.Kind == KindText && slices.Contains([]string{"yes", "no", "on", "off"}, strings.ToLower(n.Text)) {
			c.wrong(n, path, "is %s; write true or false", Clip(n.Text))
		} else if c.want(n, KindBool, path, "true or false") {
			n.Text = strings.ToLower(n.Text)
		}
	case reflect.Int:
		c.number(n, tag, path)
	case reflect.String:
		c.scalar(n, tag, path)
	default:
		panic("strict: a field has the type " + t.String()) // a test walks every field
	}
}

func (c *Checker) mapping(n *Node, t reflect.Type, tag reflect.StructTag, path string) {
	if !c.want(n, KindMap, path, "a map") {
		return
	}
	for i := range n.Entries {
		e := &n.Entries[i]
		at := Join(path, e.Key)
		badKey := c.Text(tag.Get("keys"), e.Key)
		if badKey != "" {
			c.Add(e.At, at, "a name in %s %s", path, badKey)
		}
		// An account may need nothing said but its name.
		if e.Value.Kind == KindNull && !e.Value.Reset && t.Elem().Kind() == reflect.Struct && tag.Get("bare") != "" {
			e.Value = &Node{Kind: KindMap, At: e.At}
		}
		c.value(e.Value, t.Elem(), tag, at)
		if badKey != "" {
			e.Value = &Node{Kind: KindBad, At: e.At}
		}
	}
}

func (c *Checker) number(n *Node, tag reflect.StructTag, path string) {
	if !c.want(n, KindInt, path, "a whole number") {
		return
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(n.Text, "_", ""), 10, 64)
	if err != nil || len(n.Text) > 1 && strings.HasPrefix(strings.TrimLeft(n.Text, "+-"), "0") {
		c.wrong(n, path, "is %s; write it as a decimal number without zeros before it", Clip(n.Text))
		return
	}
	n.Text = strconv.FormatInt(v, 10)
	f := c.Formats[tag.Get("check")]
	if v < int64(f.From) || v > int64(f.To) {
		c.wrong(n, path, "is %d; it can be %d to %d", v, f.From, f.To)
	} else if f.Check != nil {
		if p := f.Check(n.Text); p != "" {
			c.wrong(n, path, "%s", p)
		}
	}
}

func (c *Checker) scalar(n *Node, tag reflect.StructTag, path string) {
	if n.Kind.scalar() && tag.Get("loose") != "" {
		n.Kind = KindText
	}
	name := tag.Get("check")
	f := c.Formats[name]
	if n.Kind != KindText {
		if n.Kind.scalar() && !f.Secret {
			c.wrong(n, path, "is %s, and text is wanted; put it in quotes: %q", n.Kind.What(), n.Text)
			return
		}
		c.want(n, KindText, path, "text")
		return
	}
	if n.Text == "" && name != "" && !c.matches(name, f, "") {
		c.wrong(n, path, "is empty; give it a value or take the key out")
		return
	}
	if name == "" {
		return
	}
	if f.Full && strings.TrimSpace(n.Text) == "" {
		c.wrong(n, path, "is empty; give it a value or take the key out")
		return
	}
	if p := c.Text(name, n.Text); p != "" {
		c.wrong(n, path, "%s", p)
		return
	}
	if f.Normal != nil {
		n.Text = f.Normal(n.Text)
	}
	if f.HostPath {
		absolute, problem := c.HostPath(n.Text)
		if problem != "" {
			c.wrong(n, path, "%s", problem)
			return
		}
		n.Text = absolute
	}
}

// isText says whether a type is written as text and reads itself (encoding.TextUnmarshaler).
func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// textValue checks a value that reads itself. What it says is wrong follows the value in the sentence.
func (c *Checker) textValue(n *Node, t reflect.Type, tag reflect.StructTag, path string) {
	c.scalar(n, tag, path)
	if n.Kind != KindText {
		return
	}
	u, ok := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	if !ok {
		return // isText has asked
	}
	if err := u.UnmarshalText([]byte(n.Text)); err != nil {
		c.wrong(n, path, "is %s: %v", Clip(n.Text), err)
	}
}

// want reports n unless it is of the kind k.
func (c *Checker) want(n *Node, k Kind, path, what string) bool {
	if n.Kind == k {
		return true
	}
	found := n.Kind.What()
	if n.Kind == KindFloat {
		found = n.Text
	}
	c.wrong(n, path, "is %s, and %s is wanted", found, what)
	return false
}

func (c *Checker) wrong(n *Node, path, format string, args ...any) {
	c.Add(n.At, path, "%s", path+" "+fmt.Sprintf(format, args...))
	n.Kind = KindBad
}

// Join writes the path of a key in what has a path.
func Join(path, key string) string {
	if strings.ContainsAny(key, "./ []") || key == "" {
		key = fmt.Sprintf("[%s]", Clip(key))
		return path + key
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
