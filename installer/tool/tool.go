// Package tool runs the few external programs that the installer needs: mkfs.*, lvm, mdadm, boot loaders' own.
//
// An argument vector comes in; the program's output goes out, and on failure its last lines become part of the error.
// It never uses a shell, never passes on its own environment, and never leaves a program behind when it returns.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Runner runs programs from fixed directories.
type Runner struct {
	// Dirs are searched in order. Empty means the usual four.
	Dirs []string
	// Output is called with each program's argument vector and complete output; nil for nobody.
	Output func(argv []string, output string)
}

// ErrMissing is wrapped when a program is not there.
var ErrMissing = errors.New("the program is not in the initramfs")

func (r Runner) dirs() []string {
	if len(r.Dirs) > 0 {
		return r.Dirs
	}
	return []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}
}

// Find returns the path of a program.
func (r Runner) Find(name string) (string, error) {
	for _, d := range r.dirs() {
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("find %s in %s: %w", name, strings.Join(r.dirs(), ", "), ErrMissing)
}

// Run runs argv[0], found with Find, with the environment env added to PATH and LC_ALL=C. When ctx ends, the program
// and its children are killed.
func (r Runner) Run(ctx context.Context, env []string, argv ...string) error {
	var out bytes.Buffer
	return r.run(ctx, env, argv, &out, &out)
}

// Read is Run for programs whose standard output is read by another program: it is returned, and errors quote what the
// program wrote to standard error.
func (r Runner) Read(ctx context.Context, env []string, argv ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	if err := r.run(ctx, env, argv, &out, &errs); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// run quotes errs in the error. Output gets out and, where it is another one, errs.
func (r Runner) run(ctx context.Context, env, argv []string, out, errs *bytes.Buffer) error {
	path, err := r.Find(argv[0])
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, path, argv[1:]...)
	c.Env = append([]string{"PATH=" + strings.Join(r.dirs(), ":"), "LC_ALL=C", "HOME=/"}, env...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 5 * time.Second
	c.Stdout, c.Stderr = out, errs
	err = c.Run()
	if r.Output != nil {
		text := out.String()
		if errs != out {
			text += errs.String()
		}
		r.Output(argv, text)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("run %s: %w", argv[0], context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("run %s: %w%s", strings.Join(argv, " "), err, last(errs.String()))
	}
	return nil
}

// last is the end of a program's output as a part of a sentence.
func last(out string) string {
	var lines []string
	for l := range strings.Lines(out) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		return "; it wrote nothing"
	}
	return "; it wrote: " + strings.Join(lines[max(0, len(lines)-4):], " / ")
}
