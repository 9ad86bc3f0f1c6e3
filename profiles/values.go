package profiles

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
	_ "time/tzdata" // timezones are checked the same on every build host
	"unicode"

	"imgbuild/profiles/strict"
)

// cryptPattern are the crypt(5) hashes that the libraries of EL7 to EL10 read and that are still strong: SHA-256,
// SHA-512, bcrypt, scrypt, yescrypt and gost-yescrypt. MD5 and DES are not: a DES hash looks like a plain password.
const cryptPattern = `\$[56]\$(rounds=[0-9]{4,9}\$)?[./0-9A-Za-z]{1,16}\$([./0-9A-Za-z]{43}|[./0-9A-Za-z]{86})` +
	`|\$g?y\$[./0-9A-Za-z]+\$[./0-9A-Za-z]{1,86}\$[./0-9A-Za-z]{43}` +
	`|\$7\$[./0-9A-Za-z]{11,97}\$[./0-9A-Za-z]{43}` +
	`|\$2[abxy]\$[0-9]{2}\$[./0-9A-Za-z]{53}`

func checkURL(s string) string {
	scheme, _, ok := strings.Cut(s, "://")
	if !ok || !slices.Contains([]string{"http", "https", "ftp", "file"}, scheme) {
		return fmt.Sprintf("is %s, which does not begin with http://, https://, ftp:// or file://", strict.Clip(hideUser(s)))
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "is not an address that can be read"
	case scheme == "file" && (u.Host != "" || !path.IsAbs(u.Path)):
		return fmt.Sprintf("is %s; after file:// comes an absolute path, so three slashes", strict.Clip(s))
	case scheme != "file" && u.Hostname() == "":
		return fmt.Sprintf("is %s, which names no host", strict.Clip(s))
	case u.Fragment != "":
		return fmt.Sprintf("is %s, and a repository's address has no #", strict.Clip(hideUser(s)))
	}
	return ""
}

// checkTracker checks a tracker's address. Who fetches by BitTorrent reads it, so it is no place for a password.
func checkTracker(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "is not an address that can be read"
	case u.Scheme == "":
		return "" // the pattern has a better word for it
	case u.Hostname() == "":
		return fmt.Sprintf("is %s, which names no host", strict.Clip(hideUser(s)))
	case u.User != nil:
		return fmt.Sprintf("is %s with a user in it, which everybody who has the release can read", strict.Clip(hideUser(s)))
	case u.Scheme == "udp" && u.Port() == "":
		return fmt.Sprintf("is %s, and a tracker's address with udp has a port", strict.Clip(s))
	case u.Fragment != "":
		return fmt.Sprintf("is %s, and a tracker's address has no #", strict.Clip(s))
	}
	return ""
}

// checkWebSeed checks the address of a directory, which paths are added to.
func checkWebSeed(s string) string {
	if p := checkTracker(s); p != "" {
		return strings.Replace(p, "a tracker's", "a web seed's", 1)
	}
	if strings.Contains(s, "?") {
		return fmt.Sprintf("is %s; it is a directory's address, and has no ?", strict.Clip(s))
	}
	if strings.HasSuffix(s, "/rootfs.squashfs") {
		return fmt.Sprintf("is %s; write the directory that has NAME/VERSION/ in it", strict.Clip(s))
	}
	return ""
}

// hideUser takes a user's name and password out of an address that is going to be shown.
func hideUser(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	host, tail, slash := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	if slash {
		host += "/"
	}
	return scheme + "://" + host + tail
}

func checkPackage(s string) string {
	switch {
	case strings.HasPrefix(s, "-"):
		return fmt.Sprintf("is %s; packages that are left out go into packages.exclude", strict.Clip(s))
	case strings.HasSuffix(s, ".rpm"):
		return fmt.Sprintf("is %s; packages come from repositories, not from files", strict.Clip(s))
	case s == "*":
		return "is every package; name those that are wanted"
	}
	return ""
}

func checkID(s string) string {
	if s == "65535" {
		return "is 65535, which programs take for no ID at all"
	}
	return ""
}

func checkClean(s string) string {
	if path.Clean(s) != s {
		return fmt.Sprintf("is %s; write it as %s", strict.Clip(s), strict.Clip(path.Clean(s)))
	}
	return ""
}

func checkImagePath(s string) string {
	if !path.IsAbs(s) {
		return fmt.Sprintf("is %s, and a path in the image begins with a slash", strict.Clip(s))
	}
	if p := checkClean(s); p != "" {
		return p
	}
	if s == "/" {
		return `is "/", the whole image; name what is in it`
	}
	for _, d := range []string{"/proc", "/sys", "/dev", "/run"} {
		if s == d || strings.HasPrefix(s, d+"/") {
			return fmt.Sprintf("is %s, and %s is empty in an image", strict.Clip(s), d)
		}
	}
	return ""
}

func checkRelativeGlob(s string) string {
	if strings.HasPrefix(s, "/") {
		return fmt.Sprintf("is %s; write it without the slash at its beginning", strict.Clip(s))
	}
	if slices.Contains(strings.Split(s, "/"), "..") {
		return fmt.Sprintf("is %s, and .. leads out", strict.Clip(s))
	}
	return checkGlob(s)
}

func checkGlob(s string) string {
	if _, err := path.Match(s, ""); err != nil {
		return fmt.Sprintf("is %s, which is not a glob: a [ or \\ is left open", strict.Clip(s))
	}
	return ""
}

func checkHostPath(s string) string {
	if strings.HasPrefix(s, "~") {
		return fmt.Sprintf("is %s; the ~ is not expanded, so write the whole path", strict.Clip(s))
	}
	return ""
}

func unitTypes() []string {
	return []string{"service", "socket", "target", "timer", "mount", "automount", "swap", "path", "slice", "scope", "device"}
}

// unitType returns the type of a unit's name, or nothing when it has none, as in sshd.
func unitType(s string) string {
	if i := strings.LastIndexByte(s, '.'); i >= 0 {
		return s[i+1:]
	}
	return ""
}

func checkUnit(s string) string {
	t := unitType(s)
	switch {
	case strings.HasSuffix(s, "@") || strings.HasSuffix(s, "@."+t):
		return "" // a template; enabling it takes its DefaultInstance
	case t == "" || slices.Contains(unitTypes(), t):
		return ""
	}
	if near := strict.Suggest(t, unitTypes()); near != "" {
		return fmt.Sprintf("is %s; did you mean %s?", strict.Clip(s), strings.TrimSuffix(s, t)+near)
	}
	return "" // a dot inside of a service's name, such as dbus-org.example
}

func normalUnit(s string) string {
	if !slices.Contains(unitTypes(), unitType(s)) {
		return s + ".service"
	}
	return s
}

func checkTimezone(s string) string {
	if s == "Local" || strings.Contains(s, "..") {
		return fmt.Sprintf("is %s, and not a name of the tz database such as UTC or Europe/Berlin", strict.Clip(s))
	}
	if _, err := time.LoadLocation(s); err != nil {
		return fmt.Sprintf("is %s, which the tz database does not have; names are like UTC or Europe/Berlin", strict.Clip(s))
	}
	return ""
}

func checkPort(s string) string {
	numbers, _, ok := strings.Cut(s, "/")
	if !ok {
		return fmt.Sprintf("is %s; write the protocol too, as in 8080/tcp", strict.Clip(s))
	}
	from, to, isRange := strings.Cut(numbers, "-")
	if !isRange {
		to = from
	}
	a, errA := strconv.Atoi(from)
	b, errB := strconv.Atoi(to)
	if errA != nil || errB != nil || a < 1 || b > 65535 || a > b {
		return fmt.Sprintf("is %s, and ports are 1 to 65535, the smaller first", strict.Clip(s))
	}
	return ""
}

func checkKernelArg(s string) string {
	if strings.ContainsFunc(s, unicode.IsSpace) && !strings.Contains(s, `"`) {
		return fmt.Sprintf("is %s; give each argument as its own item", strict.Clip(s))
	}
	key, _, _ := strings.Cut(s, "=")
	switch {
	case key == "root", key == "initrd", key == "BOOT_IMAGE", key == "rootflags", key == "rootfstype":
		return fmt.Sprintf("is %s, and %s= is set by the installer, which knows the disk", strict.Clip(s), key)
	case key == "ro", key == "rw":
		return fmt.Sprintf("is %s, which the installer sets", strict.Clip(s))
	case strings.HasPrefix(key, "imgbuild."):
		return fmt.Sprintf("is %s, and imgbuild.* are the installer's arguments, not the installed system's", strict.Clip(s))
	}
	return ""
}

func checkModule(s string) string {
	for _, end := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if name, ok := strings.CutSuffix(s, end); ok {
			return fmt.Sprintf("is %s; write the module's name: %s", strict.Clip(s), path.Base(name))
		}
	}
	return ""
}

// checkTemplate reads a template as the builder does, with the functions that every template has.
func checkTemplate(s string) string {
	if _, err := template.New("template").Parse(s); err != nil {
		return "is not a template: " + strings.TrimPrefix(err.Error(), "template: ")
	}
	return ""
}

func normalMode(s string) string {
	return fmt.Sprintf("%04s", strings.TrimLeft(s, "0"))
}

func flatFingerprint(s string) string {
	return strings.ToUpper(strings.Join(strings.Fields(s), ""))
}
