//go:build integration

package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"imgbuild/image/seal"
	"imgbuild/installer"
	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/looptest"
	"imgbuild/server/registry"
)

// digest is the SHA-256 of what is on the disk, holes skipped.
func (s *site) digest() string {
	s.t.Helper()
	device, err := os.OpenFile(s.loop, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(device.Sync(), device.Close()) // what was written to it is in the file then
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return looptest.Digest(s.t, s.file)
}

// table is the disk's partition table.
func (s *site) table() gpt.Found {
	s.t.Helper()
	file, err := os.Open(s.loop)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	table, err := gpt.Read(file, size)
	if err != nil {
		s.t.Fatal(err)
	}
	return table
}

// forget makes the kernel forget the disk's partitions.
func (s *site) forget() {
	s.t.Helper()
	nodes, err := filepath.Glob(s.loop + "p*")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range nodes {
		s.command("delpart", s.loop, strings.TrimPrefix(n, s.loop+"p"))
	}
}

// checkSeal reads the seal that the server signed for this order.
func (s *site) checkSeal(o *registry.Order) {
	s.t.Helper()
	f, err := os.Open(s.loop)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for _, p := range s.table().Partitions {
		if p.Name != "seal" {
			continue
		}
		b := make([]byte, seal.Size)
		if _, err := f.ReadAt(b, int64(p.First)*512); err != nil {
			s.t.Fatal(err)
		}
		got, err := seal.Parse(b)
		if err != nil || got.Serial != sn || got.Order != o.ID || got.Image != "test/1" || !got.SignedBy(s.key.Public()) {
			s.t.Errorf("the seal is %+v, %v", got, err)
		}
		return
	}
	s.t.Error("there is no seal")
}

// look mounts the installed root and calls f with its directory.
func (s *site) look(f func(dir string)) {
	t := s.t
	t.Helper()
	nodes := map[string]string{}
	for _, p := range s.table().Partitions {
		s.command("addpart", s.loop, fmt.Sprint(p.Number), fmt.Sprint(p.First), fmt.Sprint(p.Last-p.First+1))
		nodes[p.Name] = fmt.Sprintf("%sp%d", s.loop, p.Number)
	}
	dir := t.TempDir()
	var k installer.KernelMounter
	if err := k.Mount(nodes["root"], dir, "ext4", ""); err != nil {
		t.Fatal(err)
	}
	if err := k.Mount(nodes["boot"], filepath.Join(dir, "boot"), "ext4", ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(k.Unmount(filepath.Join(dir, "boot")), k.Unmount(dir)); err != nil {
			t.Error(err)
		}
		s.forget()
	}()
	f(dir)
}
