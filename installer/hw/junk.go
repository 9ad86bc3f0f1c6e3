package hw

import (
	"fmt"
	"strings"
)

// junkSerial says why a serial number does not identify a machine, or "" if it may. Vendors leave these values in
// boards whose number was never set.
func junkSerial(s string) string {
	t := strings.ToLower(strings.TrimSpace(s))
	if t == "" {
		return "the firmware gives no serial number"
	}
	for _, r := range t {
		if r < ' ' || r > '~' {
			return fmt.Sprintf("the serial number %q has characters that are not printable ASCII", s)
		}
	}
	unset := fmt.Sprintf("the serial number %q is what a vendor leaves in place of one", strings.TrimSpace(s))
	switch strings.Trim(t, " .-_") {
	case "to be filled by o.e.m", "to be filled by oem", "o.e.m", "oem", "default string", "default", "none", "n/a", "na", "null", "nil",
		"not specified", "not applicable", "not available", "not set", "unknown", "undefined", "invalid", "empty", "blank", "test", "sample",
		"system serial number", "serial number", "chassis serial number", "base board serial number", "system product name", "serial",
		"xxxxxxxx", "$serialnumber", "0x00000000", "sn", "s/n", "tbd", "to be determined", "fill in", "asset-1234567890", "ffffffff", "":
		return unset
	}
	if strings.HasPrefix(t, "to be filled") || strings.HasPrefix(t, "default string") || strings.HasPrefix(t, "system serial") {
		return unset
	}
	if len(t) < 3 {
		return fmt.Sprintf("the serial number %q is too short to identify a machine", strings.TrimSpace(s))
	}
	if strings.Trim(t, t[:1]) == "" {
		return fmt.Sprintf("the serial number %q is one character again and again", strings.TrimSpace(s))
	}
	if counting(t) {
		return fmt.Sprintf("the serial number %q only counts", strings.TrimSpace(s))
	}
	return ""
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

// junkUUID says why a UUID does not identify a machine, or "". The placeholder 03000200-... comes with many boards.
func junkUUID(s string) string {
	if len(s) != 36 || strings.Count(s, "-") != 4 {
		return "it is not a UUID"
	}
	hex := strings.ReplaceAll(s, "-", "")
	switch {
	case strings.Trim(hex, "0123456789abcdef") != "":
		return "it is not a UUID"
	case strings.Trim(hex, hex[:1]) == "":
		return "it is one digit again and again"
	case s == "03000200-0400-0500-0006-000700080009", s == "00020003-0004-0005-0006-000700080009", s == "12345678-1234-5678-90ab-cddeefaabbcc",
		s == "fefefefe-fefe-fefe-fefe-fefefefefefe":
		return "it is what a vendor leaves in place of one"
	}
	return ""
}
