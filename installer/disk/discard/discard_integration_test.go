//go:build integration

package discard

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgbuild/image/layout"
)

const size = 96 << 20

// loop is a loop device full of data.
func loop(t *testing.T) (node, file string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	file = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, bytes.Repeat([]byte("data"), size/4), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("losetup cannot make a loop device here: %v: %s", err, out)
	}
	node = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", node).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", node, err, out)
		}
	})
	return node, file
}

func prepared(t *testing.T, node string) (Plan, *os.File) {
	t.Helper()
	p, err := Prepare(System{Sys: "/sys", Dev: "/dev"}, filepath.Base(node), layout.DiscardBlocks)
	if errors.Is(err, ErrUnsupported) {
		t.Skipf("this kernel's loop devices discard nothing: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(node, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p.piece = 32 << 20
	return p, f
}

func TestADiskIsDiscardedPieceByPiece(t *testing.T) {
	node, file := loop(t)
	p, f := prepared(t, node)
	var told []int64
	if err := p.Run(context.Background(), f, func(done, total int64) {
		if told = append(told, done); total != size {
			t.Errorf("total is %d", total)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(told) != 4 || told[0] != 0 || told[3] != size {
		t.Errorf("progress is %v", told)
	}
	b, err := os.ReadFile(file)
	if err != nil || len(b) != size || len(bytes.Trim(b, "\x00")) > 0 {
		t.Errorf("there is still something: %d bytes, %v", len(bytes.Trim(b, "\x00")), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the file has %d blocks, %v", st.Blocks, err)
	}
}

func TestACancelledDiscardStopsAtItsNextPiece(t *testing.T) {
	node, file := loop(t)
	p, f := prepared(t, node)
	ctx, cancel := context.WithCancelCause(context.Background())
	withdrawn := errors.New("the order was withdrawn")
	err := p.Run(ctx, f, func(done, _ int64) {
		if done > 0 {
			cancel(withdrawn)
		}
	})
	if !errors.Is(err, withdrawn) || !strings.Contains(err.Error(), "stopped after 33554432 of 100663296 bytes") {
		t.Errorf("got %v", err)
	}
	b, err := os.ReadFile(file)
	if err != nil || len(bytes.Trim(b, "\x00")) != size-32<<20 {
		t.Errorf("left are %d bytes, %v", len(bytes.Trim(b, "\x00")), err)
	}
}

func TestALoopDeviceCannotEraseSecurelyAndKeepsItsData(t *testing.T) {
	node, file := loop(t)
	_, err := Prepare(System{Sys: "/sys", Dev: "/dev"}, filepath.Base(node), layout.DiscardSecure)
	if !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	b, err := os.ReadFile(file)
	if err != nil || bytes.Count(b, []byte("data")) != size/4 {
		t.Errorf("its data is gone, %v", err)
	}
}
