// Package tool runs the programs that a build needs. In goes an argv with the little environment it is to see; out come
// its output, line by line and in the log, and an error that shows the program's last words.
//
// It never uses a shell, never passes on the caller's environment, and leaves no process of a program behind.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tailLines is how many of a failed program's last lines an Error keeps.
const tailLines = 15

// grace is how long a program may take to end after it was asked to.
const grace = 10 * time.Second

// Path is the search path that programs get, on the host and in the chroot.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Command is one program to run.
type Command struct {
	// Argv is the program and its arguments. On the host the program is looked for in Path; below Root it is an
	// absolute path there.
	Argv []string
	// Env are variables beside PATH, LANG and HOME, which are set to what is the same everywhere. Later ones win.
	Env []string
	// Dir is the working directory; "/" if empty.
	Dir string
	// Root is the directory that becomes the program's root directory; empty for none.
	Root string
	// NoNetwork gives the program a network of its own with nothing but a loopback device.
	NoNetwork bool
	// Stdin is given to the program; nil is an empty input.
	Stdin io.Reader
	// Stdout, if not nil, gets the program's standard output instead of the log; Line does not see it.
	Stdout io.Writer
	// Line, if not nil, is called with each line of output, from one goroutine.
	Line func(string)
}

// Error says how a program failed.
type Error struct {
	Argv []string
	Err  error
	// Tail are the last lines of its output.
	Tail []string
}

// Error shows the command, how it ended and its last lines.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", filepath.Base(e.Argv[0]), e.Err)
	for _, l := range e.Tail {
		b.WriteString("\n    " + l)
	}
	return b.String()
}

// Unwrap returns how the program ended.
func (e *Error) Unwrap() error { return e.Err }

// Runner runs programs one after the other or in parallel and writes what they do to one log.
type Runner struct {
	mu  sync.Mutex
	log io.Writer
}

// NewRunner returns a Runner that writes to log.
func NewRunner(log io.Writer) *Runner { return &Runner{log: log} }

// Heading writes a line that structures the log.
func (r *Runner) Heading(text string) {
	r.write(fmt.Sprintf("\n==== %s\n", text))
}

// Note writes a line to the log.
func (r *Runner) Note(format string, a ...any) {
	r.write("# " + fmt.Sprintf(format, a...) + "\n")
}

// write never fails the build: the log is for people, and a full disk fails the build where it matters.
func (r *Runner) write(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = io.WriteString(r.log, s)
}

// Output runs the command and returns its standard output.
func (r *Runner) Output(ctx context.Context, c Command) ([]byte, error) {
	var b bytes.Buffer
	c.Stdout = &b
	err := r.Run(ctx, c)
	return b.Bytes(), err
}

// Run runs the command and waits for its end. When ctx ends, the program and all that it started are ended too, and the
// error is the context's cause.
func (r *Runner) Run(ctx context.Context, c Command) error {
	if len(c.Argv) == 0 {
		return errors.New("run a program: there is no argv")
	}
	cmd, err := prepare(ctx, c)
	if err != nil {
		return err
	}
	r.write(logLine(c))
	lines := &lineWriter{runner: r, line: c.Line}
	cmd.Stdout, cmd.Stderr = lines, lines
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	began := time.Now()
	err = start(cmd, c.NoNetwork)
	if err == nil {
		err = cmd.Wait()
		// Whatever it left behind in its process group ends with it.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	lines.flush()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well; a daemon that it started held its output open
	}
	r.Note("%.1f s, %s", time.Since(began).Seconds(), outcome(err))
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s was ended: %w", filepath.Base(c.Argv[0]), cause)
	}
	return &Error{Argv: c.Argv, Err: err, Tail: lines.tail}
}

func prepare(ctx context.Context, c Command) (*exec.Cmd, error) {
	name := c.Argv[0]
	if c.Root == "" && !strings.Contains(name, "/") {
		var err error
		if name, err = Find(name); err != nil {
			return nil, err
		}
	}
	if c.Root != "" && !filepath.IsAbs(name) {
		return nil, fmt.Errorf("run %s in %s: it is not an absolute path", name, c.Root)
	}
	cmd := exec.CommandContext(ctx, name, c.Argv[1:]...)
	cmd.Args = slices.Clone(c.Argv)
	cmd.Env = append([]string{"PATH=" + Path, "LANG=C.UTF-8", "HOME=/root"}, c.Env...)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdin = c.Stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.Root, Setpgid: true}
	cmd.WaitDelay = grace
	cmd.Cancel = func() error {
		pid := cmd.Process.Pid
		time.AfterFunc(grace/2, func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })
		return syscall.Kill(-pid, syscall.SIGTERM)
	}
	return cmd, nil
}

// Find returns where a program is on the host, looked for in Path and not in the caller's PATH.
func Find(name string) (string, error) {
	for dir := range strings.SplitSeq(Path, ":") {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("find the program %s: it is not in %s", name, Path)
}

func logLine(c Command) string {
	var b strings.Builder
	b.WriteString("$")
	if c.Root != "" {
		fmt.Fprintf(&b, " [in %s]", c.Root)
	}
	if c.NoNetwork {
		b.WriteString(" [no network]")
	}
	for _, a := range c.Argv {
		if a == "" || strings.ContainsAny(a, " \t\n'\"\\$*?[](){}<>|&;#~`!") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		b.WriteString(" " + a)
	}
	return b.String() + "\n"
}

func outcome(err error) string {
	if err == nil {
		return "done"
	}
	return err.Error()
}

// lineWriter cuts output into lines. os/exec calls Write from one goroutine when both outputs are the same writer.
type lineWriter struct {
	runner *Runner
	line   func(string)
	rest   []byte
	tail   []string
}

// maxLine bounds a line: a program may write megabytes without a line end.
const maxLine = 64 << 10

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			w.rest = append(w.rest, p...)
			if len(w.rest) > maxLine {
				w.flush()
			}
			break
		}
		w.rest = append(w.rest, p[:i]...)
		w.flush()
		p = p[i+1:]
	}
	return n, nil
}

func (w *lineWriter) flush() {
	s := strings.TrimRight(strings.ToValidUTF8(string(w.rest), "?"), " \t")
	w.rest = w.rest[:0]
	if s == "" {
		return
	}
	w.runner.write(s + "\n")
	if w.tail = append(w.tail, s); len(w.tail) > tailLines {
		w.tail = w.tail[1:]
	}
	if w.line != nil {
		w.line(s)
	}
}
