package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"imgbuild/profiles/strict"
)

// Duration is a time.Duration that is written as people write one: 90s, 12h, 7d.
type Duration time.Duration

// UnmarshalText reads what MarshalText writes, and everything that time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return errors.New("write it as 90s, 12h or 7d")
		}
		*d = Duration(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("write it as 90s, 12h or 7d")
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes the duration without units that are zero.
func (d Duration) MarshalText() ([]byte, error) {
	if days := time.Duration(d) / (24 * time.Hour); days > 1 && time.Duration(d)%(24*time.Hour) == 0 {
		return fmt.Appendf(nil, "%dd", days), nil
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return []byte(s), nil
}

// Range are the addresses from From to To, both included.
type Range struct{ From, To netip.Addr }

// UnmarshalText reads 10.1.0.100-10.1.0.199.
func (r *Range) UnmarshalText(text []byte) error {
	from, to, ok := strings.Cut(string(text), "-")
	if !ok {
		return errors.New("write it as 10.1.0.100-10.1.0.199")
	}
	var err error
	if r.From, err = netip.ParseAddr(strings.TrimSpace(from)); err != nil {
		return errors.New("what is before the dash is not an address")
	}
	if r.To, err = netip.ParseAddr(strings.TrimSpace(to)); err != nil {
		return errors.New("what is after the dash is not an address")
	}
	if r.To.Less(r.From) {
		return errors.New("its end is before its beginning")
	}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (r Range) MarshalText() ([]byte, error) {
	if !r.From.IsValid() {
		return nil, nil
	}
	return []byte(r.From.String() + "-" + r.To.String()), nil
}

// Size is how many addresses the range has.
func (r Range) Size() int {
	if !r.From.Is4() || !r.To.Is4() {
		return 0
	}
	n := func(a netip.Addr) int { b := a.As4(); return int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3]) }
	return n(r.To) - n(r.From) + 1
}

// formats are the values of the check tags in config.go.
func formats() map[string]strict.Format {
	const octet = `[0-9]{1,3}`
	const v4 = octet + `\.` + octet + `\.` + octet + `\.` + octet
	return map[string]strict.Format{
		"interface": {What: "a network interface's name", Pattern: `[^\s/:]{1,15}`, Examples: []string{"br0"}},
		"listen":    {What: "an address and a port, or a port alone after a colon", Pattern: `\S*:[0-9]{1,5}`, Check: checkListen, Examples: []string{":8080", "10.1.0.1:80", "[::]:8080"}},
		"url":       {What: "an address with http or https", Pattern: `https?://[^\s?#]+`, Check: checkURL, Examples: []string{"http://imgserve.example.org:8080"}},
		"path":      {What: "a path", Pattern: `[^\x00-\x1f]+`, Check: checkPath, HostPath: true, Examples: []string{"/srv/images"}},
		"database":  {What: "a file, or an address with postgres", Pattern: `[^\x00-\x1f]+`, Check: checkDatabase, HostPath: true, Secret: true, Examples: []string{"/var/lib/imgserve/imgserve.db", "postgres://imgserve@db.example.org/imgserve"}},
		"unknown":   {Enum: []string{"inspect", "localboot"}},
		"dhcp-mode": {Enum: []string{"server", "proxy", "off"}},
		"duration":  {What: "a time such as 90s, 12h or 7d", Pattern: `([0-9]+(\.[0-9]+)?(h|m|s|ms))+|[0-9]+d`, Max: 32, Examples: []string{"12h", "7d"}},
		"transport": {Enum: []string{"relay", "http", "torrent"}},
		"mirror":    {What: "an address of a directory with http or https", Pattern: `https?://[^\s?#]+`, Check: checkMirror, Examples: []string{"http://mirror.example.org/images"}},
		"rate":      {What: "bytes or bits a second such as 200MB or 1Gbit, or none", Pattern: `none|0|[0-9]+(\.[0-9]+)? ?([kMGT]i?)?(B|bit)?(/s)?`, Max: 32, Examples: []string{"200MB", "1Gbit", "none"}},
		"limit":     {From: 0, To: 100000},
		"prefix":    {What: "a network such as 10.0.0.0/8", Pattern: `[0-9A-Fa-f:.]+/[0-9]{1,3}`, Check: checkPrefix, Examples: []string{"10.0.0.0/8", "2001:db8::/32"}},
		"prefix4":   {What: "an IPv4 network such as 10.1.0.0/24", Pattern: v4 + `/[0-9]{1,2}`, Check: checkPrefix, Examples: []string{"10.1.0.0/24"}},
		"address4":  {What: "an IPv4 address", Pattern: v4, Check: checkAddress, Examples: []string{"10.1.0.1"}},
		"range":     {What: "two IPv4 addresses with a dash between them", Pattern: v4 + ` ?- ?` + v4, Examples: []string{"10.1.0.100-10.1.0.199"}},
		"domain":    {What: "a domain name", Pattern: `[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?`, Max: 253, Examples: []string{"example.org"}},
		"name":      {What: "a host name or an address", Pattern: `[A-Za-z0-9*]([A-Za-z0-9.:-]*[A-Za-z0-9])?`, Max: 253, Examples: []string{"imgserve.example.org"}},
		"mtu":       {From: 576, To: 9216},
		"mac":       {What: "a MAC address", Pattern: `([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}`, Examples: []string{"52:54:00:12:34:56"}},
		"text":      {What: "one line of text", Pattern: `[^\x00-\x1f]+`, Max: 255},
		"loader":    {What: strings.Join(loaderNames(), ", "), Enum: loaderNames()},
		"log":       {Enum: []string{"debug", "info", "warn", "error"}},
	}
}

// loaderNames are those of tftp.Loaders, which a test compares.
func loaderNames() []string {
	return []string{"undionly.kpxe", "ipxe.efi", "ipxe-arm64.efi", "ipxe-ia32.efi", "shimx64.efi", "grubx64.efi", "shimaa64.efi", "grubaa64.efi"}
}

func checkListen(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Sprintf("is %s, and not an address and a port such as :8080 or 10.1.0.1:80; an IPv6 address is in brackets", strict.Clip(s))
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Sprintf("is %s, and a port is 1 to 65535", strict.Clip(s))
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil {
		return fmt.Sprintf("is %s; what is before the port is an address of this machine, or nothing for all of them", strict.Clip(s))
	}
	return ""
}

func checkURL(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Sprintf("is %s, and not an address such as http://10.1.0.1:8080", strict.Clip(s))
	case u.User != nil:
		return "has a user in it; machines have no password for the server"
	case u.Path != "" && u.Path != "/":
		return fmt.Sprintf("is %s; the server is at the root of its address, so take out %s", strict.Clip(s), u.Path)
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Sprintf("is %s; nothing comes after the host and port", strict.Clip(s))
	}
	return ""
}

func checkMirror(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Sprintf("is %s, and not an address such as http://mirror.example.org/images", strict.Clip(s))
	case u.User != nil:
		return "has a user in it; machines have no password for a mirror"
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Sprintf("is %s; nothing comes after the directory", strict.Clip(s))
	}
	return ""
}

func checkPath(s string) string {
	if strings.HasPrefix(s, "~") {
		return fmt.Sprintf("is %s; the ~ is not expanded, so write the whole path", strict.Clip(s))
	}
	return ""
}

// isAddress says whether a database is PostgreSQL's address and not a file.
func isAddress(database string) bool {
	return strings.HasPrefix(database, "postgres://") || strings.HasPrefix(database, "postgresql://")
}

// checkDatabase never shows the value: it may hold a password.
func checkDatabase(s string) string {
	scheme, _, ok := strings.Cut(s, "://")
	switch {
	case isAddress(s):
		if u, err := url.Parse(s); err != nil || strings.Trim(u.Path, "/") == "" && u.Query().Get("dbname") == "" {
			return "is not an address of PostgreSQL: write postgres://user@host/name"
		}
		return ""
	case ok:
		return fmt.Sprintf("begins with %s://; it is a file's path, or an address with postgres://", strict.Clip(scheme))
	}
	return checkPath(s)
}

func checkPrefix(s string) string {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Sprintf("is %s, and not a network such as 10.1.0.0/24", strict.Clip(s))
	}
	if p != p.Masked() {
		return fmt.Sprintf("is %s, an address with its network; the network is %s", strict.Clip(s), p.Masked())
	}
	return ""
}

func checkAddress(s string) string {
	if _, err := netip.ParseAddr(s); err != nil {
		return fmt.Sprintf("is %s, and not an address such as 10.1.0.1", strict.Clip(s))
	}
	return ""
}
