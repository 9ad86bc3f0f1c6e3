package configure

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"imgbuild/builder/tree"
)

// Clean removes what belongs to the build and not to the image, and what must be different on every machine. Log files
// that packages own stay, empty.
func Clean(t *tree.Tree) error {
	for _, dir := range []string{"/run", "/tmp", "/var/tmp", "/var/cache/dnf", "/var/cache/yum", "/var/cache/libdnf5", "/var/lib/systemd/catalog-build", "/var/lib/NetworkManager"} {
		if err := t.Empty(dir); err != nil {
			return err
		}
	}
	for _, pattern := range []struct{ dir, glob string }{
		{"/etc/ssh", "ssh_host_*"},
		{"/var/lib/systemd", "random-seed"}, {"/var/lib/systemd", "credential.secret"}, {"/var/lib/dbus", "machine-id"},
		{"/etc", "*.uefi-backup"}, {"/etc", "passwd-"}, {"/etc", "shadow-"}, {"/etc", "group-"}, {"/etc", "gshadow-"}, {"/etc", "subuid-"}, {"/etc", "subgid-"},
		{"/etc", ".pwd.lock"}, {"/etc", ".updated"}, {"/var", ".updated"},
		{"/var/cache/ldconfig", "aux-cache"}, {"/var/log", "dnf*.log*"}, {"/var/log", "hawkey.log*"}, {"/var/log", "yum.log*"}, {"/var/log", "dpkg.log"}, {"/var/log", "anaconda"},
		{"/root", ".bash_history"}, {"/root", ".rpmdb"}, {"/boot", "loader/entries/*"}, {"/boot", "initramfs-0-rescue-*"}, {"/boot", "vmlinuz-0-rescue-*"},
		{"/var/lib/rpm", "rpmdb.sqlite-shm"}, {"/var/lib/rpm", "__db.*"}, {"/var/lib/rpm", ".dbenv.lock"}, {"/usr/lib/sysimage/rpm", "rpmdb.sqlite-shm"},
		{"/var/lib/rpm", ".rpm.lock"}, {"/usr/lib/sysimage/rpm", ".rpm.lock"},
	} {
		if err := removeAll(t, pattern.dir, pattern.glob); err != nil {
			return err
		}
	}
	if err := machineID(t); err != nil {
		return err
	}
	return truncateLogs(t, "/var/log")
}

func removeAll(t *tree.Tree, dir, glob string) error {
	found, err := t.Glob(dir, glob)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean %s: %w", dir, err)
	}
	for _, f := range found {
		if err := t.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

// machineID leaves an empty file: systemd makes an ID at every machine's first boot and can store it there.
func machineID(t *tree.Tree) error {
	if err := t.Remove("/etc/machine-id"); err != nil {
		return err
	}
	return t.WriteFile("/etc/machine-id", nil, tree.Meta{Mode: 0o444})
}

// truncateLogs empties log files and keeps their owners and modes, because packages own some.
func truncateLogs(t *tree.Tree, dir string) error {
	entries, err := t.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean %s: %w", dir, err)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		st, err := e.Info()
		if err != nil {
			return fmt.Errorf("clean %s: %w", name, err)
		}
		switch {
		case st.IsDir():
			err = truncateLogs(t, name)
		case st.Mode().IsRegular() && st.Size() > 0 && !slices.Contains([]string{"README"}, e.Name()):
			err = t.Truncate(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
