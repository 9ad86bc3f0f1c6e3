// Package scripts runs the profile's scripts on the machine: those that the image was signed with, never one that came over
// the network. A directory of the image and the host's metadata come in; what the scripts do to the system goes out.
//
// Scripts at install time run in the installed tree with their own mounts, processes and network, of which there is none:
// when a script has ended, whatever it left running or mounted has ended too.
package scripts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// List returns the names of the scripts in a directory of the image, in the order in which they run. There may be none.
func List(root fs.FS, dir string) ([]string, error) {
	entries, err := fs.ReadDir(root, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the scripts in /%s: %w", dir, err)
	}
	var names []string
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("list the scripts in /%s: %w", dir, err)
		}
		if st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Names of what scripts see.
const (
	MetadataVariable = "IMGBUILD_METADATA" // the path of the metadata's file
	SerialVariable   = "IMGBUILD_SERIAL"
	metaPrefix       = "IMGBUILD_META_"
)

// Environment is what a script sees: PATH and the like, the path of the metadata's file if there is one, the serial number, and the
// metadata's texts, numbers and booleans as IMGBUILD_META_KEY. Keys are in capitals, with _ for what a variable's name
// cannot have; keys that become the same are left out, as are lists, objects and null, which are in the file only.
func Environment(metadata []byte, file, serial string) ([]string, error) {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "TERM=dumb"}
	if file != "" {
		env = append(env, MetadataVariable+"="+file)
	}
	if serial != "" {
		env = append(env, SerialVariable+"="+serial)
	}
	var object map[string]json.RawMessage
	if len(bytes.TrimSpace(metadata)) > 0 {
		if err := json.Unmarshal(metadata, &object); err != nil {
			return nil, fmt.Errorf("read the host's metadata: %w", err)
		}
	}
	values, twice := map[string]string{}, map[string]bool{}
	for key, raw := range object {
		name := variable(key)
		_, again := values[name]
		twice[name] = twice[name] || again
		if text, ok := simple(raw); ok {
			values[name] = text
		}
	}
	var vars []string
	for name, text := range values {
		if name != "" && !twice[name] {
			vars = append(vars, metaPrefix+name+"="+text)
		}
	}
	slices.Sort(vars)
	return append(env, vars...), nil
}

// variable is a key as the end of a variable's name.
func variable(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

// simple is a value as text, if it is one that a variable can have.
func simple(raw json.RawMessage) (string, bool) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil || strings.ContainsRune(s, 0) {
			return "", false
		}
		return s, true
	case '{', '[', 'n':
		return "", false
	}
	return string(raw), true // a number as it was written, true, false
}
