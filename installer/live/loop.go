package live

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// attach makes the file a read-only block device that is gone when nothing uses it any more, and returns its path (loop(4)).
func attach(file *os.File) (path string, device *os.File, err error) {
	fail := func(err error) (string, *os.File, error) {
		return "", nil, fmt.Errorf("make a block device of the root file system: %w", err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fail(err)
	}
	defer control.Close()
	for range 16 { // somebody else may be quicker
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fail(os.NewSyscallError("LOOP_CTL_GET_FREE", err))
		}
		path = fmt.Sprintf("/dev/loop%d", n)
		device, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return fail(err)
		}
		// LOOP_CONFIGURE is of Linux 5.8; EL7 and EL8 have the two older calls only.
		err = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(file.Fd()))
		if errors.Is(err, unix.EBUSY) {
			device.Close()
			continue
		}
		if err == nil {
			if err = unix.IoctlLoopSetStatus64(int(device.Fd()), &unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}); err != nil {
				err = errors.Join(err, unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0))
			}
		}
		if err != nil {
			device.Close()
			return fail(err)
		}
		return path, device, nil
	}
	return fail(errors.New("all loop devices are taken at once"))
}
