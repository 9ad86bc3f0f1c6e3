package ctl

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"imgbuild/image/plan"
	"imgbuild/server/client"
	"imgbuild/server/ctl/hostfile"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// Live is what hosts are to run from memory.
type Live struct {
	Image string // name, or name/version; empty: each host's own
	plan.LiveOptions
	// Off takes away what they were to run.
	Off bool
}

// SetLive has hosts run a release from memory, or no more: those that are named or, if none is, those that are chosen, but for
// new ones, which nobody has approved. Each is changed only if it is still as it was read.
func (t *Tool) SetLive(ctx context.Context, sns []string, q client.HostQuery, l Live) error {
	if l.Off && (l.Image != "" || l.Size != "" || len(l.Persist) > 0 || l.Root != "") {
		return usage("give --off or what is to run, and not both")
	}
	if err := l.LiveOptions.Validate(); err != nil {
		return &UsageError{err}
	}
	hosts, err := t.chosen(ctx, sns, q)
	if err != nil {
		return fmt.Errorf("choose hosts: %w", err)
	}
	images, err := t.Client.Images(ctx)
	if err != nil {
		return fmt.Errorf("read the server's releases: %w", err)
	}
	entries := make([]hostfile.Entry, len(hosts))
	for i, h := range hosts {
		text := ""
		if !l.Off {
			w := registry.Live{Image: cmp.Or(l.Image, h.Image), LiveOptions: l.LiveOptions}
			if w.Image == "" {
				return usage("%s has no image of its own: say which one with --image", show.Clean(h.SN))
			}
			if !slices.ContainsFunc(images, func(i client.Image) bool { return i.Problem == "" && w.Covers(i.ID()) }) {
				return usage("--image %s: the server has no such release; imgctl images lists them", show.Clean(w.Image))
			}
			data, err := json.Marshal(w)
			if err != nil {
				return err
			}
			text = string(data)
		}
		if entries[i], err = hostfile.Assignments(h.SN, []string{"live=" + text}); err != nil {
			return &UsageError{err}
		}
	}
	return t.setAll(ctx, entries, func(ctx context.Context, e hostfile.Entry) (string, error) { return t.set(ctx, e, false, false) })
}

// chosen reads the hosts that are named or, if none is, those that are chosen and approved.
func (t *Tool) chosen(ctx context.Context, sns []string, q client.HostQuery) ([]registry.Host, error) {
	if len(sns) > 0 {
		out, err := each(ctx, t, "hosts read", sns, itself, t.Client.Host)
		if err == nil {
			err = failures(t, "hosts", out)
		}
		return values(good(out)), err
	}
	hosts, err := t.Client.Hosts(ctx, q)
	hosts = slices.DeleteFunc(hosts, func(h registry.Host) bool { return h.State == registry.New })
	if err == nil && len(hosts) == 0 {
		err = usage("no host is as was asked for")
	}
	return hosts, err
}

// ListLive prints the hosts that run a release from memory, or are to.
func (t *Tool) ListLive(ctx context.Context, q client.HostQuery) error {
	hosts, err := t.Client.Hosts(ctx, q)
	if err != nil {
		return fmt.Errorf("list hosts: %w", err)
	}
	hosts = slices.DeleteFunc(hosts, func(h registry.Host) bool { return h.Live == nil && h.LiveBoot == nil })
	var rows [][]string
	for _, h := range hosts {
		image, options := "", ""
		if h.Live != nil {
			image, options = h.Live.Image, liveOptions(h.Live.LiveOptions)
		}
		rows = append(rows, []string{h.SN, h.Hostname, address(h), h.Rack, image, options, liveText(h, t.Now().In(t.Zone))})
	}
	return t.print(orEmpty(hosts), []string{"SN", "HOST", "ADDRESS", "RACK", "LIVE", "OPTIONS", "NOW"}, rows, "no host runs from memory, or is to")
}

func liveOptions(o plan.LiveOptions) string {
	var list []string
	if o.Size != "" {
		list = append(list, "size "+o.Size)
	}
	for _, p := range o.Persist {
		list = append(list, "keeps "+p)
	}
	if o.Root != "" {
		list = append(list, o.Root)
	}
	return strings.Join(list, ", ")
}

// starts reports whether a host fetches what it is to run.
func starts(h registry.Host) bool {
	return h.LiveBoot != nil && h.LiveBoot.State == registry.LiveStarting
}

// liveText is how a host's last boot from memory stands, as far as it was heard; empty for a host that has none to come.
func liveText(h registry.Host, now time.Time) string {
	b := h.LiveBoot
	switch {
	case b == nil && h.Live == nil:
		return ""
	case b == nil:
		return "boots " + h.Live.Image + " next"
	case b.State == registry.LiveRunning:
		return "runs " + b.Image + " since " + show.Ago(b.Since, now)
	case b.State == registry.LiveStarting:
		return "starts " + b.Image
	}
	return b.Image + " " + string(b.State) + " " + show.Ago(b.Since, now)
}
