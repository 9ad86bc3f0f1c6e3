package testvm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace that has no name: it is there as long as one thread of this process, and so do its
// interfaces and the programs started in it go when this process does, even when it is killed.
type Namespace struct {
	work chan func()
	quit chan struct{}
	gone chan struct{}
	once sync.Once
	tid  int
}

// NewNamespace makes a namespace with the loopback interface only, and down.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{work: make(chan func()), quit: make(chan struct{}), gone: make(chan struct{})}
	ready := make(chan error)
	go n.serve(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return n, nil
}

// serve owns the thread that is in the namespace, and never gives it back to the Go runtime: a locked goroutine that
// returns ends its thread.
func (n *Namespace) serve(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The first thread of a process does not end before the process. Another goroutine gets another thread as long as
		// this one holds this one.
		next := make(chan error)
		go n.serve(next)
		err := <-next
		runtime.UnlockOSThread()
		ready <- err
		return
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		ready <- err
		return
	}
	n.tid = unix.Gettid()
	defer close(n.gone)
	ready <- nil
	for {
		select {
		case f := <-n.work:
			f()
		case <-n.quit:
			return
		}
	}
}

// ErrClosed is returned for what is asked of a network or machine that has been closed.
var ErrClosed = errors.New("it has been closed")

// Do runs f inside the namespace: sockets that it opens and programs that it starts belong there. f must not call Do.
func (n *Namespace) Do(f func() error) error {
	errc := make(chan error, 1)
	select {
	case n.work <- func() { errc <- f() }:
		return <-errc
	case <-n.gone:
		return fmt.Errorf("use network namespace: %w", ErrClosed)
	}
}

// Close ends the namespace's thread. Programs that were started in it are killed by the kernel when it ends.
func (n *Namespace) Close() {
	n.once.Do(func() { close(n.quit) })
	<-n.gone
}

// Process is a program that runs inside a namespace.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	tail *tailWriter
}

// Start starts a program in the namespace. Its standard error is kept, the last of it, unless cmd says where it goes.
func (n *Namespace) Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{}), tail: &tailWriter{max: 4096}}
	if cmd.Stderr == nil {
		cmd.Stderr = p.tail
	}
	// Its own process group keeps a Ctrl-C at the terminal for us, who end things in order. Pdeathsig is bound to the
	// thread that starts it, which is the namespace's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := n.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the program's process, as long as it runs.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says, once the program has ended, how, with the last line it wrote; nil means it ended well.
func (p *Process) Err() error {
	<-p.done
	if p.err == nil {
		return nil
	}
	if l := lastLine(p.tail.String()); l != "" {
		return fmt.Errorf("%s: %w: %s", p.cmd.Path, p.err, l)
	}
	return fmt.Errorf("%s: %w", p.cmd.Path, p.err)
}

// Kill ends the program and waits until it has.
func (p *Process) Kill() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Kill() // fails only when it has ended, which is waited for below
	<-p.done
}

// tailWriter keeps the last max bytes of what is written.
type tailWriter struct {
	mu  sync.Mutex
	max int
	b   []byte
}

func (t *tailWriter) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - t.max; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (t *tailWriter) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

func lastLine(s string) string {
	s = strings.TrimRight(s, "\r\n ")
	return s[strings.LastIndexByte(s, '\n')+1:]
}
