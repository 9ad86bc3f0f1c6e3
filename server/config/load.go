package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"

	"imgbuild/profiles/strict"
)

// Flag is a key of the file's root that the command line gives. It takes the file's place.
type Flag struct {
	Key    string // as in the file: images
	Values []string
}

// Surroundings are what the defaults depend on besides the file.
type Surroundings struct {
	// State is systemd's $STATE_DIRECTORY, or empty.
	State string
	// Dir is where the flags' relative paths start: the working directory.
	Dir string
	// OnlyRegistry is true of commands that ask the registry alone: images may be missing.
	OnlyRegistry bool
	// Exists reports whether a file is there; the default of trust depends on it.
	Exists func(path string) bool
}

// Load reads the file, unless path is empty, lays the flags over it, fills in the defaults and checks everything. The error
// is strict.Errors with every mistake.
func Load(path string, flags []Flag, s Surroundings) (*Config, error) {
	c := &strict.Collector{}
	forms := strict.NewForms(formats())
	src := &strict.Source{Name: path}
	root := &strict.Node{Kind: strict.KindMap, At: strict.Pos{Src: src}}
	if path == "" {
		src.Name = "imgserve"
	} else {
		data, err := strict.ReadLimited(path)
		if err != nil {
			return nil, strict.Errors{{File: path, Sentence: fmt.Sprintf("the configuration cannot be read: %v", err)}}
		}
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return nil, fmt.Errorf("find configuration %s: %w", path, err)
		}
		if root = grammar().Parse(c, src, data); root == nil {
			return nil, c.Errors()
		}
		check(c, forms, root, dir)
	}
	overlay(c, forms, root, flags, s.Dir)
	cfg := &Config{}
	strict.Decode(root, reflect.ValueOf(cfg).Elem())
	x := &checker{Collector: c, tree: root, c: cfg}
	if !s.OnlyRegistry {
		x.images()
	}
	cfg.fillDefaults(s)
	x.all()
	if es := c.Errors(); es != nil {
		return nil, es
	}
	return cfg, nil
}

func grammar() strict.Document {
	return strict.Document{Noun: "configuration", Least: "a configuration has at least images", Like: "keys such as images: and interface:"}
}

func check(c *strict.Collector, forms *strict.Forms, root *strict.Node, dir string) {
	t := reflect.TypeFor[Config]()
	paths := func(p string) (string, string) {
		if filepath.IsAbs(p) || isAddress(p) {
			return p, ""
		}
		return filepath.Join(dir, p), ""
	}
	(&strict.Checker{Collector: c, Forms: forms, Document: grammar(), Root: t, HostPath: paths}).Structure(root, t, "")
}

// overlay puts the flags' values in the place of the file's. Mistakes in them are at the flag.
func overlay(c *strict.Collector, forms *strict.Forms, root *strict.Node, flags []Flag, dir string) {
	for _, f := range flags {
		at := strict.Pos{Src: &strict.Source{Name: "--" + f.Key}}
		value := &strict.Node{Kind: strict.KindText, At: at}
		if isList(f.Key) {
			value.Kind = strict.KindList
			for _, v := range f.Values {
				value.Items = append(value.Items, &strict.Node{Kind: strict.KindText, At: at, Text: v})
			}
		} else if len(f.Values) > 0 {
			value.Text = f.Values[len(f.Values)-1]
		}
		own := &strict.Node{Kind: strict.KindMap, At: at, Entries: []strict.Entry{{Key: f.Key, At: at, Value: value}}}
		check(c, forms, own, dir)
		root.Entries = slices.DeleteFunc(root.Entries, func(e strict.Entry) bool { return e.Key == f.Key })
		root.Entries = append(root.Entries, own.Entries...)
	}
}

func isList(key string) bool {
	return slices.ContainsFunc(strict.Fields(reflect.TypeFor[Config]()), func(f strict.Field) bool {
		return f.Key == key && f.Typ.Kind() == reflect.Slice
	})
}

// YAML returns the configuration with its defaults, as `imgserve config` prints it. A password in the database's address is
// not in it.
func (c *Config) YAML() ([]byte, error) {
	shown := *c
	shown.Database = c.DatabaseName()
	data, err := strict.Marshal(shown)
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return data, nil
}

// DatabaseName is the database as it may be shown: without a password.
func (c *Config) DatabaseName() string {
	if !isAddress(c.Database) {
		return c.Database
	}
	u, err := url.Parse(c.Database)
	if err != nil {
		return "postgres://…"
	}
	q := u.Query()
	if q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}
