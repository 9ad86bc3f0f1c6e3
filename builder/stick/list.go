package stick

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"imgbuild/builder/progress"
)

// Print writes what List found for people: a table of the candidates, and below it the others with the reasons against each.
func Print(w io.Writer, devices []Device) error {
	var refused []Device
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	none := true
	for _, d := range devices {
		if len(d.Refused) > 0 {
			refused = append(refused, d)
			continue
		}
		if none {
			fmt.Fprintln(t, "DEVICE\tSIZE\tBUS\tREMOVABLE\tMODEL\tSERIAL\tHOLDS")
			none = false
		}
		removable := "no"
		if d.Removable {
			removable = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Path, progress.Bytes(d.Size), or(d.Bus), removable, or(d.Model), or(d.Serial), d.Content())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	if none {
		b.WriteString("There is no stick or card that can be written to; plug one in.\n")
	}
	if len(refused) > 0 {
		b.WriteString("\nNot taken:\n")
	}
	for _, d := range refused {
		fmt.Fprintf(&b, "%s\n  holds %s\n", d.Describe(), d.Content())
		for _, r := range d.Refused {
			fmt.Fprintf(&b, "  - %s\n", r)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
