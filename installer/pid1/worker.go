package pid1

import (
	"bufio"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"imgbuild/installer/cmdline"
	"imgbuild/installer/report"
)

// pipeFile is the number of the worker's file through which it talks to the first process.
const pipeFile = 3

// Pipe is the worker's way to the consoles: a report.Sink whose lines the first process shows.
type Pipe struct {
	mu   sync.Mutex
	w    io.Writer
	stop chan struct{}
}

// NewPipe opens the worker's side of the pipe and begins to give signs of life, which keep the watchdog quiet. Close ends
// that.
func NewPipe() *Pipe {
	syscall.CloseOnExec(pipeFile) // tools have no business with it
	p := &Pipe{w: os.NewFile(pipeFile, "first process"), stop: make(chan struct{})}
	go p.live()
	return p
}

func (p *Pipe) live() {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		p.Line(heartbeat, "")
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

// Close ends the signs of life.
func (p *Pipe) Close() { close(p.stop) }

// Line implements report.Sink. The first process always reads, so it does not block for long.
func (p *Pipe) Line(c report.Class, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// There is nobody to tell when the first process is gone.
	_, _ = io.WriteString(p.w, string(rune(c))+strings.ReplaceAll(text, "\n", " ")+"\n")
}

// After says what is to happen after a success, in place of what the kernel's arguments say.
func (p *Pipe) After(d cmdline.Done) { p.Line(afterwards, string(d)) }

// Write implements io.Writer for a slog handler: whole lines, which go to the log only.
func (p *Pipe) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		p.Line(debugLine, strings.TrimRight(line, "\n"))
	}
	return len(b), nil
}

// record is one line from the worker.
type record struct {
	class report.Class
	text  string
}

// worker is the running installer as the first process sees it.
type worker struct {
	pid     int
	exit    <-chan syscall.WaitStatus
	records chan record // closed when the worker's pipe is
	stderr  *tail
	failed  atomic.Bool
	after   atomic.Value // a cmdline.Done, once the worker has said so
}

func (s *supervisor) startWorker(c Config) (*worker, error) {
	pipeR, pipeW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	defer pipeW.Close()
	defer errW.Close()
	w := &worker{records: make(chan record, 64), stderr: &tail{}}
	w.pid, w.exit, err = s.reaper.spawn(c.Worker, &syscall.ProcAttr{
		Dir: "/", Env: c.Env, Files: []uintptr{null.Fd(), errW.Fd(), errW.Fd(), pipeW.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		pipeR.Close()
		errR.Close()
		return nil, err
	}
	stderrDone := make(chan struct{})
	s.guard(func() { // ends when the worker, and every tool that inherited the pipe, has ended
		defer close(stderrDone)
		scan := bufio.NewScanner(errR)
		scan.Buffer(nil, 256<<10)
		for scan.Scan() {
			w.stderr.add(scan.Text())
			s.log.line(debugLine, scan.Text())
		}
	})
	s.guard(func() { // likewise
		defer close(w.records)
		w.read(pipeR)
		select {
		case <-stderrDone: // so that its last words are known when the records end
		case <-time.After(2 * time.Second):
		}
	})
	return w, nil
}

// read turns the worker's lines into records.
func (w *worker) read(r io.Reader) {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		line := scan.Text()
		if line == "" {
			continue
		}
		rec := record{report.Class(line[0]), line[1:]}
		if rec.class == afterwards {
			w.after.Store(cmdline.Done(rec.text))
			if cmdline.Done(rec.text) != cmdline.DoneLive {
				continue
			}
		}
		if strings.HasPrefix(rec.text, report.Prefix+"failed: ") {
			w.failed.Store(true)
		}
		w.records <- rec
	}
}

// stop asks the worker to end, and after 20 s makes it.
func (w *worker) stop(r *reaper) {
	_ = syscall.Kill(w.pid, syscall.SIGTERM)
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for {
		select {
		case <-w.exit:
			return
		case <-w.records:
			// its last words are lost on purpose: what happens now was asked for
		case <-limit.C:
			_ = syscall.Kill(w.pid, syscall.SIGKILL)
			return
		}
	}
}

// tail keeps the first and the last lines that a program wrote: a panic's message is at the start of its trace.
type tail struct {
	mu    sync.Mutex
	lines []string
	from  int // where the interesting part begins
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	panics := strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "runtime: ")
	if panics && t.from == 0 {
		t.lines, t.from = t.lines[:0], 1
	}
	if len(t.lines) >= 200 {
		if t.from == 1 {
			return
		}
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, line)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
