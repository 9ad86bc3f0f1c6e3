//go:build integration

package installer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgbuild/installer/disk/gpt"
	"imgbuild/installer/looptest"
)

// loop is a loop device as a disk.
type loop struct {
	t      *testing.T
	file   string
	dev    string
	size   int64
	sector int
	keeps  bool // its partition table has what is kept at any time
}

func newLoop(t *testing.T, size int64, sector int) *loop {
	t.Helper()
	d := &loop{t: t, file: filepath.Join(t.TempDir(), "disk"), size: size, sector: sector}
	f, err := os.Create(d.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	d.dev = strings.TrimSpace(looptest.Command(t, "losetup", "--find", "--show", "--sector-size", fmt.Sprint(sector), d.file))
	t.Cleanup(func() {
		d.forget()
		looptest.Command(t, "losetup", "--detach", d.dev)
	})
	return d
}

// forget makes the kernel forget the disk's partitions.
func (d *loop) forget() {
	d.t.Helper()
	nodes, err := filepath.Glob(d.dev + "p*")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, n := range nodes {
		looptest.Command(d.t, "delpart", d.dev, strings.TrimPrefix(n, d.dev+"p"))
	}
}

// partition tells the kernel of a partition, and returns its node.
func (d *loop) partition(number int, start, size int64) string {
	d.t.Helper()
	looptest.Command(d.t, "addpart", d.dev, fmt.Sprint(number), fmt.Sprint(start/512), fmt.Sprint(size/512))
	return fmt.Sprintf("%sp%d", d.dev, number)
}

// table is the disk's GPT.
func (d *loop) table() gpt.Found {
	d.t.Helper()
	f, err := os.Open(d.dev)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	t, err := gpt.Read(f, d.size)
	if err != nil {
		d.t.Fatal(err)
	}
	return t
}

// partitions tells the kernel of all partitions of the disk's GPT, and returns their nodes by name, until forget.
func (d *loop) partitions() map[string]string {
	d.t.Helper()
	nodes := map[string]string{}
	for _, p := range d.table().Partitions {
		nodes[p.Name] = d.partition(p.Number, int64(p.First)*int64(d.sector), int64(p.Last-p.First+1)*int64(d.sector))
	}
	return nodes
}

// writeAt writes to the disk.
func (d *loop) writeAt(data []byte, off int64) {
	d.t.Helper()
	f, err := os.OpenFile(d.dev, os.O_WRONLY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	_, err = f.WriteAt(data, off)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		d.t.Fatal(err)
	}
}

// digest is the SHA-256 of the disk's contents, holes skipped.
func (d *loop) digest() string {
	d.t.Helper()
	looptest.Command(d.t, "sync", d.dev)
	return looptest.Digest(d.t, d.file)
}

// bootable says whether firmware would look at the disk at all; where something is kept, whether it would find anything to
// start there.
func (d *loop) bootable() bool {
	d.t.Helper()
	f, err := os.Open(d.dev)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4096)
	if _, err := io.ReadFull(f, b); err != nil {
		d.t.Fatal(err)
	}
	if b[510] != 0x55 || b[511] != 0xaa || !d.keeps {
		return b[510] == 0x55 && b[511] == 0xaa
	}
	if !bytes.HasPrefix(b, []byte{0xcd, 0x18}) || len(bytes.Trim(b[5:440], "\x00")) > 0 { // int 18h: try the next disk
		return true
	}
	t, err := gpt.Read(f, d.size)
	return err == nil && slices.ContainsFunc(t.Partitions, func(p gpt.Partition) bool {
		return p.Attributes != 0 || p.Type.String() == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" // ESP
	})
}
