package strict

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// ReadDocs returns the comments of a Go file's struct types by "Type" and "Type.Field", in one line each.
func ReadDocs(name, source string) (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("read the descriptions of the keys in %s: %w", name, err)
	}
	docs := map[string]string{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, s := range g.Specs {
			t, ok := s.(*ast.TypeSpec)
			if !ok {
				continue
			}
			st, ok := t.Type.(*ast.StructType)
			if !ok {
				continue
			}
			docs[t.Name.Name] = oneLine(g.Doc)
			for _, f := range st.Fields.List {
				for _, n := range f.Names {
					docs[t.Name.Name+"."+n.Name] = withKey(oneLine(f.Doc), n.Name, f.Tag)
				}
			}
		}
	}
	return docs, nil
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// withKey replaces the Go name that a comment begins with by the key that people write.
func withKey(doc, name string, tag *ast.BasicLit) string {
	rest, ok := strings.CutPrefix(doc, name+" ")
	if !ok || tag == nil {
		return doc
	}
	_, key, ok := strings.Cut(tag.Value, `yaml:"`)
	if !ok {
		return doc
	}
	key = key[:strings.IndexAny(key, `,"`)]
	return "`" + key + "` " + rest
}
