package hw

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Uevent is what the kernel announces about a device: add, remove, change, bind ...
type Uevent struct {
	Action string // add, remove, change, move, online, offline, bind, unbind
	Path   string // below /sys, e.g. /devices/pci0000:00/0000:00:03.0
	Vars   map[string]string
}

// parseUevent reads a message of the kernel: "add@/devices/..." and then KEY=VALUE, each ended by a NUL. Messages of
// udev ("libudev") and nonsense are refused.
func parseUevent(b []byte) (Uevent, bool) {
	parts := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	action, path, ok := strings.Cut(parts[0], "@")
	if !ok || action == "" || !strings.HasPrefix(path, "/") {
		return Uevent{}, false
	}
	e := Uevent{Action: action, Path: path, Vars: map[string]string{}}
	for _, kv := range parts[1:] {
		if k, v, ok := strings.Cut(kv, "="); ok {
			e.Vars[k] = v
		}
	}
	return e, true
}

// listenUevents opens the kernel's announcements. The channel never closes; its goroutine ends with ctx. An event for
// which there is no room is dropped: who listens looks at sysfs anyway.
func listenUevents(ctx context.Context) (<-chan Uevent, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen to the kernel's device events: %w", err)
	}
	// The kernel's own group is 1. A large buffer, because a disk shelf announces itself all at once.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	timeout := unix.Timeval{Usec: 250_000}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to the kernel's device events: %w", err)
	}
	events := make(chan Uevent, 256)
	go func() {
		defer unix.Close(fd)
		buf := make([]byte, 64<<10)
		for ctx.Err() == nil {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				// Time ran out, a signal came, or events were lost (ENOBUFS), which a look at sysfs makes good.
				if errors.Is(err, unix.ENOBUFS) {
					send(events, Uevent{Action: "change", Path: "/"})
				}
				continue
			}
			// Port 0 is the kernel; anybody else is not believed.
			if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
				continue
			}
			if e, ok := parseUevent(buf[:n]); ok {
				send(events, e)
			}
		}
	}()
	return events, nil
}

func send(events chan<- Uevent, e Uevent) {
	select {
	case events <- e:
	default:
	}
}
