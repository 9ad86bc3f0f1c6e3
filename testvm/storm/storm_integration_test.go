//go:build integration

package storm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgbuild/server/releases/releasetest"
	"imgbuild/testvm"
)

// inside is the environment variable by which the test knows that it is in a network namespace of its own.
const inside = "STORM_TEST_INSIDE"

// A storm of a few machines, against the real imgserve and what there is of dnsmasq and nginx: all are installed, and all
// places in the queue are right, or it is an error.
func TestStorm(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	build, err := filepath.Abs("../../build")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"imgserve", "imgctl"} {
		if _, err := os.Stat(filepath.Join(build, name)); err != nil {
			t.Skipf("make build has not been run: %v", err)
		}
	}
	if os.Getenv(inside) == "" {
		t.Setenv(inside, "1")
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := Isolate(t.Context(), []string{self, "-test.run=^TestStorm$", "-test.v"}, &out, &out); err != nil {
			t.Errorf("%v\n%s", err, out.String())
		}
		t.Log(out.String())
		return
	}
	images := t.TempDir()
	key := releasetest.Key(t)
	releasetest.Write(t, images, releasetest.Release{Name: "web", Version: "1", Key: key})
	trust := filepath.Join(t.TempDir(), "key.pub")
	public, err := key.Public().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trust, public, 0o644); err != nil {
		t.Fatal(err)
	}
	tools, err := testvm.FindTools(testvm.HostFinder(), 0)
	if err != nil {
		t.Fatal(err)
	}
	nginx, _ := exec.LookPath("nginx") // without it that part is left out
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, log strings.Builder
	dir := t.TempDir()
	err = Run(ctx, Options{
		Release: filepath.Join(images, "web", "1"), Trust: []string{trust}, Imgserve: filepath.Join(build, "imgserve"), Imgctl: filepath.Join(build, "imgctl"),
		Dnsmasq: tools.Dnsmasq, Nginx: nginx, Machines: []int{1, 40}, Parallel: 16, Slots: 7, Dir: dir, Out: &out, Log: func(l string) { log.WriteString(l + "\n") },
	})
	if err != nil {
		t.Fatalf("%v\n%s\nimgserve says:\n%s", err, out.String(), log.String())
	}
	t.Log(out.String())
	for _, want := range []string{"all 1 machines", "all 40 machines", "places are 1 to 33"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not print %q", want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v behind, %v", left, err)
	}
}
