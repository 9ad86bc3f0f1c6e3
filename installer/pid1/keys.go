package pid1

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// keyPress is a key that somebody pressed.
type keyPress struct {
	console string
	key     byte
}

// keys reads all consoles from now on. Only letters, digits, blanks and Enter count: an open serial line makes noise.
func (s *supervisor) keys() <-chan keyPress {
	pressed := make(chan keyPress, 16)
	for _, k := range s.consoles.list() {
		rawMode(k.f)
		s.guard(func() { // lives as long as the process
			buf := make([]byte, 16)
			for {
				n, err := k.f.Read(buf)
				if err != nil || n == 0 {
					time.Sleep(time.Second)
					continue
				}
				for _, b := range buf[:n] {
					if b >= ' ' && b <= '~' || b == '\r' || b == '\n' {
						select {
						case pressed <- keyPress{k.name, b}:
						default:
						}
					}
				}
			}
		})
	}
	return pressed
}

// rawMode makes single keys readable, without echo. Not every console is a terminal; then nothing happens.
func rawMode(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		change(int(fd), func(t *unix.Termios) {
			t.Lflag &^= unix.ICANON | unix.ECHO
			t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		})
	})
}

// saneMode makes a terminal fit for a shell.
func saneMode(fd int) {
	change(fd, func(t *unix.Termios) {
		t.Iflag = unix.ICRNL | unix.IXON | unix.IUTF8
		t.Oflag = unix.OPOST | unix.ONLCR
		t.Lflag = unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE | unix.IEXTEN
		t.Cflag |= unix.CREAD | unix.CLOCAL
	})
}

func change(fd int, how func(*unix.Termios)) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return
	}
	how(t)
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
