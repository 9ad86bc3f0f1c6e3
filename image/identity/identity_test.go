package identity

import (
	"strings"
	"testing"
)

func TestJunkSerialNumbersIdentifyNoMachine(t *testing.T) {
	for _, s := range []string{"", "  ", "To be filled by O.E.M.", "TO BE FILLED BY O.E.M", "Default string", "None", "N/A", "0123456789", "123456789",
		"1234567890", "987654321", "System Serial Number", "00000000", "XXXXXXXX", "................", "Not Specified", "0", "A1", "unknown",
		"...", "Chassis Serial Number", "SN\x01123", "Seriennummer-ä", "SSN12345678901234567", "BSN12345678901234567", "MB-1234567890",
		"Type2 - Board Serial Number", "<EMPTY>", "--------", "00 00 00", "00-00-00-00", "No Enclosure", strings.Repeat("A1", 40)} {
		if Junk(s) == "" {
			t.Errorf("%q was taken for a serial number", s)
		}
	}
	for _, s := range []string{"ABC1234", "CZ3344ABCD", "SN-4242", "J1234567", "7CE001P0AB", "VMware-56 4d 0a", "1357924680", "b1946ac9-2492", "12346",
		"TESTVM-BIOS-VIRTIO", "OEM42", "None5", "SSN1"} {
		if why := Junk(s); why != "" {
			t.Errorf("%q: %s", s, why)
		}
	}
}

func TestJunkUUIDsIdentifyNoMachine(t *testing.T) {
	for s, junk := range map[string]bool{
		"4c4c4544-0042-4310-8056-b4c04f4a3532": false, "00000000-0000-0000-0000-000000000000": true,
		"ffffffff-ffff-ffff-ffff-ffffffffffff": true, "03000200-0400-0500-0006-000700080009": true, "": true, "x": true,
		"zc4c4544-0042-4310-8056-b4c04f4a3532": true, "4c4c45440042-4310-8056-b4c0-4f4a3532": true,
	} {
		if (JunkUUID(s) != "") != junk {
			t.Errorf("%q: %q", s, JunkUUID(s))
		}
	}
	if got := UUID(" 4C4C4544-0042-4310-8056-B4C04F4A3532\n"); got != "4c4c4544-0042-4310-8056-b4c04f4a3532" {
		t.Errorf("got %q", got)
	}
}

func FuzzJunk(f *testing.F) {
	f.Add("ABC1234")
	f.Add("-_.: ")
	f.Add("---a")
	f.Fuzz(func(t *testing.T, s string) {
		if Junk(s) == "" && (Serial(s) == "" || len(Serial(s)) > MaxSerial || strings.ContainsAny(s, "\x00\x1b")) {
			t.Errorf("%q was taken", s)
		}
		JunkUUID(s)
	})
}
