// Package accounts edits the account files of an image: passwd, shadow, group, gshadow, subuid and subgid, as useradd and
// groupadd would. The files' texts come in; changed texts go out.
//
// It reads and writes no file and makes no directory: builder and installer do, each with the owners and labels that it
// knows of. Lines that it does not understand stay as they are.
package accounts

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Files are the four files' texts. A file that is not there is empty.
type Files struct {
	Passwd, Shadow, Group, Gshadow string
}

// Accounts are the files' lines.
type Accounts struct {
	passwd, shadow, group, gshadow table
	day                            string // days since 1970, for shadow
}

// table is one of the files: lines of fields between colons.
type table struct {
	name  string
	lines [][]string
}

// Parse reads the files. now is when passwords count as changed.
func Parse(f Files, now time.Time) (*Accounts, error) {
	a := &Accounts{
		passwd: parse("/etc/passwd", f.Passwd), shadow: parse("/etc/shadow", f.Shadow), group: parse("/etc/group", f.Group), gshadow: parse("/etc/gshadow", f.Gshadow),
		day: strconv.FormatInt(now.Unix()/86400, 10),
	}
	if len(a.passwd.lines) == 0 || len(a.group.lines) == 0 {
		return nil, errors.New("read the image's accounts: /etc/passwd or /etc/group is missing or empty; the package setup is not installed")
	}
	return a, nil
}

func parse(name, text string) table {
	t := table{name: name}
	for line := range strings.Lines(text) {
		t.lines = append(t.lines, strings.Split(strings.TrimRight(line, "\n"), ":"))
	}
	return t
}

// Files returns the files as they are now.
func (a *Accounts) Files() Files {
	return Files{a.passwd.text(), a.shadow.text(), a.group.text(), a.gshadow.text()}
}

func (t *table) text() string {
	var b strings.Builder
	for _, l := range t.lines {
		b.WriteString(strings.Join(l, ":") + "\n")
	}
	return b.String()
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

// AddGroup adds a group, with the given number or a free one. A group that is there with that number is fine.
func (a *Accounts) AddGroup(name string, gid *int, system bool) error {
	_, err := a.addGroup(name, gid, system)
	return err
}

func (a *Accounts) addGroup(name string, gid *int, system bool) (string, error) {
	if l := a.group.find(name, 4); l != nil {
		if gid != nil && l[2] != strconv.Itoa(*gid) {
			return "", fmt.Errorf("give the group %s the GID %d: a package made it with GID %s already", name, *gid, l[2])
		}
		return l[2], nil
	}
	if err := plain(name); err != nil {
		return "", fmt.Errorf("add the group %s: %w", name, err)
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

func (a *Accounts) join(user, group string) error {
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

// Password sets an account's password, a crypt(5) hash or what locks it.
func (a *Accounts) Password(user, hash string) error {
	if err := plain(hash); err != nil {
		return fmt.Errorf("set the password of %s: %w", user, err)
	}
	if l := a.shadow.find(user, 9); l != nil {
		l[1], l[2] = hash, a.day
		return nil
	}
	a.shadow.lines = append(a.shadow.lines, []string{user, hash, a.day, "0", "99999", "7", "", "", ""})
	return nil
}

// plain refuses what would be more than one field.
func plain(fields ...string) error {
	for _, f := range fields {
		if strings.ContainsAny(f, ":\n\x00") {
			return errors.New("a field has a colon or a line break")
		}
	}
	return nil
}

// User is an account that is to be added or changed. A zero field keeps what is there, or takes useradd's default.
type User struct {
	Name   string
	UID    *int
	Group  string   // primary; must exist
	Groups []string // must exist
	// Password is a crypt(5) hash; a new account without one is locked.
	Password             string
	Home, Shell, Comment string
	System               bool
}

// Entry is an account as it is afterwards.
type Entry struct {
	UID, GID int
	Home     string
	// Fresh is true when there was no such account before.
	Fresh bool
}

// AddUser adds an account, or changes the one of that name.
func (a *Accounts) AddUser(u User) (Entry, error) {
	l := a.passwd.find(u.Name, 7)
	fresh := l == nil
	if fresh {
		uid, err := number(&a.passwd, &a.group, u.UID, u.System)
		if err != nil {
			return Entry{}, fmt.Errorf("add the user %s: %w", u.Name, err)
		}
		l = []string{u.Name, "x", uid, "", "", "", ""}
	} else if u.UID != nil && l[2] != strconv.Itoa(*u.UID) {
		return Entry{}, fmt.Errorf("give the user %s the UID %d: a package made it with UID %s already", u.Name, *u.UID, l[2])
	}
	if fresh || u.Group != "" {
		gid, err := a.primaryGroup(l[2], u)
		if err != nil {
			return Entry{}, err
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
	set(5, u.Home, path.Join("/home", u.Name))
	set(6, u.Shell, shell)
	if err := plain(l...); err != nil {
		return Entry{}, fmt.Errorf("add the user %s: %w", u.Name, err)
	}
	if fresh {
		a.passwd.lines = append(a.passwd.lines, l)
	}
	var err error
	switch {
	case u.Password != "":
		err = a.Password(u.Name, u.Password)
	case fresh:
		err = a.Password(u.Name, "!!")
	}
	if err != nil {
		return Entry{}, err
	}
	for _, g := range u.Groups {
		if err := a.join(u.Name, g); err != nil {
			return Entry{}, err
		}
	}
	uid, err1 := strconv.Atoi(l[2])
	gid, err2 := strconv.Atoi(l[3])
	if err := errors.Join(err1, err2); err != nil {
		return Entry{}, fmt.Errorf("add the user %s: %w", u.Name, err)
	}
	return Entry{UID: uid, GID: gid, Home: l[5], Fresh: fresh}, nil
}

func (a *Accounts) primaryGroup(uid string, u User) (string, error) {
	if u.Group != "" {
		g := a.group.find(u.Group, 4)
		if g == nil {
			return "", fmt.Errorf("give the user %s the group %s: neither a package nor the profile makes that group", u.Name, u.Group)
		}
		return g[2], nil
	}
	// A group of the user's own has the user's number if that is free.
	if n, err := strconv.Atoi(uid); err == nil && !slices.ContainsFunc(a.group.lines, func(l []string) bool { return len(l) > 2 && l[2] == uid }) {
		return a.addGroup(u.Name, &n, u.System)
	}
	return a.addGroup(u.Name, nil, u.System)
}

// Lookup finds the number of a user or, with group, of a group. A number is taken as it is; no name is root.
func (a *Accounts) Lookup(name string, group bool) (int, error) {
	t, what := &a.passwd, "user"
	if group {
		t, what = &a.group, "group"
	}
	if name == "" || name == "root" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	l := t.find(name, 3)
	if l == nil {
		return 0, fmt.Errorf("the image has no %s %s", what, name)
	}
	n, err := strconv.Atoi(l[2])
	if err != nil {
		return 0, fmt.Errorf("find the %s %s: %s has the number %q for it", what, name, t.name, l[2])
	}
	return n, nil
}

// Subordinate adds a range of subordinate IDs for a person to the text of subuid or subgid, as useradd does.
func Subordinate(text, name string) string {
	next := 100000
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		if f[0] == name {
			return text
		}
		start, err1 := strconv.Atoi(f[1])
		count, err2 := strconv.Atoi(f[2])
		if err1 == nil && err2 == nil {
			next = max(next, start+count)
		}
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text + fmt.Sprintf("%s:%d:65536\n", name, next)
}

// SudoRule is the line of sudoers(5) that lets a user become root: all asks for the password, nopasswd does not. Anything
// else gives none.
func SudoRule(user, how string) string {
	switch how {
	case "all":
		return user + " ALL=(ALL) ALL\n"
	case "nopasswd":
		return user + " ALL=(ALL) NOPASSWD: ALL\n"
	}
	return ""
}
