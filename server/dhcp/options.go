package dhcp

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"time"
)

// Options that are read or written here (RFC 2132 unless another is named).
const (
	optPad          byte = 0
	optMask         byte = 1
	optRouter       byte = 3
	optDNS          byte = 6
	optHostname     byte = 12
	optDomain       byte = 15
	optMTU          byte = 26
	optBroadcast    byte = 28
	optNTP          byte = 42
	optVendor       byte = 43
	optRequested    byte = 50
	optLease        byte = 51
	optOverload     byte = 52
	optType         byte = 53
	optServer       byte = 54
	optParameters   byte = 55
	optMessage      byte = 56
	optMaxSize      byte = 57
	optT1           byte = 58
	optT2           byte = 59
	optClass        byte = 60
	optClientID     byte = 61
	optTFTPServer   byte = 66
	optBootFile     byte = 67
	optUserClass    byte = 77  // RFC 3004
	optRelay        byte = 82  // RFC 3046
	optArch         byte = 93  // RFC 4578
	optUUID         byte = 97  // RFC 4578
	optSubnet       byte = 118 // RFC 3011
	optSearch       byte = 119 // RFC 3397
	optIPXE         byte = 175 // iPXE's own encapsulated options
	optEnd          byte = 255
	relayLink       byte = 5   // of option 82: the client's subnet (RFC 3527)
	relayServerID   byte = 11  // of option 82: what the server is to call itself (RFC 5107)
	pxeDiscovery    byte = 6   // of option 43: discovery control (PXE 2.1, 2.2.3)
	ipxeNoProxy     byte = 176 // of option 175: do not wait for a proxyDHCP offer
	ipxeFeatureHTTP byte = 19  // of option 175: this iPXE speaks HTTP
)

func addrs(list ...netip.Addr) []byte {
	b := make([]byte, 0, 4*len(list))
	for _, a := range list {
		if a.Is4() {
			a4 := a.As4()
			b = append(b, a4[:]...)
		}
	}
	return b
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))
}

// searchList encodes domain names as option 119 has them (RFC 1035, 3.1, without compression). Names that are none are
// left out.
func searchList(names []string) []byte {
	var b []byte
next:
	for _, n := range names {
		var one []byte
		for l := range strings.SplitSeq(strings.TrimSuffix(n, "."), ".") {
			if l == "" || len(l) > 63 {
				continue next
			}
			one = append(append(one, byte(len(l))), l...)
		}
		if len(one) < 255 {
			b = append(append(b, one...), 0)
		}
	}
	return b
}

// sub reads options inside an option, as 43, 82 and 175 have them. What is cut off is left out.
func sub(b []byte) Options {
	var o Options
	for len(b) >= 2 && b[0] != optEnd {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		n := 2 + int(b[1])
		if len(b) < n {
			break
		}
		o.add(b[0], b[2:n])
		b = b[n:]
	}
	return o
}
