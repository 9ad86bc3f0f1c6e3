package registry

import (
	"context"
	"embed"
	"fmt"
	"strings"
)

// schema holds the steps from an empty database to today's, one file each. A step that has been released is never changed.
//
//go:embed schema/*.sql
var schema embed.FS

// migrate brings the database to this program's schema, in one transaction. Two servers that start together take turns.
func (s *Store) migrate(ctx context.Context) error {
	files, err := schema.ReadDir("schema")
	if err != nil {
		return err
	}
	dbtx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return &databaseError{err}
	}
	defer dbtx.Rollback()
	if err := s.backend.lock(ctx, dbtx); err != nil {
		return &databaseError{err}
	}
	t := &tx{q: dbtx, b: s.backend, now: s.clock()}
	if _, err := t.exec(ctx, `CREATE TABLE IF NOT EXISTS imgbuild_schema (version BIGINT PRIMARY KEY, applied BIGINT NOT NULL)`); err != nil {
		return err
	}
	version, err := t.number(ctx, `SELECT COALESCE(MAX(version), 0) FROM imgbuild_schema`)
	if err != nil {
		return err
	}
	if version > int64(len(files)) {
		return fmt.Errorf("its schema is %d and this program knows those up to %d: run the program that wrote it, or a newer one", version, len(files))
	}
	for i := int(version); i < len(files); i++ {
		text, err := schema.ReadFile("schema/" + files[i].Name())
		if err != nil {
			return err
		}
		for _, statement := range statements(s.backend.ddl(string(text))) {
			if _, err := t.exec(ctx, statement); err != nil {
				if s.backend.explain(err) != nil {
					return err
				}
				return fmt.Errorf("bring the schema from %d to %d: %w; the database is as it was: the registry needs a database of its own", i, i+1, err)
			}
		}
		if _, err := t.exec(ctx, `INSERT INTO imgbuild_schema (version, applied) VALUES (?, ?)`, i+1, stamp(t.now)); err != nil {
			return err
		}
	}
	if err := dbtx.Commit(); err != nil {
		return fmt.Errorf("commit the schema: %w", &databaseError{err})
	}
	return nil
}

// statements splits a step. Its statements end with a semicolon at a line's end, and comments begin with two dashes.
func statements(text string) []string {
	var list []string
	var b strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "--")
		line = strings.TrimRight(line, " \n")
		if line == "" {
			continue
		}
		b.WriteString(line + "\n")
		if strings.HasSuffix(line, ";") {
			list = append(list, strings.TrimSuffix(strings.TrimSpace(b.String()), ";"))
			b.Reset()
		}
	}
	return list
}
