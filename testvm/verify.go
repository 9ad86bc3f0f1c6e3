package testvm

import (
	"fmt"
	"strings"
)

// Change is one line of rpm -V (rpm(8), Verify options).
type Change struct {
	// Flags are the nine marks, such as S.5....T., or "missing".
	Flags string
	// Kind is the file's attribute: c configuration, d documentation, g ghost, l licence, r readme; 0 for a plain file.
	Kind byte
	Path string
}

func (c Change) String() string {
	if c.Kind == 0 {
		return c.Flags + " " + c.Path
	}
	return fmt.Sprintf("%s %c %s", c.Flags, c.Kind, c.Path)
}

// parseVerify reads the output of rpm -Va. A line that is neither a file nor an unsatisfied dependency is an error: nothing is
// overlooked.
func parseVerify(s string) ([]Change, error) {
	var changes []Change
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, " \r\n")
		if line == "" {
			continue
		}
		c, ok := parseChange(line)
		if !ok {
			return nil, fmt.Errorf("line %q is none of rpm -V", line)
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func parseChange(line string) (Change, bool) {
	if rest, ok := strings.CutPrefix(line, "Unsatisfied dependencies for "); ok {
		return Change{Flags: "dependency", Path: rest}, rest != ""
	}
	if strings.Contains(line, " is needed by ") {
		return Change{Flags: "dependency", Path: strings.TrimSpace(line)}, true
	}
	flags, rest, ok := strings.Cut(line, " ")
	if !ok {
		return Change{}, false
	}
	if flags != "missing" && (len(flags) < 8 || len(flags) > 9 || strings.Trim(flags, "SM5DLUGTP.?") != "") {
		return Change{}, false
	}
	c := Change{Flags: flags}
	rest = strings.TrimLeft(rest, " ")
	if len(rest) > 2 && rest[1] == ' ' && strings.IndexByte("cdglrnm", rest[0]) >= 0 {
		c.Kind = rest[0]
		rest = strings.TrimLeft(rest[2:], " ")
	}
	c.Path = rest
	return c, strings.HasPrefix(rest, "/")
}

// Unexpected returns the changes that an installation and a first boot do not explain. Explained are configuration files, which
// the profile writes; ghosts, which packages own and do not bring; and shim's fallback loader, which the installer takes off
// the removable path: on firmware that forgets its boot entries it would reset the machine at every boot.
func (f Facts) Unexpected() []Change {
	var u []Change
	for _, c := range f.Changed {
		if c.Kind == 'c' || c.Kind == 'g' || c == (Change{Flags: "missing", Path: "/boot/efi/EFI/BOOT/fbx64.efi"}) {
			continue
		}
		u = append(u, c)
	}
	return u
}
