package testvm

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// dnsmasqConfig is what the DHCP and TFTP server of a network is told.
type dnsmasqConfig struct {
	iface       string
	first, last netip.Addr
	mask        string
	leaseFile   string
	tftpRoot    string
	efiLoader   string // file in tftpRoot for UEFI machines that are not yet in iPXE; empty for none
	biosLoader  string // the same for BIOS machines
	bootURL     string // what iPXE loads; empty for none
}

// dnsmasqArgs returns dnsmasq's arguments. DHCP option 175 is iPXE's own: who sends it is iPXE already and gets the
// script, and everybody else gets iPXE; without the distinction iPXE would load itself for ever. Client architectures
// 7 and 9 are both UEFI on x86_64 (RFC 4578 and what firmware does).
func dnsmasqArgs(c dnsmasqConfig) []string {
	a := []string{
		"--no-daemon", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp", "--port=0", "--no-hosts", "--no-resolv",
		"--interface=" + c.iface, "--except-interface=lo", "--bind-interfaces",
		"--dhcp-authoritative", "--no-ping", "--dhcp-leasefile=" + c.leaseFile,
		fmt.Sprintf("--dhcp-range=%s,%s,%s,1h", c.first, c.last, c.mask),
		"--dhcp-match=set:ipxe,175",
		"--dhcp-match=set:efi64,option:client-arch,7", "--dhcp-match=set:efi64,option:client-arch,9",
	}
	if c.bootURL != "" {
		a = append(a, "--dhcp-boot=tag:ipxe,"+c.bootURL)
	}
	if c.efiLoader != "" || c.biosLoader != "" {
		a = append(a, "--enable-tftp", "--tftp-root="+c.tftpRoot)
	}
	if c.efiLoader != "" {
		a = append(a, "--dhcp-boot=tag:!ipxe,tag:efi64,"+c.efiLoader)
	}
	if c.biosLoader != "" {
		a = append(a, "--dhcp-boot=tag:!ipxe,tag:!efi64,"+c.biosLoader)
	}
	return a
}

// dnsmasqFileArgs returns the arguments of a server that does what a file says. They only keep it in the foreground, and away from the files of
// one that the host may have.
func dnsmasqFileArgs(conf, leases string) []string {
	return []string{"--no-daemon", "--conf-file=" + conf, "--log-facility=-", "--log-dhcp", "--dhcp-leasefile=" + leases}
}

// What dnsmasq says when its sockets are open: of DHCP when it is bound to an interface, and of TFTP in any case.
const (
	dhcpListens = "sockets bound exclusively to interface"
	tftpListens = "TFTP root is"
)

// startDnsmasq starts the server and returns when it has logged a line with listens. Its log lines go to logf.
func startDnsmasq(ctx context.Context, ns *Namespace, path string, args []string, listens string, logf func(string)) (*Process, error) {
	cmd := exec.Command(path, args...)
	ready := make(chan struct{})
	out := &lineWriter{line: func(l string) {
		if ready != nil && strings.Contains(l, listens) {
			close(ready)
			ready = nil
		}
		logf(l)
	}}
	tail := &tailWriter{max: 4096}
	cmd.Stderr = multiWriter{out, tail}
	listening := ready
	p, err := ns.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start DHCP server: %w", err)
	}
	p.tail = tail
	select {
	case <-listening:
		return p, nil
	case <-p.Done():
		return nil, fmt.Errorf("start DHCP server: %w", p.Err())
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("start DHCP server: %w", ctx.Err())
	}
}

// Lease is an address that the DHCP server has given.
type Lease struct {
	MAC  string
	IP   netip.Addr
	Name string // what the machine called itself; empty for nothing
}

// parseLeases reads dnsmasq's lease file: expiry, MAC, address, name or *, client ID or *. Lines of another form, such
// as the server's DUID, are not leases.
func parseLeases(s string) []Lease {
	var leases []Lease
	sc := bufio.NewScanner(strings.NewReader(s))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 4 {
			continue
		}
		ip, err := netip.ParseAddr(f[2])
		if err != nil {
			continue
		}
		leases = append(leases, Lease{MAC: strings.ToLower(f[1]), IP: ip, Name: strings.TrimPrefix(f[3], "*")})
	}
	return leases
}
