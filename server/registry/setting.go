package registry

import "context"

// Setting reads what the server keeps for itself; ok is false if it is not there.
func (s *Store) Setting(ctx context.Context, key string) (value []byte, ok bool, err error) {
	err = s.ask(ctx, "read setting "+key, func(ctx context.Context, t *tx) error {
		v, err := t.setting(ctx, key)
		if v != nil {
			value, ok = *v, true
		}
		return err
	})
	return value, ok, err
}

func (t *tx) setting(ctx context.Context, key string) (*[]byte, error) {
	return first(ctx, t, func(row scanner) (v []byte, err error) { return v, row.Scan(&v) }, `SELECT value FROM settings WHERE name = ?`, key)
}

// SetSettingOnce stores a value where there is none, and returns the one that is there: of several servers that start
// together all get the same.
func (s *Store) SetSettingOnce(ctx context.Context, key string, value []byte) (winner []byte, err error) {
	if value == nil {
		value = []byte{}
	}
	err = s.write(ctx, "store setting "+key, func(ctx context.Context, t *tx) error {
		if _, err := t.exec(ctx, `INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING`, key, value); err != nil {
			return err
		}
		v, err := t.setting(ctx, key)
		if v != nil {
			winner = *v
		}
		return err
	})
	return winner, err
}

// SetSetting stores a value, whether there is one or not.
func (s *Store) SetSetting(ctx context.Context, key string, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	return s.write(ctx, "store setting "+key, func(ctx context.Context, t *tx) error {
		_, err := t.exec(ctx, `INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, key, value)
		return err
	})
}

// DeleteSetting removes a value; that there is none is no error.
func (s *Store) DeleteSetting(ctx context.Context, key string) error {
	return s.write(ctx, "remove setting "+key, func(ctx context.Context, t *tx) error {
		_, err := t.exec(ctx, `DELETE FROM settings WHERE name = ?`, key)
		return err
	})
}
