package iso

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// maxLabel is how long a volume label can be (ECMA-119, 8.4.8).
const maxLabel = 32

// Label is the volume label of a release's medium, by which GRUB, the installer and people know it: NAME-VERSION in capitals. Where
// that is too long or has characters that a label does not take, a part of its digest keeps the labels of two releases apart.
func Label(name, version string) string {
	whole := name + "-" + version
	changed := len(whole) > maxLabel
	l := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		changed = true
		return '_'
	}, whole)
	if !changed {
		return l
	}
	tail := fmt.Sprintf("-%X", sha256.Sum256([]byte(whole)))[:9]
	return l[:min(len(l), maxLabel-len(tail))] + tail
}
