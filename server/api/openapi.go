package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/goccy/go-yaml"
)

// openAPISource is the description of the API (OpenAPI 3.1), written once, for people. Tests hold it against the routes, the
// types and the answers.
//
//go:embed openapi.yaml
var openAPISource []byte

// openAPI returns the description as JSON.
func openAPI() ([]byte, error) {
	data, err := yaml.YAMLToJSON(openAPISource)
	if err != nil {
		return nil, fmt.Errorf("read the description of the API: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return nil, fmt.Errorf("write the description of the API: %w", err)
	}
	return b.Bytes(), nil
}
