package standin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// compileLocale compiles a UTF-8 locale from the sources in the tree with the host's localedef and adds it.
func compileLocale(ctx context.Context, t tree, name string, mtime int64) (err error) {
	dir, err := os.MkdirTemp("", "standin-locale-*")
	if err != nil {
		return fmt.Errorf("compile locale %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	const sources = "/usr/share/i18n/"
	for p, f := range t {
		if f.kind() != modeRegular || !strings.HasPrefix(p, sources) {
			continue
		}
		to := filepath.Join(dir, "i18n", strings.TrimPrefix(p, sources))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fmt.Errorf("compile locale %s: %w", name, err)
		}
		if err := os.WriteFile(to, f.Body, 0o644); err != nil {
			return fmt.Errorf("compile locale %s: %w", name, err)
		}
	}
	out := filepath.Join(dir, name+".utf8")
	env := []string{"I18NPATH=" + filepath.Join(dir, "i18n")}
	if _, err := run(ctx, dir, env, "localedef", "--no-archive", "-i", name, "-f", "UTF-8", out); err != nil {
		return fmt.Errorf("compile locale %s: %w", name, err)
	}
	return filepath.WalkDir(out, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		t.add("/usr/lib/locale/"+name+".utf8"+strings.TrimPrefix(p, out), body, mtime)
		return nil
	})
}
