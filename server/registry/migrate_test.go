package registry

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
)

// TestARegistryOfTheFirstSchemaIsBroughtToToday: an order that was made before orders had several disks still has its one.
func TestARegistryOfTheFirstSchemaIsBroughtToToday(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := schema.ReadFile("schema/0001.sql")
	if err != nil {
		t.Fatal(err)
	}
	old := append([]string{fmt.Sprintf(`PRAGMA application_id = %d`, applicationID)}, append(statements((&sqlite{}).ddl(string(text))),
		`CREATE TABLE imgbuild_schema (version BIGINT PRIMARY KEY, applied BIGINT NOT NULL)`, `INSERT INTO imgbuild_schema VALUES (1, 1)`,
		`INSERT INTO hosts (state, rack, owner, image, words, doc, password, inventory, booted, created, updated, revision, sn) VALUES ('ordered', '', '', '', '', '{"sn":"SN-1"}', '', '', '', 1, 1, 1, 'SN-1')`,
		`INSERT INTO orders (id, sn, image, person, reason, names, disk, wipe, finally, state, prior, rack, boot, seq, turn, queued, lost, gone, created, expires, consumed, started, heard, finished, ended, made)
			VALUES ('o1', 'SN-1', 'web/1', 'anna', 'r', 1, 'WD-1', '["WD-1"]', 'reboot', 'open', 'known', '', '', 0, 0, 0, 0, 0, 1, 9000000000000000, 0, 0, 0, 0, 0, 1)`)...)
	for _, s := range old {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(s, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, path)
	o, err := s.LiveOrder(t.Context(), "SN-1")
	if err != nil || o == nil || !slices.Equal(o.Disks, []string{"WD-1"}) || !slices.Equal(o.Wipe, []string{"WD-1"}) || o.Preview || o.Fresh || o.Layout != nil || o.Unseal != nil {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := s.Outlook(t.Context(), "o1"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := s.CancelOrder(t.Context(), "o1", "anna", ""); err != nil || state(t, s, "SN-1") != Known {
		t.Errorf("%v", err)
	}
}
