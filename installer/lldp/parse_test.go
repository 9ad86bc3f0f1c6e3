package lldp

import (
	"encoding/hex"
	"strings"
	"testing"

	"imgbuild/image/plan"
)

// tlv is one element.
func tlv(kind int, value string) string {
	return string([]byte{byte(kind<<1 | len(value)>>8), byte(len(value))}) + value
}

const (
	chassisMAC = "\x04\x00\x11\x22\x33\x44\x55"
	portName   = "\x05xe-0/0/12"
	ttl        = "\x00\x78"
)

func TestWhatSwitchesSayIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		frame string
		want  plan.Neighbour
		gone  bool
	}{
		"everything": {
			tlv(1, chassisMAC) + tlv(2, portName) + tlv(3, ttl) + tlv(4, "server 7\r\n") + tlv(5, "leaf-1.example.org") + tlv(6, "an operating system") +
				tlv(127, "\x00\x80\xc2\x01\x00\x64") + tlv(127, "\x00\x12\x0f\x01\x03\x6c\x11\x00\x10") + tlv(0, ""),
			plan.Neighbour{Chassis: "00:11:22:33:44:55", Port: "xe-0/0/12", System: "leaf-1.example.org", Description: "server 7", VLAN: 100}, false,
		},
		"the least, without an end":                {tlv(1, "\x07sw") + tlv(2, "\x071") + tlv(3, ttl), plan.Neighbour{Chassis: "sw", Port: "1"}, false},
		"addresses":                                {tlv(1, "\x05\x01\x0a\x00\x00\x01") + tlv(2, "\x03\x00\x11\x22\x33\x44\x66") + tlv(3, ttl) + tlv(0, ""), plan.Neighbour{Chassis: "10.0.0.1", Port: "00:11:22:33:44:66"}, false},
		"what is no text is in hex":                {tlv(1, "\x07\x00\x01") + tlv(2, "\x07\xff\xfe") + tlv(3, ttl), plan.Neighbour{Chassis: "0001", Port: "fffe"}, false},
		"padding behind the end":                   {tlv(1, chassisMAC) + tlv(2, portName) + tlv(3, ttl) + tlv(0, "") + "\x00\x00\x00", plan.Neighbour{Chassis: "00:11:22:33:44:55", Port: "xe-0/0/12"}, false},
		"a neighbour that goes away":               {tlv(1, chassisMAC) + tlv(2, portName) + tlv(3, "\x00\x00"), plan.Neighbour{Chassis: "00:11:22:33:44:55", Port: "xe-0/0/12"}, true},
		"escape sequences do not reach a terminal": {tlv(1, "\x07a\x1b[2Jb") + tlv(2, "\x071") + tlv(3, ttl), plan.Neighbour{Chassis: "a [2Jb", Port: "1"}, false},
	} {
		got, gone, err := Parse([]byte(c.frame))
		if err != nil || got != c.want || gone != c.gone {
			t.Errorf("%s: %+v, %v, %v", name, got, gone, err)
		}
	}
	for name, frame := range map[string]string{
		"nothing": "", "an element that is cut off": tlv(1, chassisMAC) + "\x04\xff", "no port": tlv(1, chassisMAC) + tlv(3, ttl), "an end at once": tlv(0, ""),
		"an empty chassis": tlv(1, "\x04") + tlv(2, portName) + tlv(3, ttl), "a short time": tlv(1, chassisMAC) + tlv(2, portName) + tlv(3, "\x01"),
		"another order": tlv(2, portName) + tlv(1, chassisMAC) + tlv(3, ttl),
	} {
		if n, _, err := Parse([]byte(frame)); err == nil {
			t.Errorf("%s: %+v", name, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(tlv(1, chassisMAC) + tlv(2, portName) + tlv(3, ttl) + tlv(127, "\x00\x80\xc2\x01\x00\x64") + tlv(0, "")))
	b, err := hex.DecodeString("0207040000000000010405050e31060200780000")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		n, _, err := Parse(data)
		if err == nil && (n.Chassis == "" || n.Port == "") {
			t.Errorf("took %+v", n)
		}
		for _, s := range []string{n.Chassis, n.Port, n.System, n.Description} {
			if len(s) > 3*maxText || strings.ContainsAny(s, "\x00\x1b\n\x7f") {
				t.Errorf("%q is shown", s)
			}
		}
	})
}
