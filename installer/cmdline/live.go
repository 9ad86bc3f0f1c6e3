package cmdline

import (
	"strings"

	"imgbuild/image/plan"
)

// live notes what is wrong with one of the live system's arguments.
func (p *parser) live(key, value string, o plan.LiveOptions) {
	if err := o.Validate(); err != nil {
		p.bad("argument %s%s=%s: %w", Prefix, key, value, err)
	}
}

// isLabel tells whether a text can be an ISO 9660 volume label as the builder writes them.
func isLabel(s string) bool {
	return len(s) <= 32 && s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}
