package swarmnet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/control"
	"imgbuild/installer/fetch"
	"imgbuild/installer/report"
)

// Machine is what a program does that was started to be one machine of a swarm: it reads what it is to be from in, says on out
// how it goes, and ends when in does. It is of no use to people.
//
// It does what the installer does with the network: it asks for its boot script, claims its plan, reads the manifest, and has
// the root file system brought by installer/transfer. In the place of disks there is a file, or a directory.
func Machine(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		return errors.Join(errors.New("be a machine of a swarm: nobody says which; testvm swarm does"), lines.Err())
	}
	m := &machine{out: json.NewEncoder(out), begin: make(chan struct{})}
	if err := json.Unmarshal(lines.Bytes(), &m.config); err != nil {
		return fmt.Errorf("be a machine of a swarm: %w; testvm swarm starts it", err)
	}
	go func() { // ends with in, and so with whoever started this machine
		for begun := false; lines.Scan(); begun = true {
			if !begun {
				close(m.begin)
			}
		}
		cancel(errors.New("nobody wants this machine any more"))
	}()
	err := m.run(ctx)
	if err != nil {
		m.say(event{Kind: failed, Text: err.Error()})
	}
	return err
}

// machineConfig is what a machine is told to be.
type machineConfig struct {
	Server            string // its address
	Serial, UUID, MAC string
	Trust             []byte // the keys of releases
	// File is where the root file system is written; Tree, if set, is the directory that it is unpacked into instead.
	File, Tree string
	// Keep keeps all of the file. Otherwise what was written is given back soon, so that many large ones fit.
	Keep bool
	// Memory is what the transfer may keep in memory, SpillDir where it may keep more.
	Memory   int64
	SpillDir string
	// Corrupt is which of the chunks that it gives to others it spoils: 10 is every tenth; 0 is none.
	Corrupt int
	// WriteRate is the most that its disk takes, in bytes a second; 0 is no limit.
	WriteRate int64
}

// The kinds of what a machine says.
const (
	ready    = "ready"    // it has its plan and waits for the word
	said     = "said"     // Text is for people
	progress = "progress" // Got of Total
	done     = "done"     // it has all bytes, and they are right
	ended    = "ended"    // nobody needs it any more
	failed   = "failed"   // Text says why
)

// event is what a machine says.
type event struct {
	Kind       string             `json:"kind"`
	Text       string             `json:"text,omitempty"`
	Got, Total int64              `json:",omitempty"`
	Sources    []plan.SwarmSource `json:"sources,omitempty"`
	// CPU is the processor time that it has used, Memory the most that it had (resident), in bytes.
	CPU    time.Duration `json:"cpu,omitempty"`
	Memory int64         `json:"memory,omitempty"`
}

type machine struct {
	config machineConfig
	begin  chan struct{}

	mu  sync.Mutex
	out *json.Encoder
}

func (m *machine) say(e event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.out.Encode(e) // whoever does not listen any more has ended
}

// Line implements report.Sink.
func (m *machine) Line(_ report.Class, text string) { m.say(event{Kind: said, Text: text}) }

// run is the life of a machine.
func (m *machine) run(ctx context.Context) error {
	debug.SetMemoryLimit(2*m.config.Memory + 64<<20) // as the installer does
	lines := report.New(m)
	events := control.NewEvents(lines)
	nonce, key, err := m.boot(ctx)
	if err != nil {
		return err
	}
	client := control.New(control.Options{Server: m.config.Server, Key: key, Boot: nonce, Report: lines, Patience: time.Minute, Transport: m.transport()})
	p, err := client.Claim(ctx, func(context.Context) plan.Inventory { return m.inventory() }, func(context.Context) {})
	if err != nil {
		return err
	}
	if p.Action != plan.Install {
		return fmt.Errorf("the server tells %s to %s: %s", m.config.Serial, p.Action, p.Reason)
	}
	delivery := client.Deliver(ctx, events, p.Token)
	err = m.install(ctx, &task{plan: p, client: client, report: events})
	if err != nil {
		delivery.End(plan.KindFailed, err.Error(), time.Second)
		return err
	}
	delivery.End(plan.KindDone, "the file is right", 5*time.Second) // where the server has gone, nobody needs to know
	m.say(event{Kind: ended})
	return nil
}

// task is one installation.
type task struct {
	plan     plan.Plan
	client   *control.Client
	report   report.Reporter
	fetcher  *fetch.Fetcher
	manifest *image.Manifest
}

// install has the root file system brought, and writes it.
func (m *machine) install(ctx context.Context, t *task) error {
	keys, err := image.ParsePublicKeys(m.config.Trust)
	if err != nil {
		return err
	}
	t.fetcher = fetch.New(fetch.Options{Report: t.report})
	if t.manifest, _, _, err = t.fetcher.Manifest(ctx, t.plan.Manifest, keys); err != nil {
		return err
	}
	c, err := m.transfer(ctx, t)
	if err != nil {
		return err
	}
	cpu, _ := used()
	m.say(event{Kind: ready, CPU: cpu})
	select {
	case <-m.begin:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), c.Close())
	}
	return m.bring(ctx, c, t.manifest.Files[image.RootfsFile])
}

// boot asks for the boot script, as iPXE does, and returns what it gives to the kernel.
func (m *machine) boot(ctx context.Context) (nonce string, key image.PublicKey, err error) {
	v := url.Values{
		"serial": {m.config.Serial}, "uuid": {m.config.UUID}, "mac": {strings.ReplaceAll(m.config.MAC, ":", "-")}, "product": {product},
		"platform": {"pcbios"}, "arch": {"i386"},
	}
	fail := func(err error) (string, image.PublicKey, error) {
		return "", key, fmt.Errorf("ask for the boot script: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.config.Server+"/boot/ipxe?"+v.Encode(), nil)
	if err != nil {
		return fail(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fail(err)
	}
	defer res.Body.Close()
	script, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return fail(err)
	}
	for word := range strings.FieldsSeq(string(script)) {
		if text, ok := strings.CutPrefix(word, "imgbuild.serverkey="); ok {
			if key, err = image.ParsePublicKeyText(text); err != nil {
				return fail(err)
			}
		}
		if text, ok := strings.CutPrefix(word, "imgbuild.boot="); ok {
			nonce = text
		}
	}
	if nonce == "" {
		return fail(fmt.Errorf("it starts no installer:\n%s", script))
	}
	return nonce, key, nil
}

// product is what every machine of a swarm is.
const product = "Swarm 1000"

func (m *machine) inventory() plan.Inventory {
	return plan.Inventory{
		Serial: m.config.Serial, SerialSource: "system", UUID: m.config.UUID, Vendor: "imgbuild", Product: product, Firmware: "bios", CPUs: 2,
		MemoryBytes: 8 * m.config.Memory, Installer: "swarm",
		Disks: []plan.Disk{{Path: "/dev/sda", Serial: m.config.Serial + "-D0", SizeBytes: 1 << 40, Transport: "sata"}},
		NICs:  []plan.NIC{{Name: card, MAC: m.config.MAC, Link: true}},
	}
}

// used is what this process has used so far.
func used() (cpu time.Duration, memory int64) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Maxrss << 10
}

// remove removes what a machine has written, if anything.
func remove(path string) error {
	if path == "" {
		return nil
	}
	return os.RemoveAll(path)
}
