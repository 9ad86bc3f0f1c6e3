//go:build integration

package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/installer/cmdline"
	"imgbuild/installer/kexec"
	"imgbuild/installer/report"
)

// TestMain lets this program be the first process of a namespace, and its worker.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("PID1_WORKER") != "":
		os.Exit(badWorker(os.Getenv("PID1_WORKER")))
	case os.Getenv("PID1_CASE") != "":
		first()
	default:
		os.Exit(m.Run())
	}
}

// first is the first process: what Run does between the mounts and the reboot, with the standard output as console.
func first() {
	// This process's own /proc, seen by nobody else.
	if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("proc", "/proc", "proc", 0, "")); err != nil {
		fmt.Println("mount /proc:", err)
		os.Exit(1)
	}
	s := &supervisor{log: openLog(os.Getenv("PID1_LOG"), false), panicked: make(chan string, 8), cad: make(chan os.Signal, 8), watchdog: newWatchdog("/nonexistent")}
	s.consoles = NewConsoles(s.guard)
	s.say = report.New(s)
	s.consoles.Add("stdout", os.Stdout)
	if os.Getenv("PID1_CASE") == kexecCase {
		s.say.Final("back: %v", s.act(unix.LINUX_REBOOT_CMD_KEXEC))
		s.consoles.Flush(5 * time.Second)
		os.Exit(1)
	}
	s.reaper = newReaper(s.guard)
	err := s.work(Config{Worker: []string{"/proc/self/exe"}, Env: []string{"PID1_WORKER=" + os.Getenv("PID1_CASE"), "GOTRACEBACK=all", "PATH=" + os.Getenv("PATH")}})
	time.Sleep(200 * time.Millisecond) // for the reaper, which has no event to wait for here
	if zombies, _ := filepath.Glob("/proc/[0-9]*/status"); len(zombies) > 0 {
		for _, z := range zombies {
			if b, _ := os.ReadFile(z); strings.Contains(string(b), "State:\tZ") {
				s.say.Final("zombie: %s", z)
			}
		}
	}
	s.say.Final("result: %v, then %s", err, s.args.Done)
	s.consoles.Flush(5 * time.Second)
	os.Exit(0)
}

// kexecCase ends with a kernel that nobody has loaded.
const kexecCase = "starts a kernel"

// TestWhereNoKernelIsLoadedTheMachineReboots does so in a process namespace, whose reboot is a hangup of its first process
// (pid_namespaces(7)).
func TestWhereNoKernelIsLoadedTheMachineReboots(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a process namespace needs root")
	}
	if kexec.Loaded() {
		t.Skip("this machine has a kernel loaded")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "/proc/self/exe")
	c.Env = append(os.Environ(), "PID1_CASE="+kexecCase, "PID1_LOG="+filepath.Join(t.TempDir(), "log"))
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	out, err := c.CombinedOutput()
	if err != nil && strings.Contains(err.Error(), "operation not permitted") {
		t.Skip("this machine allows no process namespaces:", err)
	}
	status, ok := c.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGHUP {
		t.Errorf("it ended with %v\n%s", err, out)
	}
	if want := "start the next kernel: none is loaded; rebooting"; !strings.Contains(string(out), want) {
		t.Errorf("nobody said %q:\n%s", want, out)
	}
}

func badWorker(what string) int {
	p := NewPipe()
	say := report.New(p)
	switch what {
	case "panics in a goroutine":
		say.Info("hello")
		go func() { panic("a deliberate fault") }()
		time.Sleep(time.Minute)
	case "is killed":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	case "fails":
		say.Failed(fmt.Errorf("no disk"))
		return 1
	case "ends without a word":
		return 3
	case "says what comes then":
		p.After(cmdline.DoneWait)
	case "leaves orphans":
		for range 5 {
			// The shell of this test ends at once; its child is an orphan that ends a little later.
			exec.Command("/bin/sh", "-c", "sleep 0.1 & exit 0").Run()
		}
		time.Sleep(400 * time.Millisecond)
		say.Done("all good")
	}
	return 0
}

func TestWhateverBecomesOfTheWorkerIsSaid(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a process namespace needs root")
	}
	for what, want := range map[string][]string{
		"panics in a goroutine": {"imgbuild: hello\n", "imgbuild: failed: the installer has a fault: panic: a deliberate fault", "badWorker", "result: the installer failed"},
		"is killed":             {"imgbuild: failed: the installer was killed, most likely because memory ran out", "result: the installer failed"},
		"fails":                 {"imgbuild: failed: no disk\n", "result: the installer failed"},
		"ends without a word":   {"imgbuild: failed: the installer ended with status 3", "result: the installer failed"},
		"leaves orphans":        {"imgbuild: done: all good\n", "result: <nil>"},
		"says what comes then":  {"result: <nil>, then wait\n"},
	} {
		t.Run(what, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			log := filepath.Join(t.TempDir(), "log")
			c := exec.CommandContext(ctx, "/proc/self/exe")
			c.Env = append(os.Environ(), "PID1_CASE="+what, "PID1_LOG="+log)
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
			out, err := c.CombinedOutput()
			if err != nil {
				if strings.Contains(err.Error(), "operation not permitted") {
					t.Skip("this machine allows no process namespaces:", err)
				}
				t.Fatalf("%v\n%s", err, out)
			}
			for _, w := range want {
				if !strings.Contains(string(out), w) {
					t.Errorf("nobody said %q:\n%s", w, out)
				}
			}
			if strings.Contains(string(out), "zombie: ") {
				t.Errorf("somebody was not reaped:\n%s", out)
			}
			if n := strings.Count(string(out), "imgbuild: failed: "); n > 1 {
				t.Errorf("%d failures were shown:\n%s", n, out)
			}
			if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), "result: ") {
				t.Errorf("the log has %q, %v", b, err)
			}
		})
	}
}
