package profiles

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"imgbuild/image/accounts"
	"imgbuild/profiles/strict"
)

// formats are the values of the check and keys tags in profile.go and in a layout's types.
func formats() map[string]strict.Format {
	all := layoutFormats()
	maps.Copy(all, map[string]strict.Format{
		"extends":               {What: "a shipped profile's name or a file", Pattern: `\S(.*\S)?`, Examples: []string{"centos-stream-9", "./base.yaml"}},
		"image-name":            {What: "small letters, digits, dots and dashes, with a letter or digit at both ends", Pattern: `[a-z0-9]([a-z0-9.-]*[a-z0-9])?`, Max: 64, Examples: []string{"web-node"}},
		"image-version":         {What: "letters, digits and . _ + ~ -, with a letter or digit first", Pattern: `[A-Za-z0-9][A-Za-z0-9._+~-]*`, Max: 64, Examples: []string{"1", "2025.11-2"}},
		"line":                  {What: "one line of text", Pattern: `[^\r\n]*`},
		"text":                  {What: "text", Max: strict.MaxSize, Full: true},
		"arch":                  {Enum: []string{"x86_64", "aarch64"}},
		"distro":                {Enum: []string{"centos-stream", "centos", "rocky", "almalinux", "rhel", "standin"}},
		"release":               {What: "a release such as 9 or 9.6", Pattern: `[0-9]{1,2}(\.[0-9]{1,4}){0,2}(-stream)?`, Examples: []string{"9", "10", "7"}},
		"el-major":              {From: 7, To: 10},
		"dnf-var":               {What: "letters, digits and _", Pattern: `[A-Za-z_][A-Za-z0-9_]*`, Max: 64},
		"repository-id":         {What: "letters, digits and . _ : -", Pattern: `[A-Za-z0-9][A-Za-z0-9._:-]*`, Max: 128, Examples: []string{"baseos"}},
		"url":                   {What: "an address with http, https, ftp or file", Pattern: `(https?|ftp|file)://\S+`, Check: checkURL, Examples: []string{"https://mirror.example.org/9-stream/BaseOS/$basearch/os/"}},
		"priority":              {From: 1, To: 99},
		"shipped-key":           {Enum: keyNames()},
		"fingerprint":           {What: "a fingerprint of 40 or 64 hex digits", Pattern: `\s*([0-9A-Fa-f]\s*){40}|\s*([0-9A-Fa-f]\s*){64}`, Max: 128, Normal: flatFingerprint, Examples: []string{"99DB 70FA E1D7 CE22 7FB6 4882 05B5 55B3 8483 C65D"}},
		"package":               {What: "a package's name, glob, @group, @^environment or file", Pattern: `@\^?[A-Za-z0-9][A-Za-z0-9 ._+-]*(/[a-z,]+)?|[A-Za-z0-9*?\[/][A-Za-z0-9*?\[\]._+:~^/()=<> -]*`, Max: 256, Check: checkPackage, Examples: []string{"@core", "chrony", "kernel-modules-*"}},
		"package-name":          {What: "a package's name", Pattern: `[A-Za-z0-9][A-Za-z0-9._+-]*`, Max: 128, Examples: []string{"kernel", "kernel-rt"}},
		"package-glob":          {What: "a package's name or glob", Pattern: `[A-Za-z0-9*?\[][A-Za-z0-9*?\[\]._+:~^-]*`, Max: 256, Examples: []string{"iwl*-firmware"}},
		"language":              {What: "a locale such as en_US", Pattern: `C|POSIX|[a-z]{2,3}(_[A-Z]{2})?(\.[A-Za-z0-9-]+)?(@[a-z]+)?`, Max: 32, Examples: []string{"en_US"}},
		"module-stream":         {What: "a module and its stream", Pattern: `[A-Za-z0-9._+-]+:[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)?`, Max: 128, Examples: []string{"nodejs:20"}},
		"user-name":             {What: "a login name, of small letters, digits, _ and -", Pattern: `[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?`, Max: 32, Examples: []string{"operator"}},
		"group-name":            {What: "a group's name, of small letters, digits, _ and -", Pattern: `[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?`, Max: 32, Examples: []string{"wheel"}},
		"owner":                 {What: "a user's or group's name or number", Pattern: `[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?|[0-9]{1,10}`, Max: 32, Examples: []string{"root"}},
		"id":                    {From: 1, To: 4294967294, Check: checkID},
		"crypt":                 {What: "a crypt hash, which begins with $6$ or $y$; make one with `openssl passwd -6`", Pattern: cryptPattern, Max: 512, Secret: true},
		"ssh-key":               {What: "an SSH public key", Pattern: `\s*\S.*`, Max: 16384, Check: accounts.CheckSSHKey, Secret: true, Examples: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ops@example.org"}},
		"absolute":              {What: "an absolute path", Pattern: `/[^\x00-\x1f:]*`, Check: checkClean, Examples: []string{"/home/operator"}},
		"image-path":            {What: "an absolute path in the image", Pattern: `/[^\x00-\x1f]*`, Check: checkImagePath, Examples: []string{"/etc/motd"}},
		"image-glob":            {What: "a glob from the root of the image, without a slash at its beginning", Pattern: `[^/\x00-\x1f][^\x00-\x1f]*`, Check: checkRelativeGlob, Examples: []string{"usr/share/doc/*"}},
		"firmware-glob":         {What: "a glob below /lib/firmware, without a slash at its beginning", Pattern: `[^/\x00-\x1f][^\x00-\x1f]*`, Check: checkRelativeGlob, Examples: []string{"bnx2x/*"}},
		"host-path":             {What: "a path of the build host", Pattern: `[^\x00-\x1f]+`, Check: checkHostPath, HostPath: true},
		"link-target":           {What: "where a link leads", Pattern: `[^\x00-\x1f]+`, Examples: []string{"../run/resolv.conf"}},
		"gecos":                 {What: "one line without colons", Pattern: `[^\x00-\x1f:]*`, Max: 256},
		"user-sudo":             {Enum: []string{"all", "nopasswd"}},
		"sudoers-name":          {What: "letters, digits, _ and - (sudo does not read files with a dot in their name)", Pattern: `[A-Za-z0-9_-]+`, Max: 64},
		"unit":                  {What: "a systemd unit", Pattern: `[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?`, Max: 255, Check: checkUnit, Normal: normalUnit, Examples: []string{"sshd", "fstrim.timer"}},
		"target":                {What: "a systemd target such as multi-user.target", Pattern: `[A-Za-z0-9:_.\\-]+\.target`, Max: 255, Examples: []string{"multi-user.target"}},
		"timezone":              {What: "a timezone such as Europe/Berlin", Pattern: `[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}`, Max: 64, Check: checkTimezone, Examples: []string{"UTC", "Europe/Berlin"}},
		"locale":                {What: "a locale such as en_US.UTF-8", Pattern: `(C|POSIX|[a-z]{2,3}_[A-Z]{2})(\.[A-Za-z0-9-]+)?(@[a-z]+)?`, Max: 32, Examples: []string{"C.UTF-8", "en_US.UTF-8"}},
		"keymap":                {What: "a keymap such as us or de-nodeadkeys", Pattern: `[A-Za-z0-9][A-Za-z0-9_.-]*`, Max: 64, Examples: []string{"us"}},
		"hostname":              {What: "a host name: letters, digits and dashes between dots", Pattern: `[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*`, Max: 64, Examples: []string{"node.example.org"}},
		"selinux":               {Enum: []string{"enforcing", "permissive", "disabled"}},
		"network":               {Enum: []string{"nm-keyfile", "ifcfg", "networkd"}},
		"sysctl":                {What: "a kernel parameter such as net.ipv4.ip_forward", Pattern: `[a-z0-9_-]+([./][A-Za-z0-9_*:-]+)+`, Max: 256, Examples: []string{"net.ipv4.ip_forward"}},
		"firewall-name":         {What: "letters, digits, _ and -", Pattern: `[A-Za-z0-9_-]+`, Max: 64, Examples: []string{"ssh", "public"}},
		"port":                  {What: "a port or range and its protocol", Pattern: `[0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp|sctp|dccp)`, Check: checkPort, Examples: []string{"8080/tcp", "5900-5999/tcp"}},
		"kernel-arg":            {What: "one kernel argument without blanks outside of quotes", Pattern: `([^\s"]|"[^"\r\n]*")+`, Max: 1024, Check: checkKernelArg, Examples: []string{"intel_iommu=on"}},
		"serial":                {What: "a serial console such as ttyS0,115200n8", Pattern: `(tty(S|AMA|USB|MV|PS|LP|mxc)[0-9]{1,3}|hvc[0-9]{1,3})(,[0-9]{3,7}([noe]([5-8]r?)?)?)?`, Examples: []string{"ttyS0,115200n8"}},
		"model-glob":            {What: "a glob over a machine's vendor and product, with a blank between them", Pattern: `[^\s\x00-\x1f]([^\x00-\x1f]*[^\s\x00-\x1f])?`, Max: 256, Check: checkGlob, Examples: []string{"Dell Inc. PowerEdge R6?0*"}},
		"module":                {What: "a kernel module's name", Pattern: `[A-Za-z0-9][A-Za-z0-9_-]*`, Max: 64, Check: checkModule, Examples: []string{"br_netfilter"}},
		"template":              {What: "a template", Max: strict.MaxSize, Check: checkTemplate},
		"template-var":          {What: "letters, digits and _", Pattern: `[A-Za-z_][A-Za-z0-9_]*`, Max: 64},
		"mode":                  {What: `an octal mode such as "0644"`, Pattern: `0?[0-7]{3,4}`, Normal: normalMode, Examples: []string{"0644", "0755"}},
		"script-name":           {What: "letters, digits, blanks and . _ -", Pattern: `[A-Za-z0-9][A-Za-z0-9 ._-]*`, Max: 64, Examples: []string{"tune"}},
		"filesystem":            {Enum: []string{"xfs", "ext4"}},
		"mount-options":         {What: "mount options with commas between them", Pattern: `[A-Za-z0-9=_.:/+-]+(,[A-Za-z0-9=_.:/+-]+)*`, Max: 256, Examples: []string{"defaults,noatime"}},
		"pack-level":            {Enum: []string{"fast", "normal", "release"}},
		"compressor":            {Enum: []string{"zstd", "xz", "gzip", "lz4"}},
		"compression-level":     {From: 1, To: 22},
		"block-size":            {What: "a power of two from 4KiB to 1MiB", Pattern: `(4|8|16|32|64|128|256|512)KiB|1MiB|1024KiB`, Examples: []string{"256KiB"}},
		"tracker":               {What: "an address with http, https or udp", Pattern: `(https?|udp)://\S+`, Check: checkTracker, Examples: []string{"http://imgserve.example.org:8080/announce"}},
		"web-seed":              {What: "an address with http or https", Pattern: `https?://\S+`, Check: checkWebSeed, Examples: []string{"https://mirror.example.org/images/"}},
		"driver-class":          {Enum: []string{"server", "virtual"}},
		"initramfs-compression": {Enum: []string{"auto", "zstd", "xz", "gzip"}},
	})
	return all
}

// ParseSize reads a size as it is written in profiles, such as 512MiB, in bytes.
func ParseSize(s string) (int64, error) {
	for i, unit := range sizeUnits() {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseInt(digits, 10, 64)
			shift := 10 * (i + 1)
			if err != nil || n < 0 || n > (1<<62)>>shift {
				return 0, fmt.Errorf("%s is not a size", strict.Clip(s))
			}
			return n << shift, nil
		}
	}
	return 0, fmt.Errorf("%s is not a size; write it as 512MiB or 1GiB", strict.Clip(s))
}

func sizeUnits() []string { return []string{"KiB", "MiB", "GiB", "TiB"} }
