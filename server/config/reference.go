package config

import (
	"bytes"
	_ "embed"
	"maps"
	"reflect"

	"imgbuild/profiles/strict"
)

// typesSource is the text of config.go, whose comments are the descriptions. It is in the binary.
//
//go:embed config.go
var typesSource string

// referenceHead is what stands before the keys in the reference.
//
//go:embed reference.md
var referenceHead string

// descriptions are the comments of the types.
func descriptions() (map[string]string, error) {
	docs, err := strict.ReadDocs("config.go", typesSource)
	if err != nil {
		return nil, err
	}
	more, err := strict.ReadDocs("torrent.go", torrentSource)
	maps.Copy(docs, more)
	return docs, err
}

func schema() (*strict.Schema, error) {
	docs, err := descriptions()
	if err != nil {
		return nil, err
	}
	s := strict.NewSchema(reflect.TypeFor[Config](), formats(), docs)
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "imgserve configuration"
	return s, nil
}

// Schema returns the JSON Schema of the file, for editors.
func Schema() ([]byte, error) {
	s, err := schema()
	if err != nil {
		return nil, err
	}
	return s.Marshal()
}

// Reference returns docs/imgserve-reference.md: every key of the file, made from the types.
func Reference() ([]byte, error) {
	s, err := schema()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(referenceHead)
	s.Reference(&b, "The file itself")
	return b.Bytes(), nil
}
