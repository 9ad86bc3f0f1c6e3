package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/server/client"
	"imgbuild/server/ctl/diary"
	"imgbuild/server/ctl/hostfile"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// Preview is what an installation would be made of.
type Preview struct {
	Image  string // empty: the host's own
	Reason string // empty: says that it is a preview
	Disks  []string
	Wipe   []string
	Unseal []string
	Fresh  bool
	Layout string // as in Install
	// Expires is as in Install.
	Expires string
	// Leave does not wait for the machine.
	Leave bool
}

// RefusedError says that the machine would not do the installation that was previewed.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "the installation would be refused: " + e.Reason }

// Preview orders a preview, waits until the machine has booted from the network and made it, and prints it.
func (t *Tool) Preview(ctx context.Context, sn string, p Preview) error {
	declared, err := t.layoutOf(p.Layout)
	if err != nil {
		return err
	}
	expires, err := parseExpiry(p.Expires, t.Now().In(t.Zone))
	if err != nil {
		return err
	}
	if p.Reason == "" {
		p.Reason = "a preview"
	}
	o, err := t.Client.CreateOrder(ctx, client.NewOrder{SN: sn, Image: p.Image, Reason: p.Reason, Disks: p.Disks, Wipe: p.Wipe, Unseal: p.Unseal,
		Fresh: p.Fresh, Layout: declared, Preview: true, Expires: expires})
	if err != nil {
		return fmt.Errorf("order a preview of %s: %w", sn, err)
	}
	if p.Leave {
		return t.printOrders([]registry.Order{*o})
	}
	fmt.Fprintf(t.Err, "order %s: the preview is made when %s boots from the network; nothing is written to its disks\n", show.Clean(o.ID), show.Clean(o.SN))
	if o, err = t.ended(ctx, o); err != nil {
		return fmt.Errorf("wait for the preview: %w; imgctl order show %s prints it when it is there, imgctl order cancel %s takes it back", err, o.ID, o.ID)
	}
	if o.State != registry.OrderDone {
		return fmt.Errorf("order %s is %s: %s", o.ID, o.State, t.why(ctx, o))
	}
	found, err := t.Client.Outlook(ctx, o.ID)
	if err != nil {
		return fmt.Errorf("read the preview: %w", err)
	}
	if t.Format != show.Table {
		if err := show.Value(t.Out, t.Format, found); err != nil {
			return err
		}
	} else if err := t.printOutlook(found); err != nil {
		return err
	}
	if found.Refused != "" {
		return &RefusedError{show.Clean(found.Refused)}
	}
	return nil
}

// printOutlook prints what the machine's console shows.
func (t *Tool) printOutlook(found *plan.Outlook) error {
	for line := range strings.Lines(found.Text) {
		if _, err := fmt.Fprintln(t.Out, show.Clean(strings.TrimRight(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

// errEnded ends following.
var errEnded = errors.New("it has ended")

// ended waits until nothing can come of an order any more. The order is never nil.
func (t *Tool) ended(ctx context.Context, o *registry.Order) (*registry.Order, error) {
	look := func() error {
		now, err := t.Client.Order(ctx, o.ID)
		if err != nil {
			return err
		}
		if o = now; !o.Live() {
			return errEnded
		}
		return nil
	}
	var broken error
	err := t.Client.Follow(ctx, client.EventQuery{Order: o.ID}, client.Follower{
		Event: func(e registry.Event) error {
			switch e.Kind {
			case string(plan.KindProgress), string(plan.KindInfo), string(plan.KindPreview), "ordered": // what they say comes below, or was said
			default:
				fmt.Fprintln(t.Err, show.Clean(diary.Sentence(e)))
			}
			switch e.Kind {
			case string(plan.KindPreview), string(plan.KindFailed), "cancelled", "expired", "lost":
				return look()
			}
			return nil
		},
		Down: func(err error, wait time.Duration) {
			if broken == nil {
				broken = err
				fmt.Fprintf(t.Err, "the connection broke (%s); trying again\n", err)
			}
		},
		Up: func() { broken = nil },
	})
	if errors.Is(err, errEnded) {
		return o, nil
	}
	return o, err
}

// why says what the diary has on an order that has ended badly.
func (t *Tool) why(ctx context.Context, o *registry.Order) string {
	events, err := t.Client.Events(ctx, client.EventQuery{Order: o.ID, Limit: history, Last: true})
	if err != nil {
		return err.Error()
	}
	for i := len(events) - 1; i >= 0; i-- {
		switch events[i].Kind {
		case string(plan.KindFailed), "cancelled", "expired", "lost":
			return show.Clean(events[i].Text)
		}
	}
	return "its diary does not say why"
}

// layoutOf is a layout as a person names it: a preset, or a file. Empty is none.
func (t *Tool) layoutOf(name string) (*layout.Layout, error) {
	switch preset := layout.Preset(name); preset {
	case "":
		return nil, nil
	case layout.Simple, layout.LVM, layout.Server, layout.Mirror:
		return &layout.Layout{Preset: preset}, nil
	}
	return t.readLayout(name)
}

// readLayout reads a file with a layout. What is wrong with it is told line by line.
func (t *Tool) readLayout(path string) (*layout.Layout, error) {
	data, name, err := t.readFile("a layout", path)
	if err != nil {
		return nil, &UsageError{fmt.Errorf("%w; the presets are simple, lvm, server and mirror", err)}
	}
	format := hostfile.YAML // which JSON is, too
	if hostfile.FormatOf(path, nil) == hostfile.JSON {
		format = hostfile.JSON
	}
	l, wrong := hostfile.Layout(data, format)
	if len(wrong) > 0 {
		fmt.Fprint(t.Err, wrong.Format(name))
		return nil, usage("read layout %s: %s", name, plural(len(wrong), "mistake"))
	}
	return l, nil
}

// layoutText is a layout in one line.
func layoutText(l *layout.Layout) string {
	if l == nil {
		return ""
	}
	data, err := json.Marshal(l)
	if err != nil {
		return err.Error()
	}
	return string(data)
}
