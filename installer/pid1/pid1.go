// Package pid1 is the first process of the mini initramfs. It mounts what every program expects, starts the installer as
// a child of its own (the worker), shows on all consoles what the worker says, and decides what happens when the worker
// ends, dies or falls silent: reboot, power off, wait or a shell.
//
// The work is done in a child because a first process may never die: whatever becomes of the worker (a panic in any
// goroutine, a fatal error of the Go runtime, the kernel's lack of memory), this process is there to say so. It also
// reaps the orphans of tools, which a program that waits for its own children could not do without races.
//
// It never touches a disk or the network.
package pid1

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/installer/cmdline"
	"imgbuild/installer/report"
)

// LogFile is where all that was said is kept, in memory, with what the worker and its tools wrote.
const LogFile = "/run/imgbuild/install.log"

// Config says what to run.
type Config struct {
	// Worker is the argv of the worker; its first element is a path. It gets the pipe of NewPipe as file 3.
	Worker []string
	// Env is the worker's environment.
	Env []string
}

// silence is how long the worker may give no sign of life before the watchdog is left to bite.
const silence = 90 * time.Second

// supervisor is the first process.
type supervisor struct {
	args     cmdline.Args
	consoles *Consoles
	log      *logFile
	say      *report.Lines
	reaper   *reaper
	watchdog *watchdog

	panicked chan string // a panic of this process itself, in any of its goroutines
	cad      chan os.Signal
}

// Run is the whole life of the first process. It returns only when it is not allowed to reboot the machine, as in a
// container.
func Run(c Config) error {
	mountErr := mountAll()
	text, _ := os.ReadFile("/proc/cmdline")
	args, _ := cmdline.Parse(string(text)) // the worker says what is wrong with them
	s := &supervisor{args: args, log: openLog(LogFile, !args.Verbose), panicked: make(chan string, 8), cad: make(chan os.Signal, 8)}
	s.consoles = NewConsoles(s.guard)
	s.say = report.New(s)
	defer func() {
		if r := recover(); r != nil {
			s.crashed(fmt.Sprintf("panic: %v\n%s", r, debug.Stack()))
			s.fail()
		}
	}()
	s.consoles.Find("/proc/consoles", "/sys/class/tty/console/active", "/dev")
	if len(s.consoles.list()) == 0 {
		s.consoles.Add("stdout", os.Stdout) // what the kernel gave us at the start
	}
	if !args.Verbose {
		_, _, _ = syscall.Syscall(syscall.SYS_SYSLOG, 8, 0, 4) // SYSLOG_ACTION_CONSOLE_LEVEL: errors only
	}
	// Ctrl-Alt-Del becomes a signal to this process instead of a reset.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	signal.Notify(s.cad, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPWR, syscall.SIGUSR2)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	s.reaper = newReaper(s.guard)
	s.watchdog = newWatchdog("/dev/watchdog0")
	for _, e := range mountErr {
		s.say.Warn("%v", e)
	}
	if err := s.work(c); err != nil {
		return s.fail()
	}
	return s.succeed()
}

// Line implements report.Sink for this process and its worker.
func (s *supervisor) Line(c report.Class, text string) {
	s.log.line(c, text)
	s.consoles.Line(c, text)
}

// guard starts a goroutine whose panic ends the run as a failure and not in a kernel panic.
func (s *supervisor) guard(f func()) {
	go func() {
		defer func() {
			if r := recover(); r != nil {
				select {
				case s.panicked <- fmt.Sprintf("panic: %v\n%s", r, debug.Stack()):
				default:
				}
			}
		}()
		f()
	}()
}

var errFailed = errors.New("the installer failed, and has said so")

// work runs the worker to its end. An error means that it failed; why has been shown.
func (s *supervisor) work(c Config) error {
	w, err := s.startWorker(c)
	if err != nil {
		s.say.Failed(fmt.Errorf("start the installer: %w", err))
		return err
	}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	alive, looked := time.Now(), time.Now()
	records := w.records
	for {
		select {
		case r, ok := <-records:
			switch {
			case !ok:
				records = nil // the worker closed its pipe, and will end
			case r.class == heartbeat:
				alive = time.Now()
			case r.class == debugLine:
				s.log.line(r.class, r.text)
			case r.class == afterwards: // it goes on beside the system that takes the place of this one
				s.args.Done = cmdline.Done(r.text)
				return nil
			default:
				s.Line(r.class, r.text)
			}
		case <-tick.C:
			if time.Since(alive) < silence {
				s.watchdog.kick()
			}
			if time.Since(looked) > 5*time.Second {
				looked = time.Now()
				s.consoles.Find("/proc/consoles", "/sys/class/tty/console/active", "/dev")
			}
		case status := <-w.exit:
			return s.ended(w, status)
		case trace := <-s.panicked:
			s.crashed(trace)
			w.stop(s.reaper)
			return errFailed
		case sig := <-s.cad:
			s.say.Final("stopping (%s)", signalName(sig))
			w.stop(s.reaper)
			s.power(sig)
		}
	}
}

func signalName(sig os.Signal) string {
	if sig == syscall.SIGINT {
		return "ctrl-alt-del"
	}
	return sig.String()
}

// power ends the machine as a signal asks: SIGPWR and SIGUSR2 switch it off, others reboot it.
func (s *supervisor) power(sig os.Signal) {
	if sig == syscall.SIGPWR || sig == syscall.SIGUSR2 {
		s.end(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	s.end(unix.LINUX_REBOOT_CMD_RESTART)
}

// ended takes in the worker's last words and judges its end.
func (s *supervisor) ended(w *worker, status syscall.WaitStatus) error {
	// A tool that was left behind may hold the pipe open; its words are not waited for.
	limit := time.After(3 * time.Second)
	for open := true; open; {
		select {
		case r, ok := <-w.records:
			switch {
			case !ok:
				open = false
			case r.class == debugLine:
				s.log.line(r.class, r.text)
			case r.class != heartbeat && r.class != afterwards:
				s.Line(r.class, r.text)
			}
		case <-limit:
			open = false
		}
	}
	failed := w.failed.Load()
	stderr := w.stderr.String()
	switch {
	case status.Exited() && status.ExitStatus() == 0:
		if d, ok := w.after.Load().(cmdline.Done); ok {
			s.args.Done = d
		}
		return nil
	case status.Exited() && failed:
		return errFailed
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		s.say.Failed(errors.New("the installer was killed, most likely because memory ran out"))
	case status.Signaled():
		s.say.Failed(fmt.Errorf("the installer was ended by a signal: %s", status.Signal()))
	case strings.Contains(stderr, "panic: ") || strings.Contains(stderr, "fatal error: "):
		s.crashed(stderr)
		return errFailed
	default:
		s.say.Failed(fmt.Errorf("the installer ended with status %d and without a word", status.ExitStatus()))
	}
	s.showTrace(stderr)
	return errFailed
}

// crashed shows a panic: its message as the failure, and the first lines of its trace, which say where. All of it is in
// the log.
func (s *supervisor) crashed(trace string) {
	what := "it ended in a panic"
	for _, l := range strings.Split(trace, "\n") {
		if strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") {
			what = l
			break
		}
	}
	s.say.Failed(fmt.Errorf("the installer has a fault: %s", what))
	s.say.Advice("report it with what follows and with " + LogFile)
	s.showTrace(trace)
}

func (s *supervisor) showTrace(trace string) {
	shown := 0
	for _, l := range strings.Split(trace, "\n") {
		if l = strings.TrimSpace(l); l == "" {
			continue
		}
		s.log.line(debugLine, l)
		if shown++; shown <= 16 {
			s.consoles.Line(report.ClassFailure, report.Prefix+"  "+strings.ReplaceAll(l, "\t", " "))
		}
	}
}
