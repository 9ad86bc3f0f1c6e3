package disk

import (
	"fmt"
	"strings"

	"imgbuild/installer/disk/probe"
)

// maxShown bounds a list of findings on a console.
const maxShown = 12

// Findings are what was found, in one line.
func Findings(found []probe.Finding) string {
	var s []string
	for i, f := range found {
		if i == maxShown {
			s = append(s, fmt.Sprintf("and %d more", len(found)-i))
			break
		}
		s = append(s, f.String())
	}
	return strings.Join(s, "; ")
}
