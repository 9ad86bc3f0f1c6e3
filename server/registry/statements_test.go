package registry

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
)

// things opens a database through connections that keep their statements.
func things(t *testing.T) *sql.DB {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, q := range []string{`CREATE TABLE things (n INTEGER PRIMARY KEY)`, `INSERT INTO things (n) VALUES (1), (2), (3)`} {
		if _, err := s.writer.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	return s.writer // one connection only
}

// kept is how many statements the connection keeps.
func kept(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Raw(func(d any) error { n = len(d.(*preparedConn).idle); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTheSameQueryCanBeReadWithinItself(t *testing.T) {
	db := things(t)
	before := kept(t, db)
	const query = `SELECT n FROM things WHERE n >= ? ORDER BY n`
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var got []string
	outer, err := tx.Query(query, 2)
	if err != nil {
		t.Fatal(err)
	}
	for outer.Next() {
		var a int
		if err := outer.Scan(&a); err != nil {
			t.Fatal(err)
		}
		inner, err := tx.Query(query, 3)
		if err != nil {
			t.Fatal(err)
		}
		for inner.Next() {
			var b int
			if err := inner.Scan(&b); err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(a, b))
		}
		if err := inner.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := outer.Close(); err != nil {
		t.Fatal(err)
	}
	if want := "[2 3 3 3]"; fmt.Sprint(got) != want {
		t.Errorf("read %v, want %s", got, want)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := kept(t, db); n != before+1 {
		t.Errorf("%d statements are kept, %d before: one of the two was to stay", n, before)
	}
}

func TestAStatementThatFailedIsPreparedAgain(t *testing.T) {
	db := things(t)
	insert := func(n int) error { _, err := db.Exec(`INSERT INTO things VALUES (?)`, n); return err }
	for i, step := range []struct {
		n    int
		good bool
	}{{4, true}, {4, false}, {5, true}, {5, false}, {6, true}} {
		if err := insert(step.n); (err == nil) != step.good {
			t.Errorf("step %d: %v", i, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.ExecContext(ctx, `INSERT INTO things VALUES (?)`, 7); err == nil {
		t.Error("something was written for a caller who had gone")
	}
	var n int
	if err := db.QueryRow(`SELECT COUNT(*) FROM things`).Scan(&n); err != nil || n != 6 {
		t.Errorf("%d rows, %v; want 6", n, err)
	}
}

func TestStatementsOutliveAChangeOfTheSchema(t *testing.T) {
	db := things(t)
	count := func() (n int) {
		t.Helper()
		if err := db.QueryRow(`SELECT COUNT(*) FROM things`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 3 {
		t.Errorf("%d rows", n)
	}
	for _, q := range []string{`ALTER TABLE things ADD COLUMN name TEXT`, `DROP TABLE things`, `CREATE TABLE things (n TEXT)`} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(); n != 0 {
		t.Errorf("%d rows in a new table", n)
	}
}

func TestAConnectionKeepsNoMoreThanSoManyStatements(t *testing.T) {
	db := things(t)
	for i := range 2 * maxStatements {
		var n int
		if err := db.QueryRow(fmt.Sprintf(`SELECT %d`, i)).Scan(&n); err != nil || n != i {
			t.Fatal(n, err)
		}
	}
	if n := kept(t, db); n != maxStatements {
		t.Errorf("%d statements are kept, and %d is the most", n, maxStatements)
	}
	before := kept(t, db)
	for range 2 { // a PRAGMA acts anew each time
		if _, err := db.Exec(`PRAGMA user_version`); err != nil {
			t.Fatal(err)
		}
	}
	if n := kept(t, db); n != before {
		t.Errorf("%d statements are kept after a PRAGMA, %d before", n, before)
	}
}
