package firstboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/control"
	"imgbuild/installer/scripts"
	"imgbuild/installer/tool"
)

// Limits of the first boot.
const (
	GiveUp      = 24 * time.Hour   // of asking the server
	settled     = 10 * time.Minute // of waiting until the boot is complete
	scriptLimit = time.Hour
)

// System is the running system. The zero value is the one that it runs in.
type System struct {
	Root string // "/"
	Log  *slog.Logger
	// Output gets what scripts write; the standard output, which is the journal.
	Output io.Writer
	// Transport is HTTP's; nil for control's own.
	Transport http.RoundTripper
	// GiveUp and Pause are how long the server is asked, and the longest time between two questions; GiveUp and 5 minutes.
	GiveUp, Pause time.Duration
	// Facts finds out what is reported; nil for the real one.
	Facts func(ctx context.Context) plan.Booted

	// What follows is for data disks.

	Sys   string      // sysfs; /sys
	Tools tool.Runner // runs mkfs, mount and restorecon
	// Patience is how long a disk that is not there is waited for; a minute.
	Patience time.Duration
}

func (s System) withDefaults() System {
	if s.Root == "" {
		s.Root = "/"
	}
	if s.Output == nil {
		s.Output = os.Stdout
	}
	if s.GiveUp <= 0 {
		s.GiveUp = GiveUp
	}
	if s.Pause <= 0 {
		s.Pause = 5 * time.Minute
	}
	if s.Facts == nil {
		s.Facts = facts
	}
	if s.Sys == "" {
		s.Sys = "/sys"
	}
	if s.Patience <= 0 {
		s.Patience = time.Minute
	}
	return s
}

// Run does everything. An error means that it is to be run again; nil that it is over, and everything of it is gone, whether
// or not the server answered.
func (s System) Run(ctx context.Context) error {
	s = s.withDefaults()
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		return fmt.Errorf("open the system's root: %w", err)
	}
	defer root.Close()
	f, err := root.Open(ConfigFile)
	if err != nil {
		return fmt.Errorf("read what is to be done: %w; the installer writes it, and it is gone after the first boot", err)
	}
	c, err := decode(f)
	f.Close()
	if err != nil {
		return err
	}
	failed, err := s.scripts(ctx, root, c)
	if err != nil {
		return err
	}
	if c.Server != "" {
		if err := s.report(ctx, c, failed); err != nil {
			if ctx.Err() != nil {
				return err // the machine goes down: next time
			}
			s.Log.Error("the server does not know that this system has booted", "error", err)
		}
	}
	if err := clean(root, leftovers()); err != nil {
		return err
	}
	s.reload(ctx)
	s.Log.Info("the first boot is over")
	return nil
}

// scripts runs the image's scripts that have not run yet, and returns the names of those that failed.
func (s System) scripts(ctx context.Context, root *os.Root, c Config) (failed []string, err error) {
	names, err := scripts.List(root.FS(), image.FirstBootScripts)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var metadata []byte
	if c.Metadata != "" {
		if metadata, err = root.ReadFile(strings.TrimPrefix(c.Metadata, "/")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the host's metadata: %w", err)
		}
	}
	env, err := scripts.Environment(metadata, c.Metadata, c.Serial)
	if err != nil {
		return nil, err
	}
	begun, err := s.begun(root)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if slices.Contains(begun, name) {
			continue
		}
		// Written down before it runs: a script that ends in a reboot, or takes the system down, is not run again.
		if err := note(root, doneFile, name); err != nil {
			return nil, fmt.Errorf("write down that the script %s runs: %w", name, err)
		}
		if err := s.script(ctx, name, env); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			s.Log.Error("a first-boot script failed", "script", name, "error", err)
			failed = append(failed, filepath.Base(image.FirstBootScripts)+"/"+name)
		}
	}
	return failed, nil
}

func (s System) begun(root *os.Root) ([]string, error) {
	b, err := root.ReadFile(doneFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read which scripts have run: %w", err)
	}
	return strings.Fields(string(b)), nil
}

// note adds a line to a file, on the disk.
func note(root *os.Root, file, line string) error {
	f, err := root.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

func (s System) script(ctx context.Context, name string, env []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, scriptLimit, fmt.Errorf("it did not end within %s", scriptLimit))
	defer cancel()
	c := exec.CommandContext(ctx, filepath.Join(s.Root, image.FirstBootScripts, name))
	c.Env, c.Dir, c.Stdout, c.Stderr = env, s.Root, s.Output, s.Output
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 5 * time.Second
	s.Log.Info("first-boot script", "script", name)
	err := c.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// report tells the server, until it answers or the time is over.
func (s System) report(ctx context.Context, c Config, failed []string) error {
	b := s.Facts(ctx)
	b.Schema, b.Failed = plan.Schema, append(failed, b.Failed...)
	if b.Serial == "" {
		b.Serial = c.Serial
	}
	client := control.New(control.Options{Server: c.Server, Transport: s.Transport})
	over := time.Now().Add(s.GiveUp)
	wait := min(time.Second, s.Pause)
	for told := false; ; {
		err := client.Post(ctx, plan.BootedPath, c.Token, b, nil)
		var refused *control.Refused
		switch {
		case err == nil:
			s.Log.Info("the server knows that this system has booted")
			return nil
		case errors.As(err, &refused):
			return err
		case time.Now().After(over):
			return fmt.Errorf("no answer for %s: %w", s.GiveUp, err)
		case !told:
			s.Log.Warn("the server does not answer, and is asked again", "error", err)
			told = true
		}
		timer := time.NewTimer(wait*3/4 + rand.N(wait/2+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		wait = min(wait*2, s.Pause)
	}
}

// clean removes what was added for one of the units, and then, unless the other has something to do, what both have.
func clean(root *os.Root, list []string) error {
	for _, name := range list {
		if err := remove(root, name); err != nil {
			return err
		}
	}
	for _, name := range []string{ConfigFile, DataFile} {
		if _, err := root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, name := range shared() {
		if err := remove(root, name); err != nil {
			return err
		}
	}
	return nil
}

func remove(root *os.Root, name string) error {
	err := root.Remove(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("remove what is left of the installation: %w", err)
	}
	return nil
}

// reload makes systemd read its units and fstab again. Without systemd, nobody has to be told.
func (s System) reload(ctx context.Context) {
	if path, err := exec.LookPath("systemctl"); err == nil && s.Root == "/" {
		_ = exec.CommandContext(ctx, path, "daemon-reload").Run()
	}
}

// failedUnits reads what systemctl list-units --failed prints: a unit is a line's first word, behind a dot where systemd
// is old.
func failedUnits(out []byte) []string {
	var units []string
	for line := range strings.Lines(string(bytes.ToValidUTF8(out, nil))) {
		for _, word := range strings.Fields(line) {
			if strings.ContainsRune(word, '.') {
				units = append(units, word)
			}
			if word != "●" && word != "*" && word != "×" {
				break
			}
		}
	}
	return units
}
