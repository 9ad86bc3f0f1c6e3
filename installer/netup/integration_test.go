//go:build integration

package netup

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
)

// TestMain lets this program be the client and the server, each in a network namespace of its own.
func TestMain(m *testing.M) {
	switch os.Getenv("NETUP_ROLE") {
	case "client":
		os.Exit(client())
	case "server":
		os.Exit(server())
	}
	os.Exit(m.Run())
}

// server waits for its link to arrive, gives it an address and becomes dnsmasq.
func server() int {
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return 1
	}
	if os.Getenv("NETUP_CASE") == "no carrier" {
		time.Sleep(time.Hour)
	}
	l, err := netlink.LinkByName("peer7")
	if err == nil {
		_, ipnet, _ := net.ParseCIDR("10.9.0.1/24")
		ipnet.IP = net.IPv4(10, 9, 0, 1)
		if err = netlink.AddrReplace(l, &netlink.Addr{IPNet: ipnet}); err == nil {
			err = netlink.LinkSetUp(l)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		return 1
	}
	if os.Getenv("NETUP_CASE") == "no server" {
		time.Sleep(time.Hour)
	}
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		return 1
	}
	argv := []string{path, "--keep-in-foreground", "--port=0", "--no-resolv", "--conf-file=/dev/null", "--interface=peer7", "--bind-interfaces",
		"--user=root", "--dhcp-authoritative", "--log-dhcp", "--log-facility=-", "--dhcp-leasefile=" + os.Getenv("NETUP_DIR") + "/leases", "--pid-file=",
		"--dhcp-range=10.9.0.50,10.9.0.59,255.255.255.0,2m", "--dhcp-option=option:router,10.9.0.254", "--dhcp-option=option:dns-server,10.9.0.3",
		"--dhcp-option=option:ntp-server,10.9.0.4", "--dhcp-option=option:domain-name,example.org", "--dhcp-option=option:mtu,1400"}
	if os.Getenv("NETUP_CASE") == "lease" {
		argv = append(argv, "--dhcp-option-force=option:T1,4s", "--dhcp-option-force=option:T2,60s")
	}
	if os.Getenv("NETUP_CASE") == "routes" {
		argv = append(argv, "--dhcp-option=option:classless-static-route,0.0.0.0/0,10.9.0.7,192.168.0.0/16,10.9.0.8")
	}
	return int(syscall.Exec(path, argv, os.Environ()).(syscall.Errno))
}

// seen is what the client found.
type seen struct {
	Err, Network, Resolv string
	Routes, Addrs        []string
	MTU                  int
}

// client makes the pair of links, starts the server at the other end and brings the network up.
func client() int {
	fail := func(err error) int { fmt.Fprintln(os.Stderr, "client:", err); return 1 }
	s := exec.Command("/proc/self/exe")
	s.Env = append(os.Environ(), "NETUP_ROLE=server")
	s.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	s.Stdout, s.Stderr = os.Stderr, os.Stderr
	in, err := s.StdinPipe()
	if err != nil {
		return fail(err)
	}
	if err := s.Start(); err != nil {
		return fail(err)
	}
	defer s.Process.Kill()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth7"}, PeerName: "peer7"}
	if err := netlink.LinkAdd(veth); err != nil {
		return fail(err)
	}
	peer, err := netlink.LinkByName("peer7")
	if err == nil {
		err = netlink.LinkSetNsPid(peer, s.Process.Pid)
	}
	if err != nil {
		return fail(err)
	}
	fmt.Fprintln(in, "go")
	dir := os.Getenv("NETUP_DIR")
	l := &reporttest.Lines{}
	o := Options{Report: report.New(l), Links: []string{"eth7"}, CarrierWait: 3 * time.Second, DHCPWait: 12 * time.Second, Grace: time.Second, ResolvConf: dir + "/resolv.conf"}
	if os.Getenv("NETUP_CASE") == "no server" {
		o.DHCPWait = 6 * time.Second
	}
	n, err := Up(context.Background(), o)
	var r seen
	if err != nil {
		r.Err = err.Error()
	} else {
		r.Network = n.String() + fmt.Sprintf(", NTP %s, domain %s, server %s", join(n.NTP), n.Domain, n.Server)
		b, _ := os.ReadFile(o.ResolvConf)
		r.Resolv = string(b)
		dev, _ := netlink.LinkByName("eth7")
		r.MTU = dev.Attrs().MTU
		addrs, _ := netlink.AddrList(dev, unix.AF_INET)
		for _, a := range addrs {
			r.Addrs = append(r.Addrs, a.IPNet.String())
		}
		routes, _ := netlink.RouteList(dev, unix.AF_INET)
		for _, x := range routes {
			r.Routes = append(r.Routes, fmt.Sprintf("%v via %v", x.Dst, x.Gw))
		}
		if wait, _ := strconv.Atoi(os.Getenv("NETUP_WAIT")); wait > 0 {
			time.Sleep(time.Duration(wait) * time.Second) // the server's log shows what happens meanwhile
		}
		n.Close()
	}
	fmt.Fprintln(os.Stderr, l)
	json.NewEncoder(os.Stdout).Encode(r)
	return 0
}

// run brings the network up against a server of the given kind.
func run(t *testing.T, kind string, wait int) (seen, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		t.Skip("dnsmasq is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "/proc/self/exe")
	c.Env = append(os.Environ(), "NETUP_ROLE=client", "NETUP_CASE="+kind, "NETUP_DIR="+t.TempDir(), fmt.Sprint("NETUP_WAIT=", wait))
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.Stderr = log
	out, err := c.Output()
	b, _ := os.ReadFile(log.Name())
	if err != nil {
		if strings.Contains(err.Error(), "not permitted") || strings.Contains(string(b), "not permitted") {
			t.Skipf("this machine allows no network namespaces: %v: %s", err, b)
		}
		t.Fatalf("%v\n%s", err, b)
	}
	var r seen
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, b)
	}
	return r, string(b)
}

func TestALeaseConfiguresTheLinkAndIsRenewed(t *testing.T) {
	r, log := run(t, "lease", 7)
	if r.Err != "" || !strings.Contains(r.Network, "eth7 has 10.9.0.5") || !strings.Contains(r.Network, "/24, router 10.9.0.254, name servers 10.9.0.3, NTP 10.9.0.4, domain example.org, server 10.9.0.1") {
		t.Errorf("%+v\n%s", r, log)
	}
	if r.Resolv != "search example.org\nnameserver 10.9.0.3\n" || r.MTU != 1400 || len(r.Addrs) != 1 {
		t.Errorf("%+v", r)
	}
	if routes := strings.Join(r.Routes, "; "); !strings.Contains(routes, "0.0.0.0/0 via 10.9.0.254") {
		t.Errorf("routes: %s", routes)
	}
	if n := strings.Count(log, "DHCPACK(peer7)"); n < 2 {
		t.Errorf("the lease was not renewed in 7 s with T1 at 4 s:\n%s", log)
	}
	if _, after, _ := strings.Cut(log, "DHCPACK(peer7)"); strings.Contains(after, "DHCPDISCOVER(peer7)") {
		t.Errorf("the lease was not renewed but sought anew:\n%s", log)
	}
}

func TestClasslessRoutesAreSet(t *testing.T) {
	r, log := run(t, "routes", 0)
	routes := strings.Join(r.Routes, "; ")
	if !strings.Contains(routes, "0.0.0.0/0 via 10.9.0.7") || !strings.Contains(routes, "192.168.0.0/16 via 10.9.0.8") || strings.Contains(routes, "10.9.0.254") {
		t.Errorf("%+v\n%s", r, log)
	}
}

func TestALinkWithoutACarrierOrAServerIsNamed(t *testing.T) {
	if r, log := run(t, "no carrier", 0); r.Err != "bring the network up: no link came up: eth7: link is down" {
		t.Errorf("%+v\n%s", r, log)
	}
	r, log := run(t, "no server", 0)
	if !strings.HasPrefix(r.Err, "bring the network up: no DHCP server gave an address: eth7: no DHCP answer after 7 s, 3 tries") {
		t.Errorf("%+v\n%s", r, log)
	}
}
