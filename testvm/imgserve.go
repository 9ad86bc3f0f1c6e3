package testvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ImgserveConfig says how a real imgserve is started on a network.
type ImgserveConfig struct {
	// Imgserve and Imgctl are the programs.
	Imgserve, Imgctl string
	// Dir keeps the server's state and configuration, over restarts.
	Dir string
	// YAML is the server's configuration; it listens on ServerURL's port.
	YAML string
	// Log gets what the server says, line by line; nil for nobody.
	Log func(line string)
}

// ServerURL is the address of a network's imgserve.
const ServerURL = "http://10.77.0.1:8080"

// Imgserve is a real imgserve on a network, and the people who use it.
type Imgserve struct {
	network *Network
	config  ImgserveConfig
	file    string
	token   string
	process *Process
}

// StartImgserve starts the server, makes a token, and returns when it is ready. The network must have been made without a DHCP
// server of its own, unless the configuration is for one beside another.
func (n *Network) StartImgserve(ctx context.Context, c ImgserveConfig) (*Imgserve, error) {
	s := &Imgserve{network: n, config: c, file: filepath.Join(c.Dir, "imgserve.yaml")}
	if s.config.Log == nil {
		s.config.Log = func(string) {}
	}
	fail := func(err error) (*Imgserve, error) { return nil, fmt.Errorf("start imgserve: %w", err) }
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fail(err)
	}
	if err := os.WriteFile(s.file, []byte(c.YAML), 0o600); err != nil {
		return fail(err)
	}
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	secret, err := s.run(ctx, "", nil, c.Imgserve, "token", "create", "testvm", "--role", "admin", "--config", s.file)
	if err != nil {
		s.Kill()
		return fail(err)
	}
	s.token = lastLine(secret)
	return s, nil
}

// Start starts the server again, after Kill or Stop, and returns when it says that it is ready (sd_notify(3)).
func (s *Imgserve) Start(ctx context.Context) error {
	name := filepath.Join(s.network.dir, "notify")
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start imgserve: %w", err)
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("start imgserve: %w", err)
	}
	defer notify.Close()
	cmd := exec.Command(s.config.Imgserve, "--config", s.file)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
	tail := &tailWriter{max: 4096}
	out := multiWriter{&lineWriter{line: s.config.Log}, tail}
	cmd.Stdout, cmd.Stderr = out, out
	if s.process, err = s.network.ns.Start(cmd); err != nil {
		return err
	}
	s.process.tail = tail
	ready := make(chan error, 1)
	go func() { // ends when the socket is closed
		b := make([]byte, 4096)
		for {
			n, err := notify.Read(b)
			if err != nil || bytes.Contains(b[:n], []byte("READY=1")) {
				ready <- err
				return
			}
		}
	}()
	select {
	case err := <-ready:
		return err
	case <-s.process.Done():
		return fmt.Errorf("start imgserve: it ended at once: %w; it said:\n%s", s.process.Err(), tail)
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("start imgserve: %w; it said:\n%s", context.Cause(ctx), tail)
	}
}

// Kill ends the server as a power cut would (SIGKILL).
func (s *Imgserve) Kill() { s.process.Kill() }

// Stop asks the server to end, and waits until it has.
func (s *Imgserve) Stop(ctx context.Context) error {
	if err := s.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop imgserve: %w", err)
	}
	select {
	case <-s.process.Done():
		return s.process.Err()
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("stop imgserve: %w", context.Cause(ctx))
	}
}

// Ctl runs imgctl with the token, and returns what it printed on standard output.
func (s *Imgserve) Ctl(ctx context.Context, args ...string) (string, error) {
	return s.CtlInput(ctx, "", args...)
}

// CtlInput is Ctl with something on imgctl's standard input.
func (s *Imgserve) CtlInput(ctx context.Context, stdin string, args ...string) (string, error) {
	return s.run(ctx, stdin, []string{"IMGCTL_SERVER=" + ServerURL, "IMGCTL_TOKEN=" + s.token}, s.config.Imgctl, args...)
}

// PID is the server's process, as long as it runs.
func (s *Imgserve) PID() int { return s.process.PID() }

func (s *Imgserve) run(ctx context.Context, stdin string, env []string, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	p, err := s.network.ns.Start(cmd)
	if err != nil {
		return "", err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Kill()
		return "", fmt.Errorf("run %s: %w", filepath.Base(program), context.Cause(ctx))
	}
	if err := p.Err(); err != nil {
		return out.String(), fmt.Errorf("run %s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Dial connects from the network's bridge, as a person's machine on the same network would.
func (n *Network) Dial(ctx context.Context, address string) (net.Conn, error) {
	var c net.Conn
	d := net.Dialer{Timeout: 10 * time.Second}
	err := n.ns.Do(func() (err error) { c, err = d.DialContext(ctx, "tcp", address); return err })
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return c, nil
}
