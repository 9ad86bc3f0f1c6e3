// Package configure writes a profile's configuration into an image's root directory. In go the profile and the tree; out
// come the files that an administrator would have edited.
//
// It never runs a program and never looks outside the tree, except at the files that the profile names.
package configure

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"imgbuild/builder/tree"
	"imgbuild/image/accounts"
	"imgbuild/profiles"
)

// etc are the account files of an image, and what they are written with.
type etc struct {
	*accounts.Accounts
	tree *tree.Tree
}

// accountFiles are the files with the modes that packages give them.
func accountFiles(f *accounts.Files) []struct {
	name string
	text *string
	mode fs.FileMode
} {
	return []struct {
		name string
		text *string
		mode fs.FileMode
	}{{"/etc/passwd", &f.Passwd, 0o644}, {"/etc/shadow", &f.Shadow, 0}, {"/etc/group", &f.Group, 0o644}, {"/etc/gshadow", &f.Gshadow, 0}}
}

func loadAccounts(t *tree.Tree, now time.Time) (*etc, error) {
	var files accounts.Files
	for _, f := range accountFiles(&files) {
		data, err := t.ReadFile(f.name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the image's accounts: %w", err)
		}
		*f.text = string(data)
	}
	a, err := accounts.Parse(files, now)
	return &etc{a, t}, err
}

func (a *etc) save() error {
	files := a.Files()
	for _, f := range accountFiles(&files) {
		if err := a.tree.WriteFile(f.name, []byte(*f.text), tree.Meta{Mode: f.mode}); err != nil {
			return err
		}
	}
	return nil
}

func (a *etc) addUser(name string, u profiles.User) error {
	e, err := a.AddUser(accounts.User{
		Name: name, UID: u.UID, Group: u.Group, Groups: u.Groups, Password: u.Password,
		Home: u.Home, Shell: u.Shell, Comment: u.Comment, System: u.System,
	})
	if err != nil {
		return err
	}
	if e.Fresh && !u.System && !a.tree.Exists(e.Home) {
		if err := a.home(name, e); err != nil {
			return err
		}
	}
	return sshKeys(a.tree, e.Home, u.SSHKeys, e.UID, e.GID)
}

// home makes the home directory of a person from /etc/skel.
func (a *etc) home(name string, e accounts.Entry) error {
	return errors.Join(
		a.tree.Mkdir(e.Home, tree.Meta{Mode: 0o700, UID: e.UID, GID: e.GID}),
		a.skel(e.Home, e.UID, e.GID),
		a.subordinate(name),
	)
}

func (a *etc) skel(home string, uid, gid int) error {
	st, err := a.tree.Stat("/etc/skel")
	if err != nil || !st.IsDir() {
		return nil // an image without a skeleton
	}
	return a.copyTree("/etc/skel", home, uid, gid)
}

func (a *etc) copyTree(from, to string, uid, gid int) error {
	entries, err := a.tree.ReadDir(from)
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	for _, e := range entries {
		src, dst := path.Join(from, e.Name()), path.Join(to, e.Name())
		st, err := e.Info()
		if err != nil {
			return fmt.Errorf("copy %s: %w", src, err)
		}
		m := tree.Meta{Mode: st.Mode().Perm(), UID: uid, GID: gid}
		switch {
		case st.IsDir():
			if err := errors.Join(a.tree.Mkdir(dst, m), a.copyTree(src, dst, uid, gid)); err != nil {
				return err
			}
		case st.Mode().IsRegular():
			data, err := a.tree.ReadFile(src)
			if err != nil {
				return fmt.Errorf("copy %s: %w", src, err)
			}
			if err := a.tree.WriteFile(dst, data, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// subordinate gives a person a range of subordinate IDs, as useradd does, where the image knows them.
func (a *etc) subordinate(name string) error {
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		data, err := a.tree.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		data = []byte(accounts.Subordinate(string(data), name))
		if err := a.tree.WriteFile(file, data, tree.RootFile()); err != nil {
			return err
		}
	}
	return nil
}

func sshKeys(t *tree.Tree, home string, keys []string, uid, gid int) error {
	if len(keys) == 0 {
		return nil
	}
	dir := path.Join(home, ".ssh")
	if err := t.Mkdir(dir, tree.Meta{Mode: 0o700, UID: uid, GID: gid}); err != nil {
		return err
	}
	return t.WriteFile(path.Join(dir, "authorized_keys"), []byte(strings.Join(keys, "\n")+"\n"), tree.Meta{Mode: 0o600, UID: uid, GID: gid})
}

// Accounts adds the profile's groups and users, sets root's password and writes the sudo rules.
func Accounts(t *tree.Tree, p *profiles.Profile, now time.Time) error {
	a, err := loadAccounts(t, now)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.Groups)) {
		if err := a.AddGroup(name, p.Groups[name].GID, p.Groups[name].System); err != nil {
			return err
		}
	}
	// Users with a number first: nobody else is given it.
	names := slices.Sorted(maps.Keys(p.Users))
	slices.SortStableFunc(names, func(x, y string) int {
		return boolOrder(p.Users[x].UID == nil) - boolOrder(p.Users[y].UID == nil)
	})
	for _, name := range names {
		if err := a.addUser(name, p.Users[name]); err != nil {
			return err
		}
	}
	if err := errors.Join(a.root(p.Root), a.save()); err != nil {
		return err
	}
	if err := sshKeys(t, "/root", p.Root.SSHKeys, 0, 0); err != nil {
		return err
	}
	return sudo(t, p)
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (a *etc) root(r profiles.Root) error {
	hash := r.Password
	if r.Locked != nil && *r.Locked {
		hash = "!" + hash
		if r.Password == "" {
			hash = "!!"
		}
	}
	if hash == "" {
		return nil
	}
	return a.Password("root", hash)
}

const (
	sudoersDir = "/etc/sudoers.d"
	usersRules = "90-imgbuild-users"
)

func sudo(t *tree.Tree, p *profiles.Profile) error {
	rules := maps.Clone(p.Sudo)
	if rules == nil {
		rules = map[string]string{}
	}
	var own strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.Users)) {
		own.WriteString(accounts.SudoRule(name, p.Users[name].Sudo))
	}
	if own.Len() > 0 {
		rules[usersRules] = own.String()
	}
	if len(rules) > 0 && !t.Exists("/etc/sudoers") {
		return errors.New("write sudo rules: the image has no /etc/sudoers; add the package sudo to the profile")
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		text := strings.TrimRight(rules[name], "\n") + "\n"
		if err := t.WriteFile(path.Join(sudoersDir, name), []byte(text), tree.Meta{Mode: 0o440}); err != nil {
			return err
		}
	}
	return nil
}

// SudoFiles returns the files that Accounts writes below /etc/sudoers.d.
func SudoFiles(p *profiles.Profile) []string {
	var files []string
	for _, name := range slices.Sorted(maps.Keys(p.Sudo)) {
		files = append(files, path.Join(sudoersDir, name))
	}
	if slices.ContainsFunc(slices.Collect(maps.Values(p.Users)), func(u profiles.User) bool { return u.Sudo != "" }) {
		files = append(files, path.Join(sudoersDir, usersRules))
	}
	return files
}
