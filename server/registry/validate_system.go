package registry

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"imgbuild/image/plan"
)

var (
	accountText = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?$`) // shadow-utils' rule, and systemd's
	modeText    = regexp.MustCompile(`^0?[0-7]{3,4}$`)
)

// checkUsers checks the accounts that a host gets. What is wrong must not be found on the machine, with its disk erased.
func checkUsers(e *Invalid, users []plan.User) {
	names := map[string]bool{}
	for i, u := range users {
		field := fmt.Sprintf("users[%d].", i)
		if !accountText.MatchString(u.Name) {
			e.add(field+"name", "%q is not a user name: small letters, digits, _ and -, at most 32", u.Name)
		}
		if names[u.Name] {
			e.add(field+"name", "there are two users %s", u.Name)
		}
		names[u.Name] = true
		if u.Password != "" && !crypted(u.Password) {
			e.add(field+"password", "it is not a crypt(5) hash: make one with openssl passwd -6")
		}
		for j, key := range u.SSHKeys {
			if problem := checkSSHKey(key); problem != "" {
				e.add(fmt.Sprintf("%sssh_keys[%d]", field, j), "%s", problem)
			}
		}
		for j, g := range u.Groups {
			if !accountText.MatchString(g) {
				e.add(fmt.Sprintf("%sgroups[%d]", field, j), "%q is not a group's name", g)
			}
		}
		if u.Sudo != "" && u.Sudo != "all" && u.Sudo != "nopasswd" {
			e.add(field+"sudo", "%q is neither all nor nopasswd", u.Sudo)
		}
		if u.UID < 0 || u.UID > 1<<31-2 {
			e.add(field+"uid", "%d is not a user ID", u.UID)
		}
		if u.Shell != "" && (!path.IsAbs(u.Shell) || path.Clean(u.Shell) != u.Shell || strings.ContainsAny(u.Shell, ": \t\n")) {
			e.add(field+"shell", "%q is not the path of a program", u.Shell)
		}
		if problem := checkLine(u.Comment); problem != "" || strings.Contains(u.Comment, ":") {
			e.add(field+"comment", "it is not one line without a colon")
		}
	}
}

// crypted says whether a text can stand in /etc/shadow: a hash with a method in front, or a locked password.
func crypted(s string) bool {
	if strings.ContainsAny(s, ":\n\r\t \x00") {
		return false
	}
	return s == "!" || s == "*" || s == "!!" || (strings.HasPrefix(s, "$") && strings.Count(s, "$") >= 3 && len(s) > 16)
}

// checkSSHKey checks one line of authorized_keys (sshd(8)).
func checkSSHKey(key string) string {
	if strings.ContainsAny(key, "\n\r\x00") {
		return "it is more than one line"
	}
	for word := range strings.FieldsSeq(key) {
		for _, kind := range []string{"ssh-", "ecdsa-", "sk-"} {
			if strings.HasPrefix(word, kind) {
				return ""
			}
		}
	}
	return "it is not a public key, as ssh-ed25519 AAAA… name"
}

// maxPersist bounds how many directories of a live system are kept.
const maxPersist = 16

// checkLive checks what a host is to run from memory.
func checkLive(e *Invalid, l *Live) {
	if l == nil {
		return
	}
	switch {
	case l.Image == "":
		e.add("live.image", "it is missing: the release that is to run, as web or web/1.2")
	case !imageText.MatchString(l.Image):
		e.add("live.image", "%q is not the name of a release, as web or web/1.2", l.Image)
	}
	if _, err := plan.ParseLiveSize(l.Size, 1<<40); err != nil {
		e.add("live.size", "%s", err)
	}
	if len(l.Persist) > maxPersist {
		e.add("live.persist", "it names %d directories, and %d is the most", len(l.Persist), maxPersist)
	}
	dirs := map[string]bool{}
	for i, p := range l.Persist {
		k, err := plan.ParsePersistent(p)
		if err == nil && dirs[k.Dir] {
			err = fmt.Errorf("%s is given twice", k.Dir)
		}
		if err != nil {
			e.add(fmt.Sprintf("live.persist[%d]", i), "%s", err)
		}
		dirs[k.Dir] = true
	}
	if l.Root == "" {
		return
	}
	if _, err := plan.ParseNFSRoot(l.Root); err != nil {
		e.add("live.root", "%s", err)
	}
}

func checkFiles(e *Invalid, files []plan.File) {
	names := map[string]bool{}
	for i, f := range files {
		field := fmt.Sprintf("files[%d].", i)
		switch {
		case !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" || strings.ContainsAny(f.Path, "\n\r\x00"):
			e.add(field+"path", "%q is not the absolute path of a file", f.Path)
		case names[f.Path]:
			e.add(field+"path", "there are two files %s", f.Path)
		}
		names[f.Path] = true
		if f.Mode != "" {
			if _, err := strconv.ParseUint(f.Mode, 8, 32); err != nil || !modeText.MatchString(f.Mode) {
				e.add(field+"mode", "%q is not an octal mode, as 0644", f.Mode)
			}
		}
		if f.Owner != "" && !accountText.MatchString(f.Owner) {
			e.add(field+"owner", "%q is not a user name", f.Owner)
		}
		if f.Group != "" && !accountText.MatchString(f.Group) {
			e.add(field+"group", "%q is not a group's name", f.Group)
		}
	}
}
