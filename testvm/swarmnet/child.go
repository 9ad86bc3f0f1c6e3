package swarmnet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"imgbuild/testvm"
)

// child is a machine's process, as seen by whoever started it.
type child struct {
	i       int
	config  machineConfig
	process *testvm.Process
	in      *os.File
	log     func(line string)

	mu      sync.Mutex
	changed chan struct{}
	state   childState
}

// childState is what a machine has said so far.
type childState struct {
	ready, done, ended, gone bool // gone: its process has ended
	got, total               int64
	result                   event // of done
	doneAt                   time.Time
	cpuReady                 time.Duration // what it had used before it began
	failed                   string
}

// startChild starts a machine's program in its namespace.
func startChild(ns *testvm.Namespace, i int, program []string, env []string, c machineConfig, log func(string)) (_ *child, err error) {
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inRead.Close(), inWrite.Close())
	}
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Env = inRead, outWrite, append(os.Environ(), env...)
	k := &child{i: i, config: c, in: inWrite, log: log, changed: make(chan struct{})}
	k.process, err = ns.Start(cmd)
	err = errors.Join(err, inRead.Close(), outWrite.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start machine %d: %w", i, err), inWrite.Close(), outRead.Close())
	}
	go k.listen(outRead) // ends with the process
	return k, k.tell(string(config))
}

// tell writes a line to the machine.
func (k *child) tell(line string) error {
	if _, err := fmt.Fprintln(k.in, line); err != nil {
		return fmt.Errorf("tell machine %d: %w", k.i, err)
	}
	return nil
}

// begin has the machine begin its transfer.
func (k *child) begin() error { return k.tell("begin") }

// listen takes what the machine says until its process ends.
func (k *child) listen(out *os.File) {
	defer out.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = event{Kind: said, Text: lines.Text()} // a panic, for one
		}
		switch e.Kind {
		case progress:
		case done:
			k.log(fmt.Sprintf("machine %d: done: %+v", k.i, e.Sources))
		default:
			k.log(fmt.Sprintf("machine %d: %s %s", k.i, e.Kind, e.Text))
		}
		k.change(func(s *childState) { s.take(e) })
	}
	err := k.process.Err()
	k.change(func(s *childState) {
		s.gone = true
		if err != nil && s.failed == "" {
			s.failed = err.Error()
		}
	})
}

func (s *childState) take(e event) {
	switch e.Kind {
	case ready:
		s.ready, s.cpuReady = true, e.CPU
	case progress:
		s.got, s.total = e.Got, e.Total
	case done:
		s.done, s.doneAt, s.result, s.got, s.total = true, time.Now(), e, e.Got, e.Total
	case ended:
		s.ended = true
	case failed:
		s.failed = e.Text
	}
}

func (k *child) change(f func(*childState)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.state)
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *child) now() childState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// await waits until the machine is as wanted. A machine that fails or ends before is an error.
func (k *child) await(ctx context.Context, what string, want func(childState) bool) error {
	for {
		k.mu.Lock()
		s, changed := k.state, k.changed
		k.mu.Unlock()
		switch {
		case want(s):
			return nil
		case s.failed != "" || s.gone:
			return fmt.Errorf("machine %d ends before it %s: %s", k.i, what, s.failed)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until machine %d %s; it has %d of %d bytes: %w", k.i, what, s.got, s.total, context.Cause(ctx))
		}
	}
}

func (k *child) awaitReady(ctx context.Context) error {
	return k.await(ctx, "has its plan", func(s childState) bool { return s.ready })
}

func (k *child) awaitDone(ctx context.Context) error {
	return k.await(ctx, "has all bytes", func(s childState) bool { return s.done })
}

// awaitShare waits until a share of the bytes has come.
func (k *child) awaitShare(ctx context.Context, share float64) error {
	return k.await(ctx, fmt.Sprintf("has %.0f %%", share*100), func(s childState) bool { return s.total > 0 && float64(s.got) >= share*float64(s.total) })
}

// kill ends the machine as a power cut does.
func (k *child) kill() { k.process.Kill() }

// close ends the machine, if it has not ended, and removes what it has written.
func (k *child) close() error {
	k.process.Kill()
	err := k.in.Close()
	return errors.Join(err, remove(k.config.File), remove(k.config.Tree))
}
