package registry

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestADatabaseThatCannotBeUsedSaysWhy(t *testing.T) {
	// made is a registry with something in it, closed.
	made := func(t *testing.T) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "registry.db")
		s, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := s.Append(t.Context(), Event{Kind: "info", Text: strings.Repeat("text ", 400)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	overwrite := func(t *testing.T, path string, at int64, text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		path        func(*testing.T) string
		unavailable bool
		want        string
	}{
		"no name":      {func(*testing.T) string { return "" }, false, "no database is named"},
		"no directory": {func(t *testing.T) string { return filepath.Join(t.TempDir(), "a", "b") }, false, "no such file or directory"},
		"a directory":  {func(t *testing.T) string { return t.TempDir() }, true, "cannot be opened"},
		"no database":  {func(t *testing.T) string { p := made(t); overwrite(t, p, 0, "this is no database"); return p }, true, "is damaged or no SQLite database"},
		"damaged in the middle": {func(t *testing.T) string {
			p := made(t)
			overwrite(t, p, 3*4096+100, strings.Repeat("damage", 20000))
			return p
		}, true, "restore a backup"},
		"another program's":      {func(t *testing.T) string { return foreign(t) }, false, "it is another program's database"},
		"a newer program's":      {func(t *testing.T) string { return newer(t) }, false, "its schema is 99 and this program knows those up to 4"},
		"a database cut in half": {func(t *testing.T) string { p := made(t); cut(t, p); return p }, true, "restore a backup"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), c.path(t))
			if err == nil {
				s.Close()
				t.Fatal("it is opened")
			}
			if c.unavailable {
				wantUnavailable(t, err, c.want)
			} else if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func foreign(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE bookmarks (id int)`); err != nil {
		t.Fatal(err)
	}
	return path
}

func newer(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registry.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	newerSchema(t, s)
	return path
}

// newerSchema makes a registry one of a program that is to come.
func newerSchema(t *testing.T, s *Store) {
	t.Helper()
	err := s.write(t.Context(), "test", func(ctx context.Context, t *tx) error {
		_, err := t.exec(ctx, `INSERT INTO imgbuild_schema (version, applied) VALUES (99, 0)`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2/4096*4096); err != nil {
		t.Fatal(err)
	}
}

func TestAFullDatabaseSaysSoAndLosesNothing(t *testing.T) {
	s := open(t)
	known(t, s, "SN-1")
	if _, err := s.writer.Exec(`PRAGMA max_page_count = 60`); err != nil {
		t.Fatal(err)
	}
	stored := 0
	var err error
	for err == nil {
		if err = s.Append(t.Context(), Event{Kind: "info", Text: strings.Repeat("x", 4000)}); err == nil {
			stored++
		}
	}
	wantUnavailable(t, err, "is full")
	wantUnavailable(t, s.Append(t.Context(), Event{Kind: "info", Text: strings.Repeat("x", 4000)}), "make room")
	events, err := s.Events(t.Context(), EventFilter{Kinds: []string{"info"}})
	if err != nil || len(events) != stored || stored == 0 {
		t.Errorf("%d events of %d are there, %v", len(events), stored, err)
	}
	if _, err := s.writer.Exec(`PRAGMA max_page_count = 1000000`); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), Event{Kind: "info", Text: strings.Repeat("x", 4000)}); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestADamagedPageIsFoundByReadingAndByCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	s := openAt(t, path)
	for range 100 {
		if err := s.Append(t.Context(), Event{Kind: "info", Text: strings.Repeat("text ", 800)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.writer.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // not before the registry: closing it would drop SQLite's locks (fcntl(2))
	if _, err := f.WriteAt([]byte(strings.Repeat("damage", 30000)), 30*4096); err != nil {
		t.Fatal(err)
	}
	fresh := openReader(t, s)
	wantUnavailable(t, s.failed("check registry", s.backend.check(t.Context(), fresh)), "restore a backup")
}

// openReader is a connection that has nothing in its cache.
func openReader(t *testing.T, s *Store) *sql.DB {
	t.Helper()
	db, err := s.backend.(*sqlite).connect("_query_only=1", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestTheFileIsForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	s := openAt(t, path)
	known(t, s, "SN-1")
	for _, end := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(path + end); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", end, info, err)
		}
	}
	var mode, sync string
	if err := s.writer.QueryRow(`PRAGMA journal_mode`).Scan(&mode); err != nil || mode != "wal" {
		t.Error(mode, err)
	}
	if err := s.writer.QueryRow(`PRAGMA synchronous`).Scan(&sync); err != nil || sync != "2" {
		t.Error(sync, err)
	}
}
