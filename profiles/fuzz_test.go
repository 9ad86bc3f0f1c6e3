package profiles

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"imgbuild/profiles/strict"
)

// loadBytes does what Load does with one file whose bytes are given and that extends nothing.
func loadBytes(data []byte) (*Profile, strict.Errors) {
	c := &strict.Collector{}
	src := &profileFile{Source: strict.Source{Name: "fuzz.yaml"}, id: "fuzz.yaml", dir: "/nonexistent", display: "."}
	root := grammar().Parse(c, &src.Source, data)
	if root == nil {
		return nil, c.Errors()
	}
	src.check(c, strict.NewForms(formats()), root)
	p := finish(c, []layer{{src, root}})
	return p, c.Errors()
}

func FuzzLoad(f *testing.F) {
	for _, dir := range []string{"errors", "merge"} {
		paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			a, err := txtar.ParseFile(path)
			if err != nil {
				f.Fatal(err)
			}
			for _, file := range a.Files {
				f.Add(file.Data)
			}
		}
	}
	for _, name := range Shipped() {
		data, err := os.ReadFile(filepath.Join("shipped", name+".yaml"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, errs := loadBytes(data)
		for _, e := range errs {
			if e.Line > bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r"))+1 || e.Sentence == "" {
				t.Errorf("a mistake at %v", e)
			}
		}
		if len(errs) > 0 {
			return
		}
		out, err := p.YAML()
		if err != nil {
			t.Fatal(err)
		}
		q, errs := loadBytes(out)
		if errs != nil {
			t.Fatalf("what YAML prints does not load: %v\n%s", errs, out)
		}
		if !reflect.DeepEqual(said(p), said(q)) {
			t.Errorf("it is another profile after it was printed and loaded:\n%s", out)
		}
	})
}

// FuzzText holds the writing of text against its reading.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a", " a", "a: b", "# c", "1e5", "0x1", "null", "a\nb\n", "a\n\n b\n", "\ta\n\tb\n", "'", "\"\\", "\u2028", "\ufeff", "- a", "a\r\n", "…", "!x", "&a", "*a", "|", ">", "%", "@", "`", "a #b", "a:", "---", "...", "? a", "<<", "=", "~", "\u0085", "\U0001F600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !bytes.Equal([]byte(s), bytes.ToValidUTF8([]byte(s), nil)) {
			return
		}
		p := &Profile{Files: map[string]File{"/a": {Content: &s}}, Kernel: Kernel{Options: map[string]string{s: s}}, Services: Services{Enable: []string{s, s}}}
		out, err := p.YAML()
		if err != nil {
			t.Fatal(err)
		}
		c := &strict.Collector{}
		root := grammar().Parse(c, &strict.Source{Name: "x"}, out)
		if root == nil {
			t.Fatalf("%v\n%s", c.Errors(), out)
		}
		got := root.Get("files").Get("/a").Get("content")
		if got.Kind != strict.KindText || got.Text != s {
			t.Errorf("%q is read as %s %q\n%s", s, got.Kind.What(), got.Text, out)
		}
		if o := root.Get("kernel").Get("options").Entries[0]; o.Key != s || o.Value.Text != s || o.Value.Kind == strict.KindNull && s != "" {
			t.Errorf("%q is read as the key %q and the value %q\n%s", s, o.Key, o.Value.Text, out)
		}
		if l := root.Get("services").Get("enable").Items; len(l) != 2 || l[1].Text != s {
			t.Errorf("%q is read in a list of %d as %q\n%s", s, len(l), l[1].Text, out)
		}
	})
}

func FuzzFingerprints(f *testing.F) {
	for _, name := range keyNames() {
		data, err := Key(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		if b, err := dearmor(data); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		prints, err := fingerprints(data)
		if err == nil && len(prints) == 0 {
			t.Error("neither a fingerprint nor an error")
		}
	})
}
