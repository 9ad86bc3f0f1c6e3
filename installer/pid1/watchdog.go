package pid1

import (
	"os"

	"golang.org/x/sys/unix"
)

// watchdogSeconds is how long the hardware waits for a kick before it resets the machine.
const watchdogSeconds = 60

// watchdog is the machine's hardware watchdog, if it has one. It is opened when it appears, which may be after its module
// was loaded. Once open it resets a machine whose installer hangs; closed with its magic character it is quiet again.
type watchdog struct {
	path string
	f    *os.File
	off  bool
}

func newWatchdog(path string) *watchdog { return &watchdog{path: path} }

// kick keeps it quiet for another while.
func (w *watchdog) kick() {
	if w.off {
		return
	}
	if w.f == nil {
		f, err := os.OpenFile(w.path, os.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return // none, or not yet
		}
		w.f = f
		// Not all hardware can wait for that long; it then keeps its own time.
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, watchdogSeconds)
	}
	_, _ = w.f.Write([]byte{'k'})
}

// disarm ends it: the system that boots next may take longer than the hardware waits. A driver that does not allow it
// (nowayout) was kicked just now.
func (w *watchdog) disarm() {
	w.off = true
	if w.f != nil {
		_, _ = w.f.Write([]byte{'V'})
		w.f.Close()
		w.f = nil
	}
}
