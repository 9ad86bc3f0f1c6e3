package storm

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imgbuild/image/plan"
	"imgbuild/testvm"
)

// ours are the rows that peers are compared with.
type ours struct {
	dhcp, script, file *row
	scriptText         []byte
}

// boot brings n machines from their registration to their first boot.
func (l *lab) boot(ctx context.Context, n int) (err error) {
	s, err := l.start(ctx, n, 0)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.Kill()
		}
	}()
	l.ours = ours{}
	if err := l.order(ctx, s, true); err != nil {
		return err
	}
	began := time.Now()
	for _, step := range []func(context.Context, *server) error{l.power, l.install, l.firstBoot} {
		if err := step(ctx, s); err != nil {
			return err
		}
	}
	took := time.Since(began)
	if err := l.checkStates(ctx, s, "installed"); err != nil {
		return err
	}
	u, err := s.usage().read()
	if err != nil {
		return err
	}
	if err := l.file(ctx, s); err != nil {
		return err
	}
	size, err := databaseSize(s.dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(l.o.Out, "    all %d machines went from DHCP to their first boot in %.1f s and are installed; imgserve has used %.1f s of CPU, %.1f ms for each,\n"+
		"    and at most %d MiB of memory, with the connections of %d installers open; its database has %.1f MiB\n",
		n, took.Seconds(), u.cpu.Seconds(), u.cpu.Seconds()*1e3/float64(n), u.most>>20, s.keep, float64(size)/(1<<20))
	return s.stop(ctx)
}

// databaseSize is the size of a server's database with its log, in bytes.
func databaseSize(dir string) (size int64, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "state", "imgserve.db*"))
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return 0, fmt.Errorf("measure the database: %w", err)
		}
		size += info.Size()
	}
	return size, nil
}

func (s *server) usage() *usage { return &usage{s.PID()} }

// measure has all machines do one thing, and prints it.
func (l *lab) measure(ctx context.Context, s *server, what string, f func(context.Context, *machine) error) (*row, error) {
	r, err := wave(ctx, what, len(s.machines), s.parallel, s.usage(), func(ctx context.Context, i int) error { return f(ctx, s.machines[i]) })
	if err != nil {
		return nil, err
	}
	l.table.print(r)
	return r, nil
}

// order writes the machines into the registry and orders their installation, as a person does.
func (l *lab) order(ctx context.Context, s *server, show bool) error {
	file := filepath.Join(s.dir, "hosts.csv")
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := csv.NewWriter(f)
	rows := [][]string{{"sn", "hostname", "ip", "netmask", "gw", "macs", "rack", "image"}}
	var sns strings.Builder
	for i, m := range s.machines {
		rows = append(rows, []string{m.sn, m.hostname(), m.addr.String(), "255.255.0.0", relayAddr, m.mac.String(), fmt.Sprintf("r%d", i/40), l.releaseRef()})
		fmt.Fprintln(&sns, m.sn)
	}
	if err := errors.Join(w.WriteAll(rows), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	for _, c := range []struct {
		what  string
		stdin string
		args  []string
	}{
		{"hosts written, by imgctl", "", []string{"hosts", "import", file}},
		{"orders made, by imgctl", sns.String(), []string{"order", "install", "-", "--reason", "a storm"}},
	} {
		r := &row{what: c.what, count: len(s.machines)}
		before, err := s.usage().read()
		if err != nil {
			return err
		}
		began := time.Now()
		if _, err := s.CtlInput(ctx, c.stdin, c.args...); err != nil {
			return err
		}
		r.took = time.Since(began)
		after, err := s.usage().read()
		if err != nil {
			return err
		}
		if r.cpu, r.memory = after.cpu-before.cpu, after.memory; show {
			l.table.print(r)
		}
	}
	return nil
}

// power is what firmware and iPXE ask.
func (l *lab) power(ctx context.Context, s *server) (err error) {
	l.relay.repeated.Store(0)
	l.ours.dhcp, err = wave(ctx, "DHCP through a relay (4 messages)", len(s.machines), s.parallel, s.usage(), func(ctx context.Context, i int) error {
		m := s.machines[i]
		addr, file, err := l.relay.lease(ctx, m)
		if want := testvm.ServerURL + "/boot/ipxe"; err == nil && (addr != m.addr || file != want) {
			err = fmt.Errorf("DHCP gives %s the address %s and the file %q, where its own are %s and %s", m.sn, addr, file, m.addr, want)
		}
		return err
	})
	if err != nil {
		return err
	}
	l.ours.dhcp.repeated = l.relay.repeated.Load()
	l.table.print(l.ours.dhcp)
	l.ours.script, err = l.measure(ctx, s, "boot script that installs", func(ctx context.Context, m *machine) error {
		script, err := l.fetch(ctx, m, serverHost(), m.scriptPath())
		if err == nil {
			err = m.readScript(script)
		}
		if err == nil && m == s.machines[0] {
			l.ours.scriptText = script
		}
		return err
	})
	return err
}

// install is what the installer asks and tells: the claim, and a report of each kind. All machines install at the same time.
func (l *lab) install(ctx context.Context, s *server) error {
	_, err := l.measure(ctx, s, "claim: inventory in, signed plan out", func(ctx context.Context, m *machine) error {
		if err := l.claim(ctx, m); err != nil {
			return err
		}
		if m.plan.Action != plan.Install {
			return fmt.Errorf("%s is told to %s: %s", m.sn, m.plan.Action, m.plan.Reason)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := verify(s.machines); err != nil {
		return err
	}
	step := func(n int, text string) plan.Event {
		return plan.Event{Kind: plan.KindStep, Step: n, Of: 9, Text: text}
	}
	progress := func(mib int64) plan.Event {
		return plan.Event{Kind: plan.KindProgress, Text: "root file system", Done: mib << 20, Total: 400 << 20, Rate: 100 << 20}
	}
	for _, r := range []struct {
		what   string
		events []plan.Event
	}{
		{"report of three events", []plan.Event{{Kind: plan.KindInfo, Text: "the network works"}, step(1, "prepare the disk"), step(2, "download and unpack")}},
		{"report of progress", []plan.Event{progress(200)}},
		{"heartbeat", nil},
		{"report that the installation is done", []plan.Event{progress(400), step(9, "boot loader"), {Kind: plan.KindDone, Text: "the disk boots"}}},
	} {
		_, err := l.measure(ctx, s, r.what, func(ctx context.Context, m *machine) error {
			return l.report(ctx, m, slices.Clone(r.events)...)
		})
		if err != nil {
			return err
		}
	}
	for _, m := range s.machines {
		m.hangUp()
	}
	return nil
}

// firstBoot is the installed machine: it asks the network once more, boots its disk and says so.
func (l *lab) firstBoot(ctx context.Context, s *server) error {
	_, err := l.measure(ctx, s, "boot script that boots the disk", func(ctx context.Context, m *machine) error {
		script, err := l.fetch(ctx, m, serverHost(), m.scriptPath())
		if err == nil && !bootsDisk(script) {
			err = fmt.Errorf("an installed machine is not told to boot its disk:\n%s", script)
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = l.measure(ctx, s, "first boot reported", func(ctx context.Context, m *machine) error {
		body, err := m.booted()
		if err != nil {
			return err
		}
		c, err := dial(ctx, m.addr, serverHost(), l.readers)
		if err != nil {
			return err
		}
		defer c.close()
		_, err = c.do(post(serverHost(), plan.BootedPath, m.plan.Token, body), 204)
		return err
	})
	return err
}

// file has all machines fetch a small file of the release.
func (l *lab) file(ctx context.Context, s *server) (err error) {
	l.ours.file, err = l.measure(ctx, s, smallFile+" of the release", func(ctx context.Context, m *machine) error {
		return l.fetchFile(ctx, m, serverHost(), "/images/"+l.releaseRef()+"/"+smallFile)
	})
	return err
}

// smallFile is what every installer fetches.
const smallFile = "manifest.json"

func (l *lab) fetchFile(ctx context.Context, m *machine, host, path string) error {
	b, err := l.fetch(ctx, m, host, path)
	if err == nil && int64(len(b)) != l.fileSize {
		err = fmt.Errorf("%s has %d bytes and %d came", path, l.fileSize, len(b))
	}
	return err
}

// fetch gets one thing over a connection of its own, as boot loaders do.
func (l *lab) fetch(ctx context.Context, m *machine, host, path string) ([]byte, error) {
	c, err := dial(ctx, m.addr, host, l.readers)
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.do(get(host, path), 200)
}

// installer is the machine's installer's connection to the server.
func (l *lab) installer(ctx context.Context, m *machine) (_ *conn, err error) {
	if m.conn == nil {
		m.conn, err = dial(ctx, m.addr, serverHost(), l.readers)
	}
	return m.conn, err
}

// claim asks for the machine's plan.
func (l *lab) claim(ctx context.Context, m *machine) error {
	c, err := l.installer(ctx, m)
	if err != nil {
		return err
	}
	body, err := m.claim()
	if err != nil {
		return err
	}
	answer, err := c.do(post(serverHost(), plan.ClaimPath, "", body), 200)
	if err != nil {
		return err
	}
	m.mayHangUp()
	return m.readPlan(answer)
}

func (l *lab) report(ctx context.Context, m *machine, events ...plan.Event) error {
	c, err := l.installer(ctx, m)
	if err != nil {
		return err
	}
	body, err := m.report(events...)
	if err != nil {
		return err
	}
	answer, err := c.do(post(serverHost(), plan.EventsPath, m.plan.Token, body), 200)
	if err != nil {
		return err
	}
	m.mayHangUp()
	return m.checkAnswer(answer)
}

// verify opens the plans of all machines.
func verify(machines []*machine) error {
	var next atomic.Int64
	errs := make([]error, runtime.NumCPU())
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(machines) && errs[w] == nil; i = int(next.Add(1)) - 1 {
				errs[w] = machines[i].verify()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// checkStates checks that all machines are in one state.
func (l *lab) checkStates(ctx context.Context, s *server, state string) error {
	out, err := s.Ctl(ctx, "hosts", "list", "--state", state, "-o", "json")
	if err != nil {
		return err
	}
	var hosts []json.RawMessage
	if err := json.Unmarshal([]byte(out), &hosts); err != nil {
		return fmt.Errorf("read what imgctl prints: %w", err)
	}
	if len(hosts) != len(s.machines) {
		return fmt.Errorf("%d of %d machines are %s in the end", len(hosts), len(s.machines), state)
	}
	return nil
}

// serverHost is where the server is, as its clients write it.
func serverHost() string { return strings.TrimPrefix(testvm.ServerURL, "http://") }
