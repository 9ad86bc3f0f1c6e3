//go:build integration

package registry

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// small mounts a file system of its own with this size.
func small(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("mounting a file system needs root")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAFullFileSystemLosesNothing(t *testing.T) {
	dir := small(t, "size=2m")
	path := filepath.Join(dir, "registry.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 4000)
	stored := 0
	for err == nil && stored < 10000 {
		if err = s.Append(t.Context(), Event{Kind: "info", Text: text}); err == nil {
			stored++
		}
	}
	t.Log(err)
	wantUnavailable(t, err, "make room")
	for range 20 { // whatever happens to the log meanwhile
		wantUnavailable(t, s.Append(t.Context(), Event{Kind: "info", Text: text}), "make room")
	}
	have := func(s *Store) int {
		t.Helper()
		events, err := s.Events(t.Context(), EventFilter{})
		if err != nil {
			t.Fatal(err)
		}
		return len(events)
	}
	if n := have(s); n != stored || n == 0 {
		t.Errorf("%d events are there and %d were acknowledged", n, stored)
	}
	if err := s.Backup(t.Context(), filepath.Join(dir, "backup.db")); err == nil {
		t.Error("there is room for a backup")
	} else {
		wantUnavailable(t, err, "make room")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s, err = Open(t.Context(), path)
	if err != nil {
		t.Fatalf("with a full disk it does not open again: %v", err)
	}
	if n := have(s); n != stored {
		t.Errorf("after a restart %d events are there and %d were acknowledged", n, stored)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), Event{Kind: "info", Text: text}); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	if err := errors.Join(s.Check(t.Context()), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestAReadOnlyFileSystemSaysSo(t *testing.T) {
	dir := small(t, "size=8m")
	path := filepath.Join(dir, "registry.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	known(t, s, "SN-1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); err == nil {
		t.Error("it is opened, and nothing could be stored")
	} else {
		t.Log(err)
		wantUnavailable(t, err, "read-only")
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Host(t.Context(), "SN-1"); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestALogThatWasTornAtItsEndKeepsWhatIsBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	s := openAt(t, path)
	for range 10 {
		if err := s.Append(t.Context(), Event{Kind: "info", Text: "text"}); err != nil {
			t.Fatal(err)
		}
	}
	// A copy of the files as a power failure might leave them, with half a page more in the log.
	torn := filepath.Join(t.TempDir(), "registry.db")
	for _, end := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + end)
		if err != nil {
			t.Fatal(err)
		}
		if end != "" {
			data = append(data, bytes.Repeat([]byte("torn"), 500)...)
		}
		if err := os.WriteFile(torn+end, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := openAt(t, torn)
	events, err := other.Events(t.Context(), EventFilter{})
	if err != nil || len(events) != 10 {
		t.Errorf("%d events, %v", len(events), err)
	}
}
