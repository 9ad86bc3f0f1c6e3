//go:build integration

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	again, code, err := Isolate()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if !again {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func needIsolation(t *testing.T) {
	t.Helper()
	if !Isolated() {
		t.Skip("this test mounts file systems and needs root")
	}
}

func TestAnImageRootHasJustEnoughOfASystem(t *testing.T) {
	needIsolation(t)
	root := t.TempDir()
	m := &Mounts{}
	if err := m.Populate(root, System{}); err != nil {
		t.Fatal(err)
	}
	if self, err := os.Readlink(filepath.Join(root, "proc/self")); err != nil || self != "1" {
		t.Errorf("/proc shows process %s as this one, %v", self, err)
	}
	if err := os.WriteFile(filepath.Join(root, "proc/sys/kernel/hostname"), []byte("x"), 0o644); err == nil {
		t.Error("a scriptlet could change the host's kernel settings")
	}
	if entries, err := os.ReadDir(filepath.Join(root, "sys")); err != nil || len(entries) != 0 {
		t.Errorf("/sys shows the host: %v, %v", entries, err)
	}
	for _, d := range []string{"null", "urandom", "zero"} {
		f, err := os.OpenFile(filepath.Join(root, "dev", d), os.O_RDWR, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		f.Close()
	}
	for _, d := range []string{"sda", "vda", "mem", "kmsg"} {
		if _, err := os.Lstat(filepath.Join(root, "dev", d)); err == nil {
			t.Errorf("/dev/%s is there", d)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(root, "dev")); err != nil || len(entries) != 0 {
		t.Errorf("something is left: %v, %v", entries, err)
	}
}

func TestAnOverlayKeepsHardLinksAndTheLowerTree(t *testing.T) {
	needIsolation(t)
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a := filepath.Join(dir, "lower/a")
	if err := os.WriteFile(a, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(a, filepath.Join(dir, "lower/b")); err != nil {
		t.Fatal(err)
	}
	m := &Mounts{}
	if err := m.Overlay(filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "merged")); err != nil {
		t.Skipf("no overlays on this file system: %v", err)
	}
	defer m.Close()
	if err := os.WriteFile(filepath.Join(dir, "merged/a"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"merged/a": "new", "merged/b": "new", "lower/a": "old", "lower/b": "old"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

func TestTheHostsConfigurationIsHidden(t *testing.T) {
	needIsolation(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m := &Mounts{}
	if err := m.Hide(dir, filepath.Join(dir, "not-there")); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("it shows %v, %v", entries, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "secret")); err != nil {
		t.Error(err)
	}
}
