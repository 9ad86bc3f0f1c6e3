package unpack

import (
	"container/list"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// openLimit returns how many files this process may have open, up to 1,024.
func openLimit() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("find out how many files may be open: %w", err)
	}
	return int(max(64, min(r.Cur, 1024))), nil
}

// openFDs keeps file descriptors open for reuse, and closes those that have been idle longest when there are too many.
type openFDs struct {
	limit int
	open  func(key int32) (int, error)

	mu      sync.Mutex
	changed *sync.Cond
	held    map[int32]*heldFD
	idle    *list.List // of *heldFD without users, the longest idle first
}

type heldFD struct {
	key     int32
	fd      int // -1 while it is being opened
	users   int
	dropped bool // to be closed by its last user
	err     error
	idle    *list.Element
}

func newOpenFDs(limit int, open func(int32) (int, error)) *openFDs {
	o := &openFDs{limit: limit, open: open, held: make(map[int32]*heldFD), idle: list.New()}
	o.changed = sync.NewCond(&o.mu)
	return o
}

// acquire returns the descriptor for key, which stays open until release. Open runs without the lock, and may acquire
// another key.
func (o *openFDs) acquire(key int32) (int, error) {
	o.mu.Lock()
	h := o.held[key]
	if h != nil {
		defer o.mu.Unlock()
		h.users++
		if h.idle != nil {
			o.idle.Remove(h.idle)
			h.idle = nil
		}
		for h.fd < 0 && h.err == nil {
			o.changed.Wait()
		}
		return h.fd, h.err
	}
	h = &heldFD{key: key, fd: -1, users: 1}
	o.held[key] = h
	for len(o.held) > o.limit && o.idle.Len() > 0 {
		o.shut(o.idle.Front().Value.(*heldFD))
	}
	o.mu.Unlock()
	fd, err := o.open(key)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		h.err = err
		delete(o.held, key)
	} else {
		h.fd = fd
	}
	o.changed.Broadcast()
	return h.fd, h.err
}

// release ends one use of what acquire returned without an error.
func (o *openFDs) release(key int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.held[key]
	h.users--
	switch {
	case h.users > 0:
	case h.dropped:
		o.shut(h)
	default:
		h.idle = o.idle.PushBack(h)
	}
}

// drop is release for one that will not be needed again.
func (o *openFDs) drop(key int32) {
	o.mu.Lock()
	o.held[key].dropped = true
	o.mu.Unlock()
	o.release(key)
}

// shut closes one without users. An error of close says nothing here: the caller of Unpack syncs the file system.
func (o *openFDs) shut(h *heldFD) {
	if h.idle != nil {
		o.idle.Remove(h.idle)
	}
	delete(o.held, h.key)
	unix.Close(h.fd)
}

// close closes all; nobody uses them any more.
func (o *openFDs) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range o.held {
		o.shut(h)
	}
}
