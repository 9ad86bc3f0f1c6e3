package profiles

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgbuild/profiles/strict"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFileThatIsNoProfileIsRefusedQuickly(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 20; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), i-1)
	}
	var block, many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&block, "%sa:\n", strings.Repeat(" ", i))
	}
	for i := range 100000 {
		fmt.Fprintf(&many, "k%d: 1\n", i)
	}
	tests := map[string]struct{ text, want string }{
		"brackets in brackets":           {strings.Repeat("[", 500000), "nested deeper than 32"},
		"braces in braces":               {strings.Repeat("{a: ", 200000), "nested deeper than 32"},
		"dashes in one line":             {strings.Repeat("- ", 500000), "nested deeper than 32"},
		"question marks in one line":     {strings.Repeat("? ", 500000), "nested deeper than 32"},
		"tags in one line":               {strings.Repeat("!a ", 300000), "nested deeper than 32"},
		"a few tags in one line":         {"a: " + strings.Repeat("!a ", 50) + "b", "nested deeper than 32"},
		"indentation":                    {block.String(), "nested deeper than 32"},
		"aliases of aliases":             {bomb, "once its aliases are expanded"},
		"very many keys":                 {many.String(), "more than 60000"},
		"an anchor that contains itself": {"a: &a [*a]\n", "there is no &a before this *a"},
		"a line of two MiB":              {"name: " + strings.Repeat("x", 2<<20), "more than 1048576 bytes"},
		"a byte that is not UTF-8":       {"name: a\ndescription: \"b\xff\"\n", ":2:16: the byte 0xff is not UTF-8"},
		"Latin-1":                        {"description: M\xfcnchen\n", ":1:15: the byte 0xfc is not UTF-8"},
		"UTF-16":                         {"\xff\xfen\x00a\x00", ":1:1: the file is UTF-16"},
		"a control character":            {"name: a\x1b[31m\n", ":1:8: the control character U+001B"},
		"a NUL":                          {"name: \x00\n", ":1:7: the control character U+0000"},
		"only a BOM":                     {"\ufeff", "the file is empty"},
		"only comments":                  {strings.Repeat("# x\n", 100000), "the file is empty"},
		"only a document's beginning":    {"---\n", "the file is empty"},
		"a number":                       {"5", "a profile is a map of keys"},
		"a list where a key should be":   {"[a, b]: c\n", ""},
		"a key without a value":          {"? name\n", "name is empty"},
		"a directive":                    {"%YAML 1.1\n---\n- a\n", "a profile is a map"},
		"an unclosed bracket":            {"packages: {install: [a\n", "not YAML"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := write(t, test.text)
			start := time.Now()
			_, err := Load(t.Context(), path)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %.300v", err)
			}
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

func TestWhatCannotBeReadIsSaid(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := syscall.Mkfifo("fifo.yaml", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("web.yaml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"gone.yaml":       "gone.yaml: the profile gone.yaml cannot be read: it does not exist",
		"./":              "./: the profile ./ cannot be read: it is not a file",
		"fifo.yaml":       "fifo.yaml: the profile fifo.yaml cannot be read: it is not a file",
		"web":             `web: there is no shipped profile "web"; for the file write ./web.yaml`,
		"rocky9":          `rocky9: there is no shipped profile "rocky9"; did you mean rocky-9? A file's name ends in .yaml or has a slash`,
		"../../etc\x00/x": "it does not exist",
		"":                "there is no shipped profile",
	}
	for name, want := range tests {
		_, err := Load(t.Context(), name)
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(want, "../")) && !strings.Contains(err.Error(), "invalid argument") {
			t.Errorf("Load(%q): %v", name, err)
		}
		var es strict.Errors
		if !errors.As(err, &es) {
			t.Errorf("Load(%q) returns a %T", name, err)
		}
	}
}

func TestACancelledContextEndsLoading(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Load(ctx, "demo"); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func TestAChainHasAnEnd(t *testing.T) {
	t.Chdir(t.TempDir())
	for i := range 20 {
		text := fmt.Sprintf("extends: ./p%d.yaml\n", i+1)
		if err := os.WriteFile(fmt.Sprintf("p%d.yaml", i), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(t.Context(), "p0.yaml"); err == nil || !strings.Contains(err.Error(), "p15.yaml:1:10: extends has more than 16 profiles in a chain") {
		t.Errorf("the error is %v", err)
	}
}

func TestAtMostAHundredMistakesAreListed(t *testing.T) {
	var b strings.Builder
	for i := range 150 {
		fmt.Fprintf(&b, "key%d: x\n", i)
	}
	_, err := Load(t.Context(), write(t, b.String()))
	if n := strings.Count(fmt.Sprint(err), "\n"); n != strict.MaxErrors || !strings.HasSuffix(err.Error(), "more mistakes") {
		t.Errorf("%d lines: %.200v", n, err)
	}
}

func TestAPasswordIsNeverShown(t *testing.T) {
	const secret = "correct-horse"
	for name, text := range map[string]string{
		"as a hash":            "root: {password: " + secret + "}",
		"of a user":            "users: {bob: {password: " + secret + "}}",
		"in a list":            "root: {password: [" + secret + "]}",
		"twice":                "root: {password: " + secret + ", password: " + secret + "}",
		"with an open quote":   "root:\n  password: \"" + secret + "\n",
		"before a bad line":    "root:\n  password: " + secret + "\n\tx: y\n",
		"as a key's neighbour": "root:\n  password: " + secret + "\n   x: y\n",
		"in an address":        "repositories: {a: {baseurl: [\"https://bob:" + secret + "@host/#x\", \"sftp://bob:" + secret + "@host/\"]}}",
		"in an SSH key":        "root: {ssh_keys: [" + secret + "]}",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(t.Context(), write(t, text+"\n"))
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestWhereNamesThePlaceInTheFileThatSaidIt(t *testing.T) {
	t.Chdir(t.TempDir())
	base := "distro: {id: rocky, release: \"9\"}\nrepositories:\n  a:\n    baseurl: [https://h/]\n    gpgkeys:\n" +
		"      - {shipped: RPM-GPG-KEY-Rocky-9, fingerprint: 21CB256AE16FC54C6E652949702D426D350D275D}\npackages: {install: [x]}\n"
	for name, text := range map[string]string{"base.yaml": base, "p.yaml": "extends: base.yaml\npackages:\n  install:\n    - nginx\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Load(t.Context(), "p.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for want, path := range map[string][]string{
		"p.yaml:4:7":     {"packages", "install", "1"},
		"base.yaml:7:22": {"packages", "install", "0"},
		"base.yaml:4:5":  {"repositories", "a", "baseurl"},
		"p.yaml:1:1":     {"nothing", "like", "this"},
	} {
		if got := p.Where(path...); got != want {
			t.Errorf("Where(%q) is %s, want %s", path, got, want)
		}
	}
	if got := (&Profile{}).Where("name"); got != "" {
		t.Errorf("a profile that was not loaded: %s", got)
	}
}

func TestASuggestionIsNearOrNone(t *testing.T) {
	names := []string{"install", "exclude", "weak_deps", "docs", "ssh_keys", "uid"}
	for got, want := range map[string]string{
		"instal": "install", "isntall": "install", "INSTALL": "install", "weakdeps": "weak_deps", "weak-deps": "weak_deps",
		"excludes": "exclude", "ssh_key": "ssh_keys", "sshkeys": "ssh_keys", "doc": "docs", "packages": "", "x": "", "": "", "di": "", "iud": "uid",
	} {
		if s := strict.Suggest(got, names); s != want {
			t.Errorf("suggest(%q) is %q, want %q", got, s, want)
		}
	}
}
