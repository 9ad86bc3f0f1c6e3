package pid1

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/installer/report"
)

// The classes of records that no console sees, beside those of report: a line for the log, a sign of life, and what is to
// happen after a success.
const (
	debugLine  report.Class = 'D'
	heartbeat  report.Class = 'H'
	afterwards report.Class = 'A'
)

// openFlags are for consoles: not to become our controlling terminal, and not to wait for a modem.
const openFlags = unix.O_NOCTTY | unix.O_NONBLOCK

// maxLog bounds the log, which lies in memory.
const maxLog = 8 << 20

// logFile keeps everything in a file in memory, and the lines of importance in the kernel's log too.
type logFile struct {
	mu    sync.Mutex
	file  *os.File // nil if there is none
	kmsg  *os.File // nil if there is none, or if the kernel would show its log on the consoles
	bytes int
}

// openLog never fails: a machine that cannot keep a log can still be installed.
func openLog(path string, kmsg bool) *logFile {
	l := &logFile{}
	if os.MkdirAll(filepath.Dir(path), 0o755) == nil {
		if f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err == nil {
			l.file = f
		}
	}
	if kmsg {
		if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
			l.kmsg = f
		}
	}
	return l
}

// line writes one line, with the time since the kernel started, as the kernel's own messages have it.
func (l *logFile) line(c report.Class, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kmsg != nil && c != report.ClassProgress && c != debugLine {
		fmt.Fprintf(l.kmsg, "<6>%.900s\n", text)
	}
	if l.file == nil || l.bytes > maxLog {
		return
	}
	n, _ := fmt.Fprintf(l.file, "[%12.6f] %s\n", uptime().Seconds(), text)
	if l.bytes += n; l.bytes > maxLog {
		fmt.Fprintln(l.file, "the log ends here: it is full")
	}
}

func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
