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
	"strconv"
	"strings"
	"time"

	"imgbuild/builder/tree"
	"imgbuild/profiles"
)

// table is one of the account files: lines of fields between colons. Lines that it does not understand stay.
type table struct {
	name  string
	meta  tree.Meta
	lines [][]string
}

// accounts are /etc/passwd, shadow, group and gshadow.
type accounts struct {
	tree                           *tree.Tree
	passwd, shadow, group, gshadow table
	day                            string // days since 1970, for shadow
}

func loadAccounts(t *tree.Tree, now time.Time) (*accounts, error) {
	a := &accounts{tree: t, day: strconv.FormatInt(now.Unix()/86400, 10)}
	for _, f := range []struct {
		to   *table
		name string
		mode fs.FileMode
	}{{&a.passwd, "/etc/passwd", 0o644}, {&a.shadow, "/etc/shadow", 0}, {&a.group, "/etc/group", 0o644}, {&a.gshadow, "/etc/gshadow", 0}} {
		f.to.name, f.to.meta = f.name, tree.Meta{Mode: f.mode}
		data, err := t.ReadFile(f.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the image's accounts: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			f.to.lines = append(f.to.lines, strings.Split(strings.TrimRight(line, "\n"), ":"))
		}
	}
	if len(a.passwd.lines) == 0 || len(a.group.lines) == 0 {
		return nil, errors.New("read the image's accounts: /etc/passwd or /etc/group is missing or empty; the package setup is not installed")
	}
	return a, nil
}

func (a *accounts) save() error {
	for _, t := range []*table{&a.passwd, &a.shadow, &a.group, &a.gshadow} {
		var b strings.Builder
		for _, l := range t.lines {
			b.WriteString(strings.Join(l, ":") + "\n")
		}
		if err := a.tree.WriteFile(t.name, []byte(b.String()), t.meta); err != nil {
			return err
		}
	}
	return nil
}

// find returns the line of a name, or nil. The line has at least n fields.
func (t *table) find(name string, n int) []string {
	for i, l := range t.lines {
		if l[0] == name {
			for len(l) < n {
				l = append(l, "")
			}
			t.lines[i] = l
			return l
		}
	}
	return nil
}

// free returns the first number from, stepping to to, that no line has in field 2.
func (t *table) free(from, to int, also *table) (int, error) {
	used := map[string]bool{}
	for _, x := range []*table{t, also} {
		for _, l := range x.lines {
			if len(l) > 2 {
				used[l[2]] = true
			}
		}
	}
	step := 1
	if to < from {
		step = -1
	}
	for n := from; n != to+step; n += step {
		if !used[strconv.Itoa(n)] {
			return n, nil
		}
	}
	return 0, fmt.Errorf("there is no free number between %d and %d in %s", from, to, t.name)
}

// number is the given number or a free one: system accounts from 999 down to 201, others from 1000 up, as useradd does
// with the distributions' login.defs.
func number(t, also *table, given *int, system bool) (string, error) {
	if given != nil {
		return strconv.Itoa(*given), nil
	}
	from, to := 1000, 60000
	if system {
		from, to = 999, 201
	}
	n, err := t.free(from, to, also)
	return strconv.Itoa(n), err
}

func (a *accounts) addGroup(name string, gid *int, system bool) (string, error) {
	if l := a.group.find(name, 4); l != nil {
		if gid != nil && l[2] != strconv.Itoa(*gid) {
			return "", fmt.Errorf("give the group %s the GID %d: a package made it with GID %s already", name, *gid, l[2])
		}
		return l[2], nil
	}
	n, err := number(&a.group, &a.passwd, gid, system)
	if err != nil {
		return "", fmt.Errorf("add the group %s: %w", name, err)
	}
	for _, l := range a.group.lines {
		if len(l) > 2 && l[2] == n {
			return "", fmt.Errorf("add the group %s: the GID %s is the group %s's", name, n, l[0])
		}
	}
	a.group.lines = append(a.group.lines, []string{name, "x", n, ""})
	a.gshadow.lines = append(a.gshadow.lines, []string{name, "!", "", ""})
	return n, nil
}

func (a *accounts) join(user, group string) error {
	l := a.group.find(group, 4)
	if l == nil {
		return fmt.Errorf("put the user %s into the group %s: neither a package nor the profile makes that group", user, group)
	}
	add := func(list string) string {
		members := strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
		if !slices.Contains(members, user) {
			members = append(members, user)
		}
		return strings.Join(members, ",")
	}
	l[3] = add(l[3])
	if s := a.gshadow.find(group, 4); s != nil {
		s[3] = add(s[3])
	}
	return nil
}

// password is the second field of shadow.
func (a *accounts) password(user, hash string) {
	if l := a.shadow.find(user, 9); l != nil {
		l[1], l[2] = hash, a.day
		return
	}
	a.shadow.lines = append(a.shadow.lines, []string{user, hash, a.day, "0", "99999", "7", "", "", ""})
}

func (a *accounts) addUser(name string, u profiles.User) error {
	l := a.passwd.find(name, 7)
	fresh := l == nil
	if fresh {
		uid, err := number(&a.passwd, &a.group, u.UID, u.System)
		if err != nil {
			return fmt.Errorf("add the user %s: %w", name, err)
		}
		l = []string{name, "x", uid, "", "", "", ""}
	} else if u.UID != nil && l[2] != strconv.Itoa(*u.UID) {
		return fmt.Errorf("give the user %s the UID %d: a package made it with UID %s already", name, *u.UID, l[2])
	}
	if fresh || u.Group != "" {
		gid, err := a.primaryGroup(name, l[2], u)
		if err != nil {
			return err
		}
		l[3] = gid
	}
	set := func(i int, value, standard string) {
		if value != "" {
			l[i] = value
		} else if fresh {
			l[i] = standard
		}
	}
	shell := "/bin/bash"
	if u.System {
		shell = "/sbin/nologin"
	}
	set(4, u.Comment, "")
	set(5, u.Home, path.Join("/home", name))
	set(6, u.Shell, shell)
	if strings.ContainsAny(strings.Join(l, ""), ":\n") {
		return fmt.Errorf("add the user %s: a field has a colon or a line break", name)
	}
	if fresh {
		a.passwd.lines = append(a.passwd.lines, l)
	}
	switch {
	case u.Password != "":
		a.password(name, u.Password)
	case fresh:
		a.password(name, "!!")
	}
	for _, g := range u.Groups {
		if err := a.join(name, g); err != nil {
			return err
		}
	}
	return a.home(name, u, l, fresh)
}

func (a *accounts) primaryGroup(name, uid string, u profiles.User) (string, error) {
	if u.Group != "" {
		g := a.group.find(u.Group, 4)
		if g == nil {
			return "", fmt.Errorf("give the user %s the group %s: neither a package nor the profile makes that group", name, u.Group)
		}
		return g[2], nil
	}
	// A group of the user's own has the user's number if that is free.
	if n, err := strconv.Atoi(uid); err == nil && !slices.ContainsFunc(a.group.lines, func(l []string) bool { return len(l) > 2 && l[2] == uid }) {
		return a.addGroup(name, &n, u.System)
	}
	return a.addGroup(name, nil, u.System)
}

// home makes the home directory of a person from /etc/skel, and puts the SSH keys there.
func (a *accounts) home(name string, u profiles.User, l []string, fresh bool) error {
	uid, err1 := strconv.Atoi(l[2])
	gid, err2 := strconv.Atoi(l[3])
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("add the user %s: %w", name, err)
	}
	if fresh && !u.System && !a.tree.Exists(l[5]) {
		if err := a.tree.Mkdir(l[5], tree.Meta{Mode: 0o700, UID: uid, GID: gid}); err != nil {
			return err
		}
		if err := a.skel(l[5], uid, gid); err != nil {
			return err
		}
		if err := a.subordinate(name); err != nil {
			return err
		}
	}
	return sshKeys(a.tree, l[5], u.SSHKeys, uid, gid)
}

func (a *accounts) skel(home string, uid, gid int) error {
	st, err := a.tree.Stat("/etc/skel")
	if err != nil || !st.IsDir() {
		return nil // an image without a skeleton
	}
	return a.copyTree("/etc/skel", home, uid, gid)
}

func (a *accounts) copyTree(from, to string, uid, gid int) error {
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
func (a *accounts) subordinate(name string) error {
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		data, err := a.tree.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		next := 100000
		for line := range strings.Lines(string(data)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			if len(f) != 3 {
				continue
			}
			start, err1 := strconv.Atoi(f[1])
			count, err2 := strconv.Atoi(f[2])
			if err1 == nil && err2 == nil {
				next = max(next, start+count)
			}
		}
		data = fmt.Appendf(data, "%s:%d:65536\n", name, next)
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
		if _, err := a.addGroup(name, p.Groups[name].GID, p.Groups[name].System); err != nil {
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
	a.root(p.Root)
	if err := a.save(); err != nil {
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

func (a *accounts) root(r profiles.Root) {
	hash := r.Password
	if r.Locked != nil && *r.Locked {
		hash = "!" + hash
		if r.Password == "" {
			hash = "!!"
		}
	}
	if hash != "" {
		a.password("root", hash)
	}
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
		switch p.Users[name].Sudo {
		case "all":
			fmt.Fprintf(&own, "%s ALL=(ALL) ALL\n", name)
		case "nopasswd":
			fmt.Fprintf(&own, "%s ALL=(ALL) NOPASSWD: ALL\n", name)
		}
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
