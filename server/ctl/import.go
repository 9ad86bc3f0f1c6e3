package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"imgbuild/server/client"
	"imgbuild/server/ctl/hostfile"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// ImportOptions are those of Import.
type ImportOptions struct {
	// Format is that of the file; empty finds it by the file's name and content.
	Format hostfile.Format
	// DryRun shows what would change and writes nothing.
	DryRun bool
	// Duplicates takes two hosts with the same name or address.
	Duplicates bool
}

// MaxFile bounds a file of hosts, in bytes.
const MaxFile = 256 << 20

// readFile reads a file, or standard input if it is a dash; name is what mistakes are told under.
func (t *Tool) readFile(what, path string) (data []byte, name string, err error) {
	in, name := t.In, "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, "", fmt.Errorf("read %s: %w", what, err)
		}
		defer func() { _ = f.Close() }()
		in, name = f, path
	}
	data, err = io.ReadAll(io.LimitReader(in, MaxFile+1))
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("read %s from %s: %w", what, name, err)
	case len(data) > MaxFile:
		return nil, "", fmt.Errorf("read %s from %s: it has more than %s", what, name, show.Bytes(MaxFile))
	}
	return data, name, nil
}

// planned is what an import does with one host.
type planned struct {
	SN      string   `json:"sn"`
	Line    int      `json:"line"`
	Action  string   `json:"action"` // create, change or keep
	Changes []change `json:"changes,omitempty"`

	old   *registry.Host // nil: there is none yet
	host  registry.Host
	patch map[string]any
}

// Import makes the server's hosts what a file says of them. Fields that the file does not mention stay as they are, and so
// do hosts. Unless every line is good nothing is written; what is so already is not written again.
func (t *Tool) Import(ctx context.Context, path string, o ImportOptions) error {
	data, name, err := t.readFile("hosts", path)
	if err != nil {
		return err
	}
	format := o.Format
	if format == "" {
		format = hostfile.FormatOf(path, data)
	}
	file, problems := hostfile.Read(data, format)
	if len(file.Ignored) > 0 {
		fmt.Fprintf(t.Err, "%s: passed over, since the server alone writes it: %s\n", name, show.Clean(fmt.Sprint(file.Ignored)))
	}
	hosts, err := t.Client.Hosts(ctx, client.HostQuery{})
	if err != nil {
		return fmt.Errorf("import %s: read the server's hosts: %w", name, err)
	}
	plans, more := planAll(file.Entries, hosts)
	problems = append(problems, more...)
	problems = append(problems, duplicates(plans, hosts, o.Duplicates)...)
	if len(problems) > 0 {
		problems.Sort()
		fmt.Fprint(t.Err, problems.Format(name))
		return usage("import %s: %s; nothing was written", name, plural(len(problems), "mistake"))
	}
	if o.DryRun {
		return t.showPlan(plans)
	}
	return t.carryOut(ctx, name, plans)
}

// planAll compares what the file says with what the server has.
func planAll(entries []hostfile.Entry, hosts []registry.Host) ([]planned, hostfile.Problems) {
	have := make(map[string]*registry.Host, len(hosts))
	for i := range hosts {
		have[hosts[i].SN] = &hosts[i]
	}
	var plans []planned
	var problems hostfile.Problems
	for _, e := range entries {
		p, wrong := planOne(e, have[e.SN])
		problems = append(problems, wrong...)
		if len(wrong) == 0 {
			plans = append(plans, p)
		}
	}
	return plans, problems
}

func planOne(e hostfile.Entry, old *registry.Host) (planned, hostfile.Problems) {
	p := planned{SN: e.SN, Line: e.Line, Action: "create", old: old}
	bad := func(err error) hostfile.Problems { return hostfile.Problems{{Line: e.Line, Text: err.Error()}} }
	if old != nil {
		p.Action, p.host = "keep", hostfile.Own(*old)
	}
	if wrong := e.Apply(&p.host); len(wrong) > 0 {
		return p, wrong
	}
	if err := registry.ValidateHost(&p.host); err != nil {
		return p, invalid(e, err)
	}
	if old == nil {
		var err error
		p.Changes, _, err = difference(&registry.Host{}, &p.host, false)
		if err != nil {
			return p, bad(err)
		}
		p.Changes = slices.DeleteFunc(p.Changes, func(c change) bool { return c.Field == "sn" })
		return p, nil
	}
	changed, patch, err := difference(old, &p.host, e.ClearsPassword())
	if err != nil {
		return p, bad(err)
	}
	if old.State == registry.New { // a person who writes it down has looked at it: even an empty patch makes it known
		changed = append(changed, change{"state", string(registry.New), string(registry.Known)})
		if patch == nil {
			patch = map[string]any{}
		}
	}
	if patch != nil {
		p.Action, p.Changes, p.patch = "change", changed, patch
	}
	return p, nil
}

// invalid turns what the registry's rules say of a host into problems of its lines.
func invalid(e hostfile.Entry, err error) hostfile.Problems {
	var wrong *registry.Invalid
	if !errors.As(err, &wrong) || len(wrong.Fields) == 0 {
		return hostfile.Problems{{Line: e.Line, Text: err.Error()}}
	}
	var problems hostfile.Problems
	for _, f := range wrong.Fields {
		problems = append(problems, hostfile.Problem{Line: e.At(f.Field), Field: f.Field, Text: f.Message})
	}
	return problems
}

// unique are the values of a host that no other host may have, each as field and value. Where duplicates are allowed there
// are still those that a host is booted by.
func unique(h *registry.Host, allowed bool) [][2]string {
	var list [][2]string
	add := func(field, v string) {
		if v != "" {
			list = append(list, [2]string{field, v})
		}
	}
	for _, mac := range h.MACs {
		add("macs", mac)
	}
	if allowed {
		return list
	}
	add("hostname", h.Hostname)
	add("ip", h.IP)
	add("uuid", h.UUID)
	if h.OOB != nil {
		add("oob.address", h.OOB.Address)
	}
	return list
}

// duplicates finds values that two hosts would have by what the file changes: both in the file, or one of them on the
// server only.
func duplicates(plans []planned, hosts []registry.Host, allowed bool) hostfile.Problems {
	type owner struct {
		sn   string
		line int // 0: on the server only
	}
	owners := map[[2]string]owner{}
	inFile := make(map[string]bool, len(plans))
	for _, p := range plans {
		inFile[p.SN] = true
	}
	for i := range hosts {
		if !inFile[hosts[i].SN] {
			for _, v := range unique(&hosts[i], allowed) {
				owners[v] = owner{hosts[i].SN, 0}
			}
		}
	}
	// What a host keeps is its own before anybody else claims it.
	fresh := make([][][2]string, len(plans))
	for i := range plans {
		p := &plans[i]
		var had [][2]string
		if p.old != nil {
			had = unique(p.old, allowed)
		}
		for _, v := range unique(&p.host, allowed) {
			if slices.Contains(had, v) {
				owners[v] = owner{p.SN, p.Line}
			} else {
				fresh[i] = append(fresh[i], v)
			}
		}
	}
	var problems hostfile.Problems
	for i, p := range plans {
		for _, v := range fresh[i] {
			first, taken := owners[v]
			switch {
			case !taken:
				owners[v] = owner{p.SN, p.Line}
			case first.line == 0:
				problems = append(problems, hostfile.Problem{Line: p.Line, Field: v[0], Text: fmt.Sprintf("%s is host %s's on the server already", v[1], first.sn)})
			default:
				problems = append(problems, hostfile.Problem{Line: p.Line, Field: v[0], Text: fmt.Sprintf("%s is host %s's, in line %d", v[1], first.sn, first.line)})
			}
		}
	}
	return problems
}

func counts(plans []planned) (create, change, keep int) {
	for _, p := range plans {
		switch p.Action {
		case "create":
			create++
		case "change":
			change++
		default:
			keep++
		}
	}
	return create, change, keep
}

// showPlan is the dry run.
func (t *Tool) showPlan(plans []planned) error {
	if t.Format != show.Table {
		return show.Value(t.Out, t.Format, orEmpty(plans))
	}
	for _, p := range plans {
		mark := map[string]string{"create": "+", "change": "~"}[p.Action]
		if mark == "" {
			continue
		}
		fmt.Fprintf(t.Out, "%s %s\n", mark, show.Clean(p.SN))
		for _, c := range p.Changes {
			if p.Action == "create" {
				fmt.Fprintf(t.Out, "    %s: %s\n", c.Field, show.Clean(c.side(c.New)))
				continue
			}
			fmt.Fprintf(t.Out, "    %s\n", show.Clean(c.String()))
		}
	}
	create, change, keep := counts(plans)
	_, err := fmt.Fprintf(t.Out, "%d to create, %d to change, %d as they are; nothing was written\n", create, change, keep)
	return err
}

// carryOut writes what is planned.
func (t *Tool) carryOut(ctx context.Context, name string, plans []planned) error {
	todo := slices.DeleteFunc(slices.Clone(plans), func(p planned) bool { return p.Action == "keep" })
	if err := t.giveUp(ctx, todo); err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	out, err := each(ctx, t, "hosts written", todo, func(p planned) string { return fmt.Sprintf("%s:%d: %s", name, p.Line, p.SN) },
		func(ctx context.Context, p planned) (*registry.Host, error) { return t.write(ctx, p) })
	if err != nil {
		return fmt.Errorf("import %s: stopped on the way, run it again: %w", name, err)
	}
	var done []planned
	for i, o := range out {
		if o.err == nil {
			done = append(done, todo[i])
		}
	}
	create, change, _ := counts(done)
	_, _, keep := counts(plans)
	if t.Format != show.Table {
		if err := show.Value(t.Out, t.Format, orEmpty(done)); err != nil {
			return err
		}
	}
	t.said("%d created, %d changed, %d were so already", create, change, keep)
	return failures(t, "hosts", out)
}

func (t *Tool) write(ctx context.Context, p planned) (*registry.Host, error) {
	if p.old == nil {
		h, err := t.Client.CreateHost(ctx, p.host)
		if client.Changed(err) {
			return nil, errors.New("somebody else has written this host down meanwhile; import again to see the difference")
		}
		return h, err
	}
	patch, err := json.Marshal(p.patch)
	if err != nil {
		return nil, err
	}
	h, err := t.Client.PatchHost(ctx, p.SN, patch, p.old.Revision)
	if client.Changed(err) {
		return nil, errors.New("it was changed meanwhile; import again to see the difference")
	}
	return h, err
}

// giveUp takes MACs away from the hosts that lose them to another host of the same file: a MAC has one host at any time.
func (t *Tool) giveUp(ctx context.Context, todo []planned) error {
	gained := map[string]string{}
	for _, p := range todo {
		for _, mac := range p.host.MACs {
			gained[mac] = p.SN
		}
	}
	for _, p := range todo {
		if p.old == nil {
			continue
		}
		kept := slices.DeleteFunc(slices.Clone(p.old.MACs), func(mac string) bool { sn, moves := gained[mac]; return moves && sn != p.SN })
		if len(kept) == len(p.old.MACs) {
			continue
		}
		patch, err := json.Marshal(map[string]any{"macs": orEmpty(kept)})
		if err != nil {
			return err
		}
		h, err := t.Client.PatchHost(ctx, p.SN, patch, p.old.Revision)
		if err != nil {
			return fmt.Errorf("take a MAC away from %s, which another host is to get: %w", p.SN, err)
		}
		*p.old = *h // what is written next is for this revision
	}
	return nil
}
