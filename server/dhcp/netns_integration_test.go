//go:build integration

package dhcp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// role is the environment variable by which this program knows that it is not the test but a part of it.
const role = "DHCP_TEST_ROLE"

// TestMain lets this program be three things more: the test inside its own network namespace, a machine in a namespace of
// that machine's, and the script that a DHCP client runs.
func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "machine":
		os.Exit(machine())
	case "script":
		os.Exit(script())
	}
	os.Exit(m.Run())
}

// inside runs the calling test again in a network namespace of its own, and is true there.
func inside(t *testing.T, tools ...string) bool {
	t.Helper()
	if os.Getenv(role) == "inside" {
		up(t, "lo")
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=90s", "-test.bench=^"+t.Name()+"$")
	c.Env = append(os.Environ(), role+"=inside")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := c.CombinedOutput()
	switch {
	case err != nil && strings.Contains(err.Error(), "not permitted"):
		t.Skipf("this machine allows no network namespaces: %v", err)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skip(string(out))
	default:
		t.Logf("%s", out)
	}
	return false
}

// spec is what a machine is told: its links and addresses, then what it becomes.
type spec struct {
	Links   map[string]string // name to address with prefix length, or to nothing
	Routes  map[string]string // network to gateway
	Forward bool
	Argv    []string
}

// machine waits for its links and then becomes its program.
func machine() int {
	fail := func(err error) int { fmt.Fprintln(os.Stderr, "machine:", err); return 1 }
	var s spec
	if err := json.NewDecoder(bufio.NewReader(os.Stdin)).Decode(&s); err != nil {
		return fail(err)
	}
	s.Links["lo"] = ""
	for name, addr := range s.Links {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fail(err)
		}
		if addr != "" {
			a, err := netlink.ParseAddr(addr)
			if err != nil {
				return fail(err)
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				return fail(err)
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fail(err)
		}
	}
	for to, via := range s.Routes {
		_, dst, err := net.ParseCIDR(to)
		if err != nil {
			return fail(err)
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)}); err != nil {
			return fail(err)
		}
	}
	if s.Forward {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
			return fail(err)
		}
	}
	fmt.Fprintln(os.Stderr, "machine: ready")
	path, err := exec.LookPath(s.Argv[0])
	if err != nil {
		return fail(err)
	}
	os.Setenv(role, "script") // for the client's script, which is this program
	if exe, err := os.Executable(); err == nil && exe == path {
		os.Setenv(role, "part")
	}
	return fail(syscall.Exec(path, s.Argv, os.Environ()))
}

// script configures an address as udhcpc and dhclient ask for it.
func script() int {
	get := func(names ...string) string {
		for _, n := range names {
			if v := os.Getenv(n); v != "" {
				return v
			}
		}
		return ""
	}
	reason := get("reason")
	if len(os.Args) > 1 && reason == "" {
		reason = os.Args[1]
	}
	fmt.Fprintf(os.Stderr, "script: %s %s mask %s router %s host %s boot %s server %s\n", strings.ToLower(reason), get("ip", "new_ip_address"), get("subnet", "new_subnet_mask"),
		get("router", "new_routers"), get("hostname", "new_host_name"), get("boot_file", "new_filename"), get("siaddr", "new_next_server"))
	l, err := netlink.LinkByName(get("interface"))
	if err != nil {
		return 1
	}
	switch strings.ToLower(reason) {
	case "bound", "renew", "reboot", "rebind":
		mask := net.IPMask(net.ParseIP(get("subnet", "new_subnet_mask")).To4())
		a := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(get("ip", "new_ip_address")), Mask: mask}}
		_ = netlink.AddrReplace(l, a)
		if via := net.ParseIP(get("router", "new_routers")); via != nil {
			_ = netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: via})
		}
	case "deconfig", "release", "expire", "preinit", "fail":
		list, _ := netlink.AddrList(l, netlink.FAMILY_V4)
		for i := range list {
			_ = netlink.AddrDel(l, &list[i])
		}
	}
	return 0
}

// node is a machine that runs.
type node struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	in   interface{ Write([]byte) (int, error) }
	done chan struct{}

	mu   sync.Mutex
	out  bytes.Buffer
	more chan struct{}
}

// newNode starts a machine without links. It becomes its program with become.
func newNode(t testing.TB, name string) *node {
	t.Helper()
	tt, _ := t.(*testing.T)
	n := &node{t: tt, name: name, done: make(chan struct{}), more: make(chan struct{}, 1)}
	n.cmd = exec.Command("/proc/self/exe")
	n.cmd.Env = append(os.Environ(), role+"=machine")
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := n.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	n.in = in
	n.cmd.Stdout, n.cmd.Stderr = n, n
	n.run(t)
	return n
}

// sameNamespace starts a program beside the test.
func sameNamespace(t testing.TB, argv0 string, argv ...string) *node {
	t.Helper()
	tt, _ := t.(*testing.T)
	n := &node{t: tt, name: argv0, done: make(chan struct{}), more: make(chan struct{}, 1)}
	n.cmd = exec.Command(argv0, argv...)
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.cmd.Stdout, n.cmd.Stderr = n, n
	n.run(t)
	return n
}

func (n *node) run(t testing.TB) {
	t.Helper()
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = n.cmd.Wait(); close(n.done) }()
	t.Cleanup(func() {
		_ = n.cmd.Process.Kill()
		<-n.done
		if t.Failed() {
			t.Logf("%s said:\n%s", n.name, n.text())
		}
	})
}

func (n *node) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.out.Write(p)
	select {
	case n.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (n *node) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.out.String()
}

func (n *node) become(s spec) {
	if s.Links == nil {
		s.Links = map[string]string{}
	}
	if err := json.NewEncoder(n.in).Encode(s); err != nil && n.t != nil {
		n.t.Fatal(err)
	}
}

// wait waits until the machine has said a text, and gives all that it said.
func (n *node) wait(text string) string {
	n.t.Helper()
	end := time.After(60 * time.Second)
	for {
		if s := n.text(); strings.Contains(s, text) {
			return s
		}
		select {
		case <-n.more:
		case <-n.done:
			if s := n.text(); strings.Contains(s, text) {
				return s
			}
			n.t.Fatalf("%s ended without saying %q:\n%s", n.name, text, n.text())
		case <-end:
			n.t.Fatalf("%s did not say %q:\n%s", n.name, text, n.text())
		}
	}
}

// forget makes wait look only at what the machine says from now on.
func (n *node) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.out.Reset()
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

// bridge makes a bridge with an address here.
func bridge(t testing.TB, name, addr string) {
	t.Helper()
	l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(l); err != nil {
		t.Skipf("this kernel makes no bridge: %v", err)
	}
	addAddress(t, name, addr)
	up(t, name)
}

func addAddress(t testing.TB, name, addr string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		t.Fatal(err)
	}
}

func up(t testing.TB, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// plug puts a cable between a bridge here and a machine; what is the machine's end is called name there, with a hardware
// address if one is given.
func plug(t testing.TB, bridge string, n *node, name, mac string) {
	t.Helper()
	here := fmt.Sprintf("p%d", n.cmd.Process.Pid)
	cable(t, here, n.cmd.Process.Pid, name, mac)
	l, err := netlink.LinkByName(here)
	if err != nil {
		t.Fatal(err)
	}
	b, err := netlink.LinkByName(bridge)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMaster(l, b); err != nil {
		t.Fatal(err)
	}
	up(t, here)
}

func cable(t testing.TB, here string, pid int, name, mac string) {
	t.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: here}, PeerName: "x" + here}
	if mac != "" {
		v.PeerHardwareAddr = hw(mac)
	}
	if err := netlink.LinkAdd(v); err != nil {
		t.Fatal(err)
	}
	p, err := netlink.LinkByName("x" + here)
	if err == nil {
		err = netlink.LinkSetName(p, name)
	}
	if err == nil {
		err = netlink.LinkSetNsPid(p, pid)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// join puts a cable between two machines.
func join(t testing.TB, a *node, aName string, b *node, bName, bMAC string) {
	t.Helper()
	here := fmt.Sprintf("j%d", b.cmd.Process.Pid)
	cable(t, here, b.cmd.Process.Pid, bName, bMAC)
	l, err := netlink.LinkByName(here)
	if err == nil {
		err = netlink.LinkSetName(l, aName)
	}
	if err == nil {
		err = netlink.LinkSetNsPid(l, a.cmd.Process.Pid)
	}
	if err != nil {
		t.Fatal(err)
	}
}
