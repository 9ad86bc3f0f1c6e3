package target

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"imgbuild/image/accounts"
	"imgbuild/image/plan"
	"imgbuild/image/within"
)

// sudoFile comes after the image's own rules, so that the server's win.
const sudoFile = "etc/sudoers.d/91-imgbuild-host"

// accountFile is one of the account files; its mode is for one that is not there.
type accountFile struct {
	name string
	text *string
	mode fs.FileMode
}

func accountFiles(f *accounts.Files) []accountFile {
	return []accountFile{{"etc/passwd", &f.Passwd, 0o644}, {"etc/shadow", &f.Shadow, 0}, {"etc/group", &f.Group, 0o644}, {"etc/gshadow", &f.Gshadow, 0}}
}

func loadAccounts(w *writer, now time.Time) (*accounts.Accounts, error) {
	var files accounts.Files
	for _, f := range accountFiles(&files) {
		data, err := w.read(f.name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the image's accounts: %w", err)
		}
		*f.text = string(data)
	}
	return accounts.Parse(files, now)
}

// users adds the host's users, or changes those that the image has.
func (h Host) users(w *writer, now time.Time) error {
	if len(h.Users) == 0 {
		return nil
	}
	a, err := loadAccounts(w, now)
	if err != nil {
		return err
	}
	// Users with a number first: nobody else is given it.
	users := slices.Clone(h.Users)
	slices.SortStableFunc(users, func(x, y plan.User) int {
		return map[bool]int{true: 1}[x.UID == 0] - map[bool]int{true: 1}[y.UID == 0]
	})
	entries := map[string]accounts.Entry{}
	var rules strings.Builder
	for _, u := range users {
		add := accounts.User{Name: u.Name, Groups: u.Groups, Password: u.Password, Shell: u.Shell, Comment: u.Comment}
		if u.UID != 0 {
			add.UID = &u.UID
		}
		if entries[u.Name], err = a.AddUser(add); err != nil {
			return err
		}
		rules.WriteString(accounts.SudoRule(u.Name, u.Sudo))
	}
	files := a.Files()
	for _, f := range accountFiles(&files) {
		if err := w.replace(f.name, []byte(*f.text), meta{mode: f.mode}); err != nil {
			return err
		}
	}
	for _, u := range users {
		if err := home(w, u, entries[u.Name]); err != nil {
			return err
		}
	}
	if rules.Len() == 0 {
		return nil
	}
	if !w.exists("etc/sudoers") {
		return errors.New("write sudo rules: the image has no /etc/sudoers; add the package sudo to the profile, or take sudo away from the host's users")
	}
	return w.write(sudoFile, []byte("# Written by imgbuild when this machine was installed.\n"+rules.String()), meta{mode: 0o440})
}

// home makes the home directory of a new person from /etc/skel, and adds the SSH keys.
func home(w *writer, u plan.User, e accounts.Entry) error {
	if e.Fresh && !w.exists(e.Home) {
		if err := w.mkdir(e.Home, meta{0o700, e.UID, e.GID}); err != nil {
			return err
		}
		if err := skeleton(w, "etc/skel", e.Home, e); err != nil {
			return err
		}
		for _, file := range []string{"etc/subuid", "etc/subgid"} {
			data, err := w.read(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = w.replace(file, []byte(accounts.Subordinate(string(data), u.Name)), meta{mode: 0o644})
			}
			if err != nil {
				return err
			}
		}
	}
	return sshKeys(w, u.SSHKeys, e)
}

// skeleton copies a directory for its new owner. An image without one has no skeleton.
func skeleton(w *writer, from, to string, e accounts.Entry) error {
	dir, err := within.Resolve(w.root, from, true)
	if err != nil {
		return err
	}
	list, err := fs.ReadDir(w.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("copy /%s: %w", from, err)
	}
	for _, entry := range list {
		src, dst := path.Join(dir, entry.Name()), path.Join(to, entry.Name())
		st, err := entry.Info()
		if err != nil {
			return fmt.Errorf("copy /%s: %w", src, err)
		}
		m := meta{st.Mode().Perm(), e.UID, e.GID}
		switch {
		case st.IsDir():
			err = w.mkdir(dst, m)
			if err == nil {
				err = skeleton(w, src, dst, e)
			}
		case st.Mode().IsRegular():
			var data []byte
			if data, err = w.root.ReadFile(src); err == nil {
				err = w.write(dst, data, m)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sshKeys adds keys to those that the image has for a user.
func sshKeys(w *writer, keys []string, e accounts.Entry) error {
	if len(keys) == 0 {
		return nil
	}
	if e.Home == "" {
		return fmt.Errorf("write SSH keys: the user with UID %d has no home directory", e.UID)
	}
	dir := path.Join(e.Home, ".ssh")
	if err := w.mkdir(dir, meta{0o700, e.UID, e.GID}); err != nil {
		return err
	}
	file := path.Join(dir, "authorized_keys")
	data, err := w.read(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write SSH keys: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	for _, k := range keys {
		if k = strings.TrimSpace(k); k != "" && !slices.Contains(lines, k) {
			lines = append(lines, k)
		}
	}
	return w.write(file, []byte(strings.Join(lines, "\n")+"\n"), meta{0o600, e.UID, e.GID})
}
