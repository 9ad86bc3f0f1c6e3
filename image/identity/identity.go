// Package identity judges what a machine's firmware gives as its serial number and UUID: whether it can tell one machine
// from another, or is what a vendor left in place of it. Texts come in; reasons for people go out. The installer asks it of
// SMBIOS, and the server of what a boot loader sends, so both refuse the same.
//
// It never reads the firmware, and knows nothing of serial numbers that two machines share: only a registry can see that.
package identity

import (
	"fmt"
	"strings"
)

// Advice is what to do about a machine without a serial number that identifies it.
const Advice = "set one with the vendor's tool for SMBIOS or FRU data (AMIDE, ipmicfg, ipmitool fru, the firmware's setup), or have the vendor do it, and boot again"

// MaxSerial is the longest serial number that is taken, in characters. SMBIOS has no limit (DSP0134, 6.1.3); no vendor's
// comes near this one.
const MaxSerial = 64

// Serial returns the serial number as it is written down and compared: without blanks around it.
func Serial(s string) string { return strings.TrimSpace(s) }

// Junk says why a serial number does not identify a machine, or "" if it may. Vendors leave these values in boards whose
// number was never set.
func Junk(serial string) string {
	s := Serial(serial)
	t := strings.ToLower(s)
	if t == "" {
		return "the firmware gives no serial number"
	}
	if len(t) > MaxSerial {
		return fmt.Sprintf("the serial number that begins with %.16q has more than %d characters", s, MaxSerial)
	}
	for _, r := range t {
		if r < ' ' || r > '~' {
			return fmt.Sprintf("the serial number %q has characters that are not printable ASCII", s)
		}
	}
	if placeholder(t) {
		return fmt.Sprintf("the serial number %q is what a vendor leaves in place of one", s)
	}
	if len(t) < 3 {
		return fmt.Sprintf("the serial number %q is too short to identify a machine", s)
	}
	if bare := strings.NewReplacer(" ", "", ".", "", "-", "", "_", "", ":", "").Replace(t); strings.Trim(bare, bare[:1]) == "" {
		return fmt.Sprintf("the serial number %q is one character again and again", s)
	}
	if counting(t) {
		return fmt.Sprintf("the serial number %q only counts", s)
	}
	return ""
}

// placeholder knows what boards say that nobody gave a number, in small letters.
func placeholder(t string) bool {
	switch strings.Trim(t, " .-_:*#<>()[]") {
	case "", "to be filled by o.e.m", "to be filled by oem", "o.e.m", "oem", "default string", "default", "none", "n/a", "na", "null", "nil",
		"not specified", "not applicable", "not available", "not set", "not present", "not defined", "no serial", "no serial number", "no enclosure",
		"unspecified", "unknown", "unknow", "undefined", "invalid", "empty", "blank", "test", "sample", "eval", "filled by oem", "string", "reserved",
		"system serial number", "serial number", "serialnumber", "chassis serial number", "base board serial number", "baseboard serial number",
		"board serial number", "system product name", "serial", "sernum", "ser. num", "$serialnumber", "0x00000000", "sn", "s/n", "tbd", "tba",
		"to be determined", "fill in", "type1 - serial number", "type2 - board serial number", "type3 - chassis serial number",
		"asset-1234567890", "mb-1234567890", "eb-1234567890", "123456789abc", "1234567890abcdef", "0123456789abcdef", "abcdefghij", "sn0123456789",
		"1234-5678-9012-3456", "system asset tag", "chassis asset tag":
		return true
	}
	for _, p := range []string{"to be filled", "default string", "system serial", "to be set by", "please fill", "not specified"} {
		if strings.HasPrefix(t, p) {
			return true
		}
	}
	// AMI's reference code: SSN12345678901234567, BSN12345678901234567, CSN12345678901234567.
	for _, p := range []string{"ssn", "bsn", "csn", "psn"} {
		if rest, ok := strings.CutPrefix(t, p); ok && counting(rest) {
			return true
		}
	}
	return false
}

// counting says whether a text is digits that go up or down by one: 0123456789, 123456789, 987654321, 1234567890.
func counting(t string) bool {
	if len(t) < 5 {
		return false
	}
	up, down := true, true
	for i := 1; i < len(t); i++ {
		if t[i-1] < '0' || t[i-1] > '9' || t[i] < '0' || t[i] > '9' {
			return false
		}
		d := (int(t[i]) - int(t[i-1]) + 10) % 10
		up, down = up && d == 1, down && d == 9
	}
	return up || down
}

// UUID returns a machine's UUID in small letters, or "" if it identifies no machine.
func UUID(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	if JunkUUID(s) != "" {
		return ""
	}
	return s
}

// JunkUUID says why a UUID, in small letters, does not identify a machine, or "". The placeholder 03000200-... comes with
// many boards.
func JunkUUID(s string) string {
	if len(s) != 36 || strings.Count(s, "-") != 4 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return "it is not a UUID"
	}
	hex := strings.ReplaceAll(s, "-", "")
	switch {
	case strings.Trim(hex, "0123456789abcdef") != "":
		return "it is not a UUID"
	case strings.Trim(hex, hex[:1]) == "":
		return "it is one digit again and again"
	}
	switch s {
	case "03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc",
		"00010203-0405-0607-0809-0a0b0c0d0e0f", "12345678-1234-1234-1234-123456789abc", "fefefefe-fefe-fefe-fefe-fefefefefefe":
		return "it is what a vendor leaves in place of one"
	}
	return ""
}
