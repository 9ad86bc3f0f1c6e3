package pid1

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shell runs a rescue shell on every console until one is left by a person. A shell that ends within two seconds was on a
// console that is dead; when all are, that is an error.
func (s *supervisor) shell() error {
	path := ""
	for _, p := range []string{"/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"} {
		if _, err := os.Stat(p); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		return errors.New("there is none in the initramfs: build the image with initramfs.shell on")
	}
	s.say.Final("a rescue shell follows (imgbuild.onerror=shell); leaving it reboots; all that was said is in %s", LogFile)
	s.consoles.Flush(3 * time.Second)
	type end struct{ after time.Duration }
	ends := make(chan end)
	running := 0
	var last error
	for _, k := range s.consoles.list() {
		exit, err := s.shellOn(path, k.name)
		if err != nil {
			last = err
			continue
		}
		running++
		start := time.Now()
		s.guard(func() {
			<-exit
			ends <- end{time.Since(start)}
		})
	}
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for running > 0 {
		select {
		case e := <-ends:
			running--
			if e.after > 2*time.Second {
				return nil
			}
		case <-tick.C:
			s.watchdog.kick()
		case sig := <-s.cad:
			s.power(sig)
		}
	}
	if last == nil {
		last = errors.New("it ended at once on every console")
	}
	return last
}

// shellOn starts a shell in a session of its own whose controlling terminal is the console.
func (s *supervisor) shellOn(path, console string) (<-chan syscall.WaitStatus, error) {
	fd, err := unix.Open(filepath.Join("/dev", console), unix.O_RDWR|openFlags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, err
	}
	saneMode(fd)
	_, exit, err := s.reaper.spawn([]string{path, "-i"}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=linux", "PS1=imgbuild rescue# "},
		Files: []uintptr{uintptr(fd), uintptr(fd), uintptr(fd)},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
	})
	return exit, err
}
