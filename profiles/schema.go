package profiles

import (
	"bytes"
	_ "embed"
	"fmt"
	"reflect"
	"strings"

	"imgbuild/image/layout"
	"imgbuild/profiles/strict"
)

// typesSource is the text of profile.go, whose comments are the descriptions. It is in the binary.
//
//go:embed profile.go
var typesSource string

// Schema returns the JSON Schema of a profile's file, for editors and for other programs that write profiles. It is made
// from the same types and formats that Load checks with. Null is allowed everywhere because `key: !reset` is a null.
// What it cannot say (files that have to exist, contradictions after merging, addresses) only Load finds.
func Schema() ([]byte, error) {
	s, err := profileSchema()
	if err != nil {
		return nil, err
	}
	return s.Marshal()
}

// descriptions are the comments of the types of profiles and of layouts.
func descriptions() (map[string]string, error) {
	docs, err := strict.ReadDocs("profile.go", typesSource)
	if err != nil {
		return nil, err
	}
	layouts, err := strict.ReadDocs("layout.go", layout.Source())
	if err != nil {
		return nil, err
	}
	for k, d := range layouts {
		docs["layout."+k] = d
	}
	return docs, nil
}

func profileSchema() (*strict.Schema, error) {
	docs, err := descriptions()
	if err != nil {
		return nil, err
	}
	s := strict.NewSchema(reflect.TypeFor[Profile](), formats(), docs)
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "imgbuild profile"
	s.If = &strict.Schema{Not: &strict.Schema{Required: []string{"extends"}}}
	s.Then = &strict.Schema{Required: []string{"distro", "repositories", "packages"}}
	return s, nil
}

// referenceHead is what stands before the keys in the reference.
//
//go:embed reference.md
var referenceHead string

// Reference returns docs/profile-reference.md: every key of a profile, made from the schema.
func Reference() ([]byte, error) {
	s, err := profileSchema()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(referenceHead)
	s.Reference(&b, "The profile itself")
	fmt.Fprintf(&b, "\n## Shipped\n\nProfiles: %s.\n\nKeys: %s.\n", code(Shipped()), code(keyNames()))
	return b.Bytes(), nil
}

func code(names []string) string {
	return "`" + strings.Join(names, "`, `") + "`"
}
