package testvm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// modeArg begins the argument that says what the installer does.
const modeArg = "imgbuild.mode="

// scriptWithArgs returns a release's boot.ipxe with more kernel arguments, and another mode where they have one: what an operator does who edits the script,
// and what keeps the rest of the release's own script under test.
func scriptWithArgs(script string, args []string) (string, error) {
	var out strings.Builder
	kernels := 0
	for line := range strings.Lines(script) {
		text := strings.TrimRight(line, "\r\n")
		if f := strings.Fields(text); len(f) > 1 && f[0] == "kernel" {
			kernels++
			if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, modeArg) }) {
				text = strings.Join(slices.DeleteFunc(f, func(a string) bool { return strings.HasPrefix(a, modeArg) }), " ")
			}
			for _, a := range args {
				if strings.ContainsAny(a, " \t\r\n$") {
					return "", fmt.Errorf("add %q to the boot script: it has blanks or a dollar sign, which iPXE would take apart", a)
				}
				text += " " + a
			}
		}
		out.WriteString(text + "\n")
	}
	if !strings.HasPrefix(script, "#!ipxe") {
		return "", errors.New("read the release's boot script: it does not begin with #!ipxe")
	}
	if kernels != 1 {
		return "", fmt.Errorf("read the release's boot script: it has %d kernel lines and not one", kernels)
	}
	return out.String(), nil
}
