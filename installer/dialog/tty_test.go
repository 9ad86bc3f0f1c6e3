package dialog

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// pty returns both ends of a pseudo-terminal, the second of them in raw mode.
func pty(t *testing.T) (master, slave *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	var number int
	ioctl(t, master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skipf("the pseudo-terminal cannot be opened: %v", err)
	}
	t.Cleanup(func() { slave.Close() })
	ioctl(t, slave, func(fd int) error {
		_, err := term.MakeRaw(fd)
		return err
	})
	return master, slave
}

// ioctl calls f with a file's descriptor, without making the file a blocking one as Fd does.
func ioctl(t *testing.T, file *os.File, f func(fd int) error) {
	t.Helper()
	c, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inside error
	if err := c.Control(func(fd uintptr) { inside = f(int(fd)) }); err != nil || inside != nil {
		t.Fatal(err, inside)
	}
}

func TestNothingThatIsTypedAfterwardsIsLostOnATerminal(t *testing.T) {
	master, slave := pty(t)
	v := newVT(t)
	shown := make(chan struct{})
	go func() { // ends when master is closed
		defer close(shown)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			if _, werr := v.Write(buffer[:n]); err != nil || werr != nil {
				return
			}
		}
	}()
	o := options()
	o.In, o.Out = slave, slave
	over := make(chan error, 1)
	go func() {
		_, err := Run(t.Context(), o)
		over <- err
	}()
	v.wait("1 of 6")
	typeOn := func(text string) {
		if _, err := master.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	typeOn("\x0e")
	v.wait("GPT with 3 partitions")
	typeOn("\x03")
	v.wait("Leave the installer?")
	typeOn("y")
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	typeOn("next")
	buffer := make([]byte, 16)
	n, err := slave.Read(buffer)
	if got := string(buffer[:n]); err != nil || got != "next" {
		t.Errorf("read %q, %v", got, err)
	}
	master.Close()
	<-shown
}
