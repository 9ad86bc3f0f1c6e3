package hostfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxTokens bounds one host: the library's time grows with the square of the keys.
const maxTokens = 20000

// readYAML reads a list of hosts, or one host, or several documents of either. Each host of a list is parsed on its own:
// so that 10,000 of them take no longer than 10,000 times one, and that a mistake in one does not hide those of others.
func (r *reader) readYAML(data []byte) {
	for _, c := range chunks(data) {
		v, err := parseYAML(c.text, c.line)
		if p, ok := err.(Problem); ok {
			r.problems = append(r.problems, p)
			continue
		}
		switch {
		case v == nil:
		case v.kind == list:
			for _, item := range v.items {
				r.host(item)
			}
		default:
			r.host(v)
		}
	}
}

type chunk struct {
	line int
	text []byte
}

// chunks cuts a file at the dashes in its first column, and between documents. What is inside of an entry is indented.
func chunks(data []byte) []chunk {
	var out []chunk
	line, at, from := 0, 0, 0 // from is where the last chunk begins
	for text := range bytes.Lines(data) {
		line++
		start := at
		at += len(text)
		trimmed := bytes.TrimRight(text, " \t\r\n")
		dash := bytes.HasPrefix(text, []byte("- ")) || bytes.HasPrefix(text, []byte("-\t")) || bytes.Equal(trimmed, []byte("-"))
		switch {
		case bytes.Equal(trimmed, []byte("---")) || bytes.Equal(trimmed, []byte("...")):
			out, from = append(out, chunk{line: line + 1}), at
		case dash || len(out) == 0:
			out, from = append(out, chunk{line, text}), start
		default:
			out[len(out)-1].text = data[from:at]
		}
	}
	return out
}

// parseYAML reads one document; nil is an empty one.
func parseYAML(data []byte, line int) (v *value, err error) {
	bad := func(t *token.Token, format string, a ...any) error {
		at := line
		if t != nil && t.Position != nil {
			at += max(t.Position.Line, 1) - 1
		}
		return Problem{Line: at, Text: fmt.Sprintf(format, a...)}
	}
	// The library has had panics on broken input; a broken file is the person's, not a crash.
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, bad(nil, "this cannot be read as YAML")
		}
	}()
	tokens := lexer.Tokenize(string(data))
	depth, inLine, lastLine, count := 0, 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != lastLine {
			lastLine, inLine = t.Position.Line, 0
		}
		switch t.Type {
		case token.CommentType:
			continue
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			inLine++
		}
		count++
		if depth+inLine > maxDepth {
			return nil, bad(t, "%s", errDeep)
		}
		if count > maxTokens {
			return nil, bad(t, "one host has more than %d words and signs up to here; begin each host with a dash in the first column", maxTokens)
		}
	}
	file, perr := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if perr != nil {
		var ye yaml.Error
		if errors.As(perr, &ye) {
			return nil, bad(ye.GetToken(), "this is not YAML: %s", ye.GetMessage())
		}
		return nil, bad(nil, "this cannot be read as YAML")
	}
	for _, d := range file.Docs {
		if _, directive := d.Body.(*ast.DirectiveNode); d.Body == nil || directive {
			continue
		}
		if _, comment := d.Body.(*ast.CommentGroupNode); comment {
			continue
		}
		if v != nil {
			return nil, bad(d.Body.GetToken(), "a second value begins here")
		}
		if v, err = (&treeBuilder{line: line, bad: bad}).value(d.Body, 0); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// treeBuilder turns the library's tree into values.
type treeBuilder struct {
	line int
	bad  func(*token.Token, string, ...any) error
}

func (b *treeBuilder) at(t *token.Token) int {
	if t == nil || t.Position == nil {
		return b.line
	}
	return b.line + max(t.Position.Line, 1) - 1
}

func (b *treeBuilder) value(n ast.Node, depth int) (*value, error) {
	t := n.GetToken()
	if depth > maxDepth {
		return nil, b.bad(t, "%s", errDeep)
	}
	v := &value{line: b.at(t)}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.StringNode:
		v.kind, v.text = text, n.Value
		v.plain = t.Type != token.SingleQuoteType && t.Type != token.DoubleQuoteType
	case *ast.LiteralNode:
		v.kind, v.text = text, n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode, *ast.BoolNode:
		v.kind, v.text, v.plain = text, strings.TrimSpace(t.Value), true
	case *ast.SequenceNode:
		v.kind = list
		for _, item := range n.Values {
			i, err := b.value(item, depth+1)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, i)
		}
	case *ast.MappingNode:
		return v, b.members(v, n.Values, depth)
	case *ast.MappingValueNode:
		return v, b.members(v, []*ast.MappingValueNode{n}, depth)
	case *ast.TagNode:
		if n.Start.Value == "!!str" && n.Value != nil {
			inner, err := b.value(n.Value, depth+1)
			if err == nil && inner.kind == text {
				inner.plain = false
			}
			return inner, err
		}
		return nil, b.bad(t, "the tag %s has no meaning here", n.Start.Value)
	case *ast.AnchorNode, *ast.AliasNode:
		return nil, b.bad(t, "anchors and aliases are not taken in a file of hosts: write the value where it belongs")
	default:
		return nil, b.bad(t, "this kind of YAML (%s) cannot be in a file of hosts", strings.ToLower(n.Type().String()))
	}
	return v, nil
}

func (b *treeBuilder) members(v *value, values []*ast.MappingValueNode, depth int) error {
	v.kind = object
	for i, mv := range values {
		t := mv.Key.GetToken()
		if i == 0 {
			v.line = b.at(t) // the library's place of a block map is its first colon
		}
		key, ok := keyText(mv.Key)
		if !ok {
			return b.bad(t, "a key is plain text")
		}
		item, err := b.value(mv.Value, depth+1)
		if err != nil {
			return err
		}
		v.members = append(v.members, member{key, b.at(t), item})
	}
	return nil
}

func keyText(k ast.MapKeyNode) (string, bool) {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return k.GetToken().Value, true
	}
	return "", false
}
