package pid1

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// reaper waits for all children: those it started, whose end it announces, and orphans, which the kernel gives to the
// first process.
type reaper struct {
	mu       sync.Mutex
	children map[int]chan syscall.WaitStatus
}

func newReaper(start func(func())) *reaper {
	r := &reaper{children: map[int]chan syscall.WaitStatus{}}
	died := make(chan os.Signal, 16)
	signal.Notify(died, syscall.SIGCHLD)
	start(func() {
		tick := time.NewTicker(5 * time.Second) // in case a signal was lost
		for {
			r.reap()
			select {
			case <-died:
			case <-tick.C:
			}
		}
	})
	return r
}

// reap takes all children that have ended.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if c := r.children[pid]; c != nil {
			delete(r.children, pid)
			c <- status // has room
		}
	}
}

// spawn starts a program. Its end arrives on the channel.
func (r *reaper) spawn(argv []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	// The lock keeps reap from taking a child that ends before it is known.
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		return 0, nil, &os.PathError{Op: "start", Path: argv[0], Err: err}
	}
	c := make(chan syscall.WaitStatus, 1)
	r.children[pid] = c
	return pid, c, nil
}
