//go:build integration

package swarmnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Machines that unpack a real image in the place of keeping it get the tree that it was made of.
func TestMachinesUnpackWhatTheyPassOn(t *testing.T) {
	p := programs(t)
	mksquashfs, err := exec.LookPath("mksquashfs")
	if err != nil {
		t.Skip("there is no mksquashfs; make setup-test installs it")
	}
	tree := filepath.Join(t.TempDir(), "tree")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 12 {
		dir := filepath.Join(tree, fmt.Sprint(i))
		check(os.MkdirAll(dir, 0o755))
		for k := range 20 {
			data, err := io.ReadAll(io.LimitReader(noise(1<<40), int64(k)*12345+int64(i)))
			check(err)
			check(os.WriteFile(filepath.Join(dir, fmt.Sprint(k)), data, 0o644))
		}
	}
	file := filepath.Join(t.TempDir(), "image")
	if out, err := exec.CommandContext(t.Context(), mksquashfs, tree, file, "-no-progress", "-noD", "-no-duplicates", "-no-fragments").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	image, err := os.Open(file)
	check(err)
	defer image.Close()
	rel, err := writeRelease(t.TempDir(), image)
	check(err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	said := &log{}
	f := fault{name: "machines unpack", before: func(s *scene) error {
		for i := range s.specs {
			s.specs[i].change = func(c *machineConfig) { c.Tree = c.File + ".tree" }
		}
		return nil
	}, check: func(s *scene, _ outcome) error {
		for _, k := range s.children {
			if err := sameTree(tree, k.config.Tree); err != nil {
				return fmt.Errorf("machine %d: %w", k.i, err)
			}
		}
		return nil
	}}
	o, err := play(ctx, t.TempDir(), p, rel, f, scale{cable: Link{Rate: 12 * mib}, machines: 3}, said.line)
	if errors.Is(err, ErrShape) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v; they say:\n%s", err, said)
	}
	t.Logf("%d MiB: %s", rel.size/mib, o)
}

// sameTree compares names and contents.
func sameTree(want, got string) error {
	n := 0
	err := fs.WalkDir(os.DirFS(want), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n++
		a, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(got, name))
		if err != nil {
			return err
		}
		if string(a) != string(b) {
			return fmt.Errorf("%s is not what it was", name)
		}
		return nil
	})
	if err == nil && n == 0 {
		err = errors.New("there was nothing to compare")
	}
	return err
}
