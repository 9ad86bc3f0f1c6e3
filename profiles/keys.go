package profiles

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"imgbuild/profiles/strict"
)

//go:embed shipped/*.yaml
//go:embed keys/RPM-GPG-KEY-*
var shippedFS embed.FS

// keyNames are the keys that are shipped.
func keyNames() []string {
	files, err := shippedFS.ReadDir("keys")
	if err != nil {
		return nil // the directory is in the binary
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// Key returns a shipped GPG key, armored.
func Key(name string) ([]byte, error) {
	names := keyNames()
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("there is no shipped key %q; there are %s", name, strict.List(names, "and"))
	}
	return shippedFS.ReadFile("keys/" + name)
}

// Armored reads the key and returns its text after checking that it is a public key and, where a fingerprint is pinned,
// that it is this key and no other.
func (k GPGKey) Armored() ([]byte, error) {
	var data []byte
	var err error
	name := k.Shipped
	if name != "" {
		data, err = Key(name)
	} else {
		name = k.File
		data, err = strict.ReadLimited(name)
	}
	if err != nil {
		return nil, fmt.Errorf("the GPG key %s cannot be read: %w", name, err)
	}
	if err := k.verify(data); err != nil {
		return nil, fmt.Errorf("the GPG key %s is not usable: %w", name, err)
	}
	return data, nil
}

// verify holds the key's bytes against the pinned fingerprint.
func (k GPGKey) verify(data []byte) error {
	prints, err := fingerprints(data)
	if err != nil || k.Fingerprint == "" {
		return err
	}
	want := flatFingerprint(k.Fingerprint)
	if len(prints) == 1 && prints[0] == want {
		return nil
	}
	if slices.Contains(prints, want) {
		return fmt.Errorf("besides the key %s it holds %d more, which would be trusted too; leave only the one in it", want, len(prints)-1)
	}
	return fmt.Errorf("its fingerprint is %s, and %s is pinned", strings.Join(prints, " and "), want)
}
