package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"imgbuild/server/config"
	"imgbuild/server/registry"
)

// maxSmall bounds keys and certificates, in bytes.
const maxSmall = 1 << 20

// readSmall reads a small file whole.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSmall {
		return nil, fmt.Errorf("read %s: it has more than %d bytes", path, maxSmall)
	}
	return data, nil
}

// makeState makes the directories of the database and of the certificates, for nobody else to look into.
func makeState(c *config.Config) error {
	var errs []error
	for _, dir := range stateDirs(c) {
		err := os.MkdirAll(dir, 0o700)
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: make it, or give --state DIR (imgserve.service makes it by StateDirectory=)", err)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("state: %w", err))
		}
	}
	return errors.Join(errs...)
}

// stateDirs are the directories that the server writes into.
func stateDirs(c *config.Config) []string {
	var dirs []string
	if !isPostgres(c) {
		dirs = append(dirs, filepath.Dir(c.Database))
	}
	if c.TLS.Self && (len(dirs) == 0 || dirs[0] != c.State) {
		dirs = append(dirs, c.State)
	}
	return dirs
}

func isPostgres(c *config.Config) bool {
	return strings.HasPrefix(c.Database, "postgres://") || strings.HasPrefix(c.Database, "postgresql://")
}

// BecomeOwner makes this program run as the user whose the registry's directory is, if it is root and that is not. A
// directory that is not there yet is root's to make.
func BecomeOwner(c *config.Config) error {
	if os.Geteuid() != 0 || isPostgres(c) {
		return nil
	}
	dir := filepath.Dir(c.Database)
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	uid, gid := int(owner.Uid), int(owner.Gid)
	if err := errors.Join(syscall.Setgroups([]int{gid}), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("become the owner of %s (user %d): %w", dir, uid, err)
	}
	return nil
}

// Backup copies the registry into a new file while a server may use it.
func Backup(ctx context.Context, c *config.Config, path string) (err error) {
	if _, err := os.Stat(c.Database); !isPostgres(c) && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("back up registry: there is none at %s", c.Database)
	}
	store, err := registry.Open(ctx, c.Database)
	if err != nil {
		return err
	}
	return errors.Join(store.Backup(ctx, path), store.Close())
}

// quiet is a log that nobody reads: what is wrong is in the findings.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
