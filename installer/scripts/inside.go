package scripts

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

	"golang.org/x/sys/unix"
)

// insideWord, as the first argument, and insideMark in the environment start this program as what goes into the tree.
const (
	insideWord = "inside-the-installed-tree"
	insideMark = "IMGBUILD_INSIDE"
)

// Limit is how long a script may run at install time.
const Limit = 30 * time.Minute

// Run runs a script of the tree that is mounted at root, and returns all that it wrote. host is the name that the machine
// has there; empty for localhost. self is this program, which goes in first and becomes the script.
func Run(ctx context.Context, self, root, script, host string, env []string) (output string, err error) {
	name := filepath.Base(script)
	ctx, cancel := context.WithTimeoutCause(ctx, Limit, fmt.Errorf("it did not end within %s", Limit))
	defer cancel()
	c := exec.CommandContext(ctx, self, insideWord, root, "/"+script, host)
	c.Env = append([]string{insideMark + "=1"}, env...)
	c.Dir = "/"
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	c.WaitDelay = 5 * time.Second
	c.SysProcAttr = &syscall.SysProcAttr{
		// The script is the first process of its own: with it ends everything that it started.
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	err = c.Run()
	output = out.String()
	switch {
	case err == nil:
		return output, nil
	case ctx.Err() != nil:
		return output, fmt.Errorf("run the image's script %s: %w", name, context.Cause(ctx))
	}
	return output, fmt.Errorf("run the image's script %s: %w%s", name, err, last(output))
}

// last is the end of an output as a part of a sentence.
func last(out string) string {
	var lines []string
	for l := range strings.Lines(out) {
		if l = strings.TrimSpace(strings.ToValidUTF8(l, "?")); l != "" {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		return "; it wrote nothing"
	}
	return "; it wrote: " + strings.Join(lines[max(0, len(lines)-4):], " / ")
}

// Inside reports whether this process was started by Run to go into a tree; GoInside then has to be all that it does. A
// program has to ask before it does anything else: it is the first process there.
func Inside(args []string) bool {
	return len(args) == 5 && args[1] == insideWord && os.Getenv(insideMark) == "1"
}

// GoInside makes the mounts of a running system, goes into the tree and becomes the script. It returns only with an error,
// whose exit code is 126 as the shell has it for what cannot be run.
func GoInside(args []string) (exitCode int, err error) {
	root, script, host := args[2], args[3], args[4]
	if err := settle(root, host); err != nil {
		return 126, fmt.Errorf("go into %s: %w", root, err)
	}
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, insideMark+"=") {
			env = append(env, e)
		}
	}
	if err := syscall.Exec(script, []string{script}, env); err != nil {
		return 126, fmt.Errorf("start it: %w; is what its first line names in the image?", err)
	}
	return 0, nil
}

// settle mounts and changes the root. The mounts are this process's own and go when it does.
func settle(root, host string) error {
	const hard = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make its mounts its own: %w", err)
	}
	for _, m := range []struct {
		source, target, fs string
		flags              uintptr
		data               string
	}{
		{"/dev", "dev", "", unix.MS_BIND | unix.MS_REC, ""},
		{"proc", "proc", "proc", hard, ""},
		{"sysfs", "sys", "sysfs", hard | unix.MS_RDONLY, ""},
		{"tmpfs", "run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"tmpfs", "tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		target := filepath.Join(root, m.target)
		if st, err := os.Lstat(target); err != nil || !st.IsDir() {
			return fmt.Errorf("mount /%s: the image has no such directory", m.target)
		}
		if err := unix.Mount(m.source, target, m.fs, m.flags, m.data); err != nil {
			return fmt.Errorf("mount /%s: %w", m.target, err)
		}
	}
	if host == "" {
		host = "localhost"
	}
	unix.Umask(0o022)
	return errors.Join(unix.Sethostname([]byte(host)), unix.Chroot(root), os.Chdir("/"))
}
