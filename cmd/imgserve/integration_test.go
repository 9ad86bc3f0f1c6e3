//go:build integration

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
	"imgbuild/server/releases/releasetest"
)

// site is a directory with releases, a configuration and the real program that runs on it, on loopback.
type site struct {
	t       *testing.T
	dir     string
	program string
	address string
	url     string
	token   string
	cmd     *exec.Cmd
	out     *output
	ended   chan error
}

// output is what a program said.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed with the next words
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.text.Write(b)
}

// says waits until the program has said something: its words come through a pipe, later than what it does.
func (o *output) says(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		o.mu.Lock()
		said := strings.Contains(o.text.String(), want)
		if o.more == nil {
			o.more = make(chan struct{})
		}
		more := o.more
		o.mu.Unlock()
		if said {
			return
		}
		select {
		case <-more:
		case <-timeout:
			t.Errorf("the log does not say %q:\n%s", want, o)
			return
		}
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func newSite(t *testing.T, state, more string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	var err error
	if s.program, err = exec.LookPath("imgserve"); err != nil { // testscript.Main puts this test's binary into PATH under that name
		t.Fatal(err)
	}
	// Below the ports that the kernel gives to others: the server comes back to it after each kill.
	for s.address == "" {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		if l, err := net.Listen("tcp", address); err == nil {
			s.address, s.url = address, "http://"+address
			_ = l.Close() // it is ours now, as far as one can tell
		}
	}
	key := releasetest.Key(t)
	releasetest.Write(t, filepath.Join(s.dir, "images"), releasetest.Release{Name: "web", Version: "1.0", Key: key, RootfsBytes: 4 << 20})
	public, err := key.Public().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if state == "" {
		state = filepath.Join(s.dir, "state")
	}
	s.write("release.pub", string(public))
	s.write("imgserve.yaml", fmt.Sprintf("images: images\ntrust: [release.pub]\nlisten: %s\nstate: %s\ndhcp: {mode: off}\n%s", s.address, state, more))
	return s
}

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// run runs one command of the program and returns what it said.
func (s *site) run(args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(s.t.Context(), s.program, append(args, "--config", filepath.Join(s.dir, "imgserve.yaml"))...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// start starts the server and waits for its READY=1 (sd_notify(3)).
func (s *site) start() {
	s.t.Helper()
	socket := filepath.Join(s.t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s.cmd = exec.Command(s.program, "--config", filepath.Join(s.dir, "imgserve.yaml"))
	s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	s.out, s.ended = &output{}, make(chan error, 1)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, ended := s.cmd, s.ended
	go func() { ended <- cmd.Wait(); close(ended) }()
	s.t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	ready := make(chan error, 1)
	go func() { // ends with the socket
		b := make([]byte, 1024)
		n, err := l.Read(b)
		if err == nil && !bytes.HasPrefix(b[:n], []byte("READY=1")) {
			err = fmt.Errorf("it says %q", b[:n])
		}
		ready <- err
	}()
	select {
	case err = <-ready:
	case err = <-ended:
		err = fmt.Errorf("it ended: %w", err)
	case <-time.After(time.Minute):
		err = os.ErrDeadlineExceeded
	}
	if err != nil {
		s.t.Fatalf("start: %v\n%s", err, s.out)
	}
}

// kill ends the server as a power cut does.
func (s *site) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	<-s.ended
}

func (s *site) makeToken() {
	s.t.Helper()
	secret, said, err := s.run("token", "create", "alice", "--role", "admin")
	if err != nil {
		s.t.Fatalf("%v: %s", err, said)
	}
	s.token = strings.TrimSpace(secret)
}

// ask sends one request and returns the answer; token may be empty.
func (s *site) ask(method, path, token string, body any) (int, []byte) {
	s.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			s.t.Fatal(err)
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, in)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, data
}

// want is ask for an answer with this status.
func (s *site) want(status int, method, path, token string, body any) []byte {
	s.t.Helper()
	got, data := s.ask(method, path, token, body)
	if got != status {
		s.t.Fatalf("%s %s: %d %s, want %d\n%s", method, path, got, data, status, s.out)
	}
	return data
}

func (s *site) host(sn string) registry.Host {
	s.t.Helper()
	var h registry.Host
	if err := json.Unmarshal(s.want(200, "GET", "/api/v1/servers/"+sn, s.token, nil), &h); err != nil {
		s.t.Fatal(err)
	}
	return h
}

// machine is one machine's boot.
type machine struct {
	s     *site
	sn    string
	nonce string
	key   image.PublicKey
	plan  plan.Plan
	seq   int64
}

// netboot asks for the boot script as iPXE does, and reads the kernel's arguments out of it.
func (s *site) netboot(sn string) (*machine, string) {
	s.t.Helper()
	q := url.Values{"serial": {sn}, "uuid": {""}, "mac": {"52-54-00-00-00-01"}, "product": {"Box"}, "platform": {"pcbios"}, "arch": {"x86_64"}}
	script := string(s.want(200, "GET", "/boot/ipxe?"+q.Encode(), "", nil))
	m := &machine{s: s, sn: sn}
	if !strings.Contains(script, "imgbuild.boot=") {
		return m, script
	}
	word := func(name string) string {
		found := regexp.MustCompile(regexp.QuoteMeta(name) + `=(\S+)`).FindStringSubmatch(script)
		if found == nil {
			s.t.Fatalf("there is no %s in\n%s", name, script)
		}
		return found[1]
	}
	var err error
	if m.key, err = image.ParsePublicKeyText(word("imgbuild.serverkey")); err != nil {
		s.t.Fatal(err)
	}
	m.nonce = word("imgbuild.boot")
	if server := word("imgbuild.server"); server != s.url {
		s.t.Errorf("the machine is told the server %s", server)
	}
	return m, script
}

func (m *machine) claim() {
	m.s.t.Helper()
	c := plan.Claim{Schema: plan.Schema, Boot: m.nonce, Inventory: plan.Inventory{
		Serial: m.sn, SerialSource: "system", Product: "Box", Firmware: "bios", CPUs: 2, MemoryBytes: 4 << 30,
		Disks: []plan.Disk{{Path: "/dev/sda", SizeBytes: 1 << 40}}, NICs: []plan.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01", Link: true}},
	}}
	var signed plan.Signed
	if err := json.Unmarshal(m.s.want(200, "POST", plan.ClaimPath, "", c), &signed); err != nil {
		m.s.t.Fatal(err)
	}
	var err error
	if m.plan, err = plan.Open(signed, m.key, m.nonce, m.sn); err != nil {
		m.s.t.Fatal(err)
	}
}

// report tells events, and returns what the server has.
func (m *machine) report(events ...plan.Event) int64 {
	m.s.t.Helper()
	for i := range events {
		m.seq++
		events[i].Seq, events[i].Time = m.seq, time.Now()
	}
	var a plan.Answer
	if err := json.Unmarshal(m.s.want(200, "POST", plan.EventsPath, m.plan.Token, plan.Report{Schema: plan.Schema, Events: events}), &a); err != nil {
		m.s.t.Fatal(err)
	}
	return a.Seq
}

const oldRecord = `{"sn":"SNA001","hostname":"web1","ip":"10.0.0.11","netmask":"255.255.255.0","gw":"10.0.0.1"}`

func TestAMachineIsInstalledAlthoughTheServerIsKilledOnTheWay(t *testing.T) {
	s := newSite(t, "", "legacy_clients: [127.0.0.0/8]\n")
	s.start()
	s.out.says(t, "imgserve token create NAME --role admin")
	s.makeToken()
	s.want(201, "POST", "/api/v1/servers", "", oldRecord) // an old script
	if _, script := s.netboot("SNA001"); strings.Contains(script, "imgbuild.boot=") {
		t.Fatalf("without an order it boots the installer:\n%s", script)
	}
	var o registry.Order
	if err := json.Unmarshal(s.want(201, "POST", "/api/v1/orders", s.token, `{"sn":"SNA001","image":"web","reason":"new disk"}`), &o); err != nil {
		t.Fatal(err)
	}
	m, _ := s.netboot("SNA001")
	s.kill()
	s.start()
	m.claim()
	if m.plan.Action != plan.Install || m.plan.Order != o.ID || m.plan.Host.Hostname != "web1" || !strings.HasPrefix(m.plan.Manifest, s.url+"/images/web/1.0/") {
		t.Fatalf("%+v", m.plan)
	}
	s.kill()
	s.start()
	m.claim() // the same boot may ask again
	if m.plan.Action != plan.Install {
		t.Fatalf("after a restart it is told %s: %s", m.plan.Action, m.plan.Reason)
	}
	if thief, script := s.netboot("SNA001"); thief.nonce != "" {
		t.Errorf("another boot is told to install too:\n%s", script)
	}
	s.want(200, "GET", "/images/web/1.0/rootfs.squashfs", "", nil)
	if seq := m.report(plan.Event{Kind: plan.KindStep, Text: "partition disk", Step: 1, Of: 3}, plan.Event{Kind: plan.KindInfo, Text: "before the power cut"}); seq != 2 {
		t.Errorf("the server has %d", seq)
	}
	s.kill()
	s.start()
	if h := s.host("SNA001"); h.State != registry.Installing {
		t.Errorf("the host is %s", h.State)
	}
	if seq := m.report(plan.Event{Kind: plan.KindDone, Text: "the disk boots"}); seq != 3 {
		t.Errorf("the server has %d", seq)
	}
	if h := s.host("SNA001"); h.State == registry.Installed {
		t.Error("it is installed before its system has started")
	}
	s.want(204, "POST", plan.BootedPath, m.plan.Token, plan.Booted{Schema: plan.Schema, Serial: "SNA001", Hostname: "web1", Kernel: "5.14", System: "CentOS Stream 9"})
	s.kill()
	s.start()
	h := s.host("SNA001")
	if h.State != registry.Installed || h.Booted == nil || h.Booted.Kernel != "5.14" {
		t.Errorf("%+v", h)
	}
	var diary []registry.Event
	if err := json.Unmarshal(s.want(200, "GET", "/api/v1/events?sn=SNA001", s.token, nil), &diary); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	text := ""
	for _, e := range diary {
		kinds = append(kinds, e.Kind)
		text += e.Text + "\n"
	}
	if !strings.Contains(text, "before the power cut") || !strings.Contains(text, "new disk") {
		t.Errorf("something that was acknowledged is lost: %q\n%s", kinds, text)
	}
	if _, script := s.netboot("SNA001"); strings.Contains(script, "imgbuild.boot=") {
		t.Errorf("the finished machine falls into an installation:\n%s", script)
	}
	if strings.Contains(s.out.String(), s.token) || strings.Contains(s.out.String(), m.plan.Token) {
		t.Error("the log has a secret")
	}
}

func TestWhatIsAcknowledgedSurvivesAKillInTheMiddle(t *testing.T) {
	s := newSite(t, "", "")
	s.start()
	s.makeToken()
	for round := range 3 {
		var mu sync.Mutex
		acknowledged := map[string]bool{}
		var wg sync.WaitGroup
		for writer := range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					sn := fmt.Sprintf("SN%d-%d-%03d", round, writer, i)
					req, err := http.NewRequestWithContext(t.Context(), "PUT", s.url+"/api/v1/servers/"+sn, strings.NewReader(`{"hostname":"x"}`))
					if err != nil {
						return
					}
					req.Header.Set("Authorization", "Bearer "+s.token)
					resp, err := http.DefaultClient.Do(req)
					if err != nil {
						return // killed
					}
					_ = resp.Body.Close()
					if resp.StatusCode == http.StatusCreated {
						mu.Lock()
						acknowledged[sn] = true
						mu.Unlock()
					}
				}
			})
		}
		for enough := false; !enough; {
			mu.Lock()
			enough = len(acknowledged) >= 200
			mu.Unlock()
		}
		s.kill()
		wg.Wait()
		s.start()
		for sn := range acknowledged {
			s.host(sn)
		}
		t.Logf("round %d: %d hosts were acknowledged, and are there", round, len(acknowledged))
	}
}

func TestAFullDiskIsSaidAndLosesNothing(t *testing.T) {
	state := t.TempDir()
	if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=2m,mode=0700"); err != nil {
		t.Skipf("a small tmpfs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	s := newSite(t, state, "")
	s.start()
	s.makeToken()
	good, status := 0, 201
	var body []byte
	for i := 0; status == 201 && i < 10000; i++ {
		status, body = s.ask("PUT", fmt.Sprintf("/api/v1/servers/SN%05d", i), s.token, `{"metadata":{"x":"`+strings.Repeat("y", 20000)+`"}}`)
		if status == 201 {
			good = i
		}
	}
	if status != http.StatusServiceUnavailable || !strings.Contains(string(body), "nothing was changed") {
		t.Errorf("on a full disk: %d %s", status, body)
	}
	s.out.says(t, "full")
	if h := s.host(fmt.Sprintf("SN%05d", good)); h.SN == "" {
		t.Error("what was acknowledged is lost")
	}
	s.want(200, "GET", "/healthz", "", nil)
	if err := unix.Mount("tmpfs", state, "tmpfs", unix.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	s.want(201, "PUT", "/api/v1/servers/SNAFTER1", s.token, `{}`) // it goes on by itself
	s.kill()
	s.start()
	s.host("SNAFTER1")
	s.host(fmt.Sprintf("SN%05d", good))
}

func TestADamagedDatabaseIsSaid(t *testing.T) {
	s := newSite(t, "", "")
	s.start()
	s.makeToken()
	s.kill()
	db := filepath.Join(s.dir, "state", "imgserve.db")
	for _, end := range []string{"-wal", "-shm"} {
		_ = os.Remove(db + end) // it is there or not
	}
	if err := os.WriteFile(db, bytes.Repeat([]byte("no database"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	_, said, err := s.run("serve")
	if err == nil || !strings.Contains(said, "imgserve.db") || !strings.Contains(said, "the server cannot start") {
		t.Errorf("%v: %s", err, said)
	}
	t.Log(said)
	if out, _, err := s.run("check"); err == nil || !strings.Contains(out, "error    database") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestASecondServerNamesTheFirst(t *testing.T) {
	s := newSite(t, "", "")
	s.start()
	_, said, err := s.run("serve")
	if want := fmt.Sprintf("port %s/tcp is taken by imgserve[%d]", s.address[strings.LastIndexByte(s.address, ':')+1:], s.cmd.Process.Pid); err == nil || !strings.Contains(said, want) {
		t.Errorf("%v: %s, want %s", err, said, want)
	}
	if out, _, err := s.run("check"); err != nil || !strings.Contains(out, "the server runs") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestOneSignalStopsItAndABackupIsMadeWhileItRuns(t *testing.T) {
	s := newSite(t, "", "")
	s.start()
	s.makeToken()
	s.want(201, "PUT", "/api/v1/servers/SNA001", s.token, `{"hostname":"web1"}`)
	copied := filepath.Join(s.dir, "copy.db")
	if _, said, err := s.run("backup", copied); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if out, said, err := s.run("token", "list", "--database", copied); err != nil || !strings.Contains(out, "alice") {
		t.Errorf("%v: %s %s", err, out, said)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("%v\n%s", err, s.out)
	}
	s.out.says(t, "stopping")
}

// TestItServesWithoutRoot starts the server as nobody with the unit's two capabilities, on DHCP's and TFTP's ports in a
// network namespace of its own.
func TestItServesWithoutRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making a network namespace and another user's process takes root")
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("there is no ip (iproute2) here")
	}
	name := fmt.Sprintf("imgserve-%d", os.Getpid())
	inside := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), ip, args...).CombinedOutput(); err != nil {
			t.Skipf("ip %q: %v: %s", args, err, out)
		}
	}
	inside("netns", "add", name)
	t.Cleanup(func() { _ = exec.Command(ip, "netns", "delete", name).Run() })
	inside("-n", name, "link", "set", "lo", "up")
	inside("-n", name, "link", "add", "br0", "type", "bridge")
	inside("-n", name, "addr", "add", "10.66.0.1/24", "dev", "br0")
	inside("-n", name, "link", "set", "br0", "up")
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("there is no setpriv (util-linux) here")
	}
	state := filepath.Join("/var/tmp", name)
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	if err := os.Chown(state, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, filepath.Join(state, "s"), "")
	for dir := s.dir; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755) // nobody has to get at the images
	}
	_ = os.Chmod(filepath.Join(s.dir, "release.pub"), 0o644)
	binary := filepath.Join(state, "imgserve")
	data, err := os.ReadFile(s.program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, data, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("images: %s\ntrust: [%s]\nstate: %s\ninterface: br0\nurl: http://10.66.0.1:8080\ndhcp: {subnets: [{subnet: 10.66.0.0/24, range: 10.66.0.100-10.66.0.199}]}\n",
		filepath.Join(s.dir, "images"), filepath.Join(s.dir, "release.pub"), filepath.Join(state, "s"))
	s.write("imgserve.yaml", text)
	if err := os.Chmod(filepath.Join(s.dir, "imgserve.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	caps := "+net_bind_service,+net_raw"
	as := []string{"netns", "exec", name, setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all," + caps, "--ambient-caps=-all," + caps,
		"--bounding-set=-all," + caps, "--no-new-privs", binary, "--config", filepath.Join(s.dir, "imgserve.yaml")}
	cmd := exec.Command(ip, as...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH"))
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	curl := func() error {
		return exec.CommandContext(t.Context(), ip, "netns", "exec", name, "curl", "-sf", "-m", "2", "http://10.66.0.1:8080/readyz").Run()
	}
	out.says(t, "msg=ready")
	out.says(t, "DHCP is served")
	if err := curl(); err != nil {
		t.Fatalf("it does not serve: %v\n%s", err, out)
	}
	if got, err := exec.CommandContext(t.Context(), ip, "netns", "exec", name, "curl", "-s", "-m", "5", "tftp://10.66.0.1/grub.cfg").CombinedOutput(); err != nil || !strings.Contains(string(got), "imgserve") {
		t.Errorf("TFTP: %v: %s\n%s", err, got, out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it stopped with %v\n%s", err, out)
	}
}
