package profiles

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// format is what a value may look like. The schema is made from the same table.
type format struct {
	what     string              // completes "is not …", and is the pattern's description
	re       string              // a regular expression over the whole value, for RE2 and JavaScript alike
	enum     []string            // or the only values
	max      int                 // characters; 0 means 4096
	from, to int                 // of numbers
	check    func(string) string // further, in Go: what is wrong, or nothing
	normal   func(string) string // the form that the rest of the program sees
	secret   bool                // the value is never shown
	examples []string
}

const defaultMax = 4096

// formats are the values of the check and keys tags in profile.go.
func formats() map[string]format {
	return map[string]format{
		"extends":               {what: "a shipped profile's name or a file", re: `\S(.*\S)?`, examples: []string{"centos-stream-9", "./base.yaml"}},
		"image-name":            {what: "small letters, digits, dots and dashes, with a letter or digit at both ends", re: `[a-z0-9]([a-z0-9.-]*[a-z0-9])?`, max: 64, examples: []string{"web-node"}},
		"image-version":         {what: "letters, digits and . _ + ~ -, with a letter or digit first", re: `[A-Za-z0-9][A-Za-z0-9._+~-]*`, max: 64, examples: []string{"1", "2025.11-2"}},
		"line":                  {what: "one line of text", re: `[^\r\n]*`},
		"text":                  {what: "text", max: maxSize},
		"arch":                  {enum: []string{"x86_64", "aarch64"}},
		"distro":                {enum: []string{"centos-stream", "centos", "rocky", "almalinux", "rhel", "standin"}},
		"release":               {what: "a release such as 9 or 9.6", re: `[0-9]{1,2}(\.[0-9]{1,4}){0,2}(-stream)?`, examples: []string{"9", "10", "7"}},
		"el-major":              {from: 7, to: 10},
		"dnf-var":               {what: "letters, digits and _", re: `[A-Za-z_][A-Za-z0-9_]*`, max: 64},
		"repository-id":         {what: "letters, digits and . _ : -", re: `[A-Za-z0-9][A-Za-z0-9._:-]*`, max: 128, examples: []string{"baseos"}},
		"url":                   {what: "an address with http, https, ftp or file", re: `(https?|ftp|file)://\S+`, check: checkURL, examples: []string{"https://mirror.example.org/9-stream/BaseOS/$basearch/os/"}},
		"priority":              {from: 1, to: 99},
		"shipped-key":           {enum: keyNames()},
		"fingerprint":           {what: "a fingerprint of 40 or 64 hex digits", re: `\s*([0-9A-Fa-f]\s*){40}|\s*([0-9A-Fa-f]\s*){64}`, max: 128, normal: flatFingerprint, examples: []string{"99DB 70FA E1D7 CE22 7FB6 4882 05B5 55B3 8483 C65D"}},
		"package":               {what: "a package's name, glob, @group, @^environment or file", re: `@\^?[A-Za-z0-9][A-Za-z0-9 ._+-]*(/[a-z,]+)?|[A-Za-z0-9*?\[/][A-Za-z0-9*?\[\]._+:~^/()=<> -]*`, max: 256, check: checkPackage, examples: []string{"@core", "chrony", "kernel-modules-*"}},
		"package-name":          {what: "a package's name", re: `[A-Za-z0-9][A-Za-z0-9._+-]*`, max: 128, examples: []string{"kernel", "kernel-rt"}},
		"package-glob":          {what: "a package's name or glob", re: `[A-Za-z0-9*?\[][A-Za-z0-9*?\[\]._+:~^-]*`, max: 256, examples: []string{"iwl*-firmware"}},
		"language":              {what: "a locale such as en_US", re: `C|POSIX|[a-z]{2,3}(_[A-Z]{2})?(\.[A-Za-z0-9-]+)?(@[a-z]+)?`, max: 32, examples: []string{"en_US"}},
		"module-stream":         {what: "a module and its stream", re: `[A-Za-z0-9._+-]+:[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)?`, max: 128, examples: []string{"nodejs:20"}},
		"user-name":             {what: "a login name, of small letters, digits, _ and -", re: `[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?`, max: 32, examples: []string{"operator"}},
		"group-name":            {what: "a group's name, of small letters, digits, _ and -", re: `[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?`, max: 32, examples: []string{"wheel"}},
		"owner":                 {what: "a user's or group's name or number", re: `[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?|[0-9]{1,10}`, max: 32, examples: []string{"root"}},
		"id":                    {from: 1, to: 4294967294, check: checkID},
		"crypt":                 {what: "a crypt hash, which begins with $6$ or $y$; make one with `openssl passwd -6`", re: cryptPattern, max: 512, secret: true},
		"ssh-key":               {what: "an SSH public key", re: `\s*\S.*`, max: 16384, check: checkSSHKey, secret: true, examples: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ops@example.org"}},
		"absolute":              {what: "an absolute path", re: `/[^\x00-\x1f:]*`, check: checkClean, examples: []string{"/home/operator"}},
		"image-path":            {what: "an absolute path in the image", re: `/[^\x00-\x1f]*`, check: checkImagePath, examples: []string{"/etc/motd"}},
		"image-glob":            {what: "a glob from the root of the image, without a slash at its beginning", re: `[^/\x00-\x1f][^\x00-\x1f]*`, check: checkRelativeGlob, examples: []string{"usr/share/doc/*"}},
		"firmware-glob":         {what: "a glob below /lib/firmware, without a slash at its beginning", re: `[^/\x00-\x1f][^\x00-\x1f]*`, check: checkRelativeGlob, examples: []string{"bnx2x/*"}},
		"host-path":             {what: "a path of the build host", re: `[^\x00-\x1f]+`, check: checkHostPath},
		"link-target":           {what: "where a link leads", re: `[^\x00-\x1f]+`, examples: []string{"../run/resolv.conf"}},
		"gecos":                 {what: "one line without colons", re: `[^\x00-\x1f:]*`, max: 256},
		"user-sudo":             {enum: []string{"all", "nopasswd"}},
		"sudoers-name":          {what: "letters, digits, _ and - (sudo does not read files with a dot in their name)", re: `[A-Za-z0-9_-]+`, max: 64},
		"unit":                  {what: "a systemd unit", re: `[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?`, max: 255, check: checkUnit, normal: normalUnit, examples: []string{"sshd", "fstrim.timer"}},
		"target":                {what: "a systemd target such as multi-user.target", re: `[A-Za-z0-9:_.\\-]+\.target`, max: 255, examples: []string{"multi-user.target"}},
		"timezone":              {what: "a timezone such as Europe/Berlin", re: `[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}`, max: 64, check: checkTimezone, examples: []string{"UTC", "Europe/Berlin"}},
		"locale":                {what: "a locale such as en_US.UTF-8", re: `(C|POSIX|[a-z]{2,3}_[A-Z]{2})(\.[A-Za-z0-9-]+)?(@[a-z]+)?`, max: 32, examples: []string{"C.UTF-8", "en_US.UTF-8"}},
		"keymap":                {what: "a keymap such as us or de-nodeadkeys", re: `[A-Za-z0-9][A-Za-z0-9_.-]*`, max: 64, examples: []string{"us"}},
		"hostname":              {what: "a host name: letters, digits and dashes between dots", re: `[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*`, max: 64, examples: []string{"node.example.org"}},
		"selinux":               {enum: []string{"enforcing", "permissive", "disabled"}},
		"network":               {enum: []string{"nm-keyfile", "ifcfg", "networkd"}},
		"sysctl":                {what: "a kernel parameter such as net.ipv4.ip_forward", re: `[a-z0-9_-]+([./][A-Za-z0-9_*:-]+)+`, max: 256, examples: []string{"net.ipv4.ip_forward"}},
		"firewall-name":         {what: "letters, digits, _ and -", re: `[A-Za-z0-9_-]+`, max: 64, examples: []string{"ssh", "public"}},
		"port":                  {what: "a port or range and its protocol", re: `[0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp|sctp|dccp)`, check: checkPort, examples: []string{"8080/tcp", "5900-5999/tcp"}},
		"kernel-arg":            {what: "one kernel argument without blanks outside of quotes", re: `([^\s"]|"[^"\r\n]*")+`, max: 1024, check: checkKernelArg, examples: []string{"intel_iommu=on"}},
		"serial":                {what: "a serial console such as ttyS0,115200n8", re: `(tty(S|AMA|USB|MV|PS|LP|mxc)[0-9]{1,3}|hvc[0-9]{1,3})(,[0-9]{3,7}([noe]([5-8]r?)?)?)?`, examples: []string{"ttyS0,115200n8"}},
		"module":                {what: "a kernel module's name", re: `[A-Za-z0-9][A-Za-z0-9_-]*`, max: 64, check: checkModule, examples: []string{"br_netfilter"}},
		"template":              {what: "a template", max: maxSize, check: checkTemplate},
		"template-var":          {what: "letters, digits and _", re: `[A-Za-z_][A-Za-z0-9_]*`, max: 64},
		"mode":                  {what: `an octal mode such as "0644"`, re: `0?[0-7]{3,4}`, normal: normalMode, examples: []string{"0644", "0755"}},
		"script-name":           {what: "letters, digits, blanks and . _ -", re: `[A-Za-z0-9][A-Za-z0-9 ._-]*`, max: 64, examples: []string{"tune"}},
		"filesystem":            {enum: []string{"xfs", "ext4"}},
		"boot-size":             sizeFormat(256<<20, 16<<30, "1GiB"),
		"esp-size":              sizeFormat(64<<20, 16<<30, "512MiB"),
		"root-size":             sizeFormat(1<<30, 1<<50, "20GiB"),
		"mount-options":         {what: "mount options with commas between them", re: `[A-Za-z0-9=_.:/+-]+(,[A-Za-z0-9=_.:/+-]+)*`, max: 256, examples: []string{"defaults,noatime"}},
		"pack-level":            {enum: []string{"fast", "normal", "release"}},
		"compressor":            {enum: []string{"zstd", "xz", "gzip", "lz4"}},
		"compression-level":     {from: 1, to: 22},
		"block-size":            {what: "a power of two from 4KiB to 1MiB", re: `(4|8|16|32|64|128|256|512)KiB|1MiB|1024KiB`, examples: []string{"256KiB"}},
		"driver-class":          {enum: []string{"server", "virtual"}},
		"initramfs-compression": {enum: []string{"auto", "zstd", "xz", "gzip"}},
	}
}

func sizeFormat(least, most int64, example string) format {
	return format{
		what: "a size such as " + example, re: `[1-9][0-9]*(KiB|MiB|GiB|TiB)`, max: 32, examples: []string{example},
		check: func(s string) string {
			n, err := ParseSize(s)
			switch {
			case err != nil:
				return fmt.Sprintf("is %s, and not a size such as %s", clip(s), example)
			case n < least:
				return fmt.Sprintf("is %s, less than %s", s, FormatSize(least))
			case n > most:
				return fmt.Sprintf("is %s, more than %s", s, FormatSize(most))
			}
			return ""
		},
	}
}

// ParseSize reads a size as it is written in profiles, such as 512MiB, in bytes.
func ParseSize(s string) (int64, error) {
	for i, unit := range sizeUnits() {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseInt(digits, 10, 64)
			shift := 10 * (i + 1)
			if err != nil || n < 0 || n > (1<<62)>>shift {
				return 0, fmt.Errorf("%s is not a size", clip(s))
			}
			return n << shift, nil
		}
	}
	return 0, fmt.Errorf("%s is not a size; write it as 512MiB or 1GiB", clip(s))
}

// FormatSize writes bytes as ParseSize reads them, in the largest unit that divides them.
func FormatSize(n int64) string {
	units := sizeUnits()
	for i := len(units) - 1; i >= 0; i-- {
		if unit := int64(1) << (10 * (i + 1)); n >= unit && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + units[i]
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

func sizeUnits() []string { return []string{"KiB", "MiB", "GiB", "TiB"} }

// checker holds the formats with their expressions compiled, for one load.
type checker struct {
	formats map[string]format
	re      map[string]*regexp.Regexp
}

func newChecker() *checker {
	return &checker{formats: formats(), re: map[string]*regexp.Regexp{}}
}

func (c *checker) matches(name string, f format, s string) bool {
	if f.re == "" {
		return true
	}
	re, ok := c.re[name]
	if !ok {
		re = regexp.MustCompile(`^(?:` + f.re + `)$`) // the expressions are ours; a test compiles them all
		c.re[name] = re
	}
	return re.MatchString(s)
}

// text says what is wrong with the text s of the format name: a predicate such as "is not a size", or nothing.
func (c *checker) text(name, s string) string {
	f := c.formats[name]
	shown := clip(s)
	if f.secret {
		shown = "the value"
	}
	switch {
	case f.enum != nil:
		for _, e := range f.enum {
			if s == e {
				return ""
			}
		}
		return fmt.Sprintf("is %s; it can be %s%s", shown, list(f.enum, "or"), didYouMean(s, f.enum))
	case utf8.RuneCountInString(s) > f.limit():
		return fmt.Sprintf("has %d characters, more than %d", utf8.RuneCountInString(s), f.limit())
	case !c.matches(name, f, s):
		if f.check != nil {
			// the more particular sentence, if there is one
			if p := f.check(s); p != "" {
				return p
			}
		}
		if f.secret {
			return "is not " + f.what + " (the value is not shown)"
		}
		return fmt.Sprintf("is %s, and not %s", shown, f.what)
	case f.check != nil:
		return f.check(s)
	}
	return ""
}

// limit is how many characters a value may have.
func (f format) limit() int {
	if f.max == 0 {
		return defaultMax
	}
	return f.max
}
