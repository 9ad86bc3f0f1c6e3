package scripts

import (
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

func TestScriptsRunInTheOrderOfTheirNames(t *testing.T) {
	root := fstest.MapFS{
		"d/20-b": {Mode: 0o755}, "d/10-a": {Mode: 0o755}, "d/README": {Mode: 0o644}, "d/sub/x": {Mode: 0o755},
	}
	got, err := List(root, "d")
	if err != nil || !reflect.DeepEqual(got, []string{"10-a", "20-b"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := List(root, "none"); err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSimpleMetadataIsInTheEnvironment(t *testing.T) {
	env, err := Environment([]byte(`{"role": "db", "rack-no": 7, "big": 12345678901234567890, "on": true, "list": [1], "none": null, "a.b": "x", "a_b": "y", "nul": "a\u0000b", "": "z", "lines": "a\nb"}`), "/etc/imgbuild/host.json", "SN-1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range env {
		if strings.HasPrefix(e, "IMGBUILD_") {
			got = append(got, e)
		}
	}
	want := []string{"IMGBUILD_METADATA=/etc/imgbuild/host.json", "IMGBUILD_SERIAL=SN-1", "IMGBUILD_META_BIG=12345678901234567890", "IMGBUILD_META_LINES=a\nb",
		"IMGBUILD_META_ON=true", "IMGBUILD_META_RACK_NO=7", "IMGBUILD_META_ROLE=db"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, none := range []string{"", "null", " \n"} {
		if env, err := Environment([]byte(none), "/f", ""); err != nil || strings.Contains(strings.Join(env, " "), "META_") {
			t.Errorf("%q: %q, %v", none, env, err)
		}
	}
	if _, err := Environment([]byte("[1]"), "/f", ""); err == nil {
		t.Error("a list was taken for metadata")
	}
}

func FuzzEnvironment(f *testing.F) {
	f.Add([]byte(`{"a": "b", "c": 1e5}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := Environment(data, "/f", "")
		if err != nil {
			return
		}
		for _, e := range env {
			name, _, ok := strings.Cut(e, "=")
			if !ok || strings.ContainsRune(e, 0) || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
				t.Errorf("%q", e)
			}
		}
	})
}
