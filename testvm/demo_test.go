package testvm

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgbuild/profiles"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTheDemoTakesCentOSOnlyIfAMirrorAnswers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answer  func(*http.Request) (*http.Response, error)
		profile string
		why     string
	}{
		{"it answers", func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		}, "centos-stream-9", "answers"},
		{"it refuses", func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 403, Status: "403 Forbidden", Body: http.NoBody}, nil
		}, "demo", "403 Forbidden, so a stand-in"},
		{"nobody is there", func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") }, "demo", "no route"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			profile, why := chooseByMirror(t.Context(), &http.Client{Transport: roundTripper(tt.answer)})
			if profile != tt.profile || !strings.Contains(why, tt.why) {
				t.Errorf("got %s: %s", profile, why)
			}
		})
	}
}

func TestAnyProfileBecomesOneThatADemoCanLogInTo(t *testing.T) {
	demo, err := profiles.Load(t.Context(), demoProfile)
	if err != nil {
		t.Fatal(err)
	}
	p, err := profiles.Load(t.Context(), centosProfile)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "demo.yaml")
	if err := os.WriteFile(file, []byte(demoExtension(centosProfile, p, demo)), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := profiles.Load(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "demo-centos-stream-9" || got.Root.Password != demo.Root.Password || got.Kernel.Serial != demo.Kernel.Serial || got.Version != p.Version ||
		got.Repositories["baseos"].Metalink != p.Repositories["baseos"].Metalink {
		t.Errorf("got %+v", got)
	}
	if _, ok := got.Repositories["appstream"]; !ok {
		t.Error("the repository that the demo redirects is gone")
	}
}
