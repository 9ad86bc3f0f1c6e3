// Package board keeps what a person watching installations wants to see: for each host its state, its phase, how far it is,
// how fast and for how long still. Hosts and events come in, rows and lines go out.
//
// It never asks the server and has no clock of its own: the caller says what time it is.
package board

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/ctl/diary"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// Row is one host.
type Row struct {
	SN       string
	Hostname string
	Rack     string
	State    registry.State
	// Live is how far a boot from memory is; empty while the host does something else.
	Live registry.LiveState
	// Phase is what it is doing, in a few words: "unpack", "waits, 3rd in the queue".
	Phase    string
	Step, Of int
	// Done and Total are bytes of the transfer that runs, Total 0 if none does; Rate is bytes a second.
	Done, Total int64
	Rate        float64
	// Mix is where the bytes came from; Limit how much of what network and disk can do the transfer does, 1 for all and 0 if that is
	// not known.
	Mix   map[plan.SourceKind]int64
	Limit float64
	// Seen is when the last event came, Began when the installation began.
	Seen, Began time.Time
	// Ended is true when the installation that was watched is over, for better or worse.
	Ended bool
	// tenth is the last tenth of a transfer that was told in a line.
	tenth int64
	what  string
}

// Board is what is watched.
type Board struct {
	rows map[string]*Row
	// chosen are the serial numbers to watch; nil watches all that install.
	chosen map[string]bool
	rack   string
}

// New watches the given serial numbers, or a rack, or, without either, every host that installs or is ordered to.
func New(sns []string, rack string) *Board {
	b := &Board{rows: map[string]*Row{}, rack: rack}
	if len(sns) > 0 {
		b.chosen = map[string]bool{}
		for _, sn := range sns {
			b.chosen[sn] = true
		}
	}
	return b
}

// Host takes in what the registry says of a host.
func (b *Board) Host(h registry.Host) {
	r, there := b.rows[h.SN]
	if !there {
		if !b.wants(h) {
			return
		}
		r = &Row{SN: h.SN}
		b.rows[h.SN] = r
	}
	r.Hostname, r.Rack, r.State = h.Hostname, h.Rack, h.State
	r.boots(h)
	if r.Phase == "" {
		r.Phase = ordinary(h.State)
	}
}

// boots takes in what the registry says of a host's last boot from memory.
func (r *Row) boots(h registry.Host) {
	if r.Live = ""; h.LiveBoot != nil && h.State != registry.Installing {
		r.Live = h.LiveBoot.State
	}
	if r.Live == registry.LiveRunning && r.Phase == "" {
		r.Phase = "runs " + h.LiveBoot.Image + " from memory"
	}
}

func ordinary(s registry.State) string {
	if s == registry.Ordered {
		return "waits for the machine to boot"
	}
	return ""
}

func (b *Board) wants(h registry.Host) bool {
	switch {
	case b.chosen != nil:
		return b.chosen[h.SN]
	case b.rack != "":
		return h.Rack == b.rack
	}
	return h.State == registry.Ordered || h.State == registry.Installing || h.State == registry.Failed || h.State == registry.Lost || h.LiveBoot != nil && h.LiveBoot.State != registry.LiveRunning
}

// Watches reports whether events of a serial number are of interest; unknown is true if the host has to be asked for first.
func (b *Board) Watches(sn string) (watched, unknown bool) {
	_, there := b.rows[sn]
	switch {
	case sn == "":
		return false, false
	case there:
		return true, false
	case b.chosen != nil:
		return b.chosen[sn], b.chosen[sn]
	}
	return true, true
}

// Forget is called for a host that is gone.
func (b *Board) Forget(sn string) { delete(b.rows, sn) }

// Begin is Host for one that an event is about. While all that install are watched, one that installs is among them.
func (b *Board) Begin(h registry.Host, installs bool) {
	if installs && b.chosen == nil && b.rack == "" && b.rows[h.SN] == nil {
		b.rows[h.SN] = &Row{SN: h.SN}
	}
	b.Host(h)
}

// Has reports whether a host is on the board.
func (b *Board) Has(sn string) bool { return b.rows[sn] != nil }

// Apply takes in one event. The line is what to print where there is no live table; it is empty for what is not worth one.
func (b *Board) Apply(e registry.Event) (line string) {
	r := b.rows[e.SN]
	if r == nil {
		return ""
	}
	switch {
	case e.Preview: // the host stays as it is
		if line = diary.Sentence(e); e.Kind == string(plan.KindProgress) || e.Kind == "decided" {
			return ""
		}
	case e.Live:
		r.Seen = e.Time
		line = r.live(e)
	case e.Machine != nil:
		r.Seen = e.Time
		line = r.machine(e)
	default:
		r.Seen = e.Time
		line = r.server(e)
	}
	if line == "" {
		return ""
	}
	name := r.SN
	if r.Hostname != "" {
		name += " " + r.Hostname
	}
	return show.Clean(name + ": " + line)
}

func (r *Row) transfer(what string, done, total int64, rate float64) {
	r.what, r.Done, r.Total, r.Rate = what, done, total, rate
	r.Mix, r.Limit = nil, 0
}

// server takes in what the server says.
func (r *Row) server(e registry.Event) string {
	switch e.Kind {
	case "ordered":
		*r = Row{SN: r.SN, Hostname: r.Hostname, Rack: r.Rack, Seen: e.Time, State: registry.Ordered, Phase: ordinary(registry.Ordered)}
	case "claimed":
		r.Phase, r.Ended = "starts", false
	case "queued":
		r.Phase = cmp.Or(e.Text, "waits for its turn")
	case "started":
		r.Live = ""
		r.State, r.Phase, r.Began, r.Ended = registry.Installing, "starts", e.Time, false
	case "lost":
		r.State, r.Phase, r.Ended = registry.Lost, "lost: "+e.Text, true
		r.transfer("", 0, 0, 0)
	case "failed":
		r.fail(e.Text)
	case "found":
		r.State, r.Ended, r.Phase = registry.Installing, false, "is heard again"
	case "done": // the order was ended by hand
		r.State, r.Phase, r.Ended = registry.Installed, cmp.Or(e.Text, "is done"), true
	case "cancelled", "expired":
		r.Phase, r.Ended = e.Kind+": "+e.Text, true
		r.transfer("", 0, 0, 0)
	case "booted":
		r.State, r.Phase, r.Ended = registry.Installed, cmp.Or(e.Text, "its system has booted"), true
		r.Step, r.Of = 0, 0
		r.transfer("", 0, 0, 0)
	case "changed", "decided":
		return ""
	}
	return diary.Sentence(e)
}

func (r *Row) fail(why string) {
	r.State, r.Phase, r.Ended = registry.Failed, "failed: "+why, true
	r.transfer("", 0, 0, 0)
}

// machine takes in what the machine says.
func (r *Row) machine(e registry.Event) string {
	r.Live = ""
	if r.State == registry.Lost || r.State == registry.Ordered || r.State == "" {
		r.State, r.Ended = registry.Installing, false // it is back
	}
	switch e.Machine.Kind {
	case plan.KindFailed:
		r.fail(e.Machine.Text)
	case plan.KindDone:
		r.Phase = "is installed; its system boots"
		r.transfer("", 0, 0, 0)
	default:
		return r.works(e)
	}
	return diary.Sentence(e)
}

// live takes in what happens to a boot from memory.
func (r *Row) live(e registry.Event) string {
	switch m := e.Machine; {
	case e.Kind == "live":
		*r = Row{SN: r.SN, Hostname: r.Hostname, Rack: r.Rack, State: r.State, Live: registry.LiveStarting, Seen: e.Time, Began: e.Time, Phase: "starts"}
	case e.Kind == "lost":
		r.Live, r.Phase, r.Ended = registry.LiveLost, "lost: "+e.Text, true
		r.transfer("", 0, 0, 0)
	case e.Kind == "found":
		r.Live, r.Phase, r.Ended = registry.LiveStarting, "is heard again", false
	case e.Kind == "booted":
		r.Live, r.Phase, r.Ended = registry.LiveRunning, e.Text, true
	case m == nil:
	case m.Kind == plan.KindFailed:
		r.Live, r.Phase, r.Ended = registry.LiveFailed, "failed: "+m.Text, true
		r.transfer("", 0, 0, 0)
	case m.Kind == plan.KindDone:
		r.Live, r.Phase, r.Ended, r.Of = registry.LiveRunning, cmp.Or(m.Text, "runs from memory"), true, 0
		r.transfer("", 0, 0, 0)
	default:
		return r.works(e)
	}
	return diary.Sentence(e)
}

// works takes in how far a machine is.
func (r *Row) works(e registry.Event) string {
	m := e.Machine
	switch m.Kind {
	case plan.KindStep:
		r.Step, r.Of, r.Phase = m.Step, m.Of, m.Text
		r.transfer("", 0, 0, 0)
	case plan.KindProgress:
		if r.what != m.Text || m.Done < r.Done {
			r.tenth = 0
		}
		r.transfer(m.Text, m.Done, m.Total, m.Rate)
		r.Mix, r.Limit = m.Mix, m.Limit
		if m.Total <= 0 || m.Done*10/m.Total <= r.tenth {
			return ""
		}
		r.tenth = m.Done * 10 / m.Total
		line := fmt.Sprintf("%s: %d %% of %s", m.Text, m.Done*100/m.Total, show.Bytes(m.Total))
		if m.Rate > 0 {
			line += fmt.Sprintf(", %s/s", show.Bytes(int64(m.Rate)))
		}
		if m.Limit > 0 {
			line += fmt.Sprintf(", %.0f %% of what network and disk can do", 100*m.Limit)
		}
		if mix := show.Mix(m.Mix); mix != "" {
			line += ", from " + mix
		}
		return line
	}
	return diary.Sentence(e)
}

// Rows are the hosts, in the order of racks and names.
func (b *Board) Rows() []Row {
	rows := make([]Row, 0, len(b.rows))
	for r := range maps.Values(b.rows) {
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(x, y Row) int {
		return cmp.Or(cmp.Compare(x.Rack, y.Rack), cmp.Compare(x.Hostname, y.Hostname), cmp.Compare(x.SN, y.SN))
	})
	return rows
}

// Over reports whether every host that is watched has ended, and how many of them badly.
func (b *Board) Over() (over bool, bad int) {
	for _, r := range b.rows {
		if !r.Ended {
			return false, 0
		}
		if r.Live == "" && r.State != registry.Installed || r.Live != "" && r.Live != registry.LiveRunning {
			bad++
		}
	}
	return len(b.rows) > 0, bad
}

// Header names the columns of Cells.
func Header() []string {
	return []string{"SN", "HOST", "RACK", "STATE", "DONE", "RATE", "LEFT", "FROM", "PHASE"}
}

// Cells are a row as text, at a time.
func (r Row) Cells(now time.Time) []string {
	percent, rate, left := "", "", ""
	if r.Total > 0 {
		percent = fmt.Sprintf("%d %%", min(100, r.Done*100/r.Total))
		if r.Rate > 0 {
			rate = show.Bytes(int64(r.Rate)) + "/s"
			if r.Limit > 0 {
				rate += fmt.Sprintf(" (%.0f %%)", 100*r.Limit)
			}
			remaining := time.Duration(float64(max(0, r.Total-r.Done)) / r.Rate * float64(time.Second))
			left = show.Duration(remaining - now.Sub(r.Seen))
		}
	}
	phase := r.Phase
	if r.Of > 0 && !r.Ended {
		phase = fmt.Sprintf("%d/%d %s", r.Step, r.Of, phase)
	}
	if !r.Ended && (r.State == registry.Installing || r.Live == registry.LiveStarting) && !r.Seen.IsZero() && now.Sub(r.Seen) > time.Minute {
		phase += fmt.Sprintf(" (nothing new for %s)", show.Duration(now.Sub(r.Seen)))
	}
	state := string(r.State)
	if r.Live != "" {
		state = "live"
	}
	return []string{r.SN, r.Hostname, r.Rack, state, percent, rate, left, show.Mix(r.Mix), phase}
}

// Settle corrects a host by what the registry says of it now, after its past has been applied. A host that does not install
// has ended, whatever came before.
func (b *Board) Settle(h registry.Host) {
	r := b.rows[h.SN]
	if r == nil {
		return
	}
	r.Hostname, r.Rack, r.State = h.Hostname, h.Rack, h.State
	r.boots(h)
	r.Ended = h.State != registry.Ordered && h.State != registry.Installing && r.Live != registry.LiveStarting
}
