package layout

import _ "embed"

//go:embed layout.go
var source string

// Source is the text of the file with a layout's types, whose comments describe the keys that people write.
func Source() string { return source }
