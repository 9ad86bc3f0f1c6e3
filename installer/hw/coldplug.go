package hw

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Settled says what Coldplug waits for.
type Settled struct {
	// Quiet is how long the kernel must have announced no device before the machine counts as settled; 1 s by default.
	Quiet time.Duration
	// Expected, if set, says whether all that must be there is there; without it the machine is settled when it is quiet.
	Expected func() bool
	// Wait bounds how long Expected is waited for while the machine is quiet; 30 s by default.
	Wait time.Duration
}

// Result says what Coldplug did.
type Result struct {
	Devices int     // modaliases seen
	Served  int     // of them, those that a module serves
	Modules int     // modules loaded
	Faults  []error // modules that could not be loaded
}

// Coldplug loads the modules for all devices below sys (/sys), and for those that appear because of that: a host adapter
// brings disks, a hub brings what is behind it. It follows the kernel's announcements (uevents) and ends when the machine
// is settled. Modules that fail are in the result and no error: a machine with a broken sound card can be installed.
func (m *Modules) Coldplug(ctx context.Context, sys string, s Settled) (Result, error) {
	if s.Quiet <= 0 {
		s.Quiet = time.Second
	}
	if s.Wait <= 0 {
		s.Wait = 30 * time.Second
	}
	events, err := listenUevents(ctx)
	if err != nil {
		return Result{}, err
	}
	return m.coldplug(ctx, sys, s, events)
}

func (m *Modules) coldplug(ctx context.Context, sys string, s Settled, events <-chan Uevent) (Result, error) {
	var r Result
	seen, faults := map[string]bool{}, map[string]bool{}
	load := func(aliases []string) error {
		var fresh []string
		for _, a := range aliases {
			if a != "" && !seen[a] {
				seen[a] = true
				fresh = append(fresh, a)
			}
		}
		served, err := m.LoadAliases(ctx, fresh)
		r.Devices += len(fresh)
		r.Served += served
		for _, e := range flatten(err) {
			if !faults[e.Error()] {
				faults[e.Error()] = true
				r.Faults = append(r.Faults, e)
			}
		}
		return context.Cause(ctx)
	}
	quietSince := time.Now()
	for {
		// What sysfs has now; the events only say when to look again, so that none that was lost matters.
		aliases, err := modaliases(sys)
		if err != nil {
			return r, err
		}
		before := len(seen)
		if err := load(aliases); err != nil {
			return r, err
		}
		if len(seen) > before {
			quietSince = time.Now()
			continue
		}
		settled, err := awaitQuiet(ctx, s, quietSince, events)
		if err != nil {
			return r, err
		}
		if settled {
			r.Modules = m.count()
			return r, nil
		}
		quietSince = time.Now()
	}
}

// awaitQuiet waits until the machine is settled (true) or a device was announced (false). Events that come close together
// are answered with one look at sysfs.
func awaitQuiet(ctx context.Context, s Settled, since time.Time, events <-chan Uevent) (bool, error) {
	quiet := time.NewTimer(time.Until(since.Add(s.Quiet)))
	defer quiet.Stop()
	poll := time.NewTicker(200 * time.Millisecond) // for Expected, which may look at things that have no event
	defer poll.Stop()
	isQuiet := false
	for {
		if isQuiet && (s.Expected == nil || s.Expected() || time.Since(since) > s.Wait) {
			return true, nil
		}
		select {
		case e := <-events:
			if e.Action != "add" && e.Action != "bind" && e.Action != "change" {
				continue
			}
			return false, drain(ctx, events)
		case <-quiet.C:
			isQuiet = true
		case <-poll.C:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// drain takes the events that come within 50 ms of each other.
func drain(ctx context.Context, events <-chan Uevent) error {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	for n := 0; n < 1000; n++ {
		select {
		case <-events:
			t.Reset(50 * time.Millisecond)
		case <-t.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (m *Modules) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, l := range m.done {
		select {
		case <-l.ready:
			if l.err == nil {
				n++
			}
		default:
		}
	}
	return n
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	var joined interface{ Unwrap() []error }
	if err == nil {
		return nil
	}
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

// modaliases returns the modalias of every device below sys/devices, in order and without doubles. Devices may vanish
// while they are read.
func modaliases(sys string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(filepath.Join(sys, "devices"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				return nil
			}
			return err
		}
		if d.IsDir() || d.Name() != "modalias" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil // a device that is gone, or of which the kernel does not say
		}
		if a := strings.TrimSpace(string(b)); a != "" {
			found = append(found, a)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for devices in %s: %w", sys, err)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}
