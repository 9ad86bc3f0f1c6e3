package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// applicationID marks a SQLite file as a registry of ours: "imgr".
const applicationID = 0x696d6772

// sqlite keeps the registry in one file. WAL lets readers read while the one writer writes; synchronous=FULL syncs the log
// at each commit, so that a power failure takes nothing that was acknowledged (NORMAL would not).
type sqlite struct{ path string }

func (b *sqlite) open(ctx context.Context) (*sql.DB, *sql.DB, error) {
	path, err := filepath.Abs(b.path)
	if err != nil {
		return nil, nil, err
	}
	b.path = path
	if info, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil, nil, err
	} else if !info.IsDir() {
		return nil, nil, fmt.Errorf("%s is not a directory", filepath.Dir(path))
	}
	// The file holds secrets. It is made here, so that it never has other permissions; SQLite gives the log the same.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, err
	}
	writer, err := b.connect("_txlock=immediate", 1)
	if err != nil {
		return nil, nil, err
	}
	reader, err := b.connect("_query_only=1", 8)
	if err != nil {
		writer.Close()
		return nil, nil, err
	}
	if err := b.prepare(ctx, writer); err != nil {
		reader.Close()
		writer.Close()
		return nil, nil, err
	}
	return writer, reader, nil
}

// connect makes a pool of at most n connections.
func (b *sqlite) connect(options string, n int) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: b.path, RawQuery: "mode=rw&_error_rc=1&_dqs=0&_busy_timeout=10000&_foreign_keys=1&_synchronous=FULL&_pragma=temp_store(memory)&" + options}
	c, err := driver.NewConnector(u.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(preparing{c})
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// prepare checks that the file is ours and whole, and turns the log on.
func (b *sqlite) prepare(ctx context.Context, db *sql.DB) error {
	number := func(query string) (n int64, err error) { return n, db.QueryRowContext(ctx, query).Scan(&n) }
	id, err := number(`PRAGMA application_id`)
	if err != nil {
		return err
	}
	if id != applicationID {
		tables, err := number(`SELECT COUNT(*) FROM sqlite_schema`)
		if err != nil {
			return err
		}
		if id != 0 || tables != 0 {
			return errors.New("it is another program's database: name another file")
		}
		if _, err := db.ExecContext(ctx, fmt.Sprintf(`PRAGMA application_id = %d`, applicationID)); err != nil {
			return err
		}
	}
	if err := b.verify(ctx, db, `PRAGMA quick_check(5)`); err != nil {
		return err
	}
	var mode string
	if err := db.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("its journal mode stays %q where WAL is needed: put it on a local file system", mode)
	}
	return nil
}

// verify runs one of SQLite's own checks.
func (b *sqlite) verify(ctx context.Context, db *sql.DB, pragma string) error {
	rows, err := db.QueryContext(ctx, pragma)
	if err != nil {
		return err
	}
	defer rows.Close()
	var wrong []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return err
		}
		if line != "ok" {
			wrong = append(wrong, line)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(wrong) > 0 {
		return &damagedError{strings.Join(wrong, "; ")}
	}
	return nil
}

// damagedError is what SQLite's check found.
type damagedError struct{ found string }

func (e *damagedError) Error() string { return e.found }

func (b *sqlite) ddl(text string) string {
	return strings.NewReplacer("{text}", "TEXT", "{bytes}", "BLOB").Replace(text)
}

func (b *sqlite) bind(query string) string { return query }

func (b *sqlite) lock(context.Context, *sql.Tx) error { return nil } // the transaction began with the lock

func (b *sqlite) mark(ctx context.Context, tx *sql.Tx, set bool) error {
	if set {
		if _, err := tx.ExecContext(ctx, `RELEASE SAVEPOINT one`); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `SAVEPOINT one`)
	return err
}

func (b *sqlite) readTx() *sql.TxOptions { return &sql.TxOptions{ReadOnly: true} }

func (b *sqlite) timeout() time.Duration { return 0 }

func (b *sqlite) notify(context.Context, *tx, int64) error { return nil }

func (b *sqlite) listen(ctx context.Context, _ func(int64)) { <-ctx.Done() }

func (b *sqlite) check(ctx context.Context, db *sql.DB) error {
	if err := b.verify(ctx, db, `PRAGMA integrity_check(20)`); err != nil {
		return err
	}
	rows, err := db.QueryContext(ctx, `PRAGMA foreign_key_check`)
	if err != nil {
		return err
	}
	defer rows.Close()
	if rows.Next() {
		return &damagedError{"rows refer to rows that are not there"}
	}
	return rows.Err()
}

// backup writes beside the file's final name and gives it that name when it is whole and on the disk.
func (b *sqlite) backup(ctx context.Context, db *sql.DB, path string) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return errors.New("there is a file of this name: choose another")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600, and empty, as VACUUM INTO wants it
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	// An own connection: those that read refuse to write anywhere.
	c, err := b.connect("", 1)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, `VACUUM INTO ?`, f.Name()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // unlike a rename it never replaces anything
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (b *sqlite) explain(err error) error {
	var damaged *damagedError
	if errors.As(err, &damaged) {
		return fmt.Errorf("%s is damaged (%w): put it aside with the files %[1]s-wal and %[1]s-shm and restore a backup", b.path, err)
	}
	var e *driver.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_FULL:
		return fmt.Errorf("the disk that holds %s is full (%w): make room; nothing that was acknowledged is lost", b.path, err)
	case lib.SQLITE_READONLY:
		return fmt.Errorf("%s cannot be written to (%w): check its owner, its directory's and whether the file system is mounted read-only", b.path, err)
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return fmt.Errorf("%s is damaged or no SQLite database (%w): put it aside with the files %[1]s-wal and %[1]s-shm and restore a backup", b.path, err)
	case lib.SQLITE_IOERR:
		return fmt.Errorf("reading or writing %s failed (%w): check the disk and the kernel's log", b.path, err)
	case lib.SQLITE_CANTOPEN, lib.SQLITE_PERM, lib.SQLITE_AUTH:
		return fmt.Errorf("%s cannot be opened (%w): check its owner, its directory's and whether the file system is mounted read-only", b.path, err)
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return fmt.Errorf("another process holds %s for more than 10 s (%w): stop it", b.path, err)
	case lib.SQLITE_NOMEM:
		return fmt.Errorf("there is no memory for %s (%w)", b.path, err)
	}
	return nil
}
