package answers

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"imgbuild/image/accounts"
	"imgbuild/image/plan"
	"imgbuild/installer/cmdline"
	"imgbuild/profiles/strict"
)

// hash are the crypt(5) hashes that profiles take: those that EL's C libraries read and that are still strong.
const hash = `^(?:\$[56]\$(?:rounds=[0-9]{4,9}\$)?[./0-9A-Za-z]{1,16}\$(?:[./0-9A-Za-z]{43}|[./0-9A-Za-z]{86})` +
	`|\$g?y\$[./0-9A-Za-z]+\$[./0-9A-Za-z]{1,86}\$[./0-9A-Za-z]{43}` +
	`|\$7\$[./0-9A-Za-z]{11,97}\$[./0-9A-Za-z]{43}` +
	`|\$2[abxy]\$[0-9]{2}\$[./0-9A-Za-z]{53})$`

var (
	hashText    = regexp.MustCompile(hash)
	accountText = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?$`)
	ownerText   = regexp.MustCompile(`^(?:[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?|[0-9]{1,10})$`)
	modeText    = regexp.MustCompile(`^0?[0-7]{3,4}$`)
	labelText   = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)
	consoleText = regexp.MustCompile(`^(?:tty(?:S|AMA|USB|MV|PS|LP|mxc)[0-9]{1,3}|hvc[0-9]{1,3})(?:,[0-9]{3,7}(?:[noe](?:[5-8]r?)?)?)?$`)
)

// at notes a mistake of the value at a path.
func (p *parser) at(path, format string, a ...any) { p.bad(p.places[path], path, format, a...) }

// check finds what is wrong with values that can be read.
func (p *parser) check(a Answers) {
	if a.Schema != 0 && a.Schema != plan.Schema {
		p.at("schema", "is %d, and this installer knows %d: write the answers anew, or boot the release that they were made with", a.Schema, plan.Schema)
	}
	for _, l := range []struct {
		key    string
		values []string
	}{{"disks", a.Disks}, {"wipe", a.Wipe}, {"unseal", a.Unseal}} {
		for i, v := range l.values {
			path := fmt.Sprintf("%s[%d]", l.key, i)
			if problem := checkWord(v, l.key != "unseal"); problem != "" {
				p.at(path, "%s", problem)
			} else if slices.Contains(l.values[:i], v) {
				p.at(path, "names %s a second time", strict.Clip(v))
			}
		}
	}
	done := []string{"", string(cmdline.DoneReboot), string(cmdline.DoneKexec), string(cmdline.DonePoweroff), string(cmdline.DoneWait)}
	if !slices.Contains(done, a.Done) {
		p.at("done", "is %s; it can be %s%s", strict.Clip(a.Done), strict.List(done[1:], "or"), strict.DidYouMean(a.Done, done[1:]))
	}
	if a.Layout != nil {
		for _, problem := range a.Layout.Problems() {
			p.at(p.nearest(append([]string{"layout"}, problem.Path...)), "%s", problem.Text)
		}
	}
	p.host(a.Host)
}

// nearest is the path of a value in the file, or of the nearest thing that would hold it, from keys and indexes.
func (p *parser) nearest(elements []string) string {
	found, path := "", ""
	for _, e := range elements {
		if strings.Trim(e, "0123456789") == "" {
			path += "[" + e + "]"
		} else {
			path = strict.Join(path, e)
		}
		if _, ok := p.places[path]; ok {
			found = path
		}
	}
	return found
}

// checkWord says what is wrong with a disk or a serial number, as a predicate.
func checkWord(s string, disk bool) string {
	switch {
	case strings.TrimSpace(s) == "":
		return "is blank; give a serial number"
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		return "has control characters"
	case !disk || !strings.Contains(s, "/"):
		return ""
	case !strings.HasPrefix(s, "/dev/") || path.Clean(s) != s:
		return fmt.Sprintf("is %s, a path that does not lie below /dev; give a serial number, a WWN or a path below /dev", strict.Clip(s))
	}
	return ""
}

func (p *parser) host(h plan.Host) {
	if h.Hostname != "" {
		if problem := CheckHostname(h.Hostname); problem != "" {
			p.at("host.hostname", "is %s", problem)
		}
	}
	if h.SerialConsole != "" && !consoleText.MatchString(h.SerialConsole) {
		p.at("host.serial_console", "is %s, and not a console such as ttyS1,115200n8", strict.Clip(h.SerialConsole))
	}
	if h.Network != nil {
		for _, problem := range NetworkProblems(*h.Network) {
			p.at("host.network", "is wrong: %s", problem)
		}
	}
	names := map[string]bool{}
	for i, u := range h.Users {
		at := fmt.Sprintf("host.users[%d]", i)
		if names[u.Name] {
			p.at(at, "is %s for the second time", strict.Clip(u.Name))
		}
		names[u.Name] = true
		p.user(at, u)
	}
	files := map[string]bool{}
	for i, f := range h.Files {
		at := fmt.Sprintf("host.files[%d]", i)
		if files[f.Path] {
			p.at(at, "is %s for the second time", strict.Clip(f.Path))
		}
		files[f.Path] = true
		p.file(at, f)
	}
	if len(h.Metadata) > 0 {
		var object map[string]json.RawMessage
		if json.Unmarshal(h.Metadata, &object) != nil || object == nil {
			p.at("host.metadata", "is not an object")
		}
	}
}

func (p *parser) user(at string, u plan.User) {
	inside := func(key, format string, a ...any) { p.at(at+"."+key, format, a...) }
	if u.Name == "" {
		p.at(at, "has no name")
	} else if !accountText.MatchString(u.Name) {
		inside("name", "is %s, and not a login name of small letters, digits, _ and -", strict.Clip(u.Name))
	}
	if u.Password != "" && !hashText.MatchString(u.Password) {
		inside("password", "is not a crypt hash (the value is not shown); make one with `openssl passwd -6`, and never write a password as it is")
	}
	for i, k := range u.SSHKeys {
		if problem := accounts.CheckSSHKey(k); problem != "" {
			inside(fmt.Sprintf("ssh_keys[%d]", i), "%s", problem)
		}
	}
	for i, g := range u.Groups {
		if !accountText.MatchString(g) {
			inside(fmt.Sprintf("groups[%d]", i), "is %s, and not a group's name", strict.Clip(g))
		}
	}
	if u.Sudo != "" && u.Sudo != "all" && u.Sudo != "nopasswd" {
		inside("sudo", "is %s; it can be all or nopasswd", strict.Clip(u.Sudo))
	}
	if u.UID < 0 || u.UID > 1<<31-2 {
		inside("uid", "is %d, which is no user ID", u.UID)
	}
	if u.Shell != "" && (!path.IsAbs(u.Shell) || path.Clean(u.Shell) != u.Shell || strings.ContainsAny(u.Shell, ": \t\r\n\x00")) {
		inside("shell", "is %s, and not the path of a program", strict.Clip(u.Shell))
	}
	if strings.ContainsAny(u.Comment, ":\r\n\x00") {
		inside("comment", "is not one line without a colon")
	}
}

func (p *parser) file(at string, f plan.File) {
	if f.Path == "" {
		p.at(at, "has no path")
	} else if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" || strings.ContainsAny(f.Path, "\r\n\x00") {
		p.at(at+".path", "is %s, and not the absolute path of a file", strict.Clip(f.Path))
	}
	if f.Mode != "" && !modeText.MatchString(f.Mode) {
		p.at(at+".mode", "is %s, and not an octal mode such as \"0644\"", strict.Clip(f.Mode))
	}
	for _, o := range []struct{ key, name string }{{"owner", f.Owner}, {"group", f.Group}} {
		if o.name != "" && !ownerText.MatchString(o.name) {
			p.at(at+"."+o.key, "is %s, and not a name or a number", strict.Clip(o.name))
		}
	}
}

// NetworkProblems are all that is wrong with a network, a sentence each.
func NetworkProblems(n plan.Network) []string {
	err := n.Validate()
	if err == nil {
		return nil
	}
	errs := []error{err}
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		errs = many.Unwrap()
	}
	var out []string
	for _, e := range errs {
		out = append(out, strings.TrimPrefix(e.Error(), "network: "))
	}
	return out
}

// CheckHostname says what is wrong with a host name (RFC 1123, 2.1, and Linux's limit), or nothing: "web_1, and …".
func CheckHostname(name string) string {
	if len(name) > 64 {
		return fmt.Sprintf("%d characters long, and Linux takes 64", len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if !labelText.MatchString(label) {
			return strict.Clip(name) + ", and a host name has letters, digits and dashes between its dots, and no dash first or last"
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return strict.Clip(name) + ", which is an address and not a name"
	}
	return ""
}
