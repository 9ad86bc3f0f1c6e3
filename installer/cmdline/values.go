package cmdline

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// checkURL never puts the URL itself into its error: it may hold a password.
func checkURL(s string) error {
	u, err := checkAddress(s)
	if err != nil {
		return err
	}
	if strings.HasSuffix(u.Path, "/") || u.Path == "" {
		return errors.New("the URL names a directory: give the URL of its manifest.json")
	}
	return nil
}

// checkServer is for the address that all paths of the machine's API are below.
func checkServer(s string) error {
	u, err := checkAddress(s)
	switch {
	case err != nil:
		return err
	case u.RawQuery != "" || u.ForceQuery:
		return errors.New("the URL has a part after ?: give the server's address only")
	case u.User != nil:
		return errors.New("the URL has a user name: a machine shows its boot's nonce, and nothing else")
	}
	return nil
}

func checkAddress(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		var uerr *url.Error
		if errors.As(err, &uerr) {
			err = uerr.Err
		}
		return nil, fmt.Errorf("the value is not a URL: %w", err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("the URL starts with %q: use http:// or https://", u.Scheme+":")
	case u.Hostname() == "":
		return nil, errors.New("the URL names no host")
	case u.Fragment != "":
		return nil, errors.New("the URL has a part after #, which no server ever sees: leave it out")
	case strings.Contains(u.Path, "${") || strings.Contains(u.Host, "${"):
		return nil, errors.New("the URL has a variable that the boot loader did not replace: write the server's address")
	}
	return u, nil
}

// isNonce says whether a text can be a boot's nonce.
func isNonce(s string) bool {
	return len(s) >= 16 && len(s) <= 128 &&
		strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// checkSerial is for a machine's serial number, as a seal has it.
func checkSerial(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("the value is blank: give the serial number that the seal has")
	}
	return checkText(s)
}

func checkText(s string) error {
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) >= 0 {
		return errors.New("the value has control characters")
	}
	return nil
}

func checkDisk(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	switch {
	case strings.TrimSpace(s) == "":
		return errors.New("the value is blank: give a serial number or a path below /dev")
	case !strings.Contains(s, "/"):
		return nil
	case !strings.HasPrefix(s, "/dev/") || slices.Contains(strings.Split(s, "/"), "..") || strings.HasSuffix(s, "/"):
		return errors.New("the path does not lie below /dev")
	}
	return nil
}

// parseBootIF reads 01-aa-bb-cc-dd-ee-ff, where 01 is the hardware type Ethernet (PXELINUX's IPAPPEND 2), and plain MAC
// addresses with dashes or colons.
func parseBootIF(s string) net.HardwareAddr {
	s = strings.ReplaceAll(s, "-", ":")
	if len(s) == 20 && s[2] == ':' {
		s = s[3:]
	}
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return nil
	}
	return mac
}
