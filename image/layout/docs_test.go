package layout_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"imgbuild/image/layout"
	"imgbuild/profiles"
)

const disksDoc = "../../docs/disks.md"

// TestExamplesOfTheDocumentation reads every layout of docs/disks.md as a profile's, and compares what is printed there with what the
// layout makes of such disks.
func TestExamplesOfTheDocumentation(t *testing.T) {
	doc, err := os.ReadFile(disksDoc)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)(?:<!-- ([^\n]*) -->\n)?```(yaml|text)\n(.*?)```")
	var out bytes.Buffer
	var last layout.Layout
	read, printed, at := 0, 0, 0
	for _, m := range block.FindAllSubmatchIndex(doc, -1) {
		line := 1 + bytes.Count(doc[:m[0]], []byte("\n"))
		body := string(doc[m[6]:m[7]])
		out.Write(doc[at:m[6]])
		at = m[7]
		if string(doc[m[4]:m[5]]) == "yaml" {
			last = readExample(t, line, body)
			out.WriteString(body)
			read++
			continue
		}
		if m[2] < 0 {
			t.Errorf("line %d: nothing says what disks these are", line)
			continue
		}
		text := printExample(t, line, last, string(doc[m[2]:m[3]]))
		if text != body && flag.Lookup("update").Value.String() != "true" {
			t.Errorf("line %d: printed is\n%s\nand the documentation says\n%s", line, text, body)
		}
		out.WriteString(text)
		printed++
	}
	out.Write(doc[at:])
	if read < 7 || printed < 6 {
		t.Errorf("%d layouts and %d printed ones were found", read, printed)
	}
	if flag.Lookup("update").Value.String() == "true" && !t.Failed() {
		if err := os.WriteFile(disksDoc, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// readExample reads what stands below layout: in a profile.
func readExample(t *testing.T, line int, body string) layout.Layout {
	t.Helper()
	rest, ok := strings.CutPrefix(body, "layout:\n")
	if !ok {
		t.Fatalf("line %d: the example is not a profile's layout", line)
	}
	l, err := profiles.ReadLayout(fmt.Sprintf("disks.md, from line %d on", line+2), []byte(strings.ReplaceAll("\n"+rest, "\n  ", "\n")[1:]))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// printExample is what the layout makes of disks that are said as `firmware: uefi; disks: 480GB 8TB,rotational; data: 8TB`.
func printExample(t *testing.T, line int, l layout.Layout, say string) string {
	t.Helper()
	in := layout.Input{Arch: "x86_64", RootMin: 2 << 30, Extlinux: true, GRUB: true}
	choose := false
	for _, part := range strings.Split(say, "; ") {
		key, value, _ := strings.Cut(part, ": ")
		switch key {
		case "firmware":
			in.Firmware = layout.Firmware(value)
		case "choose":
			choose, l = true, layout.Layout{Preset: layout.Preset(value)}
		case "disks":
			in.Disks = exampleDisks(t, value, 0)
		case "data":
			in.Data = exampleDisks(t, value, len(in.Disks))
		default:
			t.Fatalf("line %d: %q", line, part)
		}
	}
	disks, data, err := l.Choose(append(in.Disks[:len(in.Disks):len(in.Disks)], in.Data...), nil)
	if choose {
		if !errors.Is(err, layout.ErrChoice) {
			t.Fatalf("line %d: it is not refused (%v)", line, err)
		}
		return err.Error() + "\n"
	}
	if err != nil {
		t.Fatalf("line %d: %v", line, err)
	}
	in.Disks, in.Data = disks, data
	s, err := l.Resolve(in)
	if err != nil {
		t.Fatalf("line %d: %v", line, err)
	}
	var b strings.Builder
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func exampleDisks(t *testing.T, say string, n int) []layout.Candidate {
	t.Helper()
	var out []layout.Candidate
	for _, s := range strings.Fields(say) {
		words := strings.Split(s, ",")
		size, err := layout.ParseBytes(words[0])
		if err != nil {
			t.Fatal(err)
		}
		n++
		c := layout.Candidate{
			ID: fmt.Sprintf("sd%c", 'a'+n-1), Size: size - size%4096, Sector: 512, PhysicalSector: 4096, Serial: fmt.Sprintf("S%03d", n), Transport: "sata", Model: "SSD",
		}
		for _, w := range words[1:] {
			switch w {
			case "rotational":
				c.Rotational, c.Model = true, "HDD"
			default:
				c.Transport = w
				c.ID = fmt.Sprintf("%s%dn1", w, n-1)
			}
		}
		c.Path = "/dev/" + c.ID
		out = append(out, c)
	}
	return out
}
