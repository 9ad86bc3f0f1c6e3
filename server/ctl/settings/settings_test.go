package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatComesFirst(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "ca.pem", "pem", 0o644)
	flag, env := write(t, dir, "flag", "from-flag\n", 0o600), write(t, dir, "env", "from-env-file", 0o400)
	file := write(t, dir, "imgctl.yaml", "server: https://own:8443\ntoken: from-file\nca_file: ca.pem\n", 0o600)
	nowhere := filepath.Join(dir, "nowhere.yaml")
	for _, c := range []struct {
		name              string
		given             Given
		server, token, ca string
		noToken, problem  string
	}{
		{name: "the file alone", given: Given{Path: file}, server: "https://own:8443", token: "from-file", ca: "pem"},
		{name: "a flag for the token", given: Given{Path: file, TokenFileFlag: flag, TokenEnv: "e"}, server: "https://own:8443", token: "from-flag", ca: "pem"},
		{name: "the environment's token before its file", given: Given{Path: file, TokenEnv: "from-env", TokenFileEnv: env}, server: "https://own:8443", token: "from-env", ca: "pem"},
		{name: "the environment's token file", given: Given{Path: file, TokenFileEnv: env}, server: "https://own:8443", token: "from-env-file", ca: "pem"},
		{name: "another server gets neither token nor CA of the file", given: Given{Path: file, ServerEnv: "https://other"}, server: "https://other", noToken: "is for https://own:8443"},
		{name: "the same server in other words keeps them", given: Given{Path: file, ServerFlag: "https://own:8443/"}, server: "https://own:8443/", token: "from-file", ca: "pem"},
		{name: "no file", given: Given{Path: nowhere, ServerFlag: "http://a", ServerEnv: "http://b"}, server: "http://a", noToken: "no token is given"},
		{name: "no file where one was named", given: Given{Path: nowhere, Must: true, ServerFlag: "http://a"}, problem: "it does not exist"},
		{name: "no server", given: Given{Path: nowhere}, problem: "no server is given"},
		{name: "both kinds of token", given: Given{Path: write(t, dir, "both.yaml", "server: http://a\ntoken: x\ntoken_file: y\n", 0o600)}, problem: "one of them is enough"},
		{name: "a token and no server that it is for", given: Given{Path: write(t, dir, "bare.yaml", "token: x\n", 0o600), ServerFlag: "http://a"}, server: "http://a", noToken: "write server: into it"},
		{name: "a token that the group can read", given: Given{Path: write(t, dir, "open.yaml", "server: http://a\ntoken: x\n", 0o640)}, problem: "others can read or change it (mode 0640)"},
		{name: "a file without token that all can read", given: Given{Path: write(t, dir, "plain.yaml", "server: http://a\n", 0o644)}, server: "http://a", noToken: "no token is given"},
		{name: "a CA file that is not there", given: Given{Path: nowhere, ServerFlag: "http://a", CAFlag: filepath.Join(dir, "x.pem")}, problem: "read CA file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Find(c.given)
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) {
					t.Errorf("%v, want %s", err, c.problem)
				}
				return
			}
			if err != nil || s.Server != c.server || s.Token != c.token || string(s.CA) != c.ca || !strings.Contains(s.NoToken, c.noToken) || (s.Token == "") != (s.NoToken != "") {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}
