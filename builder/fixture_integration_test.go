//go:build integration

package builder

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/rpmpack"

	"imgbuild/builder/progress"
	"imgbuild/builder/sandbox"
	"imgbuild/image/layout"
	"imgbuild/profiles"
)

// needRoot skips a test that cannot run here.
func needRoot(t testing.TB, programs ...string) {
	t.Helper()
	if !sandbox.Isolated() {
		t.Skip("this test mounts file systems and needs root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("this test needs %s on the host: %v", p, err)
		}
	}
}

func runTool(t testing.TB, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// testKey is a GPG key made for one test.
type testKey struct {
	entity *openpgp.Entity
	file   string // the armored public key
}

func newTestKey(t *testing.T, name string) testKey {
	t.Helper()
	config := &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048}
	e, err := openpgp.NewEntity(name, "test", name+"@example.invalid", config)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	k := testKey{e, filepath.Join(t.TempDir(), name+".asc")}
	if err := os.WriteFile(k.file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k testKey) sign(data []byte) ([]byte, error) {
	var b bytes.Buffer
	err := openpgp.DetachSign(&b, k.entity, bytes.NewReader(data), nil)
	return b.Bytes(), err
}

// testRepo makes a repository of two small signed packages and returns its directory. Damage, if not nil, is applied to
// the packages after the metadata has been made.
func testRepo(t *testing.T, key *testKey, damage func(rpm string)) string {
	t.Helper()
	dir := t.TempDir()
	for name, requires := range map[string]string{"alpha": "beta", "beta": ""} {
		md := rpmpack.RPMMetaData{Name: name, Summary: name, Description: name, Version: "1.0", Release: "1", Arch: "noarch", Licence: "none", BuildTime: time.Unix(1700000000, 0)}
		if requires != "" {
			r, err := rpmpack.NewRelation(requires)
			if err != nil {
				t.Fatal(err)
			}
			md.Requires = rpmpack.Relations{r}
		}
		r, err := rpmpack.NewRPM(md)
		if err != nil {
			t.Fatal(err)
		}
		r.AddFile(rpmpack.RPMFile{Name: "/usr/share/" + name, Body: []byte(strings.Repeat(name, 1000)), Mode: 0o100644, Owner: "root", Group: "root"})
		if key != nil {
			r.SetPGPSigner(key.sign)
		}
		f, err := os.Create(filepath.Join(dir, name+"-1.0-1.noarch.rpm"))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Write(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	runTool(t, nil, "createrepo_c", "-q", dir)
	if damage != nil {
		damage(filepath.Join(dir, "alpha-1.0-1.noarch.rpm"))
	}
	return dir
}

// testOptions are options for a profile with one repository.
func testOptions(t *testing.T, repo, keyFile string, install ...string) Options {
	t.Helper()
	no := false
	p := &profiles.Profile{
		Name: "test", Version: "1", Arch: "x86_64",
		Distro:       profiles.Distro{ID: "standin", Release: "9", Major: 9},
		Repositories: map[string]profiles.Repository{"tiny": {Name: "tiny", BaseURL: []string{"file://" + repo}, GPGKeys: []profiles.GPGKey{{File: keyFile}}, Priority: 99}},
		Packages:     profiles.Packages{Install: install, WeakDeps: &no, Docs: &no},
		Kernel:       profiles.Kernel{Package: install[0]},
		Layout:       layout.Layout{Filesystem: "ext4", BootSize: "1GiB", ESPSize: "512MiB"},
		Pack:         profiles.Pack{Level: "fast", Compressor: "zstd", CompressionLevel: 3, BlockSize: "128KiB"},
		System:       profiles.System{SELinux: "disabled"},
	}
	p.Packages.Exclude = []string{"dracut", "dosfstools", "e2fsprogs", "grub2-efi-x64", "shim-x64", "syslinux-extlinux", "grub2-pc*", "grub2-tools"}
	dir := t.TempDir()
	return Options{
		Profile: p, Out: filepath.Join(dir, "out"), Cache: filepath.Join(dir, "cache"), KeyFile: filepath.Join(dir, "key"),
		Installer: func(string, bool) ([]byte, error) { return []byte("installer"), nil },
	}
}

// runStages runs the first stages of a plan, up to and with last, and returns the build, which the test's end closes.
func runStages(ctx context.Context, t *testing.T, o Options, last string) (*build, error) {
	t.Helper()
	plan, err := NewPlan(o)
	if err != nil {
		t.Fatal(err)
	}
	b := newBuild(plan)
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	for i, s := range b.Stages {
		if s.Name == last {
			b.Stages = b.Stages[:i+1]
			break
		}
	}
	if err := b.all(ctx); err != nil {
		log, _ := os.ReadFile(b.logFile)
		return b, fmt.Errorf("%w\n%s", err, tailOf(string(log), 4000))
	}
	return b, nil
}

func tailOf(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// quiet reports nothing but keeps the notes.
type quiet struct{ notes []string }

func (q *quiet) Start(progress.Stage)    {}
func (q *quiet) Step(progress.Step)      {}
func (q *quiet) Done(progress.StageTime) {}
func (q *quiet) Note(s string)           { q.notes = append(q.notes, s) }
func (q *quiet) Finish(progress.Summary) {}

// stopper stops a build when a stage begins.
type stopper struct {
	*quiet
	at   string
	stop func()
}

func (s *stopper) Start(st progress.Stage) {
	if st.Name == s.at {
		s.stop()
	}
}
