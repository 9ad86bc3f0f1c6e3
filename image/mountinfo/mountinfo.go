// Package mountinfo reads what the kernel says of mounts, as text from /proc/self/mountinfo (proc_pid_mountinfo(5)). It does no I/O.
package mountinfo

import (
	"strconv"
	"strings"
)

// Mount is one mount. Target and Source are as they were before the kernel escaped blanks in them.
type Mount struct {
	Dev    string // major:minor of the file system, which Btrfs and others invent
	Target string
	FS     string
	Source string
}

// Parse returns the mounts in their order. Lines that are not mounts are passed over.
func Parse(text string) []Mount {
	var all []Mount
	for line := range strings.Lines(text) {
		head, tail, ok := strings.Cut(line, " - ")
		f, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 5 || len(t) < 2 {
			continue
		}
		all = append(all, Mount{Dev: f[2], Target: Unescape(f[4]), FS: t[0], Source: Unescape(t[1])})
	}
	return all
}

// Unescape takes back the kernel's \040 for blanks and the like, which swaps(5) has too.
func Unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
