package testvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ConsoleConfig says where a machine's console goes beside the memory of this process.
type ConsoleConfig struct {
	// Transcript is a file that gets every byte as it came; empty for none. It is appended to.
	Transcript string
	// Live gets the text without control sequences as it comes; nil for nobody.
	Live io.Writer
	// Raw gets every byte as it came: a terminal. nil for nobody.
	Raw io.Writer
}

// Machine is a running, or ended, QEMU.
type Machine struct {
	config  Config
	network *Network
	dir     string
	taps    []string
	process *Process
	qmp     *QMP
	console *Console
	ended   chan struct{}

	life sync.Mutex // held while it starts and while it is put away
	dead bool       // under life: it must not start any more
	once sync.Once
	err  error

	mu     sync.Mutex
	reason string
}

// quitTimeout is how long QEMU may take to end in order; it needs milliseconds.
const quitTimeout = 5 * time.Second

// Exit says how a machine ended.
type Exit struct {
	// Reason is QEMU's ShutdownCause: guest-shutdown, guest-reset, guest-panic, host-qmp-quit...; empty if QEMU was killed.
	Reason string
}

// PoweredOff reports whether the guest turned itself off.
func (e Exit) PoweredOff() bool { return e.Reason == "guest-shutdown" }

// Reset reports whether the guest restarted itself.
func (e Exit) Reset() bool { return e.Reason == "guest-reset" }

// Start starts a machine on the network. It runs until it ends by itself, until Close, or until the network closes.
func (n *Network) Start(ctx context.Context, c Config, cc ConsoleConfig) (*Machine, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	m := &Machine{config: c, network: n, ended: make(chan struct{})}
	if err := n.adopt(m); err != nil {
		return nil, err
	}
	if err := m.start(ctx, cc); err != nil {
		return nil, errors.Join(fmt.Errorf("start machine %s: %w", c.Name, err), m.Close())
	}
	return m, nil
}

func (m *Machine) start(ctx context.Context, cc ConsoleConfig) error {
	m.life.Lock()
	defer m.life.Unlock()
	if m.dead {
		return ErrClosed
	}
	var err error
	if m.dir, err = os.MkdirTemp("", "testvm-"+m.config.Name+"-"); err != nil {
		return err
	}
	w := wiring{accel: m.network.host.Accel, consoleFD: 3, qmpFD: 4} // the first of ExtraFiles is 3
	if w.firmware, err = m.firmwareFiles(); err != nil {
		return err
	}
	for i := range m.config.NICs {
		tap, mac, err := m.network.addTap()
		if err != nil {
			return err
		}
		m.taps = append(m.taps, tap)
		if m.config.NICs[i].MAC == "" {
			m.config.NICs[i].MAC = mac
		}
	}
	w.taps = m.taps
	ours, theirs, err := socketPairs(2)
	if err != nil {
		return err
	}
	cmd := exec.Command(m.network.host.Tools.QEMU, qemuArgs(m.config, w)...)
	cmd.ExtraFiles = theirs
	m.process, err = m.network.ns.Start(cmd)
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		ours[0].Close()
		ours[1].Close()
		return err
	}
	if m.console, err = newConsole(ours[0], cc); err != nil {
		ours[0].Close()
		ours[1].Close()
		return err
	}
	go m.await()
	if m.qmp, err = NewQMP(ctx, ours[1], m.event); err != nil {
		ours[1].Close()
		select {
		case <-m.process.Done(): // QEMU's own words say more
			if qerr := m.process.Err(); qerr != nil {
				return qerr
			}
		case <-time.After(quitTimeout):
		}
		return err
	}
	for i, nic := range m.config.NICs {
		if nic.Unplugged {
			if err := m.SetLink(ctx, i, false); err != nil {
				return err
			}
		}
	}
	return m.qmp.Execute(ctx, "cont", nil, nil)
}

// await closes ended when QEMU is gone and everything that it said has been read.
func (m *Machine) await() {
	<-m.process.Done()
	<-m.console.closed
	close(m.ended)
}

// firmwareFiles returns the UEFI's code and this machine's own copy of the variables.
func (m *Machine) firmwareFiles() (FirmwareFiles, error) {
	var f FirmwareFiles
	var need Need
	switch m.config.Firmware {
	case UEFI:
		f, need = m.network.host.Tools.UEFI, NeedUEFI
	case SecureBoot:
		f, need = m.network.host.Tools.SecureBoot, NeedSecureBoot
	default:
		return f, nil
	}
	if f.Code == "" {
		_, err := FindTools(HostFinder(), need)
		return f, err
	}
	vars := m.config.VarsFile
	if vars == "" {
		vars = filepath.Join(m.dir, "vars.fd")
	}
	if _, err := os.Stat(vars); errors.Is(err, os.ErrNotExist) {
		b, err := os.ReadFile(f.Vars)
		if err == nil {
			err = os.WriteFile(vars, b, 0o600)
		}
		if err != nil {
			return f, fmt.Errorf("copy UEFI variables: %w", err)
		}
	}
	f.Vars = vars
	return f, nil
}

// socketPairs makes n pairs of connected sockets: ours, and theirs for a program to inherit.
func socketPairs(n int) (ours []net.Conn, theirs []*os.File, err error) {
	for range n {
		fds, e := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if e != nil {
			err = fmt.Errorf("make socket pair: %w", e)
			break
		}
		theirs = append(theirs, os.NewFile(uintptr(fds[1]), "qemu"))
		f := os.NewFile(uintptr(fds[0]), "testvm")
		c, e := net.FileConn(f)
		f.Close()
		if e != nil {
			err = fmt.Errorf("make socket pair: %w", e)
			break
		}
		ours = append(ours, c)
	}
	if err != nil {
		for _, c := range ours {
			c.Close()
		}
		for _, f := range theirs {
			f.Close()
		}
		return nil, nil, err
	}
	return ours, theirs, nil
}

func (m *Machine) event(name string, data json.RawMessage) {
	if name != "SHUTDOWN" {
		return
	}
	var d struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(data, &d) == nil {
		m.mu.Lock()
		m.reason = d.Reason
		m.mu.Unlock()
	}
}

// Config is the machine's description with what was left to us filled in.
func (m *Machine) Config() Config { return m.config }

// Console is the machine's first serial port.
func (m *Machine) Console() *Console { return m.console }

// QMP speaks to the machine's QEMU.
func (m *Machine) QMP() *QMP { return m.qmp }

// PID is QEMU's process ID.
func (m *Machine) PID() int { return m.process.cmd.Process.Pid }

// Ended is closed when QEMU is gone and the whole console has been read.
func (m *Machine) Ended() <-chan struct{} { return m.ended }

// Wait waits until the machine has ended by itself, and says how. QEMU's failure is an error with its last words.
func (m *Machine) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-m.ended:
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("await the end of machine %s: %w; the console's last lines:\n%s", m.config.Name, context.Cause(ctx), m.console.Tail(15))
	}
	<-m.qmp.done // events come before the end
	m.mu.Lock()
	e := Exit{m.reason}
	m.mu.Unlock()
	if err := m.process.Err(); err != nil {
		return e, fmt.Errorf("run machine %s: %w", m.config.Name, err)
	}
	return e, nil
}

// PowerButton presses the power button: a guest that listens shuts down.
func (m *Machine) PowerButton(ctx context.Context) error {
	return m.qmp.Execute(ctx, "system_powerdown", nil, nil)
}

// Reset presses the reset button.
func (m *Machine) Reset(ctx context.Context) error {
	return m.qmp.Execute(ctx, "system_reset", nil, nil)
}

// SetLink plugs the cable of a network card in or out.
func (m *Machine) SetLink(ctx context.Context, nic int, up bool) error {
	return m.qmp.Execute(ctx, "set_link", map[string]any{"name": fmt.Sprintf("net%d", nic), "up": up}, nil)
}

// Close ends the machine if it still runs, as a power cut does to the guest, and takes away what was made for it. It can be
// called again.
func (m *Machine) Close() error {
	m.once.Do(func() { m.err = m.close() })
	return m.err
}

func (m *Machine) close() error {
	m.life.Lock()
	defer m.life.Unlock()
	m.dead = true
	if m.qmp != nil {
		// In order first, so that disk files are closed well; the result is what the wait below sees.
		ctx, cancel := context.WithTimeout(context.Background(), quitTimeout)
		_ = m.qmp.Execute(ctx, "quit", nil, nil)
		select {
		case <-m.process.Done():
		case <-ctx.Done():
		}
		cancel()
	}
	if m.process != nil {
		m.process.Kill()
	}
	if m.qmp != nil {
		m.qmp.Close()
	}
	var errs []error
	if m.console != nil {
		errs = append(errs, m.console.Close())
	}
	for _, t := range m.taps {
		errs = append(errs, m.network.removeTap(t))
	}
	m.network.disown(m)
	if m.dir != "" {
		errs = append(errs, os.RemoveAll(m.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("put machine %s away: %w", m.config.Name, err)
	}
	return nil
}
