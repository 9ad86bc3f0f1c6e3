package pid1

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/installer/cmdline"
	"imgbuild/installer/kexec"
	"imgbuild/installer/report"
)

// How long a person has to read a failure before the machine acts.
const (
	waitSeconds  = 600
	shortSeconds = 10
)

// succeed does what was asked for after a success.
func (s *supervisor) succeed() error {
	switch s.args.Done {
	case cmdline.DonePoweroff:
		s.say.Final("powering off (%sdone=poweroff)", cmdline.Prefix)
		return s.end(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case cmdline.DoneLive:
		s.say.Final("starting the system that runs from memory")
		if err := s.switchRoot(LiveRoot); err != nil {
			s.say.Failed(err)
			return s.fail()
		}
		return nil
	case cmdline.DoneWait:
		s.say.Final("waiting (%sdone=wait)", cmdline.Prefix)
		return s.stay(s.keys())
	case cmdline.DoneKexec:
		s.say.Final("starting the kernel that was loaded, without the firmware")
		return s.end(unix.LINUX_REBOOT_CMD_KEXEC)
	default:
		s.say.Final("rebooting")
		return s.end(unix.LINUX_REBOOT_CMD_RESTART)
	}
}

// fail does what was asked for after a failure.
func (s *supervisor) fail() error {
	killAll() // tools that the worker left behind, which might still write
	switch s.args.OnError {
	case cmdline.OnErrorReboot:
		return s.countdown(shortSeconds, "rebooting", unix.LINUX_REBOOT_CMD_RESTART)
	case cmdline.OnErrorPoweroff:
		return s.countdown(shortSeconds, "powering off", unix.LINUX_REBOOT_CMD_POWER_OFF)
	case cmdline.OnErrorShell:
		if err := s.shell(); err != nil {
			s.say.Final("no shell: %v", err)
			return s.countdown(waitSeconds, "rebooting", unix.LINUX_REBOOT_CMD_RESTART)
		}
		return s.end(unix.LINUX_REBOOT_CMD_RESTART)
	default:
		return s.countdown(waitSeconds, "rebooting", unix.LINUX_REBOOT_CMD_RESTART)
	}
}

// countdown counts, and a key on any console stops it.
func (s *supervisor) countdown(seconds int, what string, cmd int) error {
	s.say.Final("%s in %d s (%sonerror=%s)", what, seconds, cmdline.Prefix, s.args.OnError)
	s.say.Final("press a key on a console to stay; all that was said is in %s", LogFile)
	keys := s.keys()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for left := seconds; left > 0; {
		select {
		case <-tick.C:
			s.watchdog.kick()
			left--
			text := fmt.Sprintf("%s%s in %d s", report.Prefix, what, left)
			if left > 0 && (left%60 == 0 || left == 30 || left == 10) {
				s.consoles.Line(report.ClassProgress, text)
			} else {
				s.consoles.Screens(text)
			}
		case k := <-keys:
			s.log.line(debugLine, fmt.Sprintf("key %q on %s", k.key, k.console))
			return s.stay(keys)
		case sig := <-s.cad:
			s.power(sig)
		}
	}
	return s.end(cmd)
}

// stay waits for a person to say what to do.
func (s *supervisor) stay(keys <-chan keyPress) error {
	s.say.Final("staying: press r to reboot, p to power off")
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.watchdog.kick()
		case k := <-keys:
			switch k.key {
			case 'r', 'R':
				return s.end(unix.LINUX_REBOOT_CMD_RESTART)
			case 'p', 'P':
				return s.end(unix.LINUX_REBOOT_CMD_POWER_OFF)
			}
		case sig := <-s.cad:
			s.power(sig)
		}
	}
}

// end stops every process, writes out and unmounts everything, and reboots, powers off or starts the kernel that is loaded.
func (s *supervisor) end(cmd int) error {
	killAll()
	unix.Sync()
	for _, err := range unmountAll() {
		s.say.Warn("%v", err)
	}
	unix.Sync()
	s.consoles.Flush(5 * time.Second)
	s.watchdog.disarm()
	if os.Getpid() != 1 {
		return fmt.Errorf("end the machine: this is process %d and not the first", os.Getpid())
	}
	return s.act(cmd)
}

// act is the end itself. Where a loaded kernel cannot be started, it reboots.
func (s *supervisor) act(cmd int) error {
	if cmd == unix.LINUX_REBOOT_CMD_KEXEC {
		s.say.Warn("%v; rebooting", kexec.Exec())
		s.consoles.Flush(5 * time.Second)
		cmd = unix.LINUX_REBOOT_CMD_RESTART
	}
	if err := unix.Reboot(cmd); err != nil {
		return fmt.Errorf("end the machine: %w", err)
	}
	select {} // the kernel ends us
}

// killAll ends all other processes: first politely, then for good.
func killAll() {
	if os.Getpid() != 1 {
		return // -1 would mean everybody else's processes too
	}
	if syscall.Kill(-1, syscall.SIGTERM) == syscall.ESRCH {
		return
	}
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		if syscall.Kill(-1, 0) == syscall.ESRCH {
			return
		}
	}
	_ = syscall.Kill(-1, syscall.SIGKILL)
	time.Sleep(200 * time.Millisecond)
}
