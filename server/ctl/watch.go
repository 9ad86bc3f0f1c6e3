package ctl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"imgbuild/server/client"
	"imgbuild/server/ctl/board"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// WatchOptions are those of Watch.
type WatchOptions struct {
	Rack string
	// Wait ends watching when every installation that is watched has ended; it is then an error if one of them failed.
	Wait bool
}

// history is how many events of a host are read to learn where its installation is.
const history = 100

// Watch shows installations as they go: a table that lives on a terminal, lines elsewhere, one JSON event a line for
// programs. Without serial numbers and rack it shows all that install.
func (t *Tool) Watch(ctx context.Context, sns []string, o WatchOptions) error {
	if t.Format == show.YAML {
		return usage("a stream is printed as -o json, one event a line, or for people")
	}
	if len(sns) > 0 && o.Rack != "" {
		return usage("give serial numbers or a rack, and not both")
	}
	w := &watcher{t: t, board: board.New(sns, o.Rack), all: len(sns) == 0 && o.Rack == "", passed: map[string]bool{}}
	if err := w.start(ctx, sns, o.Rack); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	if o.Wait && w.over() {
		return w.result()
	}
	err := w.run(ctx, o.Wait)
	switch {
	case err == nil:
		return w.result()
	case interrupted(ctx, err) && !o.Wait:
		return nil // the person has seen enough
	}
	return fmt.Errorf("watch: %w", err)
}

type watcher struct {
	t     *Tool
	board *board.Board
	all   bool // neither hosts nor a rack are named
	after int64
	// passed are hosts that are not watched; a change of theirs may alter that.
	passed map[string]bool
	down   string
	drawn  int // lines on the terminal
	bad    int
}

// start learns where everything is. The last event is read first: what happens meanwhile comes again, which does no harm.
func (w *watcher) start(ctx context.Context, sns []string, rack string) error {
	last, err := w.t.Client.Events(ctx, client.EventQuery{Limit: 1, Last: true})
	if err != nil {
		return err
	}
	w.after = lastID(last)
	hosts, err := w.hosts(ctx, sns, rack)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	past := make([][]registry.Event, len(hosts))
	for i, h := range hosts {
		w.board.Host(h)
		if h.State == registry.Ordered || h.State == registry.Installing || starts(h) {
			g.Go(func() (err error) {
				past[i], err = w.t.Client.Events(gctx, client.EventQuery{SN: h.SN, Limit: history, Last: true})
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, events := range past {
		for _, e := range events {
			w.board.Apply(e)
		}
	}
	for i := range hosts {
		w.board.Settle(hosts[i])
	}
	return nil
}

func (w *watcher) hosts(ctx context.Context, sns []string, rack string) ([]registry.Host, error) {
	if len(sns) == 0 {
		q := client.HostQuery{Rack: rack}
		if rack == "" {
			return w.busy(ctx)
		}
		return w.t.Client.Hosts(ctx, q)
	}
	out, err := each(ctx, w.t, "hosts read", sns, itself, w.t.Client.Host)
	if err == nil {
		err = failures(w.t, "hosts", out)
	}
	return values(good(out)), err
}

// busy are the hosts that install, are to, or start to run from memory.
func (w *watcher) busy(ctx context.Context) ([]registry.Host, error) {
	hosts, err := w.t.Client.Hosts(ctx, client.HostQuery{States: []registry.State{registry.Ordered, registry.Installing}})
	if err != nil {
		return nil, err
	}
	live, err := w.t.Client.Hosts(ctx, client.HostQuery{Live: []registry.LiveState{registry.LiveStarting}})
	for _, h := range live {
		if !slices.ContainsFunc(hosts, func(o registry.Host) bool { return o.SN == h.SN }) {
			hosts = append(hosts, h)
		}
	}
	return hosts, err
}

// run follows the events until ctx ends, the server refuses, or, with wait, all is over: then the error is nil.
func (w *watcher) run(ctx context.Context, wait bool) error {
	ctx, cancel := context.WithCancel(ctx)
	events, status := make(chan registry.Event), make(chan string)
	followed := make(chan error, 1)
	go func() {
		followed <- w.t.Client.Follow(ctx, client.EventQuery{After: w.after}, client.Follower{
			Event: func(e registry.Event) error { return hand(ctx, events, e) },
			Up:    func() { _ = hand(ctx, status, "") }, // the end of ctx ends Follow too
			Down: func(err error, wait time.Duration) {
				_ = hand(ctx, status, fmt.Sprintf("the connection broke (%s); trying again in %s", err, show.Duration(wait)))
			},
		})
	}()
	done := false
	defer func() {
		cancel()
		if !done {
			<-followed
		}
	}()
	redraw := time.NewTicker(500 * time.Millisecond)
	defer redraw.Stop()
	w.draw()
	for {
		select {
		case err := <-followed:
			done = true
			w.draw()
			return err
		case e := <-events:
			if err := w.event(ctx, e); err != nil {
				return err
			}
			if wait && w.over() {
				w.draw()
				return nil
			}
		case s := <-status:
			if w.down = s; s != "" && !w.table() {
				fmt.Fprintln(w.t.Err, show.Clean(s))
			}
			w.draw()
		case <-redraw.C:
			w.draw()
		}
	}
}

func hand[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begins reports whether an event is of an installation or a boot from memory, so that a host it is about is one that installs.
func begins(e registry.Event) bool {
	return !e.Preview && (e.Machine != nil || slices.Contains([]string{"ordered", "claimed", "queued", "started", "found", "live"}, e.Kind))
}

// event takes in one event; a host that is not known yet is asked for, once until it changes.
func (w *watcher) event(ctx context.Context, e registry.Event) error {
	watched, unknown := w.board.Watches(e.SN)
	if e.Kind == "registered" || e.Kind == "changed" {
		delete(w.passed, e.SN)
	}
	if !watched || w.passed[e.SN] || unknown && w.all && !begins(e) {
		return nil
	}
	if e.Kind == "deleted" {
		w.board.Forget(e.SN)
		return nil
	}
	if unknown || e.Kind == "changed" || e.Kind == "cancelled" || e.Kind == "expired" {
		h, err := w.t.Client.Host(ctx, e.SN)
		switch {
		case client.NotFound(err):
			w.board.Forget(e.SN)
			return nil
		case client.Denied(err) || ctx.Err() != nil:
			return err
		case err != nil:
			return nil // the server goes away just now; the next event asks again
		}
		if w.board.Begin(*h, begins(e)); !w.board.Has(e.SN) {
			w.passed[e.SN] = true
			return nil
		}
	}
	line := w.board.Apply(e)
	if w.t.Format == show.JSON {
		return show.Line(w.t.Out, e)
	}
	if line != "" && !w.table() {
		_, err := fmt.Fprintf(w.t.Out, "%s %s\n", e.Time.In(w.t.Zone).Format("15:04:05"), line)
		return err
	}
	return nil
}

// draw writes lines over those that were drawn before, clipped to the terminal, and returns how many there are now. Those that do
// not fit are counted, with what to do; a last line, unless it is empty, is always there.
func (t *Tool) draw(lines []string, drawn int, last string, todo ...string) int {
	width, height := t.Size()
	if room := max(height-2, 2); len(lines) > room {
		more := fmt.Sprintf("and %d more", len(lines)-room)
		lines = append(lines[:room:room], strings.Join(append([]string{more}, todo...), "; "))
	}
	if last != "" {
		lines = append(lines, last)
	}
	var b strings.Builder
	if drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", drawn)
	}
	for _, l := range lines {
		b.WriteString("\r" + show.Clip(l, width-1) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	_, _ = io.WriteString(t.Out, b.String()) // a terminal that is gone ends the program by its signal
	return len(lines)
}

func (w *watcher) table() bool { return w.t.Live && w.t.Format == show.Table }

// draw writes the table over the one before.
func (w *watcher) draw() {
	if !w.table() {
		return
	}
	now := w.t.Now()
	var cells [][]string
	for _, r := range w.board.Rows() {
		cells = append(cells, r.Cells(now))
	}
	lines := show.Lines(board.Header(), cells)
	if len(cells) == 0 {
		lines = []string{"nothing installs; waiting (Ctrl-C ends)"}
	}
	w.drawn = w.t.draw(lines, w.drawn, show.Clean(w.down), "name some of them, or a rack, to see those")
}

func (w *watcher) over() bool {
	over, bad := w.board.Over()
	w.bad = bad
	return over
}

// result is what --wait ends with.
func (w *watcher) result() error {
	if w.bad == 0 {
		return nil
	}
	return &PartlyError{What: "installations", Failed: w.bad, Of: len(w.board.Rows())}
}

// follower tells the person when the connection breaks and comes back.
func (t *Tool) follower(event func(registry.Event) error) client.Follower {
	broken := false
	return client.Follower{
		Event: event,
		Up: func() {
			if broken {
				fmt.Fprintln(t.Err, "the connection is there again")
			}
			broken = false
		},
		Down: func(err error, wait time.Duration) {
			if !broken {
				fmt.Fprintf(t.Err, "the connection broke (%s); trying again\n", show.Clean(err.Error()))
			}
			broken = true
		},
	}
}
