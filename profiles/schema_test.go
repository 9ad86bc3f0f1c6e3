package profiles

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"imgbuild/profiles/strict"
)

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("profile.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("profile.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON is a YAML file as an editor hands it to a schema.
func asJSON(t *testing.T, data []byte) any {
	t.Helper()
	c := &strict.Collector{}
	root := grammar().Parse(c, &strict.Source{Name: "p.yaml"}, data)
	if root == nil {
		t.Fatal(c.Errors())
	}
	return plainValue(t, root)
}

func plainValue(t *testing.T, n *strict.Node) any {
	switch n.Kind {
	case strict.KindInt, strict.KindFloat:
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(n.Text))
		if err != nil {
			return n.Text
		}
		return v
	case strict.KindBool:
		return n.Text == "true"
	case strict.KindText:
		return n.Text
	case strict.KindList:
		l := []any{}
		for _, i := range n.Items {
			l = append(l, plainValue(t, i))
		}
		return l
	case strict.KindMap:
		m := map[string]any{}
		for _, e := range n.Entries {
			m[e.Key] = plainValue(t, e.Value)
		}
		return m
	}
	return nil
}

func TestTheSchemaAcceptsWhatLoads(t *testing.T) {
	s := compileSchema(t)
	for _, name := range Shipped() {
		data, err := shippedFS.ReadFile("shipped/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(asJSON(t, data)); err != nil {
			t.Errorf("shipped %s: %v", name, err)
		}
		p, err := Load(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if data, err = p.YAML(); err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(asJSON(t, data)); err != nil {
			t.Errorf("merged %s: %v", name, err)
		}
	}
	paths, err := filepath.Glob("testdata/merge/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			if !strings.HasSuffix(f.Name, ".yaml") && f.Name != "show" {
				continue
			}
			if err := s.Validate(asJSON(t, f.Data)); err != nil {
				t.Errorf("%s in %s: %v", f.Name, path, err)
			}
		}
	}
}

func TestTheSchemaRefusesWhatItCanSee(t *testing.T) {
	s := compileSchema(t)
	for name, text := range map[string]string{
		"an unknown key":              "extends: demo\nnmae: x\n",
		"an unknown key further down": "extends: demo\npackages: {instal: [a]}\n",
		"a wrong type":                "extends: demo\npackages: {install: a}\n",
		"a number for text":           "extends: demo\nversion: 1.10\n",
		"a plain password":            "extends: demo\nroot: {password: hunter2}\n",
		"a bad name in a map":         "extends: demo\nusers: {Bob: {}}\n",
		"a value out of its range":    "extends: demo\nrepositories: {a: {priority: 100}}\n",
		"a word that is no choice":    "extends: demo\nsystem: {selinux: on-fire}\n",
		"two sources of a file":       "extends: demo\nfiles: {/a: {content: a, link: b}}\n",
		"two addresses":               "extends: demo\nrepositories: {a: {baseurl: [\"https://a/\"], metalink: \"https://a/\"}}\n",
		"nothing":                     "name: x\n",
		"a mode without quotes":       "extends: demo\nfiles: {/a: {content: a, mode: 644}}\n",
		"a relative path":             "extends: demo\nfiles: {a: {content: a}}\n",
	} {
		if err := s.Validate(asJSON(t, []byte(text))); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	for name, text := range map[string]string{
		"a value that was cleared":      "extends: demo\nroot: {password: !reset }\nsystem: !reset\n",
		"an address instead of another": "extends: demo\nrepositories: {a: {baseurl: !reset , metalink: \"https://a/\"}}\n",
		"numbers where text is loose":   "extends: demo\nsystem: {sysctl: {vm.swappiness: 10, a.b: true}}\n",
	} {
		if err := s.Validate(asJSON(t, []byte(text))); err != nil {
			t.Errorf("%s is refused: %v", name, err)
		}
	}
}

// eachField calls visit for each key of a profile at every depth.
func eachField(t reflect.Type, visit func(f strict.Field)) {
	for _, f := range strict.Fields(t) {
		visit(f)
		inner := f.Typ
		for inner.Kind() == reflect.Map || inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			eachField(inner, visit)
		}
	}
}

func TestEveryKeyIsDescribedAndChecked(t *testing.T) {
	docs, err := descriptions()
	if err != nil {
		t.Fatal(err)
	}
	known, used := formats(), map[string]bool{}
	eachField(reflect.TypeFor[Profile](), func(f strict.Field) {
		owner := f.Owner.Name()
		if f.Owner.PkgPath() != reflect.TypeFor[Profile]().PkgPath() {
			owner = f.Owner.String()
		}
		name := owner + "." + f.Name
		if d := docs[name]; !strings.HasPrefix(d, "`"+f.Key+"` ") || !strings.HasSuffix(d, ".") {
			t.Errorf("the comment of %s is %q", name, d)
		}
		if docs[owner] == "" {
			t.Errorf("%s has no comment", owner)
		}
		for _, tag := range []string{"check", "keys"} {
			form := f.Tag.Get(tag)
			if _, ok := known[form]; form != "" && !ok {
				t.Errorf("%s has the unknown format %q", name, form)
			}
			used[form] = true
		}
		leaf := f.Typ
		for leaf.Kind() == reflect.Slice || leaf.Kind() == reflect.Pointer {
			leaf = leaf.Elem()
		}
		if leaf.Kind() == reflect.Map && f.Tag.Get("keys") == "" {
			t.Errorf("%s: the keys of the map have no format", name)
		}
		if leaf.Kind() == reflect.Int && known[f.Tag.Get("check")].To == 0 {
			t.Errorf("%s is a number without a range", name)
		}
	})
	for name := range known {
		if !used[name] {
			t.Errorf("no key has the format %s", name)
		}
	}
}

func TestTheDefaultsInTheSchemaAreThoseFilledIn(t *testing.T) {
	p := &Profile{
		Repositories: map[string]Repository{"a": {}},
		Users:        map[string]User{"a": {}}, Groups: map[string]Group{"a": {}},
		Files:   map[string]File{"/a": {}},
		Scripts: []Script{{}},
	}
	p.fillDefaults()
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Map:
			for it := v.MapRange(); it.Next(); {
				walk(it.Value())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Struct:
			for _, f := range strict.Fields(v.Type()) {
				walk(v.FieldByIndex(f.Index))
				want, ok := f.Tag.Lookup("default")
				if !ok {
					continue
				}
				got := v.FieldByIndex(f.Index)
				if got.Kind() == reflect.Pointer && !got.IsNil() {
					got = got.Elem()
				}
				text := got.String()
				switch got.Kind() {
				case reflect.Bool:
					text = strconv.FormatBool(got.Bool())
				case reflect.Int:
					text = strconv.FormatInt(got.Int(), 10)
				}
				if text != want {
					t.Errorf("%s.%s is filled with %q, and the schema says %q", v.Type().Name(), f.Name, text, want)
				}
			}
		}
	}
	walk(reflect.ValueOf(*p))
}

func TestEveryFormatAcceptsItsExamples(t *testing.T) {
	c := strict.NewForms(formats())
	for name, f := range c.Formats {
		if f.Pattern == "" && f.Enum == nil && f.To == 0 && f.Check == nil && name != "text" {
			t.Errorf("%s checks nothing", name)
		}
		if _, err := regexp.Compile("^(?:" + f.Pattern + ")$"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(f.Pattern, "(?") || strings.Contains(f.Pattern, `\p`) || strings.Contains(f.Pattern, `\z`) {
			t.Errorf("%s: its expression is not one that JavaScript reads the same way", name)
		}
		for _, e := range f.Examples {
			if p := c.Text(name, e); p != "" {
				t.Errorf("the example %q of %s %s", e, name, p)
			}
		}
	}
}

func TestReferenceIsCurrent(t *testing.T) {
	path := filepath.Join("..", "docs", "profile-reference.md")
	want, err := Reference()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; make it with go test ./profiles -run TestReferenceIsCurrent -update", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the types say; write it anew with go test ./profiles -run TestReferenceIsCurrent -update", path)
	}
}
