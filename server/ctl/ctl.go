// Package ctl is what imgctl does: hosts in and out of files, orders, watching and reading installations, tokens. A client
// of the server, arguments and streams come in; text for people or JSON and YAML for programs goes out.
//
// It never reads flags or the environment, never shows a token that it was given, and writes to the server only when all
// that it can check beforehand is good.
package ctl

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgbuild/server/client"
	"imgbuild/server/ctl/show"
)

// Tool is one server and the terminal or pipes in front of it.
type Tool struct {
	Client *client.Client
	In     io.Reader
	Out    io.Writer // what was asked for
	Err    io.Writer // how it is getting on, and what failed
	Format show.Format
	// Live is true if Out is a terminal that can be drawn on; Width and Height are its size, asked for each drawing.
	Live bool
	Size func() (width, height int)
	// LiveErr is true if Err is a terminal.
	LiveErr bool
	Now     func() time.Time
	Zone    *time.Location
	// Parallel bounds the requests that are under way at the same time; 0 means 16.
	Parallel int
}

// PartlyError is what is left to say when some of several things were done. What failed has been told.
type PartlyError struct {
	What       string // as in "orders"
	Failed, Of int
}

func (e *PartlyError) Error() string {
	return fmt.Sprintf("%d of %d %s failed", e.Failed, e.Of, e.What)
}

// Some reports whether anything was done at all.
func (e *PartlyError) Some() bool { return e.Failed < e.Of }

// UsageError is a mistake in what the person asked for.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

func (e *UsageError) Unwrap() error { return e.Err }

func usage(format string, a ...any) error { return &UsageError{fmt.Errorf(format, a...)} }

// SNs returns the serial numbers that are given, each once, in their order. A dash stands for those on standard input, one a
// line; empty lines and those that begin with # are passed over.
func (t *Tool) SNs(args []string) ([]string, error) {
	var sns []string
	seen := map[string]bool{}
	add := func(sn string) {
		if !seen[sn] {
			seen[sn] = true
			sns = append(sns, sn)
		}
	}
	for _, a := range args {
		if a != "-" {
			if a = strings.TrimSpace(a); a == "" {
				return nil, usage("a serial number is empty")
			}
			add(a)
			continue
		}
		s := bufio.NewScanner(t.In)
		for s.Scan() {
			if l := strings.TrimSpace(s.Text()); l != "" && l[0] != '#' {
				add(l)
			}
		}
		if err := s.Err(); err != nil {
			return nil, fmt.Errorf("read serial numbers from standard input: %w", err)
		}
	}
	if len(sns) == 0 {
		return nil, usage("no serial number is given")
	}
	return sns, nil
}

// outcome is what became of one of several things.
type outcome[R any] struct {
	what  string
	value R
	err   error
}

// each does something for each of several things, some at a time, and returns what became of them, in their order. A
// refused token ends all.
func each[T, R any](ctx context.Context, t *Tool, what string, things []T, name func(T) string, do func(context.Context, T) (R, error)) ([]outcome[R], error) {
	out := make([]outcome[R], len(things))
	p := t.progress(what, len(things))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(t.Parallel, 16))
	for i, thing := range things {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			v, err := do(ctx, thing)
			out[i] = outcome[R]{name(thing), v, err}
			p.step()
			if client.Denied(err) {
				return err
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	p.end()
	return out, err
}

// failures tells what failed, and returns the error that the command ends with.
func failures[R any](t *Tool, what string, out []outcome[R]) error {
	var failed []outcome[R]
	for _, o := range out {
		if o.err != nil {
			failed = append(failed, o)
		}
	}
	switch {
	case len(failed) == 0:
		return nil
	case len(out) == 1:
		return fmt.Errorf("%s: %w", failed[0].what, failed[0].err)
	}
	for _, o := range failed {
		fmt.Fprintf(t.Err, "%s: %s\n", show.Clean(o.what), show.Clean(o.err.Error()))
	}
	return &PartlyError{What: what, Failed: len(failed), Of: len(out)}
}

// good returns the values of what did not fail.
func good[R any](out []outcome[R]) []R {
	values := make([]R, 0, len(out))
	for _, o := range out {
		if o.err == nil {
			values = append(values, o.value)
		}
	}
	return values
}

func itself(s string) string { return s }

// counter shows how many of many things are done: on a terminal in place, elsewhere each tenth in a line. Few things need
// none.
type counter struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool
	what  string
	of    int
	done  int
	now   func() time.Time
	shown time.Time
}

const worthCounting = 200

func (t *Tool) progress(what string, of int) *counter {
	return &counter{w: t.Err, live: t.LiveErr, what: what, of: of, now: t.Now}
}

func (c *counter) step() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	if c.of < worthCounting {
		return
	}
	if !c.live {
		if c.done*10/c.of > (c.done-1)*10/c.of {
			fmt.Fprintf(c.w, "%d of %d %s\n", c.done, c.of, c.what)
		}
		return
	}
	if now := c.now(); now.Sub(c.shown) >= 100*time.Millisecond || c.done == c.of {
		c.shown = now
		fmt.Fprintf(c.w, "\r%d of %d %s\x1b[K", c.done, c.of, c.what)
	}
}

func (c *counter) end() {
	if c.live && c.of >= worthCounting {
		fmt.Fprint(c.w, "\r\x1b[K")
	}
}

// print writes what was asked for: a table for people, or the value.
func (t *Tool) print(v any, header []string, rows [][]string, none string) error {
	if t.Format != show.Table {
		return show.Value(t.Out, t.Format, v)
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(t.Err, none)
		return err
	}
	return show.Rows(t.Out, header, rows)
}

// said writes a line for people; programs, which read JSON or YAML, are spared it.
func (t *Tool) said(format string, a ...any) {
	w := t.Out
	if t.Format != show.Table {
		w = t.Err
	}
	fmt.Fprintf(w, format+"\n", a...)
}

// orEmpty keeps an empty list from being null.
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// interrupted reports whether err is only the person's Ctrl-C.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, ctx.Err())
}
