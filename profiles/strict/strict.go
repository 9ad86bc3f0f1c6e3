// Package strict reads YAML that people write, and finds every mistake in it at once: unknown and repeated keys, wrong
// types, values that cannot be, each with its file, line and column and with what was probably meant. The same types make
// the JSON Schema that editors check with and the reference that people read.
//
// Bytes, Go types with tags and a table of formats come in; nodes, values and Errors go out. It reads no file but the one
// it is asked to, guesses nothing, and never turns a mistake into a default.
//
// The tags of the types' fields:
//
//	yaml:"K"      the key; yaml:",inline" on an embedded struct makes its keys those of the struct that embeds it
//	check:"F"     the value, or each value of a list or map, has the form F of the table
//	keys:"F"      each key of a map has the form F
//	default:"V"   shown in the schema
//	loose:"yes"   numbers and booleans are taken as the text that was written
//	bare:"yes"    a value of a map of structs may be left empty
//	only:"G"      at most one field of the group G may be given; the schema says so, and who merges has to check it
package strict
