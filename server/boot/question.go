package boot

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"imgbuild/image/identity"
	"imgbuild/server/gate"
)

// Paths of the scripts on the server.
const (
	IPXEPath = "/boot/ipxe"
	GRUBPath = "/boot/grub.cfg"
)

// question is what a boot loader has asked.
type question struct {
	loader   string // iPXE or GRUB
	base     string // of all URLs in the answer
	empty    bool   // nothing was said
	seen     gate.Observation
	mac      string // aa:bb:cc:dd:ee:ff, or empty
	platform string // efi, pcbios, or empty if not known
	arch     string // x86_64, aarch64, what the loader says if it is neither, or empty
	try      int    // counts how often the same boot asks, from 1
	query    url.Values
}

// Chassis types in which several machines share the chassis's serial number (DSP0134, 7.4.1).
const (
	multiSystemChassis = 0x19
	bladeEnclosure     = 0x1d
)

// ask reads a query. Nothing in it is an error: what is missing or wrong is not known, and the gate does with it what it
// does with the unknown.
func ask(loader, base string, v url.Values) question {
	q := question{loader: loader, base: base, query: v, empty: len(v) == 0, try: 1}
	get := func(key string, most int) string {
		s := strings.TrimSpace(v.Get(key))
		if len(s) > most || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			return ""
		}
		return s
	}
	q.seen.Serial, q.seen.SerialProblem = serial(v)
	q.seen.UUID = identity.UUID(get("uuid", 36))
	q.seen.Product = get("product", 128)
	if mac, err := net.ParseMAC(get("mac", 17)); err == nil && len(mac) == 6 {
		q.mac = mac.String()
		q.seen.MACs = []string{q.mac}
	}
	switch p := get("platform", 16); p {
	case "efi", "pcbios":
		q.platform = p
	}
	if loader == "GRUB" {
		q.platform = "efi"
	}
	switch a := get("arch", 16); a {
	case "i386", "x86_64": // iPXE for BIOS is built for i386 and starts kernels for x86_64
		q.arch = "x86_64"
	case "arm64":
		q.arch = "aarch64"
	default:
		q.arch = a
	}
	if n, err := strconv.Atoi(get("try", 2)); err == nil && n > 1 {
		q.try = n
	}
	return q
}

// serial chooses the serial number as the installer does: the system's, else the chassis's, else the board's. A problem
// is that of the first that there is.
func serial(v url.Values) (serial, problem string) {
	candidates := []string{"serial", "chassis", "board"}
	if t, err := strconv.Atoi(v.Get("ctype")); err == nil && (t&0x7f == multiSystemChassis || t&0x7f == bladeEnclosure) {
		candidates = []string{"serial", "board"}
	}
	for _, key := range candidates {
		s := identity.Serial(v.Get(key))
		junk := identity.Junk(s)
		if junk == "" {
			return s, ""
		}
		if problem == "" && s != "" {
			problem = junk
		}
	}
	return "", problem
}

// newNonce makes 128 random bits, as base64url: 22 characters.
func newNonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// ValidNonce reports whether s can be a nonce of a boot script.
func ValidNonce(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 16
}

// Digest is the SHA-256 of a nonce or a token, in hex: the form in which the registry has it.
func Digest(secret string) string {
	d := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(d[:])
}

var (
	hostRE = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
	pathRE = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)
)

// CheckURL says what is wrong with a server's own address: it is put into scripts and kernel arguments.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("the server's address %q is not a URL", s)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("the server's address %q begins neither with http:// nor with https://", s)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || u.RawFragment != "":
		return fmt.Errorf("the server's address %q is more than scheme, host, port and path", s)
	case !pathRE.MatchString(u.EscapedPath()):
		return fmt.Errorf("the server's address %q has a path with a slash at its end or with characters that boot loaders take apart", s)
	}
	return checkHost(u.Host)
}

// checkHost says what is wrong with a host name or address with or without a port.
func checkHost(host string) error {
	name, port := host, ""
	if h, p, err := net.SplitHostPort(host); err == nil {
		name, port = h, p
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("the server's address has the port %q, which is none", port)
		}
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		if ip.Zone() != "" {
			return errors.New("the server's address has a zone, which only its own machine knows")
		}
		return nil
	}
	if !hostRE.MatchString(name) {
		return fmt.Errorf("the server's address has the host %q, which is neither a name nor an address", name)
	}
	return nil
}

// Base is the address that a machine is given for its next requests: the configured one or, if that is empty, the one that
// this request came to.
func Base(configured string, r *http.Request) (string, error) {
	if configured != "" {
		return configured, nil
	}
	if err := checkHost(r.Host); err != nil {
		return "", fmt.Errorf("read the request's Host: %w", err)
	}
	if r.TLS != nil {
		return "https://" + r.Host, nil
	}
	return "http://" + r.Host, nil
}
