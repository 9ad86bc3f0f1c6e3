package dhcp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// InUse is a port that another program has.
type InUse struct {
	Network   string // udp or tcp
	Port      uint16
	Interface string // where it was tried; empty for all
	Program   string // its name and number, as dnsmasq[1234]; empty if that cannot be found out
	Err       error
}

func (u InUse) String() string {
	s := fmt.Sprintf("%s port %d", strings.ToUpper(u.Network), u.Port)
	if u.Interface != "" {
		s += " of " + u.Interface
	}
	return s + " cannot be used" + by(u.Program) + ": " + u.Err.Error()
}

// Taken tries the ports that DHCP needs on the interfaces, and gives those that cannot be had. The server itself has them
// while it runs.
func Taken(ctx context.Context, interfaces []string) []InUse {
	var list []InUse
	for _, name := range interfaces {
		for _, n := range []uint16{portServer, portPXE} {
			c, err := listen(ctx, name, n)
			if err != nil {
				list = append(list, InUse{"udp", n, name, owner("udp", n), err})
				continue
			}
			_ = c.Close()
		}
	}
	return list
}

// TakenAddress tries to listen on an address, as :69 or 10.0.0.1:80, of network udp or tcp, and says what is in the way;
// nil if nothing is.
func TakenAddress(ctx context.Context, network, address string) *InUse {
	var lc net.ListenConfig
	var err error
	if strings.HasPrefix(network, "udp") {
		var c net.PacketConn
		if c, err = lc.ListenPacket(ctx, network, address); err == nil {
			_ = c.Close()
			return nil
		}
	} else {
		var l net.Listener
		if l, err = lc.Listen(ctx, network, address); err == nil {
			_ = l.Close()
			return nil
		}
	}
	u := &InUse{Network: network[:3], Err: err}
	if _, p, e := net.SplitHostPort(address); e == nil {
		n, _ := net.LookupPort(network, p)
		u.Port = uint16(n)
		u.Program = owner(u.Network, u.Port)
	}
	return u
}

// owner finds a program that has a port, by the kernel's tables of sockets and the open files of all programs. Without
// root it sees only its own user's.
func owner(network string, port uint16) string {
	inodes := map[string]bool{}
	for _, name := range []string{"/proc/net/" + network, "/proc/net/" + network + "6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for n := range socketInodes(b, port) {
			inodes["socket:["+n+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, f := range files {
		target, err := os.Readlink(f)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(f, "/")[2]
		if pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err == nil {
			return strings.TrimSpace(string(name)) + "[" + pid + "]"
		}
	}
	return ""
}

// socketInodes reads the inodes of sockets on a local port from a table as /proc/net/udp (proc(5)): of TCP those that
// listen (0A), of UDP those that are not connected (07).
func socketInodes(table []byte, port uint16) map[string]bool {
	found := map[string]bool{}
	s := bufio.NewScanner(bytes.NewReader(table))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 10 {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(hex, 16, 16)
		if !ok || err != nil || uint16(n) != port || f[3] != "0A" && f[3] != "07" {
			continue
		}
		found[f[9]] = true
	}
	return found
}
