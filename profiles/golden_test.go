package profiles

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"imgbuild/profiles/strict"
)

var update = flag.Bool("update", false, "write the golden files anew")

// unpack writes an archive's files, but for those named, into a new directory and goes there.
func unpack(t *testing.T, a *txtar.Archive, golden string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, f := range a.Files {
		if f.Name == golden {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(f.Name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// forEachArchive runs test for each archive below testdata/dir under the sentence that it begins with, and holds what it
// returns against the file golden in it.
func forEachArchive(t *testing.T, dir, golden string, test func(t *testing.T) string) {
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no archives in testdata/%s: %v", dir, err)
	}
	home, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		path = filepath.Join(home, path)
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sentence, _, _ := strings.Cut(string(a.Comment), "\n")
		t.Run(sentence, func(t *testing.T) {
			unpack(t, a, golden)
			work, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(test(t), work, "$WORK") + "\n"
			for i, f := range a.Files {
				if f.Name != golden {
					continue
				}
				if *update {
					a.Files[i].Data = []byte(got)
					if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
						t.Fatal(err)
					}
				} else if !bytes.Equal(f.Data, []byte(got)) {
					t.Errorf("%s: got\n%s\nwant\n%s", filepath.Base(path), got, f.Data)
				}
				return
			}
			t.Errorf("%s has no file %s", path, golden)
		})
	}
}

func TestMistakesAreReportedWithTheirPlaces(t *testing.T) {
	forEachArchive(t, "errors", "errors", func(t *testing.T) string {
		_, err := Load(t.Context(), "profile.yaml")
		if err == nil {
			return "no error"
		}
		if _, ok := err.(strict.Errors); !ok {
			t.Errorf("the error is a %T", err)
		}
		return err.Error()
	})
}

func TestProfilesAreMerged(t *testing.T) {
	forEachArchive(t, "merge", "show", func(t *testing.T) string {
		p, err := Load(t.Context(), "profile.yaml")
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.YAML()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(string(out), "\n") + "\n# sources: " + strings.Join(p.Sources, ", ")
	})
}
