package netconf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// refusedWait is how long the kernel is asked again to take what it refuses for now: a route whose source address is
	// still being looked for on the link, or whose gateway is behind a route that is not there yet.
	refusedWait = dadWait
	refusedPoll = 200 * time.Millisecond // the kernel says nowhere when it would take it

	// Routers are asked for advertisements as a host does (RFC 4861, section 10).
	solicitations        = 3
	solicitationInterval = 4 * time.Second
)

// restore makes everything what it was when s was captured, but what would have ended since. It goes on after errors: the
// more of the installer's network there is, the better. Links that were made meanwhile must be gone.
//
// What the kernel had learned from routers' advertisements it learns again: given back by hand it would look the same and
// be something else, which later advertisements neither prolong nor end. By hand comes back what no router tells in time.
func (s *state) restore(ctx context.Context, carrierWait time.Duration) error {
	// As long as no advertisements are taken, what was learned of the host's network can be told from what will be of ours.
	errs := []error{s.clear()}
	for _, k := range s.links {
		if err := k.restore(); err != nil {
			errs = append(errs, err)
		}
	}
	// Before the carriers are there: as much as can be, as soon as can be. Faults that stay are found below.
	fault := s.sync(false)
	errs = append(errs, s.waitCarrier(ctx, carrierWait))
	if fault != nil {
		_ = s.retry(ctx, false)
	}
	errs = append(errs, s.relearn(ctx))
	if err := errors.Join(append(errs, s.retry(ctx, true))...); err != nil {
		return fmt.Errorf("go back to the installer's own network: %w", err)
	}
	return nil
}

// retry does sync until it succeeds or refusedWait is over.
func (s *state) retry(ctx context.Context, learned bool) error {
	ctx, cancel := context.WithTimeout(ctx, refusedWait)
	defer cancel()
	for {
		err := s.sync(learned)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(refusedPoll):
		}
	}
}

// relearn asks the routers of the links that had learned something, until it is there again or they have been asked often
// enough. That it is not is no error here.
func (s *state) relearn(ctx context.Context) error {
	for range solicitations {
		names, err := s.unlearned()
		if err != nil || len(names) == 0 || ctx.Err() != nil {
			return err
		}
		var wg sync.WaitGroup
		errs := make([]error, len(names))
		for i, name := range names {
			wg.Go(func() { // ends with its wait, or ctx
				d, err := openND(ctx, name)
				if err == nil {
					_, _, err = d.router(ctx, solicitationInterval)
					d.close()
				}
				if err != nil && ctx.Err() == nil {
					errs[i] = fmt.Errorf("ask for routers on %s: %w", name, err)
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		// We may hear an advertisement before the kernel has done all that it says, and one router before another.
		for range 5 {
			if names, err = s.unlearned(); err != nil || len(names) == 0 {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(refusedPoll):
			}
		}
	}
	return nil
}

// unlearned are the names of the links that do not have again all that they had learned.
func (s *state) unlearned() ([]string, error) {
	addrs, rts, err := present()
	if err != nil {
		return nil, err
	}
	missing := map[int]bool{}
	for _, l := range []struct{ want, now []message }{{s.addresses, addrs}, {s.routes, rts}} {
		for _, m := range l.want {
			if m.learned && !m.over() && !has(l.now, &m) {
				missing[m.link] = true
			}
		}
	}
	var names []string
	for _, k := range s.links {
		if v, ok := k.settings["accept_ra"]; missing[k.index] && k.up && ok && v != "0" {
			names = append(names, k.name)
		}
	}
	return names, nil
}

// sync removes the addresses and routes that were not there, and adds those that were, addresses first. It adds what was
// learned from routers only if learned is true, and leaves what is learned now.
func (s *state) sync(learned bool) error {
	err := syncList(addressesOf, s.addresses, learned, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	// With NLM_F_EXCL there could not be two routes to one destination with the same metric, as a router's and ours.
	return errors.Join(err, syncList(routesOf, s.routes, learned, unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND))
}

func addressesOf() ([]message, error) { a, _, err := present(); return a, err }
func routesOf() ([]message, error)    { _, r, err := present(); return r, err }

func has(l []message, m *message) bool {
	return slices.ContainsFunc(l, func(o message) bool { return m.same(&o) })
}

func syncList(list func() ([]message, error), before []message, learned bool, add, remove, flags int) error {
	// What would have ended meanwhile is not given back.
	want := slices.DeleteFunc(slices.Clone(before), func(m message) bool { return m.over() })
	now, err := list()
	if err != nil {
		return err
	}
	for _, m := range now {
		if !has(want, &m) && !m.learned {
			_ = m.send(remove, 0) // it may have gone with another; what stays is found below
		}
	}
	if now, err = list(); err != nil {
		return err
	}
	var errs []error
	for _, m := range inOrder(want) {
		if has(now, &m) || m.learned && !learned {
			continue
		}
		if err := m.send(add, flags); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("give %s back: %w", m.text(), err))
		}
	}
	if now, err = list(); err != nil || len(errs) > 0 {
		return errors.Join(append(errs, err)...)
	}
	for _, m := range want {
		if !has(now, &m) && !m.over() && (learned || !m.learned) {
			errs = append(errs, fmt.Errorf("%s did not come back", m.text()))
		}
	}
	for _, m := range now {
		if !has(want, &m) && !m.learned {
			errs = append(errs, fmt.Errorf("%s does not go away", m.text()))
		}
	}
	return errors.Join(errs...)
}

// inOrder is the order in which messages are given to the kernel so that it lists them in the order they came in: it puts
// a new IPv6 address before those that are there.
func inOrder(list []message) []message {
	var v4, v6 []message
	for _, m := range list {
		if m.isAddress() && m.fixed[0] == unix.AF_INET6 {
			v6 = append(v6, m)
		} else {
			v4 = append(v4, m)
		}
	}
	slices.Reverse(v6)
	return append(v4, v6...)
}

// waitCarrier waits until the links that had a carrier have one again: those that were in a bond had to go down.
func (s *state) waitCarrier(ctx context.Context, wait time.Duration) error {
	var names []string
	for _, k := range s.links {
		if k.up && k.carrier {
			names = append(names, k.name)
		}
	}
	if missing := waitCarrier(ctx, names, wait); len(missing) > 0 {
		return fmt.Errorf("%s had a carrier and has none now", strings.Join(missing, ", "))
	}
	return nil
}
