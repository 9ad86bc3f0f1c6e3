//go:build integration

package netconf

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

// TestMain lets this program be a network namespace that waits, an HTTP server in one, and the installer in one.
func TestMain(m *testing.M) {
	switch os.Getenv("NETCONF_ROLE") {
	case "namespace":
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
		os.Exit(0)
	case "server":
		os.Exit(serve())
	case "installer":
		os.Exit(install())
	case "rename":
		os.Exit(renameDevice(os.Args[1], os.Args[2]))
	case "manager":
		os.Exit(manage())
	}
	os.Exit(m.Run())
}

// serve answers HTTP on every address, and echoes lines on port 7.
func serve() int {
	web, err := net.Listen("tcp", ":80")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	echo, err := net.Listen("tcp", ":7")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("ready")
	go func() { _ = http.Serve(web, http.NotFoundHandler()) }()
	for {
		c, err := echo.Accept()
		if err != nil {
			return 1
		}
		go func() { _, _ = io.Copy(c, c) }()
	}
}

// request is what the installer in its namespace is to do; result is what came of it.
type request struct {
	Network plan.Network
	NICs    []plan.NIC
	// Waits are CarrierWait, LACPWait, AnswerWait and ReachWait.
	Waits  [4]time.Duration
	Server string // URL
	Echo   string // address of an echo server, to which a connection is kept open meanwhile
	Cancel string // end the context when a line of the report has this
}

type result struct {
	Findings Findings
	Err      string
	Failure  bool
	Echo     string
	Lines    []string
	Took     time.Duration
}

// sink keeps the report's lines, and tells of each.
type sink struct {
	lines []string
	heard func(string)
}

func (s *sink) Line(_ report.Class, text string) {
	fmt.Fprintln(os.Stderr, text)
	s.lines = append(s.lines, text)
	s.heard(text)
}

func install() int {
	var r request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &sink{heard: func(line string) {
		if r.Cancel != "" && strings.Contains(line, r.Cancel) {
			cancel(errors.New("the operator stopped it"))
		}
	}}
	o := CheckOptions{Report: report.New(s), CarrierWait: r.Waits[0], LACPWait: r.Waits[1], AnswerWait: r.Waits[2], ReachWait: r.Waits[3]}
	if r.Server != "" {
		o.Reach = reach(r.Server)
	}
	var echo net.Conn
	if r.Echo != "" {
		var err error
		if echo, err = net.Dial("tcp", r.Echo); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	var out result
	var err error
	begun := time.Now()
	out.Findings, err = Check(ctx, &r.Network, r.NICs, o)
	out.Took = time.Since(begun)
	if err != nil {
		var f *Failure
		out.Err, out.Failure = err.Error(), errors.As(err, &f)
	}
	if echo != nil {
		_ = echo.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintln(echo, "still here")
		out.Echo, _ = bufio.NewReader(echo).ReadString('\n')
	}
	out.Lines = s.lines
	_ = json.NewEncoder(os.Stdout).Encode(out)
	return 0
}

// netns is a network namespace with a process in it.
type netns struct {
	t   *testing.T
	pid int
}

func newNamespace(t *testing.T) *netns {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "NETCONF_ROLE=namespace")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Skipf("this machine allows no network namespaces: %v", err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = c.Wait()
	})
	n := &netns{t, c.Process.Pid}
	n.ip("link set lo up")
	return n
}

func (n *netns) command(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", fmt.Sprint(n.pid), "-n", "--"}, argv...)...)
}

// ip runs one ip command a line.
func (n *netns) ip(lines ...string) {
	n.t.Helper()
	for _, line := range lines {
		if out, err := n.command(context.Background(), append([]string{"ip"}, strings.Fields(line)...)...).CombinedOutput(); err != nil {
			n.t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

func (n *netns) set(name, value string) {
	n.t.Helper()
	c := n.command(context.Background(), "tee", "/proc/sys/net/"+name)
	c.Stdin = strings.NewReader(value)
	if out, err := c.CombinedOutput(); err != nil {
		n.t.Fatalf("set %s: %v: %s", name, err, out)
	}
}

// start runs a program until the test ends, and waits until it has written a line with this text.
func (n *netns) start(until string, c *exec.Cmd) {
	n.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	c.Stdout, c.Stderr = w, w
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		n.t.Fatal(err)
	}
	w.Close()
	n.t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	lines, seen := bufio.NewScanner(r), ""
	for lines.Scan() {
		seen += lines.Text() + "\n"
		if strings.Contains(lines.Text(), until) {
			go func() { // ends with the program
				for lines.Scan() {
				}
				r.Close()
			}()
			return
		}
	}
	n.t.Fatalf("%s ended: %s", c.Path, seen)
}

func (n *netns) serve() {
	n.t.Helper()
	c := n.command(context.Background(), "/proc/self/exe")
	c.Args[len(c.Args)-1] = self(n.t)
	c.Env = append(os.Environ(), "NETCONF_ROLE=server")
	n.start("ready", c)
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// dnsmasq gives out addresses by DHCP and advertisements on a link.
func (n *netns) dnsmasq(link string, args ...string) {
	n.t.Helper()
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		n.t.Skip("dnsmasq is not installed")
	}
	argv := append([]string{"dnsmasq", "--keep-in-foreground", "--port=0", "--no-resolv", "--conf-file=/dev/null", "--interface=" + link, "--bind-interfaces", "--user=root",
		"--dhcp-authoritative", "--log-facility=-", "--dhcp-leasefile=" + filepath.Join(n.t.TempDir(), "leases"), "--pid-file="}, args...)
	n.start("started", n.command(context.Background(), argv...))
}

// lab is a machine with some ports, and what is at the other ends of their cables.
type lab struct {
	unplugged     string // a port of the machine without a carrier, if the test made one
	t             *testing.T
	machine, peer *netns
	nics          []plan.NIC
}

// newLab plugs ports eth0, eth1, … of the machine into peer0, peer1, … of its peer. The machine's eth0 has what netup would
// have made of a lease, and more.
func newLab(t *testing.T, ports int) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tool := range []string{"nsenter", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	l := &lab{t: t, machine: newNamespace(t), peer: newNamespace(t)}
	for i := range ports {
		mac := fmt.Sprintf("52:54:00:00:01:%02x", i)
		l.machine.ip(fmt.Sprintf("link add eth%d address %s type veth peer name peer%d address 52:54:00:00:02:%02x netns %d", i, mac, i, i, l.peer.pid), fmt.Sprintf("link set eth%d up", i))
		l.peer.ip(fmt.Sprintf("link set peer%d up", i))
		l.nics = append(l.nics, plan.NIC{Name: fmt.Sprintf("eth%d", i), MAC: mac, PCI: fmt.Sprintf("0000:00:%02x.0", i+3), Link: true})
	}
	if ports == 0 {
		return l
	}
	l.peer.ip("addr add 10.9.0.1/24 dev peer0", "-6 addr add fd09::1/64 dev peer0 nodad")
	l.machine.ip("addr add 10.9.0.50/24 brd + dev eth0", "addr add 10.9.0.51/24 dev eth0", "route add default via 10.9.0.1 dev eth0 proto 16 src 10.9.0.50",
		"route add 10.77.0.0/16 via 10.9.0.1 dev eth0 metric 77 mtu 1400", "route add 10.78.0.0/16 dev eth0 scope link", "route add 10.79.0.0/16 via 10.9.0.1 table 100",
		"-6 addr add fd09::50/64 dev eth0 nodad", "-6 addr add fd09::51/64 dev eth0 nodad valid_lft 5000 preferred_lft 4000", "-6 route add default via fd09::1 dev eth0 expires 3000",
		"-6 route add fd77::/64 via fd09::1 metric 7")
	if ports > 1 {
		l.machine.ip("addr add 10.8.0.50/16 dev eth1", "route add 10.80.0.0/16 nexthop via 10.9.0.1 dev eth0 weight 2 nexthop via 10.8.0.1 dev eth1")
	}
	return l
}

// check does what the request says, and tests that the installer's network is what it was.
func (l *lab) check(network string, change ...func(*request)) result {
	l.t.Helper()
	l.settle()
	before := l.state()
	got := l.run(network, change...)
	l.settle()
	if after := l.state(); after != before {
		l.t.Errorf("the installer's network is not what it was:\n%s", difference(before, after))
	}
	return got
}

// run does what the request says.
func (l *lab) run(network string, change ...func(*request)) result {
	l.t.Helper()
	r := request{Network: *read(l.t, network), NICs: l.nics,
		Waits: [4]time.Duration{4 * time.Second, 15 * time.Second, 4 * time.Second, 5 * time.Second}}
	for _, f := range change {
		f(&r)
	}
	in, err := json.Marshal(r)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Minute)
	defer cancel()
	c := l.machine.command(ctx, self(l.t))
	c.Env = append(os.Environ(), "NETCONF_ROLE=installer")
	c.Stdin = strings.NewReader(string(in))
	var log strings.Builder
	c.Stderr = &log
	out, err := c.Output()
	if err != nil {
		l.t.Fatalf("%v\n%s", err, log.String())
	}
	var got result
	if err := json.Unmarshal(out, &got); err != nil {
		l.t.Fatal(err)
	}
	l.t.Logf("%s in %s:\n%s", l.t.Name(), got.Took.Round(time.Millisecond), log.String())
	return got
}

// settle waits until every link with a carrier has its link-local address, and every IPv6 address has been found free and
// has its local route, which the kernel makes one after the other, each in its own time. The port that the test has
// unplugged never gets there.
func (l *lab) settle() {
	l.t.Helper()
	waiting := ""
	for range 150 {
		if waiting = l.unsettled(); waiting == "" {
			return
		}
		time.Sleep(100 * time.Millisecond) // ip monitor would miss what is over before it listens
	}
	l.t.Fatal(waiting)
}

// unsettled says what settle still waits for.
func (l *lab) unsettled() string {
	l.t.Helper()
	var links []struct {
		Name   string   `json:"ifname"`
		Flags  []string `json:"flags"`
		Master string   `json:"master"`
		Addrs  []struct {
			Local     string `json:"local"`
			Scope     string `json:"scope"`
			Tentative bool   `json:"tentative"`
			DADFailed bool   `json:"dadfailed"`
		} `json:"addr_info"`
	}
	var routes []struct {
		To   string `json:"dst"`
		Link string `json:"dev"`
	}
	l.read("-j -6 route show table local type local", &routes) // before the addresses: no route of one that comes meanwhile is missed
	l.read("-j addr show up", &links)
	for _, k := range links {
		if k.Name == "lo" || k.Name == l.unplugged || k.Master != "" || k.Name == "" {
			continue
		}
		ready := !slices.Contains(k.Flags, "LOWER_UP")
		for _, a := range k.Addrs {
			if !strings.Contains(a.Local, ":") || a.DADFailed {
				continue
			}
			if a.Tentative {
				return a.Local + " on " + k.Name + " stays tentative"
			}
			hasRoute := false
			for _, r := range routes {
				hasRoute = hasRoute || r.To == a.Local && r.Link == k.Name
			}
			if !hasRoute {
				return a.Local + " on " + k.Name + " has no local route"
			}
			ready = ready || a.Scope == "link"
		}
		if !ready {
			return k.Name + " has no link-local address"
		}
	}
	return ""
}

// read asks ip in the machine.
func (l *lab) read(args string, to any) {
	l.t.Helper()
	out, err := l.machine.command(context.Background(), append([]string{"ip"}, strings.Fields(args)...)...).Output()
	if err != nil {
		l.t.Fatalf("ip %s: %v", args, err)
	}
	if len(out) == 0 {
		out = []byte("[]")
	}
	if err := json.Unmarshal(out, to); err != nil {
		l.t.Fatalf("read what ip %s prints: %v: %s", args, err, out)
	}
}

var passing = regexp.MustCompile(`"(valid_life_time|preferred_life_time|expires)":(\d+)`)

// state is all that there is of the machine's network, one object a line.
func (l *lab) state() string {
	l.t.Helper()
	var b strings.Builder
	for _, args := range []string{"-j -d addr", "-j -d -4 route show table all", "-j -d -6 route show table all", "-j rule"} {
		out, err := l.machine.command(context.Background(), append([]string{"ip"}, strings.Fields(args)...)...).Output()
		if err != nil {
			l.t.Fatal(args, err)
		}
		var list []any
		if err := json.Unmarshal(out, &list); err != nil {
			l.t.Fatal(err)
		}
		var lines []string
		for _, x := range list {
			line, _ := json.Marshal(x)
			// Time passes; that there is an end to it does not.
			lines = append(lines, passing.ReplaceAllStringFunc(string(line), func(s string) string {
				if strings.HasSuffix(s, ":4294967295") {
					return s
				}
				return s[:strings.IndexByte(s, ':')] + `:"some"`
			}))
		}
		if !strings.Contains(args, "addr") {
			slices.Sort(lines)
		}
		fmt.Fprintf(&b, "== ip %s\n%s\n", args, strings.Join(lines, "\n"))
	}
	out, err := l.machine.command(context.Background(), "grep", "-r", ".", "/proc/sys/net/ipv6/conf", "--include=accept_ra", "--include=autoconf", "--include=accept_dad", "--include=disable_ipv6").Output()
	if err != nil {
		l.t.Fatal(err)
	}
	b.Write(out)
	// The flags say what ip does not: which routes are a router's, to be prolonged and ended by its advertisements.
	if out, err = l.machine.command(context.Background(), "cat", "/proc/net/ipv6_route").Output(); err != nil {
		l.t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 10 { // less the counters of references and uses
			lines = append(lines, strings.Join(append(f[:6], f[8:]...), " "))
		}
	}
	slices.Sort(lines)
	return b.String() + strings.Join(lines, "\n") + "\n"
}

func difference(a, b string) string {
	in := func(s, line string) bool { return slices.Contains(strings.Split(s, "\n"), line) }
	var out strings.Builder
	for line := range strings.Lines(a) {
		if !in(b, strings.TrimSuffix(line, "\n")) {
			out.WriteString("- " + line)
		}
	}
	for line := range strings.Lines(b) {
		if !in(a, strings.TrimSuffix(line, "\n")) {
			out.WriteString("+ " + line)
		}
	}
	return out.String()
}

// reach asks a web server; any answer is one.
func reach(address string) Reach {
	return func(ctx context.Context, dial Dial) error {
		client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		r, err := client.Do(req)
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			return wrapped.Err
		}
		if err != nil {
			return err
		}
		return r.Body.Close()
	}
}
