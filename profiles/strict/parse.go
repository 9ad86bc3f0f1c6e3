package strict

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxDepth  = 32    // people need six levels
	maxTokens = 60000 // the parser takes time with the square of the keys; this many take a second
	maxNodes  = 50000 // values after aliases are expanded
)

// Document is what a kind of file is, beyond the types of its values.
type Document struct {
	Noun  string // what it is called in sentences: profile
	Least string // what an empty one lacks, as a sentence
	Like  string // what it is a map of, as in "keys such as name: and packages:"
	Reset bool   // the tag !reset may be in it, for those who merge
}

// Parse reads one YAML document into nodes. Everything wrong with its form goes to c; nil means that nothing can be used.
func (d Document) Parse(c *Collector, src *Source, data []byte) (root *Node) {
	// The library has had panics on broken input; a broken file is the person's, not a crash.
	defer func() {
		if r := recover(); r != nil {
			c.Add(src.whole(), "", "the file cannot be read as YAML")
			root = nil
		}
	}()
	if line, col, problem := checkText(data); problem != "" {
		c.Add(Pos{src, line, col}, "", "%s", problem)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	tokens := lexer.Tokenize(string(data))
	if at, ok := tooDeep(tokens); ok {
		c.Add(place(src, at), "", "this is nested deeper than %d levels", maxDepth)
		return nil
	}
	if at, ok := tooMany(tokens); ok {
		c.Add(place(src, at), "", "the %s has more than %d words and signs up to here", d.Noun, maxTokens)
		return nil
	}
	file, err := parser.Parse(closeTags(tokens), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var ye yaml.Error
		if errors.As(err, &ye) && ye.GetToken() != nil {
			c.Add(place(src, ye.GetToken()), "", "this is not YAML: %s", ye.GetMessage())
		} else {
			c.Add(src.whole(), "", "the file cannot be read as YAML")
		}
		return nil
	}
	var docs []*ast.DocumentNode
	for _, doc := range file.Docs {
		if _, directive := doc.Body.(*ast.DirectiveNode); doc.Body != nil && !directive {
			docs = append(docs, doc)
		}
	}
	b := &treeBuilder{Collector: c, Document: d, src: src, anchors: map[string]ast.Node{}}
	switch {
	case len(docs) == 0:
		c.Add(src.whole(), "", "the file is empty; %s", d.Least)
		return nil
	case len(docs) > 1:
		at := docs[1].Body.GetToken()
		if docs[1].Start != nil {
			at = docs[1].Start
		}
		c.Add(place(src, at), "", "a second document begins here; a %s is one document", d.Noun)
		return nil
	}
	root = b.value(docs[0].Body, 0)
	if b.tooMany {
		return nil
	}
	if root.Kind != KindMap {
		if root.Kind != KindBad {
			c.Add(root.At, "", "a %s is a map of %s, not %s", d.Noun, d.Like, root.Kind.What())
		}
		return nil
	}
	return root
}

func place(src *Source, t *token.Token) Pos {
	if t == nil || t.Position == nil {
		return src.whole()
	}
	return Pos{src, max(1, t.Position.Line), max(1, t.Position.Column)}
}

// tooDeep finds the token at which the nesting is deeper than the parser, which calls itself, may be given.
func tooDeep(tokens token.Tokens) (*token.Token, bool) {
	flow, line, inLine := 0, 0, 0
	var columns []int // of the block's open levels
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		}
		if t.Position.Line != line {
			line, inLine = t.Position.Line, 0
			for len(columns) > 0 && columns[len(columns)-1] >= t.Position.Column {
				columns = columns[:len(columns)-1]
			}
			if flow <= 0 {
				columns = append(columns, t.Position.Column)
			}
		}
		switch t.Type {
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			inLine++
		}
		if flow+len(columns)+inLine > maxDepth {
			return t, true
		}
	}
	return nil, false
}

// tooMany finds the token at which a document has too many; comments cost nothing.
func tooMany(tokens token.Tokens) (*token.Token, bool) {
	n := 0
	for _, t := range tokens {
		if t.Type == token.CommentType {
			continue
		}
		if n++; n > maxTokens {
			return t, true
		}
	}
	return nil, false
}

// closeTags writes down the null that `key: !reset` leaves out. Without it the parser takes the next key, which is the
// tagged key's sibling, for the tag's value. The same goes for anchors.
func closeTags(tokens token.Tokens) token.Tokens {
	out := make(token.Tokens, 0, len(tokens))
	for i, t := range tokens {
		out = append(out, t)
		key := -1 // index of what the tag or anchor is the value of: a key, or a dash
		switch {
		case t.Type == token.TagType && i > 0:
			key = i - 1
		case i > 1 && tokens[i-1].Type == token.AnchorType:
			key = i - 2
		default:
			continue
		}
		if tokens[key].Type == token.MappingValueType && key > 0 {
			key--
		}
		next := i + 1
		for next < len(tokens) && tokens[next].Type == token.CommentType {
			next++
		}
		if !endsValue(tokens, key, i, next) {
			continue
		}
		null := token.New("~", "~", &token.Position{Line: t.Position.Line, Column: t.Position.Column + len(t.Value) + 1, Offset: t.Position.Offset})
		null.Type = token.NullType
		out = append(out, null)
	}
	for i, t := range out {
		t.Prev, t.Next = nil, nil
		if i > 0 {
			t.Prev = out[i-1]
		}
		if i+1 < len(out) {
			t.Next = out[i+1]
		}
	}
	return out
}

// endsValue says whether the token next cannot belong to the value that began at the token at, whose key is tokens[key].
func endsValue(tokens token.Tokens, key, at, next int) bool {
	if next >= len(tokens) {
		return true
	}
	n, k := tokens[next], tokens[key]
	switch n.Type {
	case token.CollectEntryType, token.MappingEndType, token.SequenceEndType, token.DocumentEndType, token.DocumentHeaderType:
		return true
	}
	if n.Position.Line == tokens[at].Position.Line {
		return false
	}
	if k.Type == token.SequenceEntryType {
		return n.Position.Column <= k.Position.Column
	}
	return n.Position.Column < k.Position.Column || n.Position.Column == k.Position.Column && n.Type != token.SequenceEntryType
}

// treeBuilder turns the library's tree into ours: aliases are expanded, tags are taken in.
type treeBuilder struct {
	*Collector
	Document
	src     *Source
	anchors map[string]ast.Node
	nodes   int
	tooMany bool
}

func (b *treeBuilder) bad(at Pos) *Node { return &Node{Kind: KindBad, At: at} }

func (b *treeBuilder) value(n ast.Node, depth int) *Node {
	at := place(b.src, n.GetToken())
	if b.tooMany {
		return b.bad(at)
	}
	if b.nodes++; b.nodes > maxNodes || depth > maxDepth {
		b.tooMany = true
		b.Add(at, "", "the %s has more than %d values, or more than %d levels, once its aliases are expanded", b.Noun, maxNodes, maxDepth)
		return b.bad(at)
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return &Node{Kind: KindNull, At: at}
	case *ast.StringNode:
		return &Node{Kind: KindText, At: at, Text: n.Value}
	case *ast.LiteralNode:
		return &Node{Kind: KindText, At: at, Text: n.Value.Value}
	case *ast.IntegerNode:
		return &Node{Kind: KindInt, At: at, Text: n.Token.Value}
	case *ast.FloatNode:
		return &Node{Kind: KindFloat, At: at, Text: n.Token.Value}
	case *ast.InfinityNode:
		return &Node{Kind: KindFloat, At: at, Text: n.Token.Value}
	case *ast.NanNode:
		return &Node{Kind: KindFloat, At: at, Text: n.Token.Value}
	case *ast.BoolNode:
		return &Node{Kind: KindBool, At: at, Text: n.Token.Value}
	case *ast.SequenceNode:
		l := &Node{Kind: KindList, At: at}
		for _, v := range n.Values {
			l.Items = append(l.Items, b.value(v, depth+1))
		}
		return l
	case *ast.MappingNode:
		return b.mapping(at, n.Values, depth)
	case *ast.MappingValueNode:
		return b.mapping(at, []*ast.MappingValueNode{n}, depth)
	case *ast.AnchorNode:
		name := n.Name.GetToken().Value
		v := b.value(n.Value, depth+1)
		b.anchors[name] = n.Value // only now: a value cannot contain itself
		return v
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		v, ok := b.anchors[name]
		if !ok {
			b.Add(at, "", "there is no &%s before this *%s", name, name)
			return b.bad(at)
		}
		return b.value(v, depth+1)
	case *ast.TagNode:
		return b.tagged(at, n, depth)
	}
	b.Add(at, "", "this kind of YAML (%s) cannot be in a %s", strings.ToLower(n.Type().String()), b.Noun)
	return b.bad(at)
}

func (b *treeBuilder) tagged(at Pos, n *ast.TagNode, depth int) *Node {
	tag := n.Start.Value
	if n.Value == nil {
		return b.bad(at)
	}
	v := b.value(n.Value, depth+1)
	switch {
	case tag == "!reset" && b.Reset:
		v.Reset, v.ResetAt = true, at
	case tag == "!!str":
		if v.Kind.scalar() && v.Kind != KindNull {
			v.Kind = KindText
		}
	case slices.Contains([]string{"!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq"}, tag):
	case b.Reset:
		b.Add(at, "", "the tag %s is unknown; the only tag is !reset", tag)
		return b.bad(at)
	default:
		b.Add(at, "", "the tag %s is unknown; a %s has no tags", tag, b.Noun)
		return b.bad(at)
	}
	return v
}

func (b *treeBuilder) mapping(at Pos, values []*ast.MappingValueNode, depth int) *Node {
	m := &Node{Kind: KindMap, At: at}
	seen := make(map[string]Pos, len(values))
	var merged []*Node
	for i, mv := range values {
		keyAt := place(b.src, mv.Key.GetToken())
		if i == 0 && mv.Key.GetToken() != nil && at.Line >= keyAt.Line {
			m.At = keyAt // the library's place of a block map is its first colon
		}
		if mv.Key.IsMergeKey() {
			merged = append(merged, b.mergeKey(keyAt, mv.Value, depth)...)
			continue
		}
		key, ok := keyText(mv.Key)
		if !ok {
			b.Add(keyAt, "", "a key is plain text")
			continue
		}
		if first, twice := seen[key]; twice {
			b.Add(keyAt, key, "the key %s is here a second time; the first is in line %d", Clip(key), first.Line)
			continue
		}
		seen[key] = keyAt
		m.Entries = append(m.Entries, Entry{key, keyAt, b.value(mv.Value, depth+1)})
	}
	for _, from := range merged {
		for _, e := range from.Entries {
			if _, there := seen[e.Key]; !there {
				seen[e.Key] = e.At
				m.Entries = append(m.Entries, e)
			}
		}
	}
	return m
}

// mergeKey returns the maps that `<<: *alias` brings in.
func (b *treeBuilder) mergeKey(at Pos, value ast.Node, depth int) []*Node {
	v := b.value(value, depth+1)
	maps := []*Node{v}
	if v.Kind == KindList {
		maps = v.Items
	}
	for _, m := range maps {
		if m.Kind != KindMap {
			if m.Kind != KindBad {
				b.Add(at, "<<", "<< takes a map, or a list of maps, not %s", m.Kind.What())
			}
			return nil
		}
	}
	return maps
}

func keyText(k ast.MapKeyNode) (string, bool) {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.MappingKeyNode:
		inner, ok := k.Value.(ast.MapKeyNode)
		if !ok {
			return "", false
		}
		return keyText(inner)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return k.GetToken().Value, true
	}
	return "", false
}

// Clip quotes a person's text for a sentence, shortened when it is long.
func Clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:57]) + "..."
	}
	return fmt.Sprintf("%q", s)
}
