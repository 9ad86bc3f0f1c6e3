package control

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

// again is how often a machine that waits says so on its console when nothing changes.
const again = time.Minute

// Claim asks for this boot's plan until it is something to do: a plan that says to wait is waited for here, and its reason
// is shown. inventory is taken anew for each question.
func (c *Client) Claim(ctx context.Context, inventory func(context.Context) plan.Inventory) (plan.Plan, error) {
	tries := pause{most: 30 * time.Second}
	answered := time.Now()
	var shown string
	var shownAt time.Time
	show := func(format string, a ...any) {
		text := fmt.Sprintf(format, a...)
		if text != shown || time.Since(shownAt) >= again {
			c.Report.Info("%s", text)
			shown, shownAt = text, time.Now()
		}
	}
	for {
		p, err := c.ask(ctx, inventory(ctx))
		var wait time.Duration
		switch {
		case err == nil && p.Action != plan.Wait:
			return p, nil
		case err == nil:
			answered, tries = time.Now(), pause{most: tries.most}
			wait = time.Duration(min(p.RetrySeconds, 300)) * time.Second
			show("waiting, number %d in the queue: %s", p.Place, line(p.Reason, 300))
		case ctx.Err() != nil:
			return plan.Plan{}, fmt.Errorf("ask the server for a plan: %w", context.Cause(ctx))
		case !retryable(err):
			return plan.Plan{}, fmt.Errorf("ask the server for a plan: %w", err)
		case time.Since(answered) > c.Patience:
			return plan.Plan{}, fmt.Errorf("ask the server for a plan: no answer in %s: %w; look whether imgserve runs at %s, and boot again",
				report.Duration(c.Patience), plain(err), c.Server)
		default:
			wait = tries.after(err)
			show("the server %s does not answer, and is asked again: %v", c.Server, plain(err))
		}
		if err := c.sleep(ctx, wait); err != nil {
			return plan.Plan{}, fmt.Errorf("ask the server for a plan: %w", err)
		}
	}
}

// ask asks once, and believes only what was signed for this boot of this machine.
func (c *Client) ask(ctx context.Context, inv plan.Inventory) (plan.Plan, error) {
	var s plan.Signed
	if err := c.Post(ctx, plan.ClaimPath, "", plan.Claim{Schema: plan.Schema, Boot: c.Boot, Inventory: inv}, &s); err != nil {
		return plan.Plan{}, err
	}
	p, err := plan.Open(s, c.Key, c.Boot, inv.Serial)
	if err != nil {
		return plan.Plan{}, &notOurs{err}
	}
	if p.Action == plan.Install && inv.Serial == "" {
		return plan.Plan{}, &notOurs{errors.New("read plan: it says to install a machine without a serial number; nothing is done")}
	}
	return p, nil
}

// notOurs is a plan that is not believed. Asking again brings the same one.
type notOurs struct{ err error }

func (n *notOurs) Error() string { return n.err.Error() }
func (n *notOurs) Unwrap() error { return n.err }

// plain takes off what net/http wraps around an error: method and address, which are known.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
