package ctl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/config"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
	"imgbuild/server/swarm"
)

// Swarm prints who reads an image from whom: of name/version, of all versions of a name, or, without a name, of everything that
// is transferred.
func (t *Tool) Swarm(ctx context.Context, image string, watch bool) error {
	if !watch {
		views, err := t.Client.Swarm(ctx, image)
		if err != nil {
			return fmt.Errorf("show who reads from whom: %w", err)
		}
		if t.Format != show.Table {
			return show.Value(t.Out, t.Format, orEmpty(views))
		}
		return t.printLines(t.swarmLines(views, image))
	}
	if t.Format != show.Table {
		return usage("--watch is for people: leave -o %s away, or ask again and again", t.Format)
	}
	if !t.Live {
		return usage("--watch draws on a terminal, and the output is none: leave it away")
	}
	return t.watchSwarm(ctx, image)
}

// watchSwarm draws it again and again until ctx ends.
func (t *Tool) watchSwarm(ctx context.Context, image string) error {
	tick := time.NewTicker(plan.SwarmSeconds * time.Second / 2)
	defer tick.Stop()
	drawn := 0
	for {
		views, err := t.Client.Swarm(ctx, image)
		if ctx.Err() != nil {
			return nil // the person has seen enough
		}
		lines := t.swarmLines(views, image)
		if err != nil {
			lines = []string{show.Clean(err.Error())}
		}
		drawn = t.draw(lines, drawn, "")
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (t *Tool) printLines(lines []string) error {
	_, err := io.WriteString(t.Out, strings.Join(lines, "\n")+"\n")
	return err
}

// swarmLines are the pictures of all transfers.
func (t *Tool) swarmLines(views []swarm.View, image string) []string {
	if len(views) == 0 {
		if image == "" {
			return []string{"nothing is transferred now"}
		}
		return []string{"no machine reads " + show.Clean(image) + " now"}
	}
	var lines []string
	for i, v := range views {
		if i > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, swarmTree(v)...)
	}
	return lines
}

// swarmTree is one transfer: a line for all, then a machine a line. A machine whose one reader follows is not indented further:
// a chain is a list, and only what branches off is a tree.
func swarmTree(v swarm.View) []string {
	readers := map[string][]swarm.MachineView{}
	var reading, done, fast int
	known := map[string]bool{}
	for _, m := range v.Machines {
		known[m.Order] = true
	}
	for _, m := range v.Machines {
		switch {
		case m.Done:
			done++
			readers["done"] = append(readers["done"], m)
			continue
		case known[m.From]:
			readers[m.From] = append(readers[m.From], m)
		default:
			readers[""] = append(readers[""], m)
		}
		reading++
		fast += int(m.Rate)
	}
	head := fmt.Sprintf("%s (%s): %s, %d done", show.Clean(v.Image), show.Bytes(v.Total), plural(reading, "machine")+" reading", done)
	if reading > 0 {
		head += fmt.Sprintf("; %s/s in all, %s/s of it from the origin", show.Bytes(int64(fast)), show.Bytes(int64(v.OriginRate)))
	}
	table := [][]string{}
	var add func(m swarm.MachineView, lead, rest string)
	add = func(m swarm.MachineView, lead, rest string) {
		table = append(table, machineCells(m, v.Total, lead))
		list := readers[m.Order]
		for i, r := range list {
			switch {
			case len(list) == 1:
				add(r, rest+"↓ ", rest)
			case i < len(list)-1:
				add(r, rest+"├─ ", rest+"│  ")
			default:
				add(r, rest+"└─ ", rest+"   ")
			}
		}
	}
	for _, m := range readers["done"] {
		add(m, "", "")
	}
	if roots := readers[""]; len(roots) > 0 {
		table = append(table, []string{"origin", " ", " ", " ", " ", " ", " "})
		for i, m := range roots {
			if i < len(roots)-1 {
				add(m, "├─ ", "│  ")
			} else {
				add(m, "└─ ", "   ")
			}
		}
	}
	return append([]string{head}, show.Lines([]string{"MACHINE", "RACK", "DONE", "RATE", "SENDS", "LEFT", "FROM"}, table)...)
}

// machineCells are a machine's line.
func machineCells(m swarm.MachineView, total int64, lead string) []string {
	name := lead + m.SN
	if m.Hostname != "" {
		name += " " + m.Hostname
	}
	percent, left := "done", ""
	if !m.Done {
		percent = fmt.Sprintf("%d %%", m.Got*100/max(total, 1))
		if m.LeftSeconds > 0 {
			left = show.Duration(time.Duration(m.LeftSeconds * float64(time.Second)))
		}
	}
	from := show.Mix(sourceMix(m.Sources))
	if len(m.Marks) > 0 {
		from = strings.TrimSpace(from + "  ! " + strings.Join(m.Marks, ", "))
	}
	return []string{name, strings.TrimPrefix(m.Group, "rack "), percent, speed(m.Rate), speed(m.SendRate), left, from}
}

func speed(rate float64) string {
	if rate < 1 {
		return ""
	}
	return show.Bytes(int64(rate)) + "/s"
}

// sourceMix is how many bytes came from which kind of source.
func sourceMix(sources []plan.SwarmSource) map[plan.SourceKind]int64 {
	mix := map[plan.SourceKind]int64{}
	for _, s := range sources {
		mix[s.Kind] += s.Got
	}
	return mix
}

// transferText is a machine's transfer in one cell: how far, how fast, how long still and where from.
func transferText(m swarm.MachineView, total int64) string {
	if m.Done {
		return "done"
	}
	text := fmt.Sprintf("%d %%", m.Got*100/max(total, 1))
	if m.Rate >= 1 {
		text += ", " + speed(m.Rate)
	}
	if m.LeftSeconds > 0 {
		text += ", " + show.Duration(time.Duration(m.LeftSeconds*float64(time.Second))) + " left"
	}
	if mix := show.Mix(sourceMix(m.Sources)); mix != "" {
		text += ", " + mix
	}
	return text
}

// transfers are the cells of those hosts that install and transfer something just now. Without an answer to that a list is still
// a list.
func (t *Tool) transfers(ctx context.Context, hosts []registry.Host) map[string]string {
	installs := func(h registry.Host) bool { return h.State == registry.Installing || starts(h) }
	if t.Format != show.Table || !slices.ContainsFunc(hosts, installs) {
		return nil
	}
	views, err := t.Client.Swarm(ctx, "")
	if err != nil {
		return nil
	}
	cells := map[string]string{}
	for _, v := range views {
		for _, m := range v.Machines {
			if i := slices.IndexFunc(hosts, func(h registry.Host) bool { return h.SN == m.SN }); i >= 0 && installs(hosts[i]) {
				cells[m.SN] = transferText(m, v.Total)
			}
		}
	}
	return cells
}

// RateChange is what a person says of the rates; what is nil stays.
type RateChange struct {
	Global, PerSubnet, PerMachine *string
	// Reset goes back to the server's configuration.
	Reset bool
}

// Rates prints how fast machines may read, after it has been changed if that is wished.
func (t *Tool) Rates(ctx context.Context, c RateChange) error {
	given := []struct {
		flag string
		text *string
	}{{"--global", c.Global}, {"--per-subnet", c.PerSubnet}, {"--per-machine", c.PerMachine}}
	parsed := make([]int64, len(given))
	change := false
	for i, g := range given {
		if g.text == nil {
			continue
		}
		var r config.Rate
		if err := r.UnmarshalText([]byte(*g.text)); err != nil {
			return usage("%s %s: %w", g.flag, *g.text, err)
		}
		parsed[i], change = int64(r), true
	}
	if change && c.Reset {
		return usage("give --reset or rates, and not both")
	}
	rates, err := t.Client.Rates(ctx)
	switch {
	case err != nil:
	case c.Reset:
		rates, err = t.Client.ResetRates(ctx)
	case change:
		want := rates.Rates
		for i, to := range []*int64{&want.Global, &want.PerSubnet, &want.PerMachine} {
			if given[i].text != nil {
				*to = parsed[i]
			}
		}
		rates, err = t.Client.SetRates(ctx, want)
	}
	if err != nil {
		return fmt.Errorf("rates: %w", err)
	}
	from := "the server's configuration"
	if rates.Own {
		from = "imgctl rates"
	}
	var rows [][]string
	for _, r := range []struct {
		name string
		rate int64
		what string
	}{
		{"global", rates.Global, "what leaves the server in all"},
		{"per-subnet", rates.PerSubnet, "what enters a rack or subnet from outside"},
		{"per-machine", rates.PerMachine, "what one machine reads"},
	} {
		text, err := config.Rate(r.rate).MarshalText()
		if err != nil {
			return err
		}
		rows = append(rows, []string{r.name, string(text), r.what, from})
	}
	return t.print(rates, []string{"RATE", "A SECOND", "LIMITS", "SET BY"}, rows, "")
}
