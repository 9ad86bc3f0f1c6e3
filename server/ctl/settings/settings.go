// Package settings finds out which server imgctl asks and with which token: from flags, the environment and a file, in this
// order. Their values come in, a server, a token and CA certificates go out.
//
// It never sends a token to another server than the one that it was written down with, and takes no secret from a file that
// others can read.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"imgbuild/profiles/strict"
)

// File is what the configuration file may say.
type File struct {
	// Server is the address of an imgserve, as http://10.0.0.1:8080.
	Server string `yaml:"server,omitempty" check:"server"`
	// Token is the API token. The file may then be read by its owner alone.
	Token string `yaml:"token,omitempty" check:"token"`
	// TokenFile holds the token, and nothing else. Relative to the configuration file.
	TokenFile string `yaml:"token_file,omitempty" check:"path"`
	// CAFile holds the certificates, in PEM, one of which has signed the server's. Relative to the configuration file.
	CAFile string `yaml:"ca_file,omitempty" check:"path"`
}

// Given is what a person says besides the file. Empty is unsaid.
type Given struct {
	// ServerFlag, TokenFileFlag and CAFlag are the command line's; there is no flag for a token, since others see it there.
	ServerFlag, TokenFileFlag, CAFlag string
	// ServerEnv, TokenEnv, TokenFileEnv and CAEnv are the environment's.
	ServerEnv, TokenEnv, TokenFileEnv, CAEnv string
	// Path is the configuration file. Unless Must, it need not be there.
	Path string
	Must bool
}

// Settings are what is used.
type Settings struct {
	Server string
	Token  string
	CA     []byte // PEM
	// NoToken says why there is no token, where there might have been one.
	NoToken string
}

// Find reads the file and what it names, and chooses.
func Find(g Given) (Settings, error) {
	file, err := load(g.Path, g.Must)
	if err != nil {
		return Settings{}, err
	}
	s := Settings{Server: first(g.ServerFlag, g.ServerEnv, file.Server)}
	if s.Server == "" {
		return s, fmt.Errorf("no server is given: use --server, the environment's IMGCTL_SERVER, or server: in %s", g.Path)
	}
	own := strings.TrimRight(s.Server, "/") == strings.TrimRight(file.Server, "/")
	switch {
	case g.TokenFileFlag != "":
		s.Token, err = readToken(g.TokenFileFlag)
	case g.TokenEnv != "":
		s.Token = strings.TrimSpace(g.TokenEnv)
	case g.TokenFileEnv != "":
		s.Token, err = readToken(g.TokenFileEnv)
	case !own && (file.Token != "" || file.TokenFile != ""):
		s.NoToken = fmt.Sprintf("the token in %s is for %s; give another with --token-file or IMGCTL_TOKEN", g.Path, file.Server)
		if file.Server == "" {
			s.NoToken = fmt.Sprintf("%s has a token and does not say which server it is for: write server: into it", g.Path)
		}
	case file.TokenFile != "":
		s.Token, err = readToken(file.TokenFile)
	default:
		s.Token = file.Token
	}
	if err != nil {
		return s, err
	}
	if s.Token == "" && s.NoToken == "" {
		s.NoToken = fmt.Sprintf("no token is given: use --token-file, the environment's IMGCTL_TOKEN, or token: in %s; imgserve token create makes one", g.Path)
	}
	ca := first(g.CAFlag, g.CAEnv)
	if ca == "" && own {
		ca = file.CAFile
	}
	if ca != "" {
		if s.CA, err = strict.ReadLimited(ca); err != nil {
			return s, fmt.Errorf("read CA file %s: %w", ca, err)
		}
	}
	return s, nil
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

func formats() map[string]strict.Format {
	return map[string]strict.Format{
		"server": {What: "the address of a server", Check: checkServer, Examples: []string{"http://10.0.0.1:8080"}},
		"token":  {What: "a token", Pattern: `[!-~]+`, Secret: true},
		"path":   {What: "a path", HostPath: true, Pattern: `.+`},
	}
}

func checkServer(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "it begins with http:// or https:// and a host"
	}
	return ""
}

// load reads the configuration file. One that is not there says nothing.
func load(path string, must bool) (File, error) {
	if path == "" {
		return File{}, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return File{}, nil
	}
	if err != nil {
		return File{}, fmt.Errorf("read configuration %s: %w", path, strict.Plain(err))
	}
	data, err := strict.ReadLimited(path)
	if err != nil {
		return File{}, fmt.Errorf("read configuration %s: %w", path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return File{}, fmt.Errorf("read configuration %s: %w", path, err)
	}
	doc := strict.Document{Noun: "configuration", Least: "a configuration has at least server", Like: "keys such as server: and token:"}
	c := &strict.Collector{}
	root := doc.Parse(c, &strict.Source{Name: path}, data)
	if root != nil {
		t := reflect.TypeFor[File]()
		absolute := func(p string) (string, string) {
			if filepath.IsAbs(p) {
				return p, ""
			}
			return filepath.Join(dir, p), ""
		}
		(&strict.Checker{Collector: c, Forms: strict.NewForms(formats()), Document: doc, Root: t, HostPath: absolute}).Structure(root, t, "")
	}
	if es := c.Errors(); es != nil {
		return File{}, es
	}
	var f File
	strict.Decode(root, reflect.ValueOf(&f).Elem())
	switch {
	case f.Token != "" && f.TokenFile != "":
		return File{}, fmt.Errorf("read configuration %s: it has token and token_file; one of them is enough", path)
	case f.Token != "":
		if err := private(path, info); err != nil {
			return File{}, err
		}
	}
	return f, nil
}

func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read token file %s: %w", path, strict.Plain(err))
	}
	if err := private(path, info); err != nil {
		return "", err
	}
	data, err := strict.ReadLimited(path)
	if err != nil {
		return "", fmt.Errorf("read token file %s: %w", path, err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("read token file %s: it holds no token, or more than one; a token is one word", path)
	}
	return token, nil
}

// private refuses a file with a secret that others than its owner can read or change.
func private(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has a token in it and others can read or change it (mode %04o): chmod 600 it, and replace the token if anybody may have seen it", path, mode)
	}
	return nil
}
