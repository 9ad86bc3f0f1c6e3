//go:build integration

package netconf

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// system is what NetworkManager is started in: the host's own files or a root of its own, with our files in it.
type system struct {
	Root     string // "" for the host's
	Files    []File
	Hostname string
	Plain    bool // without D-Bus and NetworkManager
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
`

const managerConfig = "[main]\nplugins=%s\nauth-polkit=false\nrc-manager=unmanaged\nsystemd-resolved=false\ndhcp=internal\n"

// manage is the role that becomes a small system with D-Bus and NetworkManager, in namespaces of its own.
func manage() int {
	runtime.LockOSThread() // what it starts dies with this thread
	fail := func(what string, err error) int {
		fmt.Printf("failed: %s: %v\n", what, err)
		return 1
	}
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	var s system
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	if err != nil {
		return fail("read what to do", err)
	}
	if err := s.mount(); err != nil {
		return fail("mount", err)
	}
	if err := s.write(); err != nil {
		return fail("write the files", err)
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fail("set the host name", err)
	}
	log, err := os.Create(s.at("run/log"))
	if err != nil {
		return fail("log", err)
	}
	if !s.Plain {
		// The host's: an old D-Bus wants more open files than a container may have.
		if err := s.startBus(log); err != nil {
			return fail("start D-Bus", err)
		}
	}
	if s.Root != "" {
		if err := unix.Chroot(s.Root); err != nil {
			return fail("chroot", err)
		}
	}
	if err := os.Chdir("/"); err != nil {
		return fail("chdir", err)
	}
	if s.Plain {
		fmt.Println("ready")
		_, _ = in.ReadByte()
		return 0
	}
	if err := start(log, "/usr/sbin/NetworkManager", "--debug"); err != nil {
		return fail("start NetworkManager", err)
	}
	for i := 0; ; i++ { // it says nowhere when it is on the bus
		out, err := exec.Command("/usr/bin/nmcli", "-t", "-f", "RUNNING", "general").Output()
		if err == nil && strings.TrimSpace(string(out)) == "running" {
			break
		}
		if i == 100 {
			data, _ := os.ReadFile("/run/log")
			return fail("wait for NetworkManager", fmt.Errorf("%w: %s", err, data))
		}
		time.Sleep(100 * time.Millisecond)
	}
	// Until all is up that can be: a kernel that makes no bonds would let it wait for ever.
	_ = exec.Command("/usr/bin/nm-online", "-s", "-q", "-t", "5").Run()
	fmt.Println("ready")
	_, _ = in.ReadByte() // until the test ends
	return 0
}

// at is a path below the system's root.
func (s *system) at(path string) string { return filepath.Join(s.Root+"/", path) }

// start starts a program that ends with this thread.
func start(log *os.File, argv ...string) error {
	c := &exec.Cmd{Path: argv[0], Args: argv, Stdout: log, Stderr: log, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
	return c.Start()
}

func (s *system) startBus(log *os.File) error {
	path, err := exec.LookPath("dbus-daemon")
	if err != nil {
		return err
	}
	if err := start(log, path, "--config-file="+s.at("run/bus.conf"), "--nofork", "--nopidfile"); err != nil {
		return err
	}
	for range 100 { // it says nowhere when it listens
		var c net.Conn
		if c, err = net.Dial("unix", s.at("run/dbus/system_bus_socket")); err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// renameDevice is the role that is EL7's udev rule for a network card: it prints the card's new name.
func renameDevice(card, root string) int {
	err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
	if err == nil {
		err = unix.Mount("sysfs", filepath.Join(root, "sys"), "sysfs", unix.MS_RDONLY, "")
	}
	if err == nil {
		err = unix.Mount("tmpfs", filepath.Join(root, "dev"), "tmpfs", 0, "")
	}
	if err == nil {
		err = unix.Chroot(root)
	}
	if err == nil {
		err = os.Chdir("/")
	}
	if err == nil {
		err = unix.Exec("/usr/lib/udev/rename_device", []string{"rename_device"}, []string{"INTERFACE=" + card})
	}
	fmt.Println(err)
	return 1
}

func (s *system) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	tmpfs := []string{"run", "etc/NetworkManager", "var/lib/NetworkManager"}
	if s.Root != "" {
		tmpfs = []string{"run", "dev"}
		if err := unix.Mount("proc", s.at("proc"), "proc", 0, ""); err != nil {
			return err
		}
	}
	for _, dir := range tmpfs {
		if err := os.MkdirAll(s.at(dir), 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", s.at(dir), "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	if s.Root != "" {
		for name, minor := range map[string]uint32{"null": 3, "zero": 5, "random": 8, "urandom": 9} {
			if err := unix.Mknod(s.at("dev/"+name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
				return err
			}
		}
	}
	// Where /sys cannot be written there is no udev to wait for.
	return unix.Mount("sysfs", s.at("sys"), "sysfs", unix.MS_RDONLY, "")
}

func (s *system) write() error {
	plugins := "keyfile"
	for _, f := range s.Files {
		if strings.Contains(f.Name, "ifcfg-") {
			plugins = "ifcfg-rh"
		}
	}
	files := append([]File{{"run/bus.conf", fmt.Sprintf(busConfig, s.at("run/dbus/system_bus_socket")), 0o644}, {"run/dbus/.keep", "", 0o644}, {"etc/NetworkManager/NetworkManager.conf", fmt.Sprintf(managerConfig, plugins), 0o644}}, s.Files...)
	if s.Root != "" {
		files = append(files, File{"etc/passwd", "root:x:0:0:root:/root:/bin/bash\n", 0o644}, File{"etc/group", "root:x:0:\n", 0o644})
	}
	for _, f := range files {
		if s.Root == "" && !strings.HasPrefix(f.Name, "run/") && !strings.HasPrefix(f.Name, "etc/NetworkManager/") {
			continue // the host's
		}
		path := s.at(f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.Content), f.Mode); err != nil {
			return err
		}
	}
	return nil
}

// byName has unused ports matched by their names: NetworkManager matches MAC addresses with permanent ones only, which
// the links of a lab do not have.
func byName(files []File) []File {
	var list []File
	for _, f := range files {
		for _, c := range cards {
			f.Content = strings.ReplaceAll(f.Content, "mac:"+mac(&c), "interface-name:"+c.Name)
		}
		list = append(list, f)
	}
	return list
}

// managed is a machine that has NetworkManager at work, with cards whose cables end in peer.
type managed struct {
	*netns
	peer *netns
}

// newMachine makes the cards of a machine, with the first three letters of their cables' other ends.
func newMachine(t *testing.T) (machine, peer *netns) {
	t.Helper()
	l := newLab(t, 0)
	for i, c := range cards {
		l.machine.ip(fmt.Sprintf("link add %s address %s type veth peer name peer%d netns %d", c.Name, mac(&c), i, l.peer.pid))
		l.peer.ip(fmt.Sprintf("link set peer%d up", i))
	}
	return l.machine, l.peer
}

// start makes a machine of a system: namespaces as netns has, with its network namespace.
func (s system) start(t *testing.T, machine, peer *netns) *managed {
	t.Helper()
	c := machine.command(context.Background(), "unshare", "--mount", "--uts", self(t))
	c.Env = append(os.Environ(), "NETCONF_ROLE=manager")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = c.Wait()
	})
	if err := json.NewEncoder(in).Encode(s); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	lines.Scan()
	if lines.Text() != "ready" {
		rest := lines.Text()
		for lines.Scan() {
			rest += "\n" + lines.Text()
		}
		if strings.Contains(rest, "failed: mount") {
			t.Skip("this machine allows no mount namespaces: ", rest)
		}
		t.Fatal(rest)
	}
	return &managed{&netns{t, c.Process.Pid}, peer} // nsenter and unshare become what they start
}

// run runs a program inside and returns what it writes.
func (m *managed) run(argv ...string) string {
	m.t.Helper()
	c := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(m.pid), "-n", "-m", "-u", "-r", "-w", "--"}, argv...)...)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	out, err := c.CombinedOutput()
	if err != nil {
		m.t.Errorf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// fields are those of connections that our files say something of.
var fields = "connection.id,connection.uuid,connection.type,connection.interface-name,connection.master,connection.slave-type,connection.autoconnect,connection.autoconnect-slaves," +
	"802-3-ethernet.mac-address,802-3-ethernet.mtu,bond.options,team.config,team-port.config,vlan.parent,vlan.id,vlan.flags," +
	"ipv4.method,ipv4.addresses,ipv4.gateway,ipv4.routes,ipv4.dns,ipv4.dns-search,ipv4.ignore-auto-dns,ipv4.never-default,ipv4.dhcp-hostname," +
	"ipv6.method,ipv6.addresses,ipv6.gateway,ipv6.routes,ipv6.dns,ipv6.ignore-auto-dns,ipv6.never-default,ipv6.addr-gen-mode"

// understood is what NetworkManager understood of all connections, without what is empty.
func (m *managed) understood(l *layout) string {
	m.t.Helper()
	var b strings.Builder
	for _, k := range l.links {
		for line := range strings.Lines(m.run("nmcli", "-t", "-f", fields, "connection", "show", k.uuid)) {
			// What is left to NetworkManager is called differently by each version of it.
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			left := slices.Contains([]string{"", "--", "no", "-1", "default", "default-or-eui64"}, value) || key == "802-3-ethernet.mtu" && value == "auto" || key == "connection.autoconnect"
			if !left {
				fmt.Fprintf(&b, "%s: %s\n", key, strings.ReplaceAll(value, `\:`, ":"))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// golden compares what NetworkManager understood with what was looked through once.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != got {
		t.Errorf("%s: %v\n%s", file, err, difference(string(want), got))
	}
}

// has waits until a link has all of these in what ip says of it.
func (m *managed) has(link string, texts ...string) {
	m.t.Helper()
	seen, missing := "", ""
	for range 100 {
		seen, missing = m.run("ip", "addr", "show", link)+m.run("ip", "-4", "route", "show", "dev", link)+m.run("ip", "-6", "route", "show", "dev", link), ""
		for _, want := range texts {
			if !strings.Contains(seen, want) {
				missing = want
			}
		}
		if missing == "" {
			return
		}
		time.Sleep(100 * time.Millisecond) // DHCP and DAD go on after NetworkManager has started
	}
	m.t.Errorf("%s has no %q:\n%s\n%s", link, missing, seen, m.run("nmcli", "device"))
}

func (m *managed) down(links ...string) {
	m.t.Helper()
	for _, link := range links {
		if seen := m.run("ip", "addr", "show", link); strings.Contains(seen, ",UP") || strings.Contains(seen, "inet") {
			m.t.Errorf("%s is not down: %s", link, seen)
		}
	}
}

func TestNetworkManagerUnderstandsTheKeyfiles(t *testing.T) {
	if _, err := exec.LookPath("NetworkManager"); err != nil {
		t.Skip("NetworkManager is not installed")
	}
	for name, n := range networks(t) {
		t.Run(name, func(t *testing.T) {
			files, err := Files(n, "web1.example.org", cards, forms["el8"])
			if err != nil {
				t.Fatal(err)
			}
			l, err := newLayout(n, cards, "S1")
			if err != nil {
				t.Fatal(err)
			}
			machine, peer := newMachine(t)
			peer.ip("addr add 10.7.0.1/24 dev peer1") // of eth0
			peer.dnsmasq("peer1", "--dhcp-range=10.7.0.50,10.7.0.60,255.255.255.0,2m", "--dhcp-option=12,evil", "--dhcp-option=option:domain-name,evil.example", "--dhcp-option=option:dns-server,10.7.0.1")
			m := system{Files: byName(files), Hostname: "web1.example.org"}.start(t, machine, peer)
			if said := m.understood(l); strings.Contains(m.run("nmcli", "--version"), " 1.42.") {
				golden(t, "testdata/"+name+".nm", said)
			} else if strings.Count(said, "connection.id: ") != len(l.links) {
				t.Errorf("it does not know all connections:\n%s", said) // the golden files are in another version's words
			}
			switch name {
			case "static":
				m.has("eth0", "mtu 9000", "inet 192.0.2.5/24", "inet 192.0.2.6/24", "inet6 2001:db8::5/64", "default via 192.0.2.1", "10.0.0.0/8 via 192.0.2.254", "metric 50", "default via fe80::1", "2001:db8:1::/48 via 2001:db8::fe")
				m.down("eth1", "eth2", "eth3")
				if resolv := m.run("cat", "/run/NetworkManager/resolv.conf"); !strings.Contains(resolv, "search example.org lab.example.org\nnameserver 192.0.2.53\nnameserver 192.0.2.54\nnameserver 2001:db8::53\n") {
					t.Error(resolv)
				}
			case "several":
				m.has("eth3", "inet 198.51.100.5/24", "default via 198.51.100.1", "inet6 2001:db8:2::5/64")
				m.has("eth0", "inet 10.7.0.")
				if routes := m.run("ip", "route"); strings.Contains(routes, "default via 10.7.0.1") || strings.Count(routes, "default") != 1 {
					t.Error(routes)
				}
				if resolv := m.run("cat", "/run/NetworkManager/resolv.conf"); strings.Contains(resolv, "10.7.0.1") || !strings.Contains(resolv, "nameserver 198.51.100.53") {
					t.Error(resolv)
				}
				m.has("eth2", ",UP")
			case "dhcp":
				m.has("eth0", "inet 10.7.0.", "default via 10.7.0.1")
				m.down("eth1", "eth2", "eth3")
			}
			if got := strings.TrimSpace(m.run("hostname")); got != "web1.example.org" {
				t.Errorf("the host name is %s", got)
			}
		})
	}
}
