package unpack

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDescriptorsStayBelowTheirLimitAndOpenWhileUsed(t *testing.T) {
	const limit, users = 8, 6
	opens := atomic.Int64{}
	o := newOpenFDs(limit, func(int32) (int, error) {
		opens.Add(1)
		return unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	})
	defer o.close()
	var wg sync.WaitGroup
	for w := range users {
		wg.Go(func() {
			for i := range 3000 {
				key := int32((i*7 + w*13) % 40)
				fd, err := o.acquire(key)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := unix.Write(fd, []byte("x")); err != nil {
					t.Errorf("descriptor of %d: %v", key, err)
				}
				o.mu.Lock()
				if n := len(o.held); n > limit+users {
					t.Errorf("%d are open", n)
				}
				o.mu.Unlock()
				if i%5 == 0 {
					o.drop(key)
				} else {
					o.release(key)
				}
			}
		})
	}
	wg.Wait()
	if len(o.held) > limit || o.idle.Len() != len(o.held) {
		t.Errorf("at the end %d are open and %d idle", len(o.held), o.idle.Len())
	}
	if opens.Load() >= users*3000 {
		t.Error("none was used again")
	}
}

func TestAnOpenThatFailsIsTriedAgain(t *testing.T) {
	fail := errors.New("not now")
	first := true
	o := newOpenFDs(1, func(int32) (int, error) {
		if first {
			first = false
			return -1, fail
		}
		return unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	})
	defer o.close()
	if _, err := o.acquire(1); !errors.Is(err, fail) {
		t.Errorf("got %v", err)
	}
	if _, err := o.acquire(1); err != nil {
		t.Error(err)
	}
}
