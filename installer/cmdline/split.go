package cmdline

import "strings"

// Param is one argument as the kernel understands it.
type Param struct {
	Key      string
	Value    string // without its quotes
	HasValue bool   // there was a "="
}

// Split cuts a command line as the kernel's next_arg does (lib/cmdline.c): blanks separate arguments except between
// double quotes; a quote at the start of an argument or of its value is removed together with the one at its end; other
// quotes stay; there is no escape. The "--" that ends the kernel's own arguments is left out.
func Split(line string) []Param {
	var params []Param
	line = strings.TrimRight(line, "\n\x00")
	for i := 0; i < len(line); {
		if isSpace(line[i]) {
			i++
			continue
		}
		start, equals, quoted := i, -1, false
		for ; i < len(line); i++ {
			c := line[i]
			if isSpace(c) && !quoted {
				break
			}
			if c == '=' && equals < 0 {
				equals = i - start
			}
			if c == '"' {
				quoted = !quoted
			}
		}
		if arg := line[start:i]; arg != "--" {
			params = append(params, param(arg, equals))
		}
	}
	return params
}

// param takes an argument apart; equals is where its first "=" is, or -1.
func param(arg string, equals int) Param {
	if rest, ok := strings.CutPrefix(arg, `"`); ok {
		arg = strings.TrimSuffix(rest, `"`)
		equals--
		if equals >= len(arg) {
			equals = -1
		}
	}
	if equals < 0 {
		return Param{Key: arg}
	}
	value := arg[equals+1:]
	if rest, ok := strings.CutPrefix(value, `"`); ok {
		value = strings.TrimSuffix(rest, `"`)
	}
	return Param{Key: arg[:equals], Value: value, HasValue: true}
}

// isSpace is the kernel's isspace for ASCII. The kernel also takes 0xa0 for a blank, which would cut letters of UTF-8.
func isSpace(c byte) bool {
	return c == ' ' || c >= '\t' && c <= '\r'
}
